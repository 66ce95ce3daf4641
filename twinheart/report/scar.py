"""The page of `twinheart scar`: scar map, corridors, segments and masses by every convention."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.anatomy import Heart
from twinheart.anatomy.aha import aha_segments
from twinheart.anatomy.coordinates import coordinates_of
from twinheart.anatomy.corridors import DENSITY, Corridor
from twinheart.anatomy.scar import Masses, mass
from twinheart.fem import fullest_kind
from twinheart.imaging.enhancement import CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import volumes
from twinheart.report.anatomy import write_bullseye
from twinheart.report.html import data_uri, write_page
from twinheart.report.maps import write_classes
from twinheart.report.scene import Scene

MUSCLE, BORDER_ZONE, DENSE, STRAND = "#e6cdbd", "#e8963c", "#7b1e3a", "#1f6fb4"


def write_scar_report(
    path: str | Path,
    mesh: TetMesh,
    masses: Sequence[Masses],
    corridors: Sequence[Corridor],
    notes: Sequence[str] = (),
) -> Path:
    """Write one HTML page about a scar; it opens offline, makes no request and runs no script.

    Parameters
    ----------
    path : str or Path
        The page.
    mesh : TetMesh
        With the cell fields ``scar`` and ``corridor`` (`twinheart.anatomy.scar.with_scar`).
    masses : sequence of Masses
        The convention in use first.
    corridors : sequence of Corridor
        In the order of the field ``corridor``.
    notes : sequence of str
        What was assumed; no name of a patient.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        pictures = list(_pictures(Path(folder), mesh, masses[0], corridors))
    return write_page(
        Path(path),
        "scar.html.j2",
        lead=f"Convention {masses[0].convention}: {masses[0].meaning}.",
        figures=_figures(mesh, masses, corridors),
        notes=list(notes),
        pictures=pictures,
        corridors=[_row(k, corridor) for k, corridor in enumerate(corridors, start=1)],
        conventions=masses,
    )


def _pictures(
    folder: Path, mesh: TetMesh, chosen: Masses, corridors: Sequence[Corridor]
) -> Iterator[dict[str, Any]]:
    scene = Scene(Heart(mesh))
    scar, corridor = mesh.cell_fields["scar"], mesh.cell_fields["corridor"]
    note = f"{chosen.core_g:.1f} g core, {chosen.border_g:.1f} g border zone ({chosen.convention})"
    colours = {"healthy": MUSCLE, "border": BORDER_ZONE, "core": DENSE}
    file = write_classes(
        folder / "scar.png", scene, fullest_kind(mesh, scar, 3), colours, title="Scar", note=note
    )
    text = "By what fills most of the wall around each point; what lies inside shows at the cut."
    yield _picture("scar", "Scar", file, text)
    if len(corridors):
        kinds = np.where(corridor > 0, 2, np.where(scar == CORE, 0, 1))
        colours = {"core": DENSE, "other": MUSCLE, "corridor": STRAND}
        file = write_classes(
            folder / "corridors.png",
            scene,
            fullest_kind(mesh, kinds, 3),
            colours,
            title="Corridors",
            note=", ".join(f"{c.length:.0f} x {c.width:.0f} mm" for c in corridors[:6]),
        )
        text = "Strands of border zone, blue, that join healthy tissue through core, dark red."
        yield _picture("corridors", "Corridors", file, text)
    at = coordinates_of(mesh)
    if at is not None:
        weight = DENSITY / 4000.0 * np.abs(volumes(mesh.points, mesh.tets)) * (scar > 0)
        on_nodes = np.bincount(mesh.tets.ravel(), np.repeat(weight, 4), mesh.n_nodes)
        grams = np.bincount(aha_segments(at), on_nodes, 35)[1:18].tolist()
        file = write_bullseye(folder / "aha.png", grams, "Segments: number and scar (g)")
        text = "Core and border zone in each segment of the left ventricle, apex in the middle."
        yield _picture("aha", "AHA segments", file, text)


def _picture(key: str, title: str, file: Path, caption: str) -> dict[str, Any]:
    return {"key": key, "title": title, "uri": data_uri(file), "alt": title, "caption": caption}


def _figures(
    mesh: TetMesh, masses: Sequence[Masses], corridors: Sequence[Corridor]
) -> list[dict[str, str]]:
    chosen, others = masses[0], masses[1:]
    whole = mass(mesh, np.ones(mesh.n_tets, dtype=bool))

    def spread(values: list[float]) -> str:
        return f"{min(values):.1f} to {max(values):.1f} g under the others" if values else ""

    return [
        _figure("Core", chosen.core_g, "g", spread([row.core_g for row in others])),
        _figure("Border zone", chosen.border_g, "g", spread([row.border_g for row in others])),
        _figure("Myocardium", whole, "g", ""),
        {"label": "Corridors", "value": str(len(corridors)), "unit": "", "note": ""},
        _figure("In corridors", float(sum(c.mass for c in corridors)), "g", ""),
    ]


def _figure(label: str, value: float, unit: str, note: str) -> dict[str, str]:
    return {"label": label, "value": f"{value:.1f}", "unit": unit, "note": note}


def _row(number: int, corridor: Corridor) -> list[str]:
    return [
        str(number),
        f"{corridor.length:.1f}",
        f"{corridor.width:.1f}",
        f"{corridor.area:.0f}",
        f"{corridor.mass:.2f}",
        str(corridor.n_mouths),
    ]
