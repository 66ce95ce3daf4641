"""The eikonal: order, error on a heart, derivatives, speed, memory, and fim-python beside it.

    python benchmarks/eikonal.py --json            # about 5 minutes on two cores
    python benchmarks/eikonal.py --quick --json    # smaller meshes, about 1 minute

With `--fim PYTHON`, an interpreter whose environment has fim-python (AGPL; a peer, never a
dependency), the same problem is solved by it too, on a smaller mesh: on 100,000 nodes it did not
end within 20 minutes. Prints and, unless `--quick`, writes JSON under
`benchmarks/results/<device>/eikonal.json`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _processes import machine, note, spread, write_json
from niederer import device_folder

from twinheart.anatomy import Heart, add_fibres
from twinheart.ecg import lead_shares, standard_12_lead, twelve_lead
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import biventricle
from twinheart.mesh.generate import slab
from twinheart.mesh.refine import refine
from twinheart.tissue import Eikonal, Sites, Velocities, arrival, build_eikonal
from twinheart.tissue.conductivity import region_tensor
from twinheart.tissue.template import templates_of
from twinheart.tissue.wave_ecg import wave_ecg
from twinheart.twin import Twin, intracellular_tensor

CV = (0.6, 0.25)
PASS = 0.88  # ms: 150 Hz, the bandwidth of a clinical ECG
FIBRE = np.array([1.0, 1.0, 0.3]) / np.linalg.norm([1.0, 1.0, 0.3])


def block(nodes: int) -> Heart:
    """A jittered block with fibres that turn by 120 degrees through it."""
    side = round((nodes / 2.5) ** (1 / 3))
    mesh = slab((2.5 * side // 1, side - 1, side - 1), 1.0)
    rng = np.random.default_rng(0)
    points = mesh.points + rng.uniform(-0.2, 0.2, mesh.points.shape)
    height = mesh.points[mesh.tets].mean(axis=1)[:, 2] / side
    angle = np.radians(120.0) * (height - 0.5)
    fibres = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    return Heart(TetMesh(points, mesh.tets), fibres)


def block_sites(heart: Heart) -> Sites:
    """Two sites in the block."""
    size = heart.mesh.points.max(axis=0)
    return Sites(np.array([[0.5, 0.5, 0.1], [0.1, 0.3, 0.9]]) * size, [0.0, 5.0])


def point_distance(points, position, velocities):
    """Exact arrival from a point in homogeneous tissue."""
    offset = points - position
    along = offset @ FIBRE
    across = np.maximum((offset**2).sum(axis=1) - along**2, 0.0)
    return np.sqrt((along / velocities[0]) ** 2 + across / velocities[1] ** 2)


def plate_distance(points, velocities, side: float):
    """Exact arrival from the square x = 0, by the nearest point on it in the metric."""
    metric = np.eye(3) / velocities[1] ** 2
    metric += np.outer(FIBRE, FIBRE) * (velocities[0] ** -2 - velocities[1] ** -2)
    nearest = np.zeros_like(points)
    for _ in range(300):
        for k in (1, 2):
            slope = (points - nearest) @ metric[k]
            nearest[:, k] = np.clip(nearest[:, k] + slope / metric[k, k], 0.0, side)
    offset = points - nearest
    return np.sqrt(np.einsum("ni,ij,nj->n", offset, metric, offset))


def order(edges: list[float]) -> dict[str, Any]:
    """Slope of the L1 error in a cube of 16 mm; sources have a fixed size."""
    side, site = 16.0, np.array([7.3, 8.4, 6.2])
    found = {}
    for name, velocities in (("isotropic", (0.5, 0.5)), ("anisotropic", CV)):
        for source in ("point", "plane"):
            errors = []
            for edge in edges:
                mesh = slab((side,) * 3, edge)
                heart = Heart(mesh, np.tile(FIBRE, (mesh.n_tets, 1)))
                problem = build_eikonal(heart, Velocities(*velocities))
                if source == "point":
                    exact = point_distance(mesh.points, site, velocities)
                    lat = arrival(problem, Sites([site], radius=3.0))
                else:
                    exact = plate_distance(mesh.points, velocities, side)
                    start = np.where(mesh.points[:, 0] <= 3.0, exact, np.inf)
                    lat = arrival(problem, at_nodes=start)
                errors.append(float(np.abs(np.asarray(lat) - exact).mean()))
            exact_to_rounding = max(errors) < 1e-3 * side / velocities[1] * 1e-3
            slope = None  # none where the solution is exact to rounding
            if not exact_to_rounding:
                slope = float(np.polyfit(np.log(edges), np.log(errors), 1)[0])
            found[f"{name} {source}"] = {"edges_mm": edges, "l1_ms": errors, "order": slope}
            note(f"{name} {source}: {errors}, order {slope}")
    return found


def on_a_heart(edge: float, times: int) -> dict[str, Any]:
    """Biventricle against the same heart with every edge halved `times` times; same fibres."""
    coarse = add_fibres(Heart(biventricle(edge)))
    lv = np.flatnonzero(coarse.mesh.point_fields["surf_class"] == 3)
    sites = Sites(coarse.mesh.points[lv[[0, len(lv) // 2]]], [0.0, 10.0], radius=3.0)
    assert coarse.f0 is not None
    assert coarse.s0 is not None
    mesh, f0, s0 = coarse.mesh, coarse.f0, coarse.s0
    lat = np.asarray(arrival(build_eikonal(coarse), sites))
    mean_edge = _mean_edge(mesh)
    for _ in range(times):
        mesh = refine(TetMesh(mesh.points, mesh.tets))
        f0, s0 = np.repeat(f0, 8, axis=0), np.repeat(s0, 8, axis=0)
    fine = np.asarray(arrival(build_eikonal(Heart(mesh, f0, s0)), sites))[: len(lat)]
    found = {
        "edge_mm": mean_edge,
        "nodes": len(lat),
        "fine_edge_mm": mean_edge / 2**times,
        "fine_nodes": mesh.n_nodes,
        "lat_max_ms": float(fine.max()),
        "relative_l1": float(np.abs(lat - fine).mean() / fine.mean()),
        "l1_over_max": float(np.abs(lat - fine).mean() / fine.max()),
        "mean_ms": float((lat - fine).mean()),
        "largest_ms": float(np.abs(lat - fine).max()),
    }
    note(f"heart: {found}")
    return found


def template_on_a_heart(edge: float, times: int) -> dict[str, Any]:
    """QRS of template action potentials on a heart against the same with every edge halved."""
    coarse = add_fibres(Heart(biventricle(edge)))
    lv = np.flatnonzero(coarse.mesh.point_fields["surf_class"] == 3)
    sites = Sites(coarse.mesh.points[lv[[0, len(lv) // 2]]], [0.0, 10.0], radius=3.0)
    electrodes = standard_12_lead(coarse)
    assert coarse.f0 is not None
    assert coarse.s0 is not None
    mesh, f0, s0 = coarse.mesh, coarse.f0, coarse.s0
    leads = [_qrs(Heart(mesh, f0, s0), sites, electrodes)]
    for _ in range(times):
        mesh = refine(TetMesh(mesh.points, mesh.tets))
        f0, s0 = np.repeat(f0, 8, axis=0), np.repeat(s0, 8, axis=0)
    leads.append(_qrs(Heart(mesh, f0, s0), sites, electrodes))
    alike = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(leads[0].T, leads[1].T, strict=True)]
    ratio = np.ptp(leads[0], axis=0) / np.ptp(leads[1], axis=0)
    mean_edge = _mean_edge(coarse.mesh)
    found = {
        "edge_mm": mean_edge,
        "fine_edge_mm": mean_edge / 2**times,
        "nodes": coarse.mesh.n_nodes,
        "fine_nodes": mesh.n_nodes,
        "least_correlation": min(alike),
        "largest_amplitude_error": float(np.abs(ratio - 1.0).max()),
    }
    note(f"template: {found}")
    return found


def _qrs(heart: Heart, sites: Sites, electrodes) -> np.ndarray:
    """Twelve leads while the heart is activated [mV]."""
    t = np.arange(0.0, 220.0)
    lat = arrival(build_eikonal(heart), sites)
    twin = Twin(heart, electrodes=electrodes)
    shares = lead_shares(heart.mesh, electrodes, intracellular_tensor(twin), dtype=np.float32)
    wave = wave_ecg(
        heart.mesh.tets, shares, templates_of(heart, twin.cell), t,
        crossing=_mean_edge(heart.mesh) / 0.4, lowpass=PASS,
    )  # fmt: skip
    return np.asarray(
        twelve_lead(t, np.asarray(eqx.filter_jit(wave)(lat)), electrodes.names).signals
    )


def _mean_edge(mesh: TetMesh) -> float:
    pairs = np.concatenate([mesh.tets[:, [i, j]] for i in range(4) for j in range(i)])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return float(np.linalg.norm(mesh.points[pairs[:, 1]] - mesh.points[pairs[:, 0]], axis=1).mean())


def derivatives() -> dict[str, float]:
    """Largest difference to central differences, relative to the largest derivative; float64."""
    heart = block(2000)
    problem, sites = build_eikonal(heart, Velocities(*CV)), block_sites(heart)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=problem.n_nodes))

    def loss(velocity, onsets, positions):
        p = eqx.tree_at(lambda p: p.velocity, problem, velocity)
        return jnp.sum(arrival(p, Sites(positions, onsets)) * weights)

    given = (problem.velocity, sites.onsets, sites.positions)
    gradient = jax.grad(loss, argnums=(0, 1, 2))(*given)
    found = {}
    for k, name in enumerate(("velocities", "onsets", "positions")):
        numeric = np.zeros(given[k].shape)
        for index in np.ndindex(numeric.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = list(given)
                moved[k] = jnp.asarray(given[k]).at[index].add(step)
                ends.append(float(loss(*moved)))
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        error = np.abs(np.asarray(gradient[k]) - numeric).max() / np.abs(numeric).max()
        found[name] = float(error)
    note(f"derivatives: {found}")
    return found


def timed(function, *arguments, repeats: int = 5) -> dict[str, float]:
    """Seconds of warm calls, on the clock and of processor time (which others do not disturb)."""
    jax.block_until_ready(function(*arguments))
    seconds, busy = [], []
    for _ in range(repeats):
        start, own = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - own)
    return spread(seconds) | {"cpu_median": float(np.median(busy))}


def speed(nodes: int, batch: int = 4, solver: str = "auto") -> dict[str, Any]:
    """A solve, a solve with gradient, and several at once."""
    heart = block(nodes)
    start = time.perf_counter()
    problem = build_eikonal(heart, Velocities(*CV), solver=solver)
    build_s = time.perf_counter() - start
    sites = block_sites(heart)

    def lat(velocity, onsets):
        p = eqx.tree_at(lambda p: p.velocity, problem, velocity)
        return arrival(p, Sites(sites.positions, onsets))

    def loss(velocity, onsets):
        return lat(velocity, onsets).sum()

    many = jnp.stack([problem.velocity * f for f in np.linspace(0.9, 1.1, batch)])
    onsets = jnp.tile(sites.onsets, (batch, 1))
    one = timed(jax.jit(lat), problem.velocity, sites.onsets)
    both = timed(jax.jit(jax.value_and_grad(loss, (0, 1))), problem.velocity, sites.onsets)
    parallel = timed(jax.jit(jax.vmap(lat)), many, onsets, repeats=3)
    found = {
        "device": jax.devices()[0].device_kind,
        "nodes": heart.mesh.n_nodes,
        "tets": heart.mesh.n_tets,
        "build_s": build_s,
        "solve_s": one,
        "solve_and_gradient_s": both,
        "backward_over_forward": both["median"] / one["median"] - 1.0,
        "backward_over_forward_cpu": both["cpu_median"] / one["cpu_median"] - 1.0,
        "batch": batch,
        "batch_s_per_solve": parallel["median"] / batch,
    }
    note(f"speed: {found}")
    return found


def memory(nodes: int) -> dict[str, float]:
    """Peak memory of a process that takes one gradient; on Linux."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import jax, equinox as eqx
from eikonal import CV, block, block_sites
from twinheart.tissue import Velocities, arrival, build_eikonal
heart = block({nodes})
problem, sites = build_eikonal(heart, Velocities(*CV)), block_sites(heart)
def peak():  # not ru_maxrss, which a child inherits from its parent
    lines = open("/proc/self/status").read().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))
before = peak()
loss = lambda v: arrival(eqx.tree_at(lambda p: p.velocity, problem, v), sites).sum()
jax.block_until_ready(jax.jit(jax.grad(loss))(problem.velocity))
print(heart.mesh.n_nodes, before, peak())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, before, peak = map(float, done.stdout.split())
    found = {"nodes": count, "peak_gb": peak * 1024 / 1e9, "build_peak_gb": before * 1024 / 1e9}
    note(f"memory: {found}")
    return found


def against_fim(python: str, nodes: int) -> dict[str, Any]:
    """The same problem by both, each started exactly in the same balls; difference and speed."""
    heart = block(nodes)
    problem, sites = build_eikonal(heart, Velocities(*CV)), block_sites(heart)
    run = jax.jit(lambda v: arrival(eqx.tree_at(lambda p: p.velocity, problem, v), sites))
    ours = timed(run, problem.velocity)
    lat = np.asarray(run(problem.velocity), float)
    started = _started(problem, sites, lat)
    values = np.array([CV[0], CV[1], CV[1]]) ** 2
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("problem.npz", "result.npz")]
        np.savez(
            files[0],
            points=heart.mesh.points,
            tets=heart.mesh.tets,
            tensors=region_tensor(heart, {0: values}),
            nodes=started,
            onsets=lat[started],
        )
        runner = str(Path(__file__).with_name("_fim_runner.py"))
        done = subprocess.run([python, runner, *files], capture_output=True, text=True, check=False)
        if done.returncode:
            return {"failed": done.stderr[-500:]}
        theirs = json.loads(done.stdout.splitlines()[-1])
        other = np.load(files[1])["lat"]
    best = min(x["wall_s"] for x in theirs.values())
    found = {
        "nodes": heart.mesh.n_nodes,
        "twinheart_s": ours,
        "fim_python": theirs,
        "times_faster": best / ours["median"],
        "largest_difference_ms": float(np.abs(other - lat).max()),
        "mean_difference_ms": float(np.abs(other - lat).mean()),
    }
    note(f"fim-python: {found}")
    return found


def _started(problem: Eikonal, sites: Sites, lat) -> np.ndarray:
    """Nodes in the balls of the sites."""
    points = np.asarray(problem.points)
    near = np.linalg.norm(points[:, None] - np.asarray(sites.positions), axis=2).min(axis=1)
    return np.flatnonzero((near <= float(sites.radius)) & np.isfinite(lat))


def hearts(measure) -> list[dict[str, Any]]:
    """At 2 mm against a mesh four times finer, and at 2 and 1 mm against one twice as fine."""
    return [measure(2.0, 2), measure(2.0, 1), measure(1.0, 1)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="smaller meshes")
    parser.add_argument("--fim", metavar="PYTHON", help="interpreter that has fim-python")
    parser.add_argument("--only", help="comma-separated sections")
    options = parser.parse_args()
    quick = options.quick
    sections = {
        "speed": lambda: speed(20_000 if quick else 100_000),
        "order": lambda: order([2.0, 1.0, 0.5] if quick else [1.0, 0.5, 0.25]),
        "heart": lambda: [on_a_heart(2.5, 1)] if quick else hearts(on_a_heart),
        "template": lambda: [template_on_a_heart(2.5, 1)] if quick else hearts(template_on_a_heart),
        "fim": lambda: against_fim(options.fim, 3_000 if quick else 10_000),
        "memory": lambda: memory(100_000 if quick else 1_000_000),
        "derivatives": derivatives,
    }
    wanted = list(sections) if options.only is None else options.only.split(",")
    if options.fim is None:
        wanted = [name for name in wanted if name != "fim"]
    result: dict[str, Any] = {"machine": machine(), "jax": jax.__version__}
    for name in wanted:
        if name == "derivatives":  # last: float64 from here on
            jax.config.update("jax_enable_x64", True)
        result[name] = sections[name]()
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    file = device_folder() / "eikonal.json"
    if not quick:
        kept = json.loads(file.read_text()) if file.is_file() and options.only else {}
        write_json(file, kept | result)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
