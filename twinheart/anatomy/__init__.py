"""Anatomy: what turns a mesh into a heart."""

from twinheart.anatomy.coordinates import (
    Coordinates,
    add_coordinates,
    coordinates_of,
)
from twinheart.anatomy.demo import demo_heart
from twinheart.anatomy.fibres import add_fibres
from twinheart.anatomy.heart import Heart
from twinheart.anatomy.load import heart_from_mesh, load_heart, mesh_of_heart, read_heart

__all__ = [
    "Coordinates",
    "Heart",
    "add_coordinates",
    "add_fibres",
    "coordinates_of",
    "demo_heart",
    "heart_from_mesh",
    "load_heart",
    "mesh_of_heart",
    "read_heart",
]
