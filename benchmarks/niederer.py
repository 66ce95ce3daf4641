"""The Niederer slab: all nine cells of the benchmark's grid, and the value they converge to.

    python benchmarks/niederer.py                 # 0.5 and 0.2 mm, three schemes, about 10 minutes
    python benchmarks/niederer.py --fine          # 0.1 mm too: hours on two cores
    python benchmarks/niederer.py --converge      # the limit, from two discretisations

Writes JSON under `benchmarks/results/<device>/` and prints a table. The error is the RMS relative
error over (20,0,0), (0,7,0), (10,3.5,1.5) and P8 = (20,7,3) against the converged values.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from _processes import machine, note, write_json

from twinheart.tissue.niederer import run_niederer

RESULTS = Path(__file__).resolve().parent / "results"
CONVERGED = RESULTS / "niederer_converged.json"
ERROR_POINTS = ("P2", "P3", "P8", "P9")
SCHEMES = ("default", "lumped", "crank-nicolson")


def device_folder() -> Path:
    """Folder of this device's results."""
    kind = jax.devices()[0].device_kind.lower().replace(" ", "-")
    folder = RESULTS / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def table(spacings: list[float], steps: list[float]) -> list[dict]:
    """Every scheme, spacing and step, with error and cost."""
    limit = json.loads(CONVERGED.read_text())["lat_ms"] if CONVERGED.exists() else None
    rows = []
    for scheme in SCHEMES:
        for dx in spacings:
            for dt in steps:
                row = run_niederer(dx, dt, scheme, t_end=70.0)
                row["error"] = None if limit is None else rms_error(row["lat_ms"], limit)
                rows.append(row)
                lat = row["lat_ms"]
                note(
                    f"{scheme:15s} {dx:5.2f} mm {dt:6.3f} ms  P8 {lat['P8']:6.2f}  P3 "
                    f"{lat['P3']:6.2f}  P2 {lat['P2']:6.2f}  P9 {lat['P9']:6.2f}  error "
                    f"{row['error'] or float('nan'):.3f}  {row['wall_s']:7.1f} s  "
                    f"{row['ns_per_node_step']:.0f} ns"
                )
    return rows


def rms_error(lat: dict[str, float], limit: dict[str, float]) -> float:
    """RMS relative error over the four points; NaN where one is not activated."""
    return float(np.sqrt(np.mean([(lat[p] / limit[p] - 1.0) ** 2 for p in ERROR_POINTS])))


def converge(spacings: list[float], dt: float) -> dict:
    """Extrapolate two discretisations to h = 0 in h^2 and h^4; their mean is the limit."""
    limits, runs = {}, {}
    powers = np.stack([np.power(spacings, 2.0 * k) for k in range(3)], axis=1)
    for scheme in ("default", "lumped"):
        rows = [run_niederer(dx, dt, scheme, t_end=90.0)["lat_ms"] for dx in spacings]
        runs[scheme] = dict(zip(map(str, spacings), rows, strict=True))
        limits[scheme] = {
            p: float(np.linalg.solve(powers, [row[p] for row in rows])[0]) for p in rows[0]
        }
        note(f"{scheme}: " + ", ".join(f"{p} {v:.2f}" for p, v in limits[scheme].items()))
    first, second = limits.values()
    return {
        "lat_ms": {p: (first[p] + second[p]) / 2 for p in first},
        "extrapolated_ms": limits,
        "difference_percent": {p: 100 * (first[p] / second[p] - 1) for p in ERROR_POINTS},
        "spacings_mm": spacings,
        "dt_ms": dt,
        "runs_ms": runs,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="The Niederer slab.")
    parser.add_argument("--fine", action="store_true", help="0.1 mm too")
    parser.add_argument("--converge", action="store_true", help="establish the limit")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.converge:
        result = converge([0.2, 0.125, 0.1], 0.02)
        write_json(CONVERGED, result)
    else:
        spacings = [0.5, 0.2, 0.1] if options.fine else [0.5, 0.2]
        result = {"machine": machine(), "rows": table(spacings, [0.05, 0.01, 0.005])}
        write_json(device_folder() / "niederer.json", result)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
