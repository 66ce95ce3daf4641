"""The time step as one kernel of Warp, where that is faster than what XLA makes of it."""

from twinheart.tissue.fused.choice import Verdict, chosen_step, compare
from twinheart.tissue.fused.step import fused_step, why_not

__all__ = ["Verdict", "chosen_step", "compare", "fused_step", "why_not"]
