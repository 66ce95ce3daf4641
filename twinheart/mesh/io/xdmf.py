"""Reader of XDMF files, through meshio."""

import contextlib
import io
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, read_bytes
from twinheart.mesh.io.vtkxml import parse_xml


def read_xdmf(path: Path) -> RawMesh:
    """Read an XDMF file and the HDF5 or binary files beside it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    RawMesh
        All fields by name.

    Raises
    ------
    InputError
        If the file is truncated, damaged, or refers to files outside its own folder.
    """
    _check(path, read_bytes(path))
    try:
        mesh = _read_quietly(path)
    except MemoryError:
        raise InputError(f"{path}: claims more than fits into memory: damaged?") from None
    except Exception as error:  # meshio lets whatever its parser meets through
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"{path}: cannot be read as XDMF ({first}): the file is truncated, damaged or of "
            "another kind."
        ) from None
    return _raw(path, mesh)


def _read_quietly(path: Path) -> Any:
    """Read without the warnings and prints of meshio."""
    import meshio

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return meshio.xdmf.read(str(path))


def _check(path: Path, data: bytes) -> None:
    """Refuse entities and data in other folders, which a mesh from a stranger has no need of."""
    for item in parse_xml(path, data).iter("DataItem"):
        if item.get("Format") in ("HDF", "Binary"):
            name = (item.text or "").strip()
            name = name.rsplit(":/", 1)[0] if item.get("Format") == "HDF" else name
            target = PurePosixPath(name.replace("\\", "/"))
            if target.is_absolute() or ".." in target.parts or ":" in name:
                raise InputError(
                    f"{path}: refers to '{name[:80]}' outside its own folder: refused; put the "
                    "data beside the file."
                )
            if not (path.parent / target).is_file():
                raise InputError(f"{path}: refers to '{name[:80]}', which is not beside it.")


def _raw(path: Path, mesh: Any) -> RawMesh:
    cells: dict[str, np.ndarray] = {}
    fields: dict[str, dict[str, np.ndarray]] = {}
    for i, block in enumerate(mesh.cells):
        kind, data = block.type, np.asarray(block.data)
        if data.ndim != 2:  # polyhedra are only counted
            data = np.zeros((len(data), 0), dtype=np.int64)
        values = {name: np.asarray(blocks[i]) for name, blocks in mesh.cell_data.items()}
        if kind in cells and cells[kind].shape[1] == data.shape[1]:
            data = np.concatenate([cells[kind], data])
            values = {k: np.concatenate([fields[kind][k], v]) for k, v in values.items()}
        cells[kind], fields[kind] = data.astype(np.int64), values
    points = np.asarray(mesh.points, dtype=float)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise InputError(f"{path}: its points have shape {points.shape}, expected (node, 3).")
    if points.shape[1] == 2:
        points = np.column_stack([points, np.zeros(len(points))])
    point_fields = {name: np.asarray(v) for name, v in mesh.point_data.items()}
    return RawMesh(path, "XDMF", points, cells, point_fields, fields)
