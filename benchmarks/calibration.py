"""Calibration against targets that another forward model made, and its speed.

Six synthetic patients: two anatomies, each with a normal beat, a left bundle branch block and a
scar. Each is simulated by monodomain (TT06, ten sites moved at random, velocities and
repolarisation that vary from place to place) with the lead field of a bounded torso, and 25 uV of
noise. The twin is fitted on another, coarser mesh, by the eikonal equation, in an endless
conductor: the truth is outside of what it can say. Then it is simulated by monodomain without
another fit. Half an hour on one core; each target's row is kept in a folder.

python benchmarks/calibration.py --keep /tmp/targets --json
python benchmarks/calibration.py --keep /tmp/targets --speed --json
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _processes import machine, note, write_json
from niederer import device_folder
from scipy import stats
from scipy.spatial import KDTree

import twinheart as th
from twinheart.anatomy.endocardium import endocardium
from twinheart.anatomy.root_sites import DURRER
from twinheart.calibration import (
    Calibration,
    Settings,
    calibrate,
    coarse_heart,
    field_places,
    measured_beat,
    misfit_test,
    prepared_heart,
)
from twinheart.calibration.defaults import QRS, T_WAVE
from twinheart.calibration.translation import translate
from twinheart.calibration.twin_file import load_twin, write_twin
from twinheart.cell import scale_channels
from twinheart.ecg import Ecg, LeadField, read_lead_field
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import biventricle
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io import write_mesh
from twinheart.tissue import NonConducting, Velocities, fast_endocardium
from twinheart.tissue.conductivity import Conduction

CONDITIONS = ("normal", "lbbb", "scar")
TRUTH_EDGE, FITTED_NODES = 1.5, 30_000  # mm; about 2 mm
NOISE, BEFORE, T_END, DT = 0.025, 150.0, 480.0, 0.05  # mV, ms, ms, ms
SCAR_TAG, SCAR_RADIUS = 50, 22.0  # mm
SPEED_NODES = 100_000
FREE, FREE_T = (*QRS, "gain.lead", "cv_field"), (*T_WAVE, "apd.field")


class Truth(NamedTuple):
    """A synthetic patient."""

    points: np.ndarray
    lat: np.ndarray
    repol: np.ndarray
    ecg: Ecg


def anatomy(name: str, keep: Path, data: Path) -> th.Heart:
    """Heart at the edge of the truth, from the folder or made."""
    file = keep / f"{name}.vtu"
    if not file.exists():
        if name == "mean_shape":
            surface, mesh = data / "biv_mean_shape" / "heart_surface.vtp", keep / "mean_mesh.vtu"
            command("mesh", "build", surface, "--edge", TRUTH_EDGE, "-o", mesh)
            command("anatomy", "build", mesh, "-o", file)
        else:
            write_heart(file, prepared_heart(th.add_fibres(th.Heart(biventricle(TRUTH_EDGE)))))
    return prepared_heart(th.load_heart(file))


def write_heart(file: Path, heart: th.Heart) -> None:
    """A heart with its directions and regions as cell fields."""
    fields = {"fibre": heart.f0, "sheet": heart.s0, "region": heart.regions}
    write_mesh(file, TetMesh(heart.mesh.points, heart.mesh.tets, heart.mesh.point_fields, fields))


def torso_field(name: str, keep: Path, heart: th.Heart, condition: str) -> LeadField:
    """Lead field of the patient's torso; a scar carries no current."""
    torso, kind = keep / f"{name}_torso.vtu", "scar" if condition == "scar" else "healthy"
    file, own = keep / f"{name}_{kind}_field.h5", keep / f"{name}_{kind}.vtu"
    if not torso.exists():
        command("torso", keep / f"{name}.vtu", "-o", torso)
    if not file.exists():
        write_heart(own, heart)
        dead = ("--non-conducting", SCAR_TAG) if condition == "scar" else ()
        command("leadfield", "--heart", own, "--torso", torso, "-o", file, *dead)
    return read_lead_field(file)


def command(*words: Any) -> None:
    """Run a command of twinheart."""
    note(" ".join(map(str, words)))
    subprocess.run(
        [Path(sys.executable).with_name("twinheart"), *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def scarred(heart: th.Heart, seed: int) -> tuple[th.Heart, Any]:
    """The heart with a transmural core in the free wall of the LV, and its tissue."""
    surface = endocardium(heart.mesh, SurfaceClass.LV_ENDOCARDIUM)
    assert surface is not None
    centre = surface.place(0.45, (0.3, 0.2)[seed % 2])
    at = heart.mesh.points[heart.mesh.tets].mean(axis=1)
    inside = np.linalg.norm(at - centre, axis=1) < SCAR_RADIUS
    inside &= heart.mesh.point_fields["tv"][heart.mesh.tets].mean(axis=1) < 0.5
    regions = np.where(inside, SCAR_TAG, heart.regions)
    tags = np.unique(regions)
    tissue = {int(t): NonConducting() if t == SCAR_TAG else Velocities() for t in tags}
    return th.Heart(heart.mesh, heart.f0, heart.s0, regions), tissue


def simulated(heart: th.Heart, tissue, field: LeadField, condition: str, seed: int) -> Truth:
    """A beat of the synthetic patient by monodomain in its torso."""
    rng = np.random.default_rng([seed, CONDITIONS.index(condition)])
    heart, tissue = with_slow_places(heart, tissue, rng)
    cell = th.cell.get_model("tentusscher2006-epi")
    heart, _, tissue = fast_endocardium(heart, cell, tissue, cv=float(rng.uniform(1.0, 1.5)))
    cell = scale_channels(cell, {"i_ks": repolarising(heart, rng)})
    twin = th.Twin(heart, cell, tissue, None, None, field)
    beat = th.simulate(twin, sites(heart, condition, rng), t_end=T_END, dt=DT)
    assert beat.ecg is not None
    t = np.arange(0.0, T_END + BEFORE)
    signals = np.stack(
        [np.interp(t - BEFORE, beat.t, lead) for lead in np.asarray(beat.ecg.signals).T], axis=1
    )
    noise = NOISE * rng.normal(size=signals.shape)
    ecg = Ecg(t, signals + noise, beat.ecg.names)
    return Truth(heart.mesh.points, beat.lat + BEFORE, beat.repol + BEFORE, ecg)


def kept_truth(path: Path, make) -> Truth:
    """A synthetic patient from a file, or made and kept there."""
    if not path.exists():
        made = make()
        np.savez(
            path, allow_pickle=False, points=made.points, lat=made.lat, repol=made.repol,
            t=made.ecg.t, signals=np.asarray(made.ecg.signals), names=np.array(made.ecg.names),
        )  # fmt: skip
    with np.load(path, allow_pickle=False) as file:
        ecg = Ecg(file["t"], file["signals"], tuple(map(str, file["names"])))
        return Truth(file["points"], file["lat"], file["repol"], ecg)


def patient(name: str, heart: th.Heart, keep: Path, condition: str, seed: int):
    """Truth and lead field of a target, from the folder or made."""
    tissue: Any = {int(tag): Velocities() for tag in np.unique(heart.regions)}
    if condition == "scar":
        heart, tissue = scarred(heart, seed)
    note(f"{name}, {condition}: truth")
    field = torso_field(name, keep, heart, condition)
    file = keep / f"{name}_{condition}.npz"
    return kept_truth(file, lambda: simulated(heart, tissue, field, condition, seed)), field


def with_slow_places(heart: th.Heart, tissue, rng):
    """Velocities of this patient, and three places where the muscle is a quarter slower."""
    along, across = rng.uniform(0.5, 0.65), rng.uniform(0.26, 0.34)
    at = heart.mesh.points[heart.mesh.tets].mean(axis=1)
    slow = np.zeros(len(at), bool)
    for centre in heart.mesh.points[rng.integers(heart.mesh.n_nodes, size=3)]:
        slow |= np.linalg.norm(at - centre, axis=1) < 15.0
    slow &= heart.regions != SCAR_TAG
    regions = np.where(slow, heart.regions + 20, heart.regions)
    usual = Velocities(along, across)
    slower = Velocities(0.75 * along, 0.75 * across)
    found: dict[int, Conduction] = {
        int(tag): slower if tag > 20 else usual for tag in np.unique(regions)
    }
    found |= {tag: kind for tag, kind in tissue.items() if isinstance(kind, NonConducting)}
    return th.Heart(heart.mesh, heart.f0, heart.s0, regions), found


def repolarising(heart: th.Heart, rng) -> np.ndarray:
    """Factors on the slow rectifier: across the wall, from apex to base, and at random places."""
    fields = heart.mesh.point_fields
    factor = 0.75 + 0.5 * np.clip(fields["tm"], 0, 1) + 0.3 * (0.5 - np.clip(fields["ab"], 0, 1))
    places = field_places(heart, 8)
    gap = np.linalg.norm(heart.mesh.points[:, None] - places, axis=2)
    return factor * np.exp(np.exp(-0.5 * (gap / 20.0) ** 2) @ rng.normal(0, 0.12, len(places)))


def sites(heart: th.Heart, condition: str, rng) -> list:
    """Sites of a normal beat, moved; in a block the left ventricle has none."""
    found = []
    for _, side, ab, rt, onset in DURRER:
        left = side == SurfaceClass.LV_ENDOCARDIUM
        if condition == "lbbb" and left:
            continue
        surface = endocardium(heart.mesh, side)
        assert surface is not None
        x, y, z = surface.place(ab + rng.normal(0, 0.06), rt + rng.normal(0, 0.04))
        start = max(onset + rng.normal(0, 2.0), 0.0)
        found.append(th.pace(f"sphere:{x},{y},{z},3", start=start))
    return found


def fitted(heart: th.Heart, field: LeadField, truth: Truth, condition: str, seed: int, **changes):
    """The twin of a synthetic patient, on a mesh of its own, and the seconds it took."""
    start = time.perf_counter()
    conduction = None
    if condition == "scar":
        heart, conduction = scarred(heart, seed)
    usual = Settings(free=FREE, t_wave=FREE_T, discrepancy=0.03, coarse_nodes=4000)
    settings = usual._replace(**changes)
    found = calibrate(
        heart, measured_beat(truth.ecg), field.electrodes, conduction=conduction, settings=settings
    )
    return found, time.perf_counter() - start


def row_of(found: Calibration, truth: Truth, seconds: float) -> dict[str, Any]:
    """What was reached for one target."""
    onset = found.beat.zero + found.beat.onset
    nearest = KDTree(truth.points).query(found.twin.heart.mesh.points)[1]
    true_lat, true_repol = truth.lat[nearest] - onset, truth.repol[nearest] - onset
    both = np.isfinite(found.lat) & np.isfinite(true_lat)
    gap = (found.lat - true_lat)[both]
    repol = both & np.isfinite(true_repol)
    spearman: Any = stats.spearmanr(found.repol[repol], true_repol[repol])
    return {
        "n_parameters": len(found.qrs.fit.u) + (len(found.t_wave.fit.u) if found.t_wave else 0),
        "qrs": summary(found.qrs.correlation),
        "t_wave": summary(found.t_wave.correlation) if found.t_wave else None,
        "lat_rmse_ms": float(np.sqrt(np.mean(gap**2))),
        "lat_rmse_shifted_ms": float(gap.std()),
        "repolarisation_spearman": float(spearman.statistic),
        "misfit_p_value": misfit_test(found.qrs.fit).p_value,
        "noise_raised_by": float(np.sqrt(found.qrs.posterior.scale)),
        "result": found.qrs.fit.result,
        "iterations": found.qrs.fit.iterations,
        "fit_s": seconds,
    }


def summary(correlation: dict[str, float]) -> dict[str, Any]:
    """Median, least and all correlations."""
    values = list(correlation.values())
    return {"median": float(np.median(values)), "least": min(values), "leads": correlation}


def target(name: str, condition: str, keep: Path, data: Path, seed: int) -> dict[str, Any]:
    """One row, from the folder if it is there."""
    kept = keep / f"{name}_{condition}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    heart = anatomy(name, keep, data)
    truth, field = patient(name, heart, keep, condition, seed)
    own = coarse_heart(heart, FITTED_NODES)
    note(f"{name}, {condition}: fit on {own.mesh.n_nodes} nodes")
    found, seconds = fitted(own, field, truth, condition, seed)
    row = {"nodes": [heart.mesh.n_nodes, own.mesh.n_nodes], **row_of(found, truth, seconds)}
    note(f"{name}, {condition}: by monodomain")
    stored = load_twin(write_twin(keep / f"{name}_{condition}.h5", found))
    stages = found.stages
    again = translate(stored, stages, dt=DT)
    row["translated"] = {key: summary(value) for key, value in again.correlation.items()}
    row |= {"translated_lat_rms_ms": again.lat_rms, "translated_late_ms": again.late}
    if condition == "scar":
        note(f"{name}, {condition}: fit without it")
        blind, _ = fitted(own, field, truth, "normal", seed, t_wave=())
        row["without_scar_p_value"] = misfit_test(blind.qrs.fit).p_value
    kept.write_text(json.dumps(row, indent=1))
    return row


def speed(keep: Path, data: Path, seed: int) -> dict[str, Any]:
    """Time of a fit of the QRS at 100,000 nodes with more than 50 parameters, compile time in."""
    fine = anatomy("generated", keep, data)
    truth, field = patient("generated", fine, keep, "normal", seed)
    edge = 2 * TRUTH_EDGE
    while fine.mesh.n_nodes < SPEED_NODES:
        edge *= 0.97
        fine = prepared_heart(th.add_fibres(th.Heart(biventricle(edge / 2))))
    note(f"speed: fit on {fine.mesh.n_nodes} nodes")
    found, seconds = fitted(fine, field, truth, "normal", seed, t_wave=())
    return {"nodes": fine.mesh.n_nodes, **row_of(found, truth, seconds)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, default=Path("targets"), help="folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="real hearts")
    parser.add_argument("--only", help="one target, such as generated_lbbb")
    parser.add_argument("--speed", action="store_true", help="time a fit at 100,000 nodes instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    asked.keep.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine(), "seed": asked.seed}
    if asked.speed:
        result["speed"] = speed(asked.keep, asked.data, asked.seed)
    else:
        result["targets"] = {}
        for k, name in enumerate(("generated", "mean_shape")):
            for condition in CONDITIONS:
                key = f"{name}_{condition}"
                if asked.only in (None, key):
                    row = target(name, condition, asked.keep, asked.data, asked.seed + k)
                    result["targets"][key] = row
    file = device_folder() / "calibration.json"
    if file.is_file():
        kept = json.loads(file.read_text())
        for part in ("targets", "speed"):
            if isinstance(kept.get(part), dict):
                result[part] = kept[part] | result.get(part, {})
    write_json(file, result)
    print(json.dumps(result) if asked.json else table(result))


def table(result: dict[str, Any]) -> str:
    """One line for each target."""
    lines = [
        "target                 QRS median least   T median least  translated  LAT rmse  repol"
    ]
    for key, row in result.get("targets", {}).items():
        wave, again = row["t_wave"] or {"median": np.nan, "least": np.nan}, row["translated"]["qrs"]
        lines.append(
            f"{key:22s} {row['qrs']['median']:8.3f} {row['qrs']['least']:7.3f} "
            f"{wave['median']:8.3f} {wave['least']:7.3f}   {again['median']:8.3f} "
            f"{row['lat_rmse_ms']:8.1f} {row['repolarisation_spearman']:8.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
