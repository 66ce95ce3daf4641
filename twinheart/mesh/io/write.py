"""Writing a mesh: the format from the name of the file."""

from pathlib import Path

from twinheart.errors import InputError
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.io.opencarp_write import write_opencarp
from twinheart.mesh.io.surfaces import write_stl
from twinheart.mesh.io.vtkhdf import VtkHdfWriter
from twinheart.mesh.io.vtkxml_write import write_vtk_xml

WRITABLE = (".vtu", ".vtp", ".vtkhdf", ".pts", ".elem", ".stl")


def write_mesh(path: str | Path, mesh: TetMesh | TriMesh) -> None:
    """Write a mesh with its fields, whole or not at all.

    Parameters
    ----------
    path : path
        `.vtu`, `.vtkhdf` (both kinds of mesh), `.vtp`, `.stl` (surfaces), `.pts` or `.elem`
        (openCARP: `.pts`, `.elem` and `.lon` are written, in micrometres). All other formats are
        in millimetres; VTU, VTP and VTKHDF say so, and `read_mesh` believes them.
    mesh : TetMesh or TriMesh
        Mesh [mm] with its fields. openCARP files keep region tags, fibres and sheets only, STL
        files no fields at all.

    Raises
    ------
    InputError
        If the suffix is unknown or does not go with this kind of mesh.
    OutputError
        If the file cannot be written; nothing is left behind.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.io import write_mesh
    >>> write_mesh(tempfile.mkdtemp() + "/slab.vtu", slab((2.0, 1.0, 1.0), 0.5))
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        raise InputError(
            f"cannot write {path}: no writer for '{path.suffix}'; known are {', '.join(WRITABLE)}."
        )
    if isinstance(mesh, TriMesh) and suffix in (".pts", ".elem"):
        raise InputError(f"cannot write {path}: openCARP needs tetrahedra, got a surface.")
    if isinstance(mesh, TetMesh) and suffix in (".vtp", ".stl"):
        raise InputError(f"cannot write {path}: it holds surfaces, got tetrahedra: take .vtu.")
    if isinstance(mesh, TetMesh) and suffix in (".pts", ".elem"):
        write_opencarp(path, mesh)
    elif isinstance(mesh, TriMesh) and suffix == ".stl":
        write_stl(path, mesh)
    elif suffix == ".vtkhdf":
        with VtkHdfWriter(path, mesh):
            pass
    else:
        write_vtk_xml(path, mesh)
