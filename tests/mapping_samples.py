"""Files of electro-anatomical maps written as the mapping systems write them."""

from pathlib import Path

import numpy as np

from twinheart.calibration.mapping import ElectroAnatomicalMap
from twinheart.mesh import TriMesh
from twinheart.mesh.io import write_mesh

# Where a name could stand in an export; no reader may keep or repeat it.
PATIENT = "Jane-Q-Doe"
_COLOURS = "Unipolar Bipolar LAT Impedance A1 A2 A2-A1 SCI ICL ACL Force Paso \u00b5Bi".split()


def write_car(path: Path, m: ElectroAnatomicalMap, version: str = "VERSION_4_0") -> Path:
    """CARTO 3's list of points: 21 columns, tabs, Windows line ends."""
    lines = [f"{version} {PATIENT}"]
    for n in range(len(m.points)):
        x, y, z = m.points[n]
        lat = -10000 if np.isnan(m.lat[n]) else round(m.lat[n])
        voltages = f"{m.unipolar[n]:.3f}\t{m.bipolar[n]:.3f}"
        lines.append(
            f"P\t0\t{m.numbers[n]}\t0\t{x:.4f}\t{y:.4f}\t{z:.4f}\t0.1\t-0.9\t0.4\t{voltages}\t{lat}"
            "\t-10000\t0\t4\t1\tA\t0\t26\t0"
        )
    return _write(path, "\r\n".join([*lines, ""]))


def write_carto_mesh(
    path: Path, shell: TriMesh, *, hidden: int = 0, colours: bool = True, extra: str = ""
) -> Path:
    """CARTO 3's shell; the last triangles belong to a hidden group."""
    n, faces = shell.n_nodes, shell.triangles
    groups = np.where(np.arange(len(faces)) < len(faces) - hidden, 0, -1000000)
    text = [
        "#TriangulatedMeshVersion2.0",
        "; Triangulated Mesh file format, 2008",
        "",
        "[GeneralAttributes]",
        "MeshID                 = -1",
        f"MeshName               = {PATIENT}",
        f"NumVertex              = {n}",
        f"NumTriangle            = {len(faces)}",
        "Matrix                 = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        f"NumVertexColors        = {len(_COLOURS) if colours else 0}",
        *([f"ColorsNames            = {'  '.join(_COLOURS)}  "] if colours else []),
        "",
        "[VerticesSection]",
        ";                X             Y             Z     NormalX   NormalY   NormalZ  GroupID",
        "",
    ]
    for k, (x, y, z) in enumerate(shell.points):
        text.append(f"{k:8d} = {x:13.3f} {y:13.3f} {z:13.3f}  0.00000  0.00000  1.00000        0")
    text += [
        "",
        "[TrianglesSection]",
        ";     Vertex0  Vertex1  Vertex2     NormalX ...  GroupID",
        "",
    ]
    for k, ((a, b, c), group) in enumerate(zip(faces, groups, strict=True)):
        text.append(f"{k:8d} = {a:8d} {b:8d} {c:8d}  0.00000   0.00000   1.00000 {group:8d}")
    if colours:
        text += ["", "[VerticesColorsSection]"]
        text += ["; Color Value= -10000 indicates invalid data for this coloring for this point"]
        text += ["; " + "  ".join(_COLOURS), ""]
        fields = {"LAT": "lat", "Bipolar": "bipolar", "Unipolar": "unipolar"}
        columns = [
            np.nan_to_num(shell.point_fields[fields[name]], nan=-10000.0)
            if fields.get(name) in shell.point_fields
            else np.full(n, -10000.0)
            for name in _COLOURS
        ]
        for k, row in enumerate(np.stack(columns, axis=1)):
            text.append(f"{k:8d} = " + " ".join(f"{value:13.5f}" for value in row))
    text += ["", "[VerticesAttributesSection]", "; SCAR =0: Vertex is regular vertex (not SCAR)"]
    path.write_bytes(("\r\n".join([*text, extra, ""])).encode("cp1252"))
    return path


def write_dxl(
    folder: Path,
    m: ElectroAnatomicalMap,
    *,
    parts: int = 1,
    used: np.ndarray | None = None,
    trace: str = "HD-G A1-A2",
) -> Path:
    """EnSite Velocity's and Precision's points: names in rows, times in seconds."""
    used = np.ones(len(m.points), dtype=int) if used is None else used
    for k, index in enumerate(np.array_split(np.arange(len(m.points)), parts), 1):
        lat = np.where(np.isnan(m.lat[index]), -10000.0, m.lat[index] / 1e3)
        rows = {
            "pt number": m.numbers[index],
            "rov trace": [trace] * len(index),
            "ref trace": ["ECG I"] * len(index),
            "rov LAT": [f"{12.5 + one:.6f}" for one in lat],
            "ref LAT": ["12.500000"] * len(index),
            "peak2peak": [f"{one:.4f}" for one in m.bipolar[index]],
            **{
                f"roving {a}": [f"{v:.4f}" for v in m.points[index, i]] for i, a in enumerate("xyz")
            },
            **{
                f"surfPt {a}": [f"{v:.4f}" for v in m.points[index, i]] for i, a in enumerate("xyz")
            },
            "utilized": used[index],
        }
        head = [
            "St. Jude Medical. File Revision : 5.2",
            "Export Data Element : DxL",
            f"Export from Study : {PATIENT}",
            f"Total number of data points (columns):, {len(index)}",
            f"This is file {k} of {parts} for map,{PATIENT}",
            "Begin data",
        ]
        body = [f"{name}:," + ",".join(map(str, values)) for name, values in rows.items()]
        tail = [
            "Seg data len:,1.0",
            "Sample rate:,2034.5",
            "",
            f"rov trace:,{trace}",
            ",0.1",
            "EOF",
        ]
        _write(folder / f"DxL_{k}.csv", "\n".join([*head, *body, *tail, ""]))
    return folder / "DxL_1.csv"


def write_ensite_x(
    path: Path, m: ElectroAnatomicalMap, *, value: str = "LAT", kind: str = "LAT_bi"
) -> Path:
    """EnSite X's points: one row a point, the header somewhere below a preamble."""
    head = [
        "Export File Version : 10.0R",
        "Export Data Element: DxL",
        f"Export from Study: {PATIENT}",
        f"Map name:,{PATIENT}",
        f"Map type:,{kind}",
        f"# mapping pts:,{len(m.points)}",
        "Data starts in row,9",
        "****,",
    ]
    names = "Rov trace,Electrodes,(Point #),roving x,roving y,roving z,surface x,utilized,"
    names += f"{value},{value} valid,P-P,adjTime (ms),annot"
    rows = []
    for n in range(len(m.points)):
        x, y, z = m.points[n]
        time = "10000" if np.isnan(m.lat[n]) else f"{m.lat[n]:.2f}"
        place = f"{x:.4f},{y:.4f},{z:.4f},0,1"
        rows.append(f'"T,1",A1 A2,{m.numbers[n]},{place},{time},1,{m.bipolar[n]:.4f},8,x,')
    return _write(path, "\n".join([*head, names, *rows, "EOF", ""]))


def write_dif(
    path: Path, shell: TriMesh, *, comment: str = "LAT Isochronal", head: str = ""
) -> Path:
    """EnSite's shell: vertices counted from 1, a comment before the values says what they are."""
    vertices = "\n".join(" ".join(f"{v:.4f}" for v in p) for p in shell.points)
    polygons = "\n".join(" ".join(str(v + 1) for v in t) for t in shell.triangles)
    data = ""
    if "lat" in shell.point_fields:
        values = "\n".join(f"{v:.3f}" for v in np.nan_to_num(shell.point_fields["lat"], nan=-1e4))
        data = (
            f"<!-- Data values at each vertex of DxL map {comment} -->"
            f'<Map_data number="{shell.n_nodes}">\n{values}\n</Map_data>'
        )
    return _write(
        path,
        f'<?xml version="1.0" encoding="UTF-8"?>\n{head}<DIF><DIFHeader><Version>SJM_DIF_5.0'
        f'</Version></DIFHeader><DIFBody><Volumes number="1"><Volume name="{PATIENT}">'
        f'<Vertices number="{shell.n_nodes}">\n{vertices}\n</Vertices>'
        f'<Polygons number="{shell.n_triangles}">\n{polygons}\n</Polygons>{data}'
        "</Volume></Volumes></DIFBody></DIF>\n",
    )


def write_map_csv(path: Path, m: ElectroAnatomicalMap) -> Path:
    """A plain table."""
    rows = ["# a comment", "number,label,x_mm,y_mm,z_mm,lat_ms,bipolar_mV,unipolar_mV"]
    for n in range(len(m.points)):
        x, y, z = (f"{v:.6f}" for v in m.points[n])
        lat = "" if np.isnan(m.lat[n]) else f"{m.lat[n]:.6f}"
        rows.append(f"{m.numbers[n]},{PATIENT},{x},{y},{z},{lat},{m.bipolar[n]},{m.unipolar[n]}")
    return _write(path, "\n".join([*rows, ""]))


def write_map_vtp(path: Path, m: ElectroAnatomicalMap) -> Path:
    """The shell of a map with the values of its points, which are the vertices."""
    fields = {"activation_time": m.lat, "Bipolar": m.bipolar, "unipolar_uV": 1e3 * m.unipolar}
    write_mesh(path, TriMesh(m.points, m.shell.triangles, {"number": m.numbers, **fields}))
    return path


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path
