"""twinheart: a differentiable cardiac electrophysiology twin engine."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinheart import anatomy, cell, ecg, fem, mesh, report, tissue
    from twinheart.anatomy import Heart, add_fibres, demo_heart, load_heart
    from twinheart.ecg import qrs_duration, read_electrodes, standard_12_lead
    from twinheart.report import write_report
    from twinheart.tissue import Conductivities, Velocities, pace
    from twinheart.twin import Beat, Twin, eikonal_beat, simulate, simulate_ensemble

__version__ = "0.1.0"

__all__ = [
    "Beat",
    "Conductivities",
    "Heart",
    "Twin",
    "Velocities",
    "add_fibres",
    "anatomy",
    "cell",
    "demo_heart",
    "ecg",
    "eikonal_beat",
    "fem",
    "load_heart",
    "mesh",
    "pace",
    "qrs_duration",
    "read_electrodes",
    "report",
    "simulate",
    "simulate_ensemble",
    "standard_12_lead",
    "tissue",
    "write_report",
]

# Where a name lives; it is imported at its first use, so that `twinheart --help` and the mesh tools
# do not wait for jax.
_HOME = {
    "Beat": "twin",
    "Conductivities": "tissue",
    "Heart": "anatomy",
    "Twin": "twin",
    "Velocities": "tissue",
    "add_fibres": "anatomy",
    "demo_heart": "anatomy",
    "eikonal_beat": "twin",
    "load_heart": "anatomy",
    "pace": "tissue",
    "qrs_duration": "ecg",
    "read_electrodes": "ecg",
    "simulate": "twin",
    "simulate_ensemble": "twin",
    "standard_12_lead": "ecg",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'twinheart' has no attribute '{name}'")
    module = importlib.import_module(f"twinheart.{_HOME.get(name, name)}")
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
