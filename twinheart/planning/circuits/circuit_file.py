"""Circuits as lines in a file, and as rows of a record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.io.atomic import written_whole
from twinheart.planning.circuits.search import Circuit
from twinheart.planning.pacing_sites import PacingSite
from twinheart.planning.places import segment_at


def circuit_rows(
    circuits: Sequence[Circuit], mesh: TetMesh, sites: Sequence[PacingSite]
) -> list[dict[str, Any]]:
    """Circuits under names that carry their units.

    Parameters
    ----------
    circuits : sequence of Circuit
        From `twinheart.planning.screen_circuits`.
    mesh : TetMesh
        The heart; where it has coordinates, the AHA segment of each exit is told.
    sites : sequence of PacingSite
        From which they were found.

    Returns
    -------
    list of dict
        One row a circuit, numbered from 1.

    Examples
    --------
    See `twinheart.cli.screen`.
    """
    return [
        {
            "circuit": number,
            "exit_mm": circuit.exit_mm.tolist(),
            "entrance_mm": circuit.entrance_mm.tolist(),
            "exit_segment": segment_at(mesh, circuit.exit_mm),
            "cycle_length_ms": circuit.cycle_length_ms,
            "refractory_ms": circuit.refractory_ms,
            "isthmus_mm": circuit.isthmus_mm.tolist(),
            "isthmus_area_mm2": circuit.isthmus_area_mm2,
            "length_mm": float(np.linalg.norm(np.diff(circuit.path, axis=0), axis=1).sum()),
            "sites": [sites[k].name for k in circuit.sites],
            "path_mm": circuit.path.tolist(),
        }
        for number, circuit in enumerate(circuits, start=1)
    ]


def write_circuit_lines(path: str | Path, circuits: Sequence[Circuit]) -> None:
    """Write circuits as closed lines (VTP) with their numbers and cycle lengths.

    Parameters
    ----------
    path : path
        File to write, ``.vtp``.
    circuits : sequence of Circuit
        What to write; its first has the number 1.

    Raises
    ------
    InputError
        If the name does not end in .vtp.
    OutputError
        If the file cannot be written; nothing is left behind.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> from twinheart.planning.circuits.circuit_file import write_circuit_lines
    >>> path = Path(tempfile.mkdtemp(), "none.vtp")
    >>> write_circuit_lines(path, [])
    >>> path.exists()
    True
    """
    import pyvista as pv

    if Path(path).suffix.lower() != ".vtp":
        raise InputError(f"{path}: lines of circuits are written as .vtp.")
    lines = pv.PolyData()
    if circuits:
        lengths = [len(circuit.path) for circuit in circuits]
        start = np.cumsum([0, *lengths])
        cells = [
            [n + 1, *range(first, first + n), first]
            for n, first in zip(lengths, start[:-1], strict=True)
        ]
        lines = pv.PolyData(
            np.concatenate([circuit.path for circuit in circuits]), lines=np.concatenate(cells)
        )
        lines.cell_data["circuit"] = np.arange(1, len(circuits) + 1)
        lines.cell_data["cycle_length_ms"] = [c.cycle_length_ms for c in circuits]
    with written_whole(path) as temporary:
        lines.save(temporary)
