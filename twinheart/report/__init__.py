"""Pictures and the report of a beat."""

from twinheart.report.animation import write_animation
from twinheart.report.ecg_paper import write_ecg_paper
from twinheart.report.maps import write_map
from twinheart.report.render import can_render

__all__ = ["can_render", "write_animation", "write_ecg_paper", "write_map"]
