"""Runs TorchCor on one case, inside TorchCor's own environment; started by `peers.py`, never by hand.

Reads the case from the JSON file given as the only argument, then one request per line on stdin
(``{"t_end": ms, "record": bool}``), and answers each with one JSON line on stdout. It stays
alive between requests so that its runs can be interleaved with another solver's without paying
the set-up again. Only TorchCor's public classes are used; two are extended here to stop time
per step, to keep matrices between runs, and to record V_m at a few nodes at every step.
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


def answer(message: dict) -> None:
    """Send one JSON line to the caller."""
    ANSWERS.write(json.dumps(message) + "\n")
    ANSWERS.flush()


def make_simulator(case: dict):
    """A TorchCor monodomain simulator for the case, ready to run, and the seconds it took."""
    import torch
    from torchcor.ionic import TenTusscherPanfilov
    from torchcor.simulator import Monodomain

    class Recorder(Monodomain):
        """`Monodomain` that assembles once, times its step loop and records V_m at nodes."""

        watched = None

        def assemble(self):
            if self.A is None:
                start = time.perf_counter()
                super().assemble()
                self.assemble_s = time.perf_counter() - start
            self.trace, self.cg_iterations, self.first_step = [], 0, None

        def step(self, *args, **kwargs):
            if self.first_step is None:
                self.first_step = time.perf_counter()
            result = super().step(*args, **kwargs)
            self.cg_iterations += int(result[1])
            if self.watched is not None:
                self.trace.append(result[0][self.watched].tolist())
            return result

    torch.set_num_threads(case["threads"])
    device, dtype = torch.device(case["device"]), getattr(torch, case["dtype"])
    start = time.perf_counter()
    cell = TenTusscherPanfilov(dt=case["dt"], cell_type="EPI", device=device, dtype=dtype)
    for name, value in case["cell"].items():
        if not hasattr(cell, name):
            raise AttributeError(f"TorchCor's cell model has no attribute {name}")
        setattr(cell, name, value)
    simulator = Recorder(
        ionic_models=[cell],
        T=case["t_longest"],
        dt=case["dt"],
        device=device,
        dtype=dtype,
        mass_lumping=case["mass_lumping"],
    )
    simulator.load_mesh(path=case["mesh"])
    simulator.add_conductivity(None, **case["conductivity"])
    simulator.add_stimulus(case["stimulus_nodes"], **case["stimulus"])
    return simulator, time.perf_counter() - start


def run(simulator, case: dict, t_end: float, record: bool) -> dict:
    """Simulate `t_end` ms from rest; the time of the step loop alone, and V_m where wanted."""
    import torch

    simulator.T, simulator.nt = t_end, round(t_end / case["dt"])
    simulator.watched = torch.tensor(case["record_nodes"]) if record else None
    simulator.solve(**case["solve"], snapshot_interval=t_end, verbose=False, result_path=".")
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall = time.perf_counter() - simulator.first_step
    return {
        "t_end": t_end,
        "steps": simulator.nt,
        "wall_s": wall,
        "cg_iterations_per_step": simulator.cg_iterations / simulator.nt,
        "vm": simulator.trace,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Set up, warm up (compilation), then serve requests until stdin closes."""
    with open(sys.argv[1], encoding="utf-8") as file:
        case = json.load(file)
    import torch

    simulator, setup_s = make_simulator(case)
    start = time.perf_counter()
    run(simulator, case, 10 * case["dt"], record=False)
    answer(
        {
            "ready": True,
            "setup_s": setup_s,
            "warm_up_s": time.perf_counter() - start - simulator.assemble_s,
            "assemble_s": simulator.assemble_s,
            "n_nodes": int(simulator.n_nodes),
            "versions": {
                "torchcor": metadata.version("torchcor"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "compiled_cell": "TORCHDYNAMO_DISABLE" not in os.environ,
        }
    )
    for line in sys.stdin:
        request = json.loads(line)
        answer(run(simulator, case, request["t_end"], request["record"]))


if __name__ == "__main__":
    main()
