"""Mesh files: readers and writers."""

from twinheart.mesh.io.opencarp import read_vtx
from twinheart.mesh.io.opencarp_write import write_vtx
from twinheart.mesh.io.read import inspect_mesh, read_mesh
from twinheart.mesh.io.vtkhdf import VtkHdfWriter
from twinheart.mesh.io.write import write_mesh

__all__ = ["VtkHdfWriter", "inspect_mesh", "read_mesh", "read_vtx", "write_mesh", "write_vtx"]
