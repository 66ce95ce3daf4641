"""Tissue: conductivities, stimuli, the monodomain equation and its one time loop."""

from twinheart.tissue.build import SCHEMES, Built, ConductionWarning, build_monodomain
from twinheart.tissue.cable import (
    Tuned,
    cable_velocity,
    continuum_velocity,
    lattice_spacing,
    tune_cv,
)
from twinheart.tissue.conductivity import (
    NAMED_SETS,
    NIEDERER_2011,
    PURKINJE_LEARNING_2025,
    Conductivities,
    NonConducting,
    Velocities,
    region_tensor,
)
from twinheart.tissue.coupled_waves import coupled_tables
from twinheart.tissue.eikonal import (
    Eikonal,
    Sites,
    arrival,
    build_eikonal,
    build_surface_eikonal,
)
from twinheart.tissue.eikonal_trains import Train, eikonal_train
from twinheart.tissue.memory import CheckpointPlan, checkpoint_plan
from twinheart.tissue.monodomain import Monodomain, Samples, State, advance, initial_state, solve
from twinheart.tissue.node_tables import NodeTables, node_tables
from twinheart.tissue.purkinje import ConductionSystem, fast_endocardium
from twinheart.tissue.restitution import (
    CableRefractoryPeriod,
    CableRestitution,
    cable_refractory_period,
    cv_restitution,
    dynamic_cv_restitution,
)
from twinheart.tissue.run import Run, run
from twinheart.tissue.scheme import CrankNicolson, Explicit, Scheme
from twinheart.tissue.stimulus import Stimulus, pace
from twinheart.tissue.wave_table import WaveTable, wave_table

__all__ = [
    "NAMED_SETS",
    "NIEDERER_2011",
    "PURKINJE_LEARNING_2025",
    "SCHEMES",
    "Built",
    "CableRefractoryPeriod",
    "CableRestitution",
    "CheckpointPlan",
    "ConductionSystem",
    "ConductionWarning",
    "Conductivities",
    "CrankNicolson",
    "Eikonal",
    "Explicit",
    "Monodomain",
    "NodeTables",
    "NonConducting",
    "Run",
    "Samples",
    "Scheme",
    "Sites",
    "State",
    "Stimulus",
    "Train",
    "Tuned",
    "Velocities",
    "WaveTable",
    "advance",
    "arrival",
    "build_eikonal",
    "build_monodomain",
    "build_surface_eikonal",
    "cable_refractory_period",
    "cable_velocity",
    "checkpoint_plan",
    "continuum_velocity",
    "coupled_tables",
    "cv_restitution",
    "dynamic_cv_restitution",
    "eikonal_train",
    "fast_endocardium",
    "initial_state",
    "lattice_spacing",
    "node_tables",
    "pace",
    "region_tensor",
    "run",
    "solve",
    "tune_cv",
    "wave_table",
]
