"""Meshes: data, files, generators, quality and repair."""

from twinheart.mesh import generate, io, quality, refine
from twinheart.mesh.core import TetMesh, TriMesh

__all__ = ["TetMesh", "TriMesh", "generate", "io", "quality", "refine"]
