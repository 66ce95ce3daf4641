"""Meshes: data, files, generators, quality and repair."""

from twinheart.mesh import generate, quality, refine
from twinheart.mesh.core import TetMesh, TriMesh

__all__ = ["TetMesh", "TriMesh", "generate", "quality", "refine"]
