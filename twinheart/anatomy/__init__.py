"""Anatomy: what turns a mesh into a heart."""

from twinheart.anatomy.heart import Heart
from twinheart.anatomy.load import heart_from_mesh, load_heart, mesh_of_heart, read_heart

__all__ = ["Heart", "heart_from_mesh", "load_heart", "mesh_of_heart", "read_heart"]
