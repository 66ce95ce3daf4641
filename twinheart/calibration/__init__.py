"""Calibration: a twin that fits its patient, and what the data leave open."""

from twinheart.calibration.build import (
    StartSite,
    build_model,
    prepared_heart,
    start_sites,
)
from twinheart.calibration.calibrate import Calibration, Settings, Stage, calibrate
from twinheart.calibration.coarse import coarse_heart
from twinheart.calibration.defaults import parameter, standard_parameters
from twinheart.calibration.fit import Fit, best_starts, descend, fit
from twinheart.calibration.linearisation import ensemble_search, widened
from twinheart.calibration.mapping import ElectroAnatomicalMap, MapOperator, map_operator
from twinheart.calibration.mapping_io import read_map, read_shell
from twinheart.calibration.mapping_registration import Registration, landmark_motion, register
from twinheart.calibration.mapping_surface import HeartSurface, heart_surface
from twinheart.calibration.measured import MeasuredBeat, measured_beat
from twinheart.calibration.model import KNOWN, Model, Prediction
from twinheart.calibration.objective import Objective
from twinheart.calibration.observation import Observation, observe
from twinheart.calibration.parameters import Parameter, Parameters
from twinheart.calibration.posterior import (
    Determination,
    MisfitTest,
    Posterior,
    determination,
    distinct,
    laplace,
    misfit_test,
    nuts,
)
from twinheart.calibration.priors import LogNormal, Normal, Uniform
from twinheart.calibration.search import annealed_fit, search
from twinheart.calibration.smooth_field import field_places
from twinheart.calibration.translation import Translation, translate
from twinheart.calibration.twin_file import StoredTwin, load_twin, write_twin

__all__ = [
    "KNOWN",
    "Calibration",
    "Determination",
    "ElectroAnatomicalMap",
    "Fit",
    "HeartSurface",
    "LogNormal",
    "MapOperator",
    "MeasuredBeat",
    "MisfitTest",
    "Model",
    "Normal",
    "Objective",
    "Observation",
    "Parameter",
    "Parameters",
    "Posterior",
    "Prediction",
    "Registration",
    "Settings",
    "Stage",
    "StartSite",
    "StoredTwin",
    "Translation",
    "Uniform",
    "annealed_fit",
    "best_starts",
    "build_model",
    "calibrate",
    "coarse_heart",
    "descend",
    "determination",
    "distinct",
    "ensemble_search",
    "field_places",
    "fit",
    "heart_surface",
    "landmark_motion",
    "laplace",
    "load_twin",
    "map_operator",
    "measured_beat",
    "misfit_test",
    "nuts",
    "observe",
    "parameter",
    "prepared_heart",
    "read_map",
    "read_shell",
    "register",
    "search",
    "standard_parameters",
    "start_sites",
    "translate",
    "widened",
    "write_twin",
]
