"""VTKHDF: one HDF5 file with a mesh and, on request, its fields at many times, for ParaView."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.errors import InputError, OutputError
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.defects import cells_of
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.io.hdf5 import hdf5_output
from twinheart.mesh.io.raw import RawMesh, check_count, read_bytes
from twinheart.mesh.io.vtkcells import sort_cells
from twinheart.mesh.io.vtkxml_write import storable

_CHUNK_ROWS = 1 << 17
_OFFSETS = ("PartOffsets", "PointOffsets", "CellOffsets", "ConnectivityIdOffsets")


class VtkHdfWriter:
    """Writes a mesh and its fields over time; a context manager.

    The file appears under its name when the block ends well; if it fails, nothing is left behind.
    With `resume_after` an existing file is continued in place instead.

    Parameters
    ----------
    path : path
        File to write, best with the suffix `.vtkhdf`.
    mesh : TetMesh or TriMesh
        Mesh [mm]; its own fields are stored once, for all times.
    resume_after : float, optional
        Continue the file, if it exists, behind this time [ms]; later steps in it are dropped.

    Raises
    ------
    OutputError
        If the file cannot be written, or is to be continued with another mesh.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.io import VtkHdfWriter
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> with VtkHdfWriter(tempfile.mkdtemp() + "/beat.vtkhdf", mesh) as writer:
    ...     for t in (0.0, 5.0):
    ...         writer.append(t, {"vm": np.full(mesh.n_nodes, -85.0, dtype=np.float32)})
    """

    def __init__(
        self, path: str | Path, mesh: TetMesh | TriMesh, *, resume_after: float | None = None
    ):
        self.path, self.mesh = Path(path), mesh
        self.resume_after = resume_after
        self._stack = ExitStack()
        # of h5py, whose types say little about what a path holds
        self._file: Any = None
        self._root: Any = None
        self._disk: Any = None

    def __enter__(self) -> "VtkHdfWriter":
        target, mode = self.path, "r+"
        going_on = self.resume_after is not None and self.path.exists()
        try:
            if not going_on:
                target, mode = self._stack.enter_context(written_whole(self.path)), "w"
            self._file, self._disk = self._stack.enter_context(hdf5_output(target, mode))
            if going_on:
                self._cut(float(self.resume_after or 0.0))
            else:
                self._write_mesh()
            self._flush()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        except OutputError as failure:  # of the temporary file, whose name says nothing
            reason = str(failure).partition(": ")[2]
            raise OutputError(f"cannot write {self.path}: {reason}") from None

    def _flush(self) -> None:
        self._file.flush()
        self._disk.check()

    def append(
        self,
        t: float,
        point_fields: dict[str, np.ndarray] | None = None,
        cell_fields: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Add the fields at one more time.

        Parameters
        ----------
        t : float
            Time [ms], later than those before.
        point_fields, cell_fields : dict of arrays
            One row per node or per cell; the same names at every time.

        Raises
        ------
        OutputError
            If the fields differ from those before, have a wrong number of rows, or the disk is
            full.
        """
        steps = self._steps()
        count = int(steps.attrs["NSteps"])
        if count and not t > steps["Values"][-1]:
            raise OutputError(f"time {t} does not follow {steps['Values'][-1]}: steps must rise.")
        kinds = (
            ("Point", point_fields or {}, self.mesh.n_nodes),
            ("Cell", cell_fields or {}, len(cells_of(self.mesh))),
        )
        # all is checked before anything is stored, so that a refused step leaves no trace
        checked = [self._checked(steps, *of_kind, count) for of_kind in kinds]
        for (kind, _, rows), fields in zip(kinds, checked, strict=True):
            self._store(steps, kind, fields, count * rows)
        _grow(steps["Values"], [t])
        _grow(steps["NumberOfParts"], [1])
        for name in _OFFSETS:  # the mesh stays: every step points at the same one
            _grow(steps[name], np.zeros((1, *steps[name].shape[1:]), dtype=np.int64))
        steps.attrs["NSteps"] = count + 1
        self._flush()

    def _own(self, kind: str) -> dict[str, np.ndarray]:
        """Fields of the mesh itself, the same at all times."""
        return self.mesh.point_fields if kind == "Point" else self.mesh.cell_fields

    def _checked(
        self, steps: Any, kind: str, fields: dict[str, np.ndarray], rows: int, count: int
    ) -> dict[str, np.ndarray]:
        own = self._own(kind)
        before = set(steps[f"{kind}DataOffsets"]) - set(own)
        if count and set(fields) != before:
            raise OutputError(
                f"{kind.lower()} fields are {sorted(fields)}, expected {sorted(before)} as at the "
                "times before."
            )
        if taken := sorted(set(fields) & set(own)):
            raise OutputError(f"field '{taken[0]}' is one of the mesh itself: give another name.")
        checked = {name: storable(name, values) for name, values in fields.items()}
        for name, values in checked.items():
            if len(values) != rows:
                raise OutputError(f"field '{name}' has {len(values)} rows, expected {rows}.")
        return checked

    def _store(self, steps: Any, kind: str, fields: dict[str, np.ndarray], start: int) -> None:
        group, offsets = self._root[f"{kind}Data"], steps[f"{kind}DataOffsets"]
        for name in self._own(kind):
            _grow(offsets[name], [0])
        for name, values in fields.items():
            if name not in group:
                _resizable(group, name, values.dtype, values.shape[1:])
                _resizable(offsets, name, np.dtype(np.int64), ())
            _grow(group[name], values)
            _grow(offsets[name], [start])

    def _write_mesh(self) -> None:
        import h5py

        cells = cells_of(self.mesh)
        n, corners = cells.shape
        self._root = self._file.create_group("VTKHDF")
        self._root.attrs["Version"] = (2, 0)
        kind = b"UnstructuredGrid"
        self._root.attrs.create("Type", kind, dtype=h5py.string_dtype("ascii", len(kind)))
        self._root.attrs["length_unit"], self._root.attrs["time_unit"] = "mm", "ms"
        for name, value in (
            ("NumberOfPoints", self.mesh.n_nodes),
            ("NumberOfCells", n),
            ("NumberOfConnectivityIds", n * corners),
        ):
            self._root.create_dataset(name, data=np.array([value], dtype=np.int64))
        for name, values in (
            ("Points", self.mesh.points),
            ("Connectivity", cells.ravel().astype(np.int64)),
            ("Offsets", np.arange(n + 1, dtype=np.int64) * corners),
            ("Types", np.full(n, {3: 5, 4: 10}[corners], dtype=np.uint8)),
        ):
            self._root.create_dataset(name, data=values, **_packed(values))
        for kind_name, fields in (
            ("PointData", self.mesh.point_fields),
            ("CellData", self.mesh.cell_fields),
        ):
            group = self._root.create_group(kind_name)
            for name, values in fields.items():
                values = storable(name, values)
                group.create_dataset(name, data=values, **_packed(values))

    def _steps(self) -> Any:
        if "Steps" in self._root:
            return self._root["Steps"]
        steps = self._root.create_group("Steps")
        steps.attrs["NSteps"] = 0
        _resizable(steps, "Values", np.dtype(np.float64), ())
        _resizable(steps, "NumberOfParts", np.dtype(np.int64), ())
        for name in _OFFSETS:
            tail = (1,) if name in ("CellOffsets", "ConnectivityIdOffsets") else ()
            _resizable(steps, name, np.dtype(np.int64), tail)
        for kind, fields in (("Point", self.mesh.point_fields), ("Cell", self.mesh.cell_fields)):
            steps.create_group(f"{kind}DataOffsets")
            for name in fields:
                _resizable(steps[f"{kind}DataOffsets"], name, np.dtype(np.int64), ())
        return steps

    def _cut(self, after: float) -> None:
        """Drop the steps behind a time, so that a resumed run writes them again."""
        cells = cells_of(self.mesh)
        self._root = self._file.get("VTKHDF")
        if self._root is None:
            raise OutputError(f"cannot continue {self.path}: it is no VTKHDF file.")
        stored = [int(self._root[f"NumberOf{what}"][0]) for what in ("Points", "Cells")]
        if stored != [self.mesh.n_nodes, len(cells)]:
            raise OutputError(f"cannot continue {self.path}: it holds another mesh.")
        if "Steps" not in self._root:
            return
        steps = self._root["Steps"]
        count = int(np.searchsorted(steps["Values"][:], after, side="right"))
        for name in ("Values", "NumberOfParts", *_OFFSETS):
            steps[name].resize(count, axis=0)
        for kind, rows, own in (
            ("Point", self.mesh.n_nodes, self.mesh.point_fields),
            ("Cell", len(cells), self.mesh.cell_fields),
        ):
            for name, offsets in steps[f"{kind}DataOffsets"].items():
                offsets.resize(count, axis=0)
                if name not in own:
                    self._root[f"{kind}Data"][name].resize(count * rows, axis=0)
        steps.attrs["NSteps"] = count


def read_vtkhdf(path: Path) -> RawMesh:
    """Read the mesh of a VTKHDF file, with its fields at the first time.

    Raises
    ------
    InputError
        If the file is truncated, damaged, or holds another kind of data.
    """
    import h5py

    size = len(read_bytes(path))  # says what is wrong if it cannot be read
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, size)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError):
        raise InputError(f"{path}: is no VTKHDF file, or truncated or damaged.") from None


def _read(path: Path, file: Any, size: int) -> RawMesh:
    root = file["VTKHDF"]
    kind = root.attrs["Type"]
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind != "UnstructuredGrid":
        raise InputError(f"{path}: holds '{kind[:40]}', expected an UnstructuredGrid.")

    def take(name: str, count: int | None = None) -> np.ndarray:
        dataset = root[name]
        if dataset.external or dataset.is_virtual:
            raise InputError(f"{path}: '{name}' lies in another file: refused.")
        rows = len(dataset) if count is None else count
        width = int(np.prod(dataset.shape[1:], dtype=object))
        check_count(path, f"values of '{name}'", rows * width, dataset.dtype.itemsize, size)
        if rows > len(dataset):
            raise InputError(f"{path}: '{name}' has {len(dataset)} rows, expected {rows}.")
        return dataset[:rows]

    n_points, n_cells = int(take("NumberOfPoints", 1)[0]), int(take("NumberOfCells", 1)[0])
    if "Steps" not in root and len(root["NumberOfPoints"]) > 1:
        raise InputError(f"{path}: holds several parts: save it again as one.")
    points = take("Points", n_points)
    offsets = take("Offsets", n_cells + 1).astype(np.int64)
    nodes = take("Connectivity", int(take("NumberOfConnectivityIds", 1)[0])).astype(np.int64)
    fields: dict[str, dict[str, np.ndarray]] = {"PointData": {}, "CellData": {}}
    for group, rows in (("PointData", n_points), ("CellData", n_cells)):
        for name in root.get(group, {}):
            fields[group][name] = take(f"{group}/{name}", rows)
    types = take("Types", n_cells)
    cells, by_kind = sort_cells(path, types, offsets, nodes, fields["CellData"])
    mesh = RawMesh(path, "VTKHDF", points, cells, fields["PointData"], by_kind)
    if "Steps" in root:
        mesh.notes.append("of a time series the fields at the first time were read")
    if isinstance(unit := root.attrs.get("length_unit"), str):
        mesh.unit, mesh.unit_source = unit[:64], "the file's attribute"
    return mesh


def _packed(values: np.ndarray) -> dict[str, Any]:
    return {"compression": "gzip", "compression_opts": 1, "shuffle": True} if values.size else {}


def _resizable(group: Any, name: str, dtype: np.dtype, tail: tuple[int, ...]) -> None:
    group.create_dataset(
        name,
        shape=(0, *tail),
        maxshape=(None, *tail),
        dtype=dtype,
        chunks=(_CHUNK_ROWS if group.name.endswith("Data") else 1024, *tail),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )


def _grow(dataset: Any, rows: Any) -> None:
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows
