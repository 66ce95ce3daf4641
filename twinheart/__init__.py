"""twinheart: a differentiable cardiac electrophysiology twin engine."""

from twinheart import anatomy, cell, ecg, fem, mesh, tissue
from twinheart.anatomy import Heart
from twinheart.ecg import read_electrodes, standard_12_lead
from twinheart.tissue import Conductivities, Velocities, pace
from twinheart.twin import Beat, Twin, simulate

__version__ = "0.1.0"

__all__ = [
    "Beat",
    "Conductivities",
    "Heart",
    "Twin",
    "Velocities",
    "anatomy",
    "cell",
    "ecg",
    "fem",
    "mesh",
    "pace",
    "read_electrodes",
    "simulate",
    "standard_12_lead",
    "tissue",
]
