"""Everything that a GPU must show, measured in one command on a bare machine.

Each section runs in a process of its own with a time limit, so that none can spoil another, and
its result is written as soon as it is there. Needs jax, equinox, jaxtyping, numpy, scipy, h5py;
no network, no mesh or picture libraries. Without a GPU the sections run on the CPU, and say so.

python benchmarks/gpu.py --out DIR [--quick] [--only steps,ionic] [--limit 500]
                         [--require-gpu]
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WHILE_BUFFERS = (
    "--xla_gpu_graph_min_graph_size=1 "
    "--xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL,WHILE,DYNAMIC_SLICE_FUSION"
)
VIRTUAL_DEVICES = "--xla_force_host_platform_device_count=8"  # of a CPU; GPUs are what they are
MODELS = ("mitchell-schaeffer", "tentusscher2006-epi", "torord-endo")
TISSUES = (
    ("slab", 442_000),
    ("slab", 50_000),
    ("slab", 1_000_000),
    ("biventricle", 637_000),
    ("slab", 5_000_000),
)
# (section, its arguments, XLA flags, seconds allowed)
Row = tuple[str, dict[str, Any], str, float]


def plan() -> dict[str, Row]:
    """What is measured, in order of importance."""
    rows: dict[str, Row] = {"ceilings": ("ceilings", {}, "", 60)}
    for model in MODELS:
        rows[f"ionic {model}"] = ("ionic", {"model": model}, "dump", 120)
        rows[f"ionic {model} odd"] = ("ionic", {"model": model, "odd": True}, "dump", 120)
    rows["steps 442k"] = ("steps", {"nodes": 442_000}, "", 120)
    rows["steps 442k odd"] = ("steps", {"nodes": 442_000, "odd": True}, "", 120)
    rows["torchcor default"] = ("torchcor", {"dx": 0.1, "mode": "default"}, "", 150)
    rows["biventricle 500 ms"] = (
        "steps",
        {"nodes": 637_000, "heart": "biventricle", "dt": 0.01, "t_end": 500.0},
        "",
        120,
    )
    rows["gradient"] = ("gradient", {"nodes": 442_000}, "", 200)
    rows["eikonal 1000k"] = ("eikonal", {}, "", 150)
    rows["ecg 1000k"] = ("ecg", {}, "", 120)
    rows["memory"] = ("memory", {}, "", 60)
    rows["steps 50k"] = ("steps", {"nodes": 50_000}, "", 60)
    rows["ensemble"] = ("ensemble", {}, "", 120)
    rows["steps 1000k"] = ("steps", {"nodes": 1_000_000}, "", 120)
    rows["steps ToR-ORd 1000k"] = ("steps", {"nodes": 1_000_000, "model": "torord-endo"}, "", 150)
    rows["steps MS 1000k"] = ("steps", {"nodes": 1_000_000, "model": MODELS[0]}, "", 60)
    rows["ell"] = ("ell", {}, "", 60)
    rows["precision"] = ("precision", {}, "", 120)
    rows["population"] = ("population", {}, "", 150)
    rows["steps 5000k"] = ("steps", {"nodes": 5_000_000}, "", 200)
    rows["sharded 1000k"] = ("sharded", {"nodes": 1_000_000}, VIRTUAL_DEVICES, 120)
    rows["gradient 5000k"] = ("gradient", {"nodes": 5_000_000}, "", 200)
    for model in MODELS:
        rows[f"warp {model}"] = ("warp", {"model": model}, "", 120)
    rows["warp gradient"] = ("warp_gradient", {}, "", 200)
    rows["torchcor lumped"] = ("torchcor", {"dx": 0.1, "mode": "lumped"}, "", 150)
    for unroll in (5, 25):
        rows[f"steps 50k unroll {unroll}"] = ("steps", {"nodes": 50_000, "unroll": unroll}, "", 90)
    rows["steps 50k loops in graphs"] = (
        "steps",
        {"nodes": 50_000, "unroll": 5},
        WHILE_BUFFERS,
        90,
    )
    return rows


def child(name: str, arguments: dict, quick: bool, cache: Path, dump: str | None) -> None:
    """One section in this process: prints one JSON line."""
    import _gpu_scaling as scaling
    import _gpu_sections as sections
    import jax

    section = getattr(scaling, name, None) or getattr(sections, name)
    known = inspect.signature(section).parameters
    result = section(quick, cache, **{k: v for k, v in arguments.items() if k in known})
    if dump:
        result["kernels"] = sections.registers(Path(dump))
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    result["peak_device_mb"] = stats.get("peak_bytes_in_use", float("nan")) / 1e6
    print(json.dumps({"device": device.device_kind, "jax": jax.__version__, **result}))


def command_of(name: str, arguments: dict, quick: bool, cache: Path) -> list[str]:
    """Command line of a section's process."""
    command = [sys.executable, str(HERE / "gpu.py"), "--child", name]
    command += ["--arguments", json.dumps(arguments), "--cache", str(cache)]
    return command + (["--quick"] if quick else [])


def environment_of(flags: str, platform: str | None = None) -> dict[str, str]:
    """Variables of a section's process."""
    found = dict(os.environ)
    found["PYTHONPATH"] = f"{HERE.parent}{os.pathsep}{found.get('PYTHONPATH', '')}"
    found["XLA_FLAGS"] = f"{found.get('XLA_FLAGS', '')} {flags}".strip()
    return found | ({"JAX_PLATFORMS": platform} if platform else {})


def preparations(rows: dict[str, Row], quick: bool, cache: Path) -> dict[Any, subprocess.Popen]:
    """Start to assemble the tissues on the processor, while the first sections use the GPU."""
    started = {}
    for heart, nodes in TISSUES:
        used = any(row[0] in SLAB_SECTIONS or row[1].get("nodes") == nodes for row in rows.values())
        if used and not quick:
            arguments = {"heart": heart, "nodes": nodes}
            started[nodes] = subprocess.Popen(
                command_of("prepare", arguments, quick, cache),
                env=environment_of("", "cpu"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    return started


# sections that take a tissue of their own choice
SLAB_SECTIONS = ("ensemble", "ell", "precision")


def measure(row: Row, quick: bool, cache: Path, left: float) -> dict[str, Any]:
    """Run a section in its own process; an error or a time-out is a result too."""
    name, arguments, flags, seconds = row
    with tempfile.TemporaryDirectory() as dump:
        command = command_of(name, arguments, quick, cache)
        command += ["--dump", dump] if flags == "dump" else []
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                env=environment_of(f"--xla_dump_to={dump}" if flags == "dump" else flags),
                capture_output=True,
                text=True,
                timeout=min(seconds, left),
            )
        except subprocess.TimeoutExpired as late:
            return {"failed": f"stopped after {late.timeout:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr or done.stdout).strip()[-1500:]}
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {**result, "section_s": time.perf_counter() - start, "flags": flags}


def short(result: dict[str, Any]) -> str:
    """The figures of a row that fit on a line."""
    if "failed" in result:
        return "FAILED " + result["failed"].strip().splitlines()[-1][:150]
    keep = {k: v for k, v in result.items() if k not in ("device", "jax", "flags", "kernels")}
    words = []
    for key, value in keep.items():
        if isinstance(value, dict):
            value = "{" + " ".join(f"{k} {v:.4g}" for k, v in value.items() if _number(v)) + "}"
        elif _number(value):
            value = f"{value:.5g}"
        words.append(f"{key}={value}")
    for kernel in result.get("kernels", [])[:2]:
        words.append(f"kernel={kernel}")
    return " ".join(words)[:600]


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse_without_gpu() -> None:
    """Ask in a process of its own: this one must not take the memory of the GPU."""
    code = "from twinheart.tissue.device import require_device as r; r('gpu')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment_of(""), capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1].partition(": ")[2]
        raise SystemExit(f"gpu.py: {reason}")


def main() -> None:
    """Measure, section by section, and write results.json and results.txt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--only", help="names of sections, or parts of row names, with commas")
    parser.add_argument("--require-gpu", action="store_true", help="refuse to run without one")
    parser.add_argument("--limit", type=float, default=500.0, help="seconds in all")
    for hidden in ("--child", "--arguments", "--cache", "--dump"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, json.loads(asked.arguments), asked.quick, Path(asked.cache), asked.dump)
        return
    if asked.out is None:
        parser.error("--out is needed: the folder for results.json and results.txt")
    if asked.require_gpu:
        refuse_without_gpu()
    asked.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + asked.limit
    rows = plan()
    if asked.only:
        words = asked.only.split(",")
        rows = {k: v for k, v in rows.items() if any(w in k or w == v[0] for w in words)}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        building = preparations(rows, asked.quick, Path(cache))
        for name, row in rows.items():
            tissue = building.get(row[1].get("nodes"))
            if tissue is not None:
                tissue.wait(timeout=max(1.0, end - time.monotonic()))
            left = end - time.monotonic()
            if left < 5:
                results[name] = {"failed": "no time left"}
            else:
                results[name] = measure(row, asked.quick, Path(cache), left)
            line = f"{name:32s} {short(results[name])}"
            print(line, flush=True)
            with (asked.out / "results.txt").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            (asked.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
