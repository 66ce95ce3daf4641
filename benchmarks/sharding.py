"""One heart over several devices: how even the parts, what they exchange, what a step should cost.

Two meshes are cut into 1 to 16 parts. From the sizes a model predicts weak and strong scaling of a
step on GPUs; with `--run` a slab is also run on virtual devices of the CPU, to show that its
activation times are those of one. Virtual devices share the processor: their times mean nothing.

python benchmarks/sharding.py --nodes 50000 --run --json
"""

import argparse
import json
import os
from typing import Any

VIRTUAL = 8
os.environ["XLA_FLAGS"] = (  # read when jax is first imported
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={VIRTUAL}"
)

import numpy as np  # noqa: E402
from _processes import note, write_json  # noqa: E402
from _slab import slab_of  # noqa: E402
from niederer import device_folder  # noqa: E402

from twinheart.anatomy import Heart  # noqa: E402
from twinheart.mesh.biventricle import biventricle  # noqa: E402
from twinheart.tissue import run  # noqa: E402
from twinheart.tissue.discrete import assemble  # noqa: E402
from twinheart.tissue.niederer import build_niederer  # noqa: E402
from twinheart.tissue.partition import partition  # noqa: E402

PARTS = (1, 2, 4, 8, 16)
# Measured on an H200 (results/h200/gpu.json): TT06, 5.17 M nodes, two stages; a loop iteration
# unrolled five times, which bounds a small step from below.
NODE_STEP_NS, LAUNCH_US = 0.168, 1.5
STAGES = 2
# Not measured here: latency of a message with its kernel, and bandwidth one way, between GPUs of a
# node (NVLink) and of two nodes (a 400 Gbit/s network).
LINKS = {"within a node": (15.0, 200.0), "between nodes": (30.0, 40.0)}  # us, GB/s


def step_us(nodes: float, halo: float, messages: int, link: str) -> float:
    """Predicted time of a step on one of the parts [us].

    A message for each Chebyshev stage and one for the ionic current, none hidden behind work.
    """
    latency_us, gb_s = LINKS[link]
    work = max(LAUNCH_US, 1e-3 * NODE_STEP_NS * nodes)
    exchange = messages * latency_us + 4.0 * halo / (1e3 * gb_s)
    return work + (STAGES + 1) * (exchange if messages else 0.0)


def cuts(heart: str, nodes: int) -> list[dict[str, Any]]:
    """Parts of a mesh and what they exchange."""
    mesh = slab_of(nodes) if heart == "slab" else biventricle(1.92 * (50_902 / nodes) ** (1 / 3))
    built = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    tissue = assemble(built, pad=True).tissue(np.array([[0.1, 0.03, 0.03]] * _regions(built)))
    return [partition(tissue, (tissue.n_nodes,), n).summary() for n in PARTS]


def _regions(heart: Heart) -> int:
    return len(np.unique(heart.regions))


def scaling(found: list[dict[str, Any]], nodes: int, total: int, link: str) -> list[dict]:
    """Predicted steps where the whole heart has `total` nodes, or each part has (`weak`).

    Halos are surfaces: they grow with the nodes to the power 2/3.
    """
    rows = []
    for cut in found:
        n = cut["parts"]
        messages = min(cut["messages"], 2)  # thick parts have two neighbours
        strong = step_us(total / n, _halo(cut, total / nodes), messages, link)
        weak = step_us(total, _halo(cut, total * n / nodes), messages, link)
        alone = step_us(total, 0, 0, link)
        rows.append(
            {
                "parts": n,
                "strong_us": strong,
                "strong_efficiency": alone / (n * strong),
                "weak_us": weak,
                "weak_efficiency": alone / weak,
            }
        )
    return rows


def _halo(cut: dict[str, Any], factor: float) -> float:
    return cut["halo_max"] * factor ** (2 / 3)


def on_virtual_devices(nodes: int, t_end: float = 30.0) -> dict[str, Any]:
    """Activation times of a slab on one device and on several."""
    mesh = slab_of(nodes)
    built = build_niederer(mesh, 0.05)
    lat = {
        n: np.asarray(run(built, t_end, points=mesh.points, devices=n).state.lat)
        for n in (1, VIRTUAL)
    }
    return {
        "nodes": mesh.n_nodes,
        "devices": VIRTUAL,
        "t_end_ms": t_end,
        "activated": float(np.isfinite(lat[1]).mean()),
        "same_nodes_activated": bool((np.isnan(lat[1]) == np.isnan(lat[VIRTUAL])).all()),
        "largest_difference_ms": float(np.nanmax(np.abs(lat[1] - lat[VIRTUAL]))),
    }


def main() -> None:
    """Cut, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50_000, help="of the meshes that are cut")
    parser.add_argument("--total", type=int, default=5_000_000, help="of the heart predicted for")
    parser.add_argument("--run", action="store_true", help="also run on virtual devices")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    result: dict[str, Any] = {"nodes": asked.nodes, "total": asked.total}
    for heart in ("slab", "biventricle"):
        note(f"{heart} ...")
        found = cuts(heart, asked.nodes)
        predicted = {link: scaling(found, asked.nodes, asked.total, link) for link in LINKS}
        result[heart] = {"cuts": found, "predicted": predicted}
    if asked.run:
        note("virtual devices ...")
        result["run"] = on_virtual_devices(asked.nodes // 10)
    write_json(device_folder() / "sharding.json", result)
    if asked.json:
        print(json.dumps(result))
        return
    for heart in ("slab", "biventricle"):
        for cut in result[heart]["cuts"]:
            print(heart, cut)
        for link, rows in result[heart]["predicted"].items():
            for row in rows:
                print(heart, link, {k: round(v, 3) for k, v in row.items()})
    print(result.get("run", ""))


if __name__ == "__main__":
    main()
