"""Surfaces of a heart for the catheter laboratory: shells with their maps, and targets.

Shells carry what the heart carries: values of the nodes, and of each triangle those of the
tetrahedron behind it (scar, regions, lesions, isthmuses). Text shells follow the layouts that open
readers of two mapping systems document (OpenEP, doi:10.3389/fphys.2021.646023, and others). Their
heads say that twinheart wrote them and that values are simulated, under the version of twinheart,
not of a mapping system: a reader that insists on the maker's version refuses them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import InputError
from twinheart.imaging.boundary import node_normals
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.quality import (
    TET_FACES,
    boundary_triangles,
    renumbered,
    triangle_normals,
)
from twinheart.planning.ablation.lesions import Lesion

SHELLS = {
    "lv_endocardium": SurfaceClass.LV_ENDOCARDIUM,
    "rv_endocardium": SurfaceClass.RV_ENDOCARDIUM,
    "epicardium": SurfaceClass.EPICARDIUM,
}
_NONE = -10000.0  # what mapping systems write where there is no value
_COLOURS = ("Unipolar", "Bipolar", "LAT")  # in the order of readers that go by the place
_LEAST_RADIUS = 0.5  # mm, of a ball that marks a place


def shells(mesh: TetMesh) -> dict[str, TriMesh]:
    """Endocardia and epicardium of a heart with all their fields.

    Parameters
    ----------
    mesh : TetMesh
        Heart with tagged surfaces (``surf_class``), as `twinheart.anatomy.surfaces.tag_surfaces`
        finds them.

    Returns
    -------
    dict of str to TriMesh
        ``lv_endocardium, rv_endocardium, epicardium``, as far as there are. Normals point out of
        the muscle. The point field ``node`` says which node of the heart a vertex is.

    Raises
    ------
    InputError
        If surfaces are not tagged.

    Examples
    --------
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.planning.export import shells
    >>> sorted(shells(lv_ellipsoid(edge=4.0)))
    ['epicardium', 'lv_endocardium']
    """
    label = mesh.point_fields.get("surf_class")
    if label is None or label.ndim != 1:
        raise InputError(
            "the surfaces of the heart are not tagged (surf_class: 1 base, 2 epicardium, 3 LV, 4 "
            "RV endocardium): there is no telling endocardium from epicardium."
        )
    triangles = boundary_triangles(mesh.tets)
    behind = _behind(triangles, mesh.tets)
    at = label[triangles]
    found = {}
    for name, surface in SHELLS.items():
        own = (at == surface).sum(axis=1) >= 2
        if not own.any():
            continue
        nodes, cells = renumbered(triangles[own], mesh.n_nodes)
        points = {key: values[nodes] for key, values in mesh.point_fields.items()}
        of_cells = {key: values[behind[own]] for key, values in mesh.cell_fields.items()}
        points["node"] = nodes.astype(np.int64)
        found[name] = TriMesh(mesh.points[nodes], cells, points, of_cells)
    return found


def _behind(triangles: np.ndarray, tets: np.ndarray) -> Int[np.ndarray, "triangle"]:
    """The tetrahedron that each boundary triangle is a face of."""
    faces = np.sort(np.concatenate([tets[:, list(face)] for face in TET_FACES]), axis=1)
    size = int(tets.max()) + 1
    key = (faces[:, 0].astype(np.int64) * size + faces[:, 1]) * size + faces[:, 2]
    order = np.argsort(key, kind="stable")
    low, middle, high = np.sort(triangles, axis=1).T.astype(np.int64)
    place = np.searchsorted(key, (low * size + middle) * size + high, sorter=order)
    return order[place] % len(tets)


def write_text_shell(
    path: str | Path,
    shell: TriMesh,
    *,
    lat: Float[np.ndarray, "node"] | None = None,
    scar: Float[np.ndarray, "node"] | None = None,
    name: str = "shell",
) -> Path:
    """Write a shell as the text of sections that CARTO 3's readers know (``.mesh``).

    Parameters
    ----------
    path : str or Path
        File to write, ending in ``.mesh``.
    shell : TriMesh
        Surface [mm].
    lat : (node,) array, optional
        Activation times [ms]; NaN: none.
    scar : (node,) array, optional
        Positive on scar: the flag that the layout has for it.
    name : str
        Name of the shell.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from twinheart.calibration.mapping_io import read_shell
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.planning.export import write_text_shell
    >>> shell = TriMesh(np.eye(3), np.array([[0, 1, 2]]))
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "lv.mesh"
    >>> read_shell(write_text_shell(file, shell, lat=np.array([1.0, 2.0, 3.0]))).n_triangles
    1
    """
    n = shell.n_nodes
    value = {"LAT": _without_nan(lat, n)}
    text = [
        "#TriangulatedMeshVersion2.0",
        f"; written by {_writer()}: simulated, not measured; lengths in mm, times in ms",
        "",
        "[GeneralAttributes]",
        "MeshID                 = -1",
        f"MeshName               = {name}",
        f"NumVertex              = {n}",
        f"NumTriangle            = {shell.n_triangles}",
        "TopologyStatus         = 0",
        "MeshColor              = 0.7 0.7 0.7 1.0",
        "Matrix                 = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        f"NumVertexColors        = {len(_COLOURS)}",
        f"ColorsNames            = {'  '.join(_COLOURS)}",
        "",
        "[VerticesSection]",
        ";                X             Y             Z     NormalX   NormalY   NormalZ  GroupID",
        "",
    ]
    of_vertex = zip(shell.points, node_normals(shell.points, shell.triangles), strict=True)
    text += [
        f"{k:8d} = {_row(place, 13, 3)} {_row(normal, 9, 5)}        0"
        for k, (place, normal) in enumerate(of_vertex)
    ]
    text += ["", "[TrianglesSection]"]
    text += [";     Vertex0  Vertex1  Vertex2     NormalX   NormalY   NormalZ  GroupID", ""]
    of_face = zip(shell.triangles, triangle_normals(shell.points, shell.triangles), strict=True)
    text += [
        f"{k:8d} = {a:8d} {b:8d} {c:8d} {_row(normal, 9, 5)}        0"
        for k, ((a, b, c), normal) in enumerate(of_face)
    ]
    text += ["", "[VerticesColorsSection]"]
    text += ["; Color Value= -10000 indicates invalid data for this coloring for this point"]
    text += ["; " + "  ".join(_COLOURS), ""]
    columns = np.stack([value.get(one, np.full(n, _NONE)) for one in _COLOURS], axis=1)
    text += [f"{k:8d} = {_row(row, 13, 5)}" for k, row in enumerate(columns)]
    text += ["", "[VerticesAttributesSection]"]
    text += ["; SCAR =0: Vertex is regular vertex (not SCAR)", "; SCAR =1: Vertex is on scar"]
    text += [";    Scar       EML", ""]
    flags = np.zeros(n, dtype=int) if scar is None else (np.asarray(scar) > 0).astype(int)
    text += [f"{k:8d} = {flag:8d}        0" for k, flag in enumerate(flags)]
    return _write(path, "\r\n".join([*text, "", ""]))


def write_volume_shell(
    path: str | Path,
    shell: TriMesh,
    *,
    lat: Float[np.ndarray, "node"] | None = None,
    name: str = "shell",
) -> Path:
    """Write a shell as the XML of volumes that EnSite's readers know (``.xml``).

    Parameters
    ----------
    path : str or Path
        File to write, ending in ``.xml``.
    shell : TriMesh
        Surface [mm].
    lat : (node,) array, optional
        Activation times [ms]; NaN: none.
    name : str
        Name of the volume.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from twinheart.calibration.mapping_io import read_shell
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.planning.export import write_volume_shell
    >>> shell = TriMesh(np.eye(3), np.array([[0, 1, 2]]))
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "lv.xml"
    >>> read_shell(write_volume_shell(file, shell)).n_nodes
    3
    """
    from xml.sax.saxutils import quoteattr

    def block(tag: str, rows: Iterable[str], count: int) -> str:
        return f'<{tag} number="{count}">\n' + "\n".join(rows) + f"\n</{tag}>\n"

    n = shell.n_nodes
    body = block("Vertices", (_row(p, 11, 4) for p in shell.points), n)
    body += block(
        "Polygons",
        (" ".join(str(k + 1) for k in face) for face in shell.triangles),
        shell.n_triangles,
    )
    normals = node_normals(shell.points, shell.triangles)
    body += block("Normals", (_row(v, 9, 5) for v in normals), n)
    if lat is not None:
        body += "<!-- Data values at each vertex of DxL map LAT Isochronal -->"
        body += block("Map_data", (f"{value:.3f}" for value in _without_nan(lat, n)), n)
    unit = "<Rotation>0 0 0</Rotation>\n<Translation>0 0 0</Translation>\n<Scaling>1 1 1</Scaling>"
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- written by {_writer()}: simulated, not '
        "measured; lengths in mm, times in ms -->\n"
        f"<DIF>\n<DIFHeader>\n<Version>{_writer()}</Version>\n</DIFHeader>\n<DIFBody>\n"
        f'<Volumes number="1">\n<Volume name={quoteattr(name)}>\n{body}</Volume>\n</Volumes>\n'
        f'<Labels number="0"></Labels>\n<ObjectMap>\n{unit}\n</ObjectMap>\n</DIFBody>\n</DIF>\n'
    )
    return _write(path, text)


def write_targets(path: str | Path, lesions: Sequence[Lesion]) -> Path:
    """Write lesions as a table of points: ``lesion, x, y, z, radius, depth`` in mm.

    Parameters
    ----------
    path : str or Path
        CSV file to write; `twinheart ablate --lesions` reads it. Points of one lesion are a line;
        a depth of ``inf`` is transmural, none is a ball.
    lesions : sequence of Lesion
        In their order.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    rows = ["lesion,x,y,z,radius,depth"]
    for number, lesion in enumerate(lesions, 1):
        depth = "" if lesion.depth is None else f"{lesion.depth:g}"
        for x, y, z in lesion.points:
            rows.append(f"twinheart {number},{x:.4f},{y:.4f},{z:.4f},{lesion.radius:g},{depth}")
    return _write(path, "\n".join([*rows, ""]))


def marked_places(
    points: Float[np.ndarray, "point 3"],
    radii: Float[np.ndarray, "point"],
    fields: Mapping[str, np.ndarray] | None = None,
) -> TriMesh:
    """Balls around places, so that every program of meshes shows them.

    Parameters
    ----------
    points : (point, 3) array
        Places [mm].
    radii : (point,) array
        Of the balls [mm].
    fields : mapping of (point,) arrays, optional
        What is to be known of each place.

    Returns
    -------
    TriMesh
        With the point field ``number``, from 1, and the given ones.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning.export import marked_places
    >>> marked_places(np.eye(3), np.ones(3)).n_triangles
    96
    """
    from scipy.spatial import ConvexHull

    corners = np.concatenate([np.eye(3), -np.eye(3)])
    halves = np.array([[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]])
    directions = np.concatenate([corners, halves / np.sqrt(2), -halves / np.sqrt(2)])
    faces = ConvexHull(directions).simplices
    a, b, c = (directions[faces[:, k]] for k in range(3))
    inwards = (np.cross(b - a, c - a) * a).sum(axis=1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    n, size = len(points), len(directions)
    radii = np.maximum(np.asarray(radii, float), _LEAST_RADIUS)
    places = np.asarray(points, float)[:, None] + radii[:, None, None] * directions
    triangles = (faces[None] + size * np.arange(n)[:, None, None]).reshape(-1, 3)
    own = {"number": np.arange(1, n + 1), **(fields or {})}
    repeated = {key: np.repeat(np.asarray(values), size) for key, values in own.items()}
    return TriMesh(places.reshape(-1, 3), triangles, repeated)


def scar_at_nodes(shell: TriMesh) -> Float[np.ndarray, "node"] | None:
    """The densest scar (1 border zone, 2 core) around each vertex; None without the field.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.planning.export import scar_at_nodes
    >>> scar_at_nodes(TriMesh(np.eye(3), [[0, 1, 2]], {}, {"scar": np.array([2])})).tolist()
    [2.0, 2.0, 2.0]
    """
    scar = shell.cell_fields.get("scar")
    if scar is None:
        return None
    found = np.zeros(shell.n_nodes)
    np.maximum.at(found, shell.triangles.ravel(), np.repeat(scar.astype(float), 3))
    return found


def _without_nan(values, n: int) -> Float[np.ndarray, "node"]:
    if values is None:
        return np.full(n, _NONE)
    values = np.asarray(values, dtype=float)
    if values.shape != (n,):
        raise InputError(f"a map has values of shape {values.shape}, expected one a vertex ({n}).")
    return np.where(np.isfinite(values), values, _NONE)


def _row(values, width: int, decimals: int) -> str:
    return " ".join(f"{value:{width}.{decimals}f}" for value in values)


def _writer() -> str:
    from twinheart import __version__

    return f"twinheart {__version__}"


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    with written_whole(path) as draft:
        draft.write_bytes(text.encode())
    return path
