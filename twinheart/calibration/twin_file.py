r"""The calibrated twin as a file: heart, tissue, excitation, repolarisation and what is uncertain.

One HDF5 file that describes itself and is read back without anything else: plain numbers with units
as attributes, names as JSON text. It holds no name, date or place of a patient.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.anatomy.purkinje import PurkinjeTree
from twinheart.calibration.calibrate import Calibration, Stage
from twinheart.calibration.posterior import determination
from twinheart.calibration.stored_cells import cell_of, described, with_apd
from twinheart.calibration.stored_entries import read_array, read_entry, read_words
from twinheart.ecg import Ecg, Electrodes, twelve_lead
from twinheart.errors import InputError, TwinheartError
from twinheart.mesh import TetMesh
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.io.hdf5 import hdf5_output
from twinheart.tissue import (
    ConductionSystem,
    Conductivities,
    NonConducting,
    Stimulus,
    Velocities,
    pace,
)
from twinheart.tissue.conductivity import by_region
from twinheart.twin import Beat, Twin, eikonal_beat, simulate

FORMAT, VERSION = "twinheart calibrated twin", 1
MOST_CLASSES = 12  # of velocities within a region
_DAMAGE = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError)
_STEP = 0.5  # ms: nodes at a site that are excited within it form one stimulus
_SIGMAS = ("sigma_il", "sigma_it", "sigma_el", "sigma_et", "sigma_in", "sigma_en", "chi", "cm")
_UNITS = {
    "heart/points": "mm",
    "tissue/velocities": "m/s",
    "sites/positions": "mm",
    "sites/onsets": "ms",
    "maps/lat": "ms",
    "maps/apd90": "ms",
    "electrodes/positions": "mm",
    "purkinje/points": "mm",
}


class StoredTwin(eqx.Module):
    """A calibrated twin as its file has it; `load_twin` reads one.

    Attributes
    ----------
    twin : Twin
        Heart, cells, fitted velocities by region, electrodes where the fit left them.
    stimuli : tuple of Stimulus
        At the sites, such that the wave arrives as it was fitted; the first at 0 ms.
    lat : (node,) array
        Fitted activation after the onset of the QRS [ms]; NaN where the wave does not come.
    apd90 : (node,) array
        Fitted APD90 [ms].
    facts : dict
        Sites, parameters with intervals, correlation of every lead by stage (empty in files that
        do not have it), remarks: plain values.
    """

    twin: Twin
    stimuli: tuple[Stimulus, ...]
    lat: Float[np.ndarray, "node"]
    apd90: Float[np.ndarray, "node"]
    facts: dict[str, Any]

    def beat(self, *, t_end: float, stimuli: Sequence[Stimulus] | None = None) -> Beat:
        """A beat by the eikonal equation, with the fitted APD of every node.

        Parameters
        ----------
        t_end : float
            Simulated time [ms].
        stimuli : sequence of Stimulus, optional
            Instead of its own.

        Returns
        -------
        Beat
            As of `twinheart.simulate`.
        """
        twin, chosen = self.twin, list(self.stimuli if stimuli is None else stimuli)
        found = simulate(twin, chosen, t_end=t_end, propagation="eikonal")
        wave = eikonal_beat(twin, chosen, t_end=t_end)
        factor = self.apd90 / np.asarray(wave.templates.apd90)
        apd90 = np.where(np.isfinite(found.lat), self.apd90, np.nan)
        changed = {"apd90": apd90, "repol": found.lat + apd90}
        if twin.electrodes is not None:
            wave = eqx.tree_at(lambda w: w.apd_factor, wave, jnp.asarray(factor))
            potentials = np.asarray(_potentials(wave))
            leads = twelve_lead(found.t, potentials, twin.electrodes.names)
            changed |= {"potentials": potentials, "ecg": leads}
        names = list(changed)
        return eqx.tree_at(
            lambda b: [getattr(b, name) for name in names], found, [changed[n] for n in names],
            is_leaf=lambda leaf: isinstance(leaf, Ecg),
        )  # fmt: skip

    def with_ionic_apd(self) -> tuple[Twin, list[str]]:
        """The twin with cells scaled node by node so that they repolarise as was fitted.

        Returns
        -------
        Twin, list of str
            The twin; sentences where cells cannot follow.
        """
        cells, remarks = with_apd(self.twin.heart, self.twin.cell, self.apd90)
        return eqx.tree_at(lambda t: t.cell, self.twin, cells), remarks


@eqx.filter_jit
def _potentials(wave):
    return wave.potentials()


def write_twin(path: str | Path, found: Calibration) -> Path:
    """Write a calibrated twin to an HDF5 file, whole or not at all.

    Parameters
    ----------
    path : path
        File to write; ``.h5`` by custom.
    found : Calibration
        What to write.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from twinheart import __version__

    arrays, words = _content(found)
    words |= {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"twinheart {__version__}, not for clinical use",
        "units": "mm, ms, mV, m/s, S/m",
    }
    path = Path(path)
    with written_whole(path) as draft, hdf5_output(draft) as (file, disk):
        file.attrs.update({k: v for k, v in words.items() if isinstance(v, int | float)})
        for name, text in words.items():
            if not isinstance(text, int | float):
                file.attrs[name] = text if isinstance(text, str) else json.dumps(text)
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
            if name in _UNITS:
                file[name].attrs["unit"] = _UNITS[name]
            file.flush()
            disk.check()
    return path


def _content(found: Calibration) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and words of the file."""
    heart, model = found.twin.heart, found.qrs.objective.model
    values = found.qrs.objective.values(jnp.asarray(found.qrs.fit.u))
    regions, origin, velocities = _classes(found)
    lat = found.lat
    tissues = by_region(heart, found.twin.conductivity, "conductivity")
    cells = by_region(heart, found.twin.cell, "cell model")
    across = float(values["source_across"][0]) if "source_across" in values else 1.0
    kinds, words_of_cells, remarks = described([cells[int(tag)] for tag in origin])
    arrays = {
        "heart/points": heart.mesh.points,
        "heart/tets": heart.mesh.tets,
        "heart/regions": regions,
        "tissue/velocities": velocities,
        "tissue/conducts": [not isinstance(tissues[int(t)], NonConducting) for t in origin],
        "tissue/conductivities": np.stack([_physical(tissues[int(t)], across) for t in origin]),
        "tissue/tags_before": origin,
        "tissue/cell": kinds,
        "maps/lat": np.where(np.isfinite(lat), lat, np.nan),
        "maps/apd90": np.asarray((found.t_wave or found.qrs).prediction.apd),
        "gain": np.broadcast_to(np.asarray(model.body.gains(values)), len(model.body.leads)),
        "sites/onsets": np.asarray(model.excitation.onsets(values)),
    }
    for name in ("f0", "s0"):
        if getattr(heart, name) is not None:
            arrays[f"heart/{name}"] = getattr(heart, name)
    if not len(model.excitation.charts):
        arrays |= _tree(found.twin.purkinje, model, values)
    else:
        arrays["sites/positions"] = np.asarray(model.excitation.positions(values))
    if found.twin.electrodes is not None:
        arrays["electrodes/positions"] = np.asarray(model.body.placed(values))
    for kind, fields in (("point", heart.mesh.point_fields), ("cell", heart.mesh.cell_fields)):
        kept = {
            n: v for n, v in fields.items() if "/" not in n and np.asarray(v).dtype.kind in "fiub"
        }
        arrays |= {f"heart/{kind}_fields/{n}": np.asarray(v) for n, v in kept.items()}
    for name, stage in found.stages.items():
        arrays[f"posterior/{name}/standard_numbers"] = np.asarray(stage.posterior.u)
        arrays[f"posterior/{name}/covariance"] = np.asarray(stage.posterior.covariance)
    words = {
        "cells": words_of_cells,
        "leads": list(model.body.leads),
        "site_names": list(model.excitation.names),
        "site_radius_mm": float(model.excitation.radius),
        "electrode_names": list(found.twin.electrodes.names) if found.twin.electrodes else [],
        "parameters": {name: _parameters(stage) for name, stage in found.stages.items()},
        "correlation": {name: stage.correlation for name, stage in found.stages.items()},
        "remarks": [*found.remarks, *remarks],
        "stored_lead_field": int(found.twin.lead_field is not None),
    }
    return arrays, words


def _tree(system: ConductionSystem | None, model, values) -> dict[str, np.ndarray]:
    assert system is not None
    tree = model.conduction(values)[-1] if model.conduction.tree is not None else [system.cv]
    numbers = [float(tree[0]), float(system.resistance), float(system.area)]
    return {
        "purkinje/points": system.tree.points,
        "purkinje/edges": system.tree.edges,
        "purkinje/roots": system.tree.roots,
        "purkinje/cv_resistance_area": np.array(numbers),
    }


def _parameters(stage: Stage) -> list[dict[str, Any]]:
    about = [
        {"prior": str(prior), "source": entry.source}
        for entry in stage.objective.free.entries
        for prior in entry.priors
    ]
    rows = determination(stage.posterior)
    return [row._asdict() | more for row, more in zip(rows, about, strict=True)]


def _physical(tissue: Any, across: float) -> np.ndarray:
    """Physical conductivities, those across the fibres scaled; zeros where nothing conducts."""
    if isinstance(tissue, NonConducting):
        return np.zeros(len(_SIGMAS))
    chosen = tissue.physical if isinstance(tissue, Velocities) else tissue
    factors = {"sigma_it": across, "sigma_in": across}
    return np.array([float(getattr(chosen, n)) * factors.get(n, 1.0) for n in _SIGMAS])


def _classes(found: Calibration):
    """Regions, the tag that each of them had before, and its velocities [m/s].

    Where velocities vary within a region, it is cut into classes, each of the geometric mean.
    """
    heart, conduction = found.twin.heart, found.qrs.objective.model.conduction
    values = found.qrs.objective.values(jnp.asarray(found.qrs.fit.u))
    tags = np.unique(heart.regions)
    rows = np.asarray(conduction(values), float)
    if conduction.row is None:
        known = np.asarray(found.qrs.objective.model.problem.tags)
        place = np.clip(np.searchsorted(known, tags), 0, len(known) - 1)
        return heart.regions, tags, rows[place]
    alive = np.isin(heart.regions, np.asarray(found.qrs.objective.model.problem.tags))
    known, rows = rows, np.ones((heart.mesh.n_tets, 3))  # where nothing conducts, any velocity
    rows[alive] = known[: alive.sum()]
    regions, origin, velocities, numbers = heart.regions.copy(), [], [], []
    taken = set(tags.tolist())
    for tag in tags:
        inside = np.flatnonzero(heart.regions == tag)
        speed = np.log(rows[inside, 0])
        limits = np.linspace(speed.min(), speed.max(), MOST_CLASSES + 1)[1:-1]
        kind = (
            np.searchsorted(limits, speed) if np.ptp(speed) > 1e-6 else np.zeros(len(inside), int)
        )
        for k in np.unique(kind):
            members = inside[kind == k]
            # the least free tag: from FAST_TAG on they mean a fast endocardium
            number = int(tag) if k == kind.min() else min({*range(1, len(taken) + 2)} - taken)
            taken.add(number)
            regions[members] = number
            numbers.append(number)
            origin.append(int(tag))
            velocities.append(np.exp(np.log(rows[members]).mean(axis=0)))
    order = np.argsort(numbers)
    return regions, np.array(origin)[order], np.array(velocities)[order]


def is_twin_file(path: str | Path) -> bool:
    """Whether a file is a calibrated twin, by its name and what it says; or a damaged one."""
    import h5py

    path = Path(path)
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    try:
        with h5py.File(path, "r") as file:
            return _is_ours(file)
    except _DAMAGE:
        return True


def _is_ours(file: Any) -> bool:
    told = file.attrs.get("format")
    return isinstance(told, str) and told == FORMAT


def load_twin(path: str | Path) -> StoredTwin:
    """Read a calibrated twin.

    Parameters
    ----------
    path : path
        File that `write_twin` or ``twinheart calibrate`` wrote.

    Returns
    -------
    StoredTwin
        Ready to be simulated.

    Raises
    ------
    InputError
        If the file is none of ours, of another version, or damaged.

    Examples
    --------
    >>> from twinheart.calibration.twin_file import load_twin
    >>> load_twin("nowhere.h5")
    Traceback (most recent call last):
    ...
    twinheart.errors.InputError: there is no twin 'nowhere.h5': make one with 'twinheart calibrate'.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no twin '{path}': make one with 'twinheart calibrate'.")
    try:
        with h5py.File(path, "r") as file:
            if not _is_ours(file):
                raise ValueError("it does not say that it is one")
            told: Any = file.attrs["version"]
            version = int(told)
            if version == VERSION:
                return _read(file)
    except (TwinheartError, *_DAMAGE) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"the twin '{path}' cannot be read ({reason}): it is damaged or no calibrated twin; "
            "make it anew with 'twinheart calibrate'."
        ) from None
    raise InputError(
        f"the twin '{path}' is of version {version}, this program reads version {VERSION}: update "
        "twinheart, or make the twin anew with 'twinheart calibrate'."
    )


def _read(file: Any) -> StoredTwin:
    heart = _heart(file)
    tags = np.unique(heart.regions).tolist()
    conduction = _conduction(file, tags)
    kinds = read_array(file, "tissue/cell", 1, "iu")
    known = [cell_of(entry) for entry in read_words(file, "cells", list)]
    cells = {tag: known[int(kind)] for tag, kind in zip(tags, kinds, strict=True)}
    electrodes = None
    if read_entry(file, "electrodes") is not None:
        names = [str(name) for name in read_words(file, "electrode_names", list)]
        electrodes = Electrodes(names, read_array(file, "electrodes/positions", 2))
    lat, apd90 = read_array(file, "maps/lat", 1, finite=False), read_array(file, "maps/apd90", 1)
    if lat.shape != apd90.shape or len(lat) != heart.mesh.n_nodes or not (apd90 > 0).all():
        raise ValueError("its maps do not belong to its heart")
    onsets = read_array(file, "sites/onsets", 1)
    purkinje = None if read_entry(file, "purkinje") is None else _purkinje(file)
    facts = {name: read_words(file, name) for name in ("parameters", "remarks", "site_names")}
    facts["site_onsets_ms"] = onsets.tolist()
    facts["correlation"] = _correlation(file)
    facts["stored_lead_field"] = bool(file.attrs["stored_lead_field"])
    if purkinje is None:
        positions = read_array(file, "sites/positions", 2)
        stimuli = _at_sites(heart, positions, float(file.attrs["site_radius_mm"]), lat)
        facts["site_positions_mm"] = positions.tolist()
    else:
        late = onsets - onsets.min()
        stimuli = tuple(pace(f"purkinje:{k}", start=float(t)) for k, t in enumerate(late))
    twin = Twin(heart, cells, conduction, electrodes, purkinje)
    return StoredTwin(twin, stimuli, lat, apd90, facts)


def _correlation(file: Any) -> dict[str, dict[str, float]]:
    """Of every lead by stage; empty where the file was written before it was kept."""
    if "correlation" not in file.attrs:
        return {}
    told = read_words(file, "correlation", dict)
    if not set(told) <= {"qrs", "t_wave"}:
        raise ValueError("its correlations are of unknown stages")
    return {k: {str(lead): float(r) for lead, r in own.items()} for k, own in told.items()}


def _heart(file: Any) -> Heart:
    fields = {}
    for kind in ("heart/point_fields", "heart/cell_fields"):
        names = () if (group := read_entry(file, kind)) is None else group.keys()
        own = {n: read_array(file, f"{kind}/{n}", None, "fiub", finite=False) for n in names}
        fields[kind.removeprefix("heart/")] = own
    points, tets = read_array(file, "heart/points", 2), read_array(file, "heart/tets", 2, "iu")
    mesh = TetMesh(points, tets, **fields)
    axes = ("heart/f0", "heart/s0")
    f0, s0 = (None if read_entry(file, n) is None else read_array(file, n, 2) for n in axes)
    return Heart(mesh, f0, s0, read_array(file, "heart/regions", 1, "iu"))


def _conduction(file: Any, tags: list[int]) -> dict[int, Any]:
    velocities = read_array(file, "tissue/velocities", 2)
    physical = read_array(file, "tissue/conductivities", 2)
    conducts = read_array(file, "tissue/conducts", 1, "iub")
    found: dict[int, Any] = {}
    made: dict[bytes, Velocities] = {}  # one for tissues that share it, so that it is tuned once
    for tag, cv, sigma, alive in zip(tags, velocities, physical, conducts, strict=True):
        if not alive:
            found[tag] = NonConducting()
            continue
        values = dict(zip(_SIGMAS, sigma.tolist(), strict=True))
        along, across, normal = cv.tolist()
        tissue = Velocities(along, across, normal, physical=Conductivities(**values))
        found[tag] = made.setdefault(cv.tobytes() + sigma.tobytes(), tissue)
    return found


def _purkinje(file: Any) -> ConductionSystem:
    cv, resistance, area = read_array(file, "purkinje/cv_resistance_area", 1)
    tree = PurkinjeTree(
        read_array(file, "purkinje/points", 2),
        read_array(file, "purkinje/edges", 2, "iu"),
        read_array(file, "purkinje/roots", 1, "iu"),
    )
    return ConductionSystem(tree, cv=float(cv), resistance=float(resistance), area=float(area))


def _at_sites(heart: Heart, positions, radius: float, lat) -> tuple[Stimulus, ...]:
    """Stimuli in the balls around the sites, at the time when the fitted wave is there.

    The wave crosses a ball in some milliseconds: to excite all of it at once would start it early.
    Elements that reach into a ball belong to it: there the wave of a site is a sphere, which the
    nodes of the ball alone do not make.
    """
    gap = np.linalg.norm(heart.mesh.points[:, None] - positions, axis=2)
    gap[~np.isfinite(lat)] = np.inf  # a site in the core of a scar excites nothing
    chosen = (gap <= gap.min(axis=0).clip(radius, 2.0 * radius)).any(axis=1)
    tets = heart.mesh.tets
    chosen[tets[chosen[tets].any(axis=1)]] = True
    nodes = np.flatnonzero(chosen & np.isfinite(lat))
    if not nodes.size:
        raise ValueError("its sites excite nothing")
    late = lat[nodes] - lat[nodes].min()
    bins = np.floor(late / _STEP).astype(int)
    return tuple(
        pace(nodes[bins == k], start=float(late[bins == k].mean())) for k in np.unique(bins)
    )
