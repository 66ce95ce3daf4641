"""Runs TorchCor on one case, inside TorchCor's own environment; started by `peers.py` only.

Reads the case from the JSON file given as the only argument, then one request per line on stdin
(``{"t_end": ms, "activation": bool}``), and answers each with one JSON line on stdout. It stays
alive between requests so that its runs can be interleaved with another solver's without paying
the set-up again. TorchCor's own classes do all the work; one is extended here to time the step
loop, to keep the matrices between runs, and to watch a few nodes at every step.
"""

import json
import os
import platform
import resource
import sys
import time
from importlib import metadata

ANSWERS = sys.stdout
sys.stdout = sys.stderr  # the library prints; stdout carries answers only


class AllActivated(Exception):
    """Every watched node has crossed the threshold: nothing is left to wait for."""


def answer(message: dict) -> None:
    """Send one JSON line to the caller."""
    ANSWERS.write(json.dumps(message) + "\n")
    ANSWERS.flush()


def watching(monodomain: type) -> type:
    """`Monodomain` that assembles once, times its step loop and takes activation times."""
    import torch

    class Watching(monodomain):
        watched = None  # nodes
        assemble_s = 0.0

        def assemble(self):
            if self.A is None:
                start = time.perf_counter()
                super().assemble()
                self.assemble_s = time.perf_counter() - start
            self.steps = self.cg_iterations = 0
            self.before, self.activation = [], {}

        def step(self, u, t, *args, **kwargs):
            if self.steps == 0:
                self.loop_start = time.perf_counter()
            if self.watched is not None and not self.before:
                self.before = u[self.watched].tolist()
            result = super().step(u, t, *args, **kwargs)
            self.steps += 1
            self.cg_iterations += int(result[1])
            if self.watched is not None:
                self.watch(result[0][self.watched].tolist())
            return result

        def watch(self, now: list[float]):
            # First upward crossing of 0 mV, linear within the step.
            for k, (v0, v1) in enumerate(zip(self.before, now, strict=True)):
                if k not in self.activation and v0 <= 0.0 < v1:
                    self.activation[k] = self.dt * (self.steps - v1 / (v1 - v0))
            self.before = now
            if len(self.activation) == len(now):
                raise AllActivated

        def run(self, t_end: float, watched, **settings) -> float:
            """Wall time of the step loop [s]."""
            self.T, self.nt, self.watched = t_end, round(t_end / self.dt), watched
            try:
                self.solve(**settings, snapshot_interval=t_end, verbose=False, result_path=".")
            except AllActivated:
                pass
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return time.perf_counter() - self.loop_start

    return Watching


def make_simulator(case: dict):
    """The simulator of the case, before its matrices are assembled."""
    import torch
    from torchcor.ionic import TenTusscherPanfilov
    from torchcor.simulator import Monodomain

    torch.set_num_threads(case["threads"])
    device, dtype = torch.device(case["device"]), getattr(torch, case["dtype"])
    cell = TenTusscherPanfilov(dt=case["dt"], cell_type="EPI", device=device, dtype=dtype)
    for name, value in case["cell"].items():
        if not hasattr(cell, name):
            raise AttributeError(f"TorchCor's cell model has no attribute {name}")
        setattr(cell, name, value)
    simulator = watching(Monodomain)(
        ionic_models=[cell],
        T=1e6,
        dt=case["dt"],
        device=device,
        dtype=dtype,
        mass_lumping=case["mass_lumping"],
    )
    simulator.load_mesh(path=case["mesh"])
    simulator.add_conductivity(None, **case["conductivity"])
    simulator.add_stimulus(case["stimulus_nodes"], **case["stimulus"])
    return simulator


def serve(simulator, case: dict, request: dict) -> dict:
    """One run from rest; the time is that of the step loop alone."""
    import torch

    watched = torch.tensor(case["watched_nodes"]) if request["activation"] else None
    wall = simulator.run(request["t_end"], watched, **case["solve"])
    times = simulator.activation
    return {
        "t_ms": simulator.steps * simulator.dt,
        "wall_s": wall,
        "cg_iterations_per_step": simulator.cg_iterations / simulator.steps,
        "lat_ms": [times.get(k) for k in range(len(case["watched_nodes"]))] if times else None,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Set up, warm up (which compiles), then serve requests until stdin closes."""
    with open(sys.argv[1], encoding="utf-8") as file:
        case = json.load(file)
    if case["device"] == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case["threads"]])
    import torch

    start = time.perf_counter()
    simulator = make_simulator(case)
    setup_s = time.perf_counter() - start
    start = time.perf_counter()
    simulator.run(10 * case["dt"], None, **case["solve"])
    warm_up_s = time.perf_counter() - start - simulator.assemble_s
    on_gpu = case["device"] != "cpu"
    answer(
        {
            "setup_s": setup_s + simulator.assemble_s,
            "compile_s": warm_up_s,
            "n_nodes": int(simulator.n_nodes),
            "torchcor": metadata.version("torchcor"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "cell_compiled": os.environ.get("TORCHDYNAMO_DISABLE") != "1",
        }
    )
    for line in sys.stdin:
        answer(serve(simulator, case, json.loads(line)))


if __name__ == "__main__":
    main()
