"""Reaction-eikonal and template ECG on coarse meshes against monodomain and finer meshes.

A scaled-down biventricle (about 15 ml) beats from ten endocardial sites: monodomain on a fine mesh,
reaction-eikonal and eikonal at 1 mm. Half an hour on one core, nearly all of it the reference,
which is kept in a folder and not computed again.

python benchmarks/reaction_eikonal.py --keep /tmp/reference --json
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from _processes import machine, note, write_json
from niederer import device_folder
from scipy.spatial import KDTree

import twinheart as th
from twinheart.anatomy.root_sites import root_sites
from twinheart.cell import scale_channels
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.tissue import Stimulus
from twinheart.twin import Beat

SCALE = 0.44  # of the demo heart: 15 ml of muscle
T_END, DT = 400.0, 0.05  # ms
SITE = 2.0  # mm, radius of a stimulated site
COARSE, FINE = 1.0, 0.25  # mm, mean edges


def small_shape() -> BiventricularShape:
    """The demo heart's shape, all lengths scaled down."""

    def scaled(name: str, value: Any) -> Any:
        if name == "rv_lean":
            return value
        return tuple(SCALE * x for x in value) if isinstance(value, tuple) else SCALE * value

    full = dataclasses.asdict(BiventricularShape())
    return BiventricularShape(**{name: scaled(name, value) for name, value in full.items()})


def small_heart(edge: float) -> th.Heart:
    """The scaled-down heart with fibres by the rule."""
    mesh = biventricle(edge, small_shape())
    return th.add_fibres(th.Heart(mesh, regions=mesh.cell_fields["region"]))


def twin_of(heart: th.Heart, electrodes) -> th.Twin:
    """Cells whose repolarisation varies across the wall, so that the T wave is upright."""
    across = np.clip(np.asarray(heart.mesh.point_fields["transmural"], float), 0.0, 1.0)
    cell = th.cell.get_model("tentusscher2006-epi")
    return th.Twin(heart, scale_channels(cell, {"i_ks": 0.5 + 0.7 * across}), None, electrodes)


def stimuli_of(heart: th.Heart) -> list[Stimulus]:
    """Ten endocardial sites, at the same places and times on every mesh."""
    found = []
    for site in root_sites(heart.mesh, radius=SITE):
        x, y, z = heart.mesh.points[site.nodes].mean(axis=0)
        found.append(th.pace(f"sphere:{x},{y},{z},{SITE}", start=0.5 * site.onset))
    return found


def simulated(twin: th.Twin, stimuli, **how) -> dict[str, np.ndarray]:
    """A beat as plain arrays, with the time it took, set-up included."""
    start = time.perf_counter()
    beat: Beat = th.simulate(twin, stimuli, t_end=T_END, **how)
    total = time.perf_counter() - start
    assert beat.ecg is not None
    return {
        "points": twin.heart.mesh.points,
        "lat": beat.lat,
        "repol": beat.repol,
        "t": beat.t,
        "ecg": np.asarray(beat.ecg.signals),
        "wall": np.asarray(beat.stats["wall_s"]),
        "total": np.asarray(total),
    }


def reference(edge: float, keep: Path, electrodes, stimuli) -> dict[str, np.ndarray]:
    """Monodomain on a fine mesh, from the folder if it is there."""
    path = keep / f"ref_{edge}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    keep.mkdir(parents=True, exist_ok=True)
    found = simulated(twin_of(small_heart(edge), electrodes), stimuli, dt=DT)
    np.savez(path, allow_pickle=False, **found)
    return found


def differences(found: dict, truth: dict) -> dict[str, Any]:
    """Maps at the nodes of the coarse mesh, and every lead over the whole beat."""
    _, nearest = KDTree(truth["points"]).query(found["points"])
    lat = found["lat"] - truth["lat"][nearest]
    apd = found["repol"] - found["lat"] - (truth["repol"] - truth["lat"])[nearest]
    ecg = np.stack([np.interp(truth["t"], found["t"], lead) for lead in found["ecg"].T], axis=1)
    return {
        "lat_rms_ms": rms(lat),
        "lat_mean_ms": float(np.nanmean(lat)),
        "apd_rms_ms": rms(apd),
        "apd_mean_ms": float(np.nanmean(apd)),
        "missing": float(np.isnan(lat).mean()),
        **lead_differences(ecg, truth["ecg"]),
        "wall_s": float(found["wall"]),
        "cost": float(truth["wall"] / found["wall"]),
    }


def rms(values: np.ndarray) -> float:
    """Root mean square, missing values left out."""
    return float(np.sqrt(np.nanmean(values**2)))


def lead_differences(ecg: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Worst correlation and worst ratio of amplitudes over the leads."""
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(ecg.T, truth.T, strict=True)]
    ratio = np.ptp(ecg, axis=0) / np.ptp(truth, axis=0)
    return {
        "ecg_correlation": float(min(correlation)),
        "ecg_amplitude_error": float(np.abs(ratio - 1.0).max()),
    }


def template_convergence(electrodes, stimuli, edges: list[float]) -> dict[str, Any]:
    """QRS of the eikonal's template ECG at each edge against that on the finest mesh."""
    found = {}
    for edge in edges:
        note(f"template ECG at {edge:g} mm")
        twin = twin_of(small_heart(edge), electrodes)
        found[edge] = simulated(twin, stimuli, propagation="eikonal")["ecg"][: round(100.0 / 0.5)]
    finest = found[min(edges)]
    return {f"{e:g}": lead_differences(ecg, finest) for e, ecg in found.items() if e > min(edges)}


def measure(keep: Path, fine: float) -> dict[str, Any]:
    """All of it."""
    coarse = small_heart(COARSE)
    electrodes, stimuli = th.standard_12_lead(coarse), stimuli_of(coarse)
    note(f"monodomain at {fine:g} mm, or what is kept of it")
    truth = reference(fine, keep, electrodes, stimuli)
    twin = twin_of(coarse, electrodes)
    rows = {}
    for name, how in {
        "reaction_eikonal": {"propagation": "reaction-eikonal", "dt": DT},
        "reaction_eikonal_uncoupled": {
            "propagation": "reaction-eikonal", "dt": DT, "diffusion": False,
        },
        "reaction_eikonal_0.1": {"propagation": "reaction-eikonal", "dt": 0.1},
        "eikonal": {"propagation": "eikonal"},
        "monodomain": {"dt": DT},
    }.items():  # fmt: skip
        note(f"{name} at {COARSE:g} mm")
        simulated(twin, stimuli, **how)  # compiles
        rows[name] = differences(simulated(twin, stimuli, **how), truth)
    return {
        "fine_mm": fine,
        "coarse_mm": COARSE,
        "n_nodes": {"fine": len(truth["points"]), "coarse": coarse.mesh.n_nodes},
        "fine_wall_s": float(truth["wall"]),
        "against_fine_monodomain": rows,
        "template_qrs": template_convergence(electrodes, stimuli, [COARSE, 0.5, 0.25]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, default=Path("reference"), help="folder")
    parser.add_argument("--fine", type=float, default=FINE, help="mean edge of the reference, mm")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = measure(options.keep, options.fine) | {"machine": machine()}
    write_json(device_folder() / "reaction_eikonal.json", result)
    if options.json:
        print(json.dumps(result))
        return
    for name, row in result["against_fine_monodomain"].items():
        print(
            f"{name:28s} LAT {row['lat_rms_ms']:5.2f} ms  APD {row['apd_rms_ms']:5.2f} ms  "
            f"ECG {row['ecg_correlation']:.4f}  {row['wall_s']:6.2f} s  1/{row['cost']:.0f}"
        )
    for edge, row in result["template_qrs"].items():
        print(f"template QRS at {edge} mm: {row}")


if __name__ == "__main__":
    main()
