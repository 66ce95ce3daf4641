"""The twin, and `simulate`, its forward model."""

from twinheart.twin.core import Beat, Twin, intracellular_tensor
from twinheart.twin.eikonal import eikonal_beat
from twinheart.twin.ensemble import simulate_ensemble
from twinheart.twin.forward import PROPAGATIONS, simulate

__all__ = [
    "PROPAGATIONS",
    "Beat",
    "Twin",
    "eikonal_beat",
    "intracellular_tensor",
    "simulate",
    "simulate_ensemble",
]
