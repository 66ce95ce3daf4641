"""Pictures of cells, and pictures and the report of a beat."""

from twinheart.report.animation import write_animation
from twinheart.report.cells import write_action_potential, write_restitution
from twinheart.report.ecg_panels import write_ecg_panels
from twinheart.report.ecg_paper import write_ecg_paper
from twinheart.report.html import write_report
from twinheart.report.maps import write_map

__all__ = [
    "write_action_potential",
    "write_animation",
    "write_ecg_panels",
    "write_ecg_paper",
    "write_map",
    "write_report",
    "write_restitution",
]
