"""One entry for every map: the format is told from the contents, not from the name alone."""

from pathlib import Path

import numpy as np

from twinheart.calibration.mapping import ElectroAnatomicalMap
from twinheart.calibration.mapping_io.carto import read_carto_mesh, read_carto_points
from twinheart.calibration.mapping_io.contents import Contents
from twinheart.calibration.mapping_io.ensite import (
    is_ensite_table,
    read_ensite_points,
    read_ensite_shell,
)
from twinheart.calibration.mapping_io.table import read_map_table
from twinheart.calibration.mapping_io.vtk import read_vtk_map
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TriMesh

_HEAD = 20_000
_POINTS = "_car.txt"
_SHELLS = ("DxLandmarkGeo.xml", "Contact_Mapping_Model.xml")  # beside EnSite's points


def read_map(
    path: str | Path, *, shell: str | Path | None = None, length_unit: str | None = None
) -> ElectroAnatomicalMap:
    r"""Read an electro-anatomical map: CARTO 3, EnSite, VTK or CSV.

    Parameters
    ----------
    path : str or Path
        CARTO 3 ``*_car.txt`` or ``*.mesh``; EnSite ``DxL_1.csv``, ``Map_LAT_bi.csv`` or a shell
        with times (XML); VTP, VTU or legacy VTK; CSV with x, y, z and lat.
    shell : str or Path, optional
        Surface of the chamber in the same coordinates; by default the one that the mapping system
        wrote beside the points, if it is there.
    length_unit : {"um", "mm", "cm", "m"}, optional
        Unit of the coordinates of VTK and CSV files, where it is neither stated nor to be told
        from the size; the mapping systems' files are in mm.

    Returns
    -------
    ElectroAnatomicalMap
        Points [mm], times [ms], amplitudes [mV]; -10000 and the like are NaN. Names of patients,
        studies and maps are not kept. ``notes`` say what was left out.

    Raises
    ------
    InputError
        If a file cannot be read, is damaged, or holds no activation times.
    UnitError
        If the unit of length cannot be told.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.calibration.mapping_io import read_map
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "1-LV_car.txt"
    >>> row = "P\t0\t{}\t0\t{}\t0\t0\t0\t0\t0\t7.1\t2.5\t{}\n"
    >>> _ = file.write_text("VERSION_4_0 1-LV\n" + row.format(3, 40.5, -31) +
    ...                     row.format(8, 12.0, -10000))
    >>> found = read_map(file)
    >>> found.numbers, found.lat
    (array([3, 8]), array([-31.,  nan]))
    """
    path = Path(path)
    contents = _contents(path, length_unit)
    if shell is None:
        beside = _beside(path, contents)
        surface = None if beside is None else read_shell(beside)
    else:
        surface = read_shell(shell, length_unit=length_unit)
    columns, notes = dict(contents.columns), list(contents.notes)
    if contents.triangles is not None:
        if not columns.keys() & {"lat", "repol"}:
            raise InputError(
                f"{path}: is a shell without activation times: read the file of the points, and "
                "give this one as its shell."
            )
        surface = _surface(path, contents)
    numbers = _numbers(contents, notes)
    try:
        return ElectroAnatomicalMap(
            contents.points,
            **columns,
            numbers=numbers,
            shell=surface,
            format=contents.format,
            notes=notes,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_shell(path: str | Path, *, length_unit: str | None = None) -> TriMesh:
    """Read the surface of a chamber from any of the formats of `read_map`.

    Parameters
    ----------
    path : str or Path
        CARTO 3 ``*.mesh``, EnSite XML, or a surface as VTK, STL, PLY, OBJ ...
    length_unit : {"um", "mm", "cm", "m"}, optional
        As for `read_map`.

    Returns
    -------
    TriMesh
        Surface [mm] with what was measured at its vertices.

    Raises
    ------
    InputError
        If it cannot be read, or holds no triangles.
    UnitError
        If the unit of length cannot be told.
    """
    path = Path(path)
    contents = _contents(path, length_unit, shell=True)
    if contents.triangles is None:
        raise InputError(f"{path}: holds points, no surface: give a shell.")
    return _surface(path, contents)


def _contents(path: Path, length_unit: str | None, shell: bool = False) -> Contents:
    head = _head(path)
    if head.startswith("#TriangulatedMesh"):
        return read_carto_mesh(path)
    if head.startswith("VERSION_") or path.name.lower().endswith(_POINTS):
        return read_carto_points(path)
    if path.suffix.lower() == ".xml":
        return read_ensite_shell(path)
    if path.suffix.lower() in (".csv", ".txt", ".tsv"):
        if is_ensite_table(head):
            return read_ensite_points(path)
        return read_map_table(path, length_unit=length_unit)
    return read_vtk_map(path, length_unit=length_unit, times_needed=not shell)


def _head(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file.")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if not head.strip():
        raise InputError(f"{path}: is empty.")
    return head.decode("utf-8-sig", errors="replace").lstrip()


def _beside(path: Path, contents: Contents) -> Path | None:
    """The shell that a mapping system writes beside its points."""
    names = _SHELLS if contents.format.startswith("EnSite") else ()
    if path.name.endswith(_POINTS):
        names = (path.name.removesuffix(_POINTS) + ".mesh",)
    return next((found for name in names if (found := path.with_name(name)).is_file()), None)


def _surface(path: Path, contents: Contents) -> TriMesh:
    try:
        return TriMesh(contents.points, contents.triangles, dict(contents.columns))
    except MeshError as error:
        raise InputError(f"{path}: {error}") from None


def _numbers(contents: Contents, notes: list[str]) -> np.ndarray | None:
    """The system's numbers where each point has its own, else None: counted from 1."""
    numbers = contents.numbers
    if numbers is None or not np.isfinite(numbers).all():
        return None
    if len(np.unique(numbers)) < len(numbers):
        notes.append("several points share a number (one beat of a catheter): counted from 1")
        return None
    return numbers.astype(np.int64)
