"""Run a case: simulate, write every result, sum it up."""

import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinheart import __version__
from twinheart.cli.build import build_heart, build_stimuli, build_twin, simulator
from twinheart.cli.case import Case
from twinheart.cli.case_text import case_toml
from twinheart.cli.terminal import plain, progress
from twinheart.errors import InputError, OutputError
from twinheart.mesh.io.atomic import written_whole

if TYPE_CHECKING:
    from twinheart.ecg import Ecg
    from twinheart.mesh import TetMesh
    from twinheart.twin import Beat, Twin

CHECKPOINT = "checkpoint.h5"


class Interrupted(Exception):
    """Ctrl-C during a simulation; the text says how to go on."""


def run_case(case: Case, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """Simulate a case, write its results into a folder and return the summary.

    Parameters
    ----------
    case : Case
        A checked case.
    folder : Path
        Where results go; made if absent.
    resume : bool
        Go on from the checkpoint in `folder`.

    Returns
    -------
    dict
        What `twinheart simulate --json` prints.

    Raises
    ------
    TwinheartError
        If the case does not fit the heart, the solution breaks down or nothing can be written.
    Interrupted
        After Ctrl-C; the checkpoint stays in `folder`.
    """
    with results_folder(folder):
        start = time.perf_counter()
        heart = build_heart(case)
        twin = build_twin(case, heart)
        beat = _simulate(case, twin, build_stimuli(case, heart), folder, resume=resume)
        files = write_results(case, twin, beat, folder)
        if case.output.report:
            files += _report(case, twin, beat, folder)
        files.append(folder / "summary.json")
        summary = summarise(beat) | beat.stats | {"total_s": time.perf_counter() - start}
        summary |= {"provenance": provenance()}
        summary |= {"files": [str(path) for path in files], "result": beat.result}
        write_text(folder / "summary.json", json.dumps(plain(summary), indent=1) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return summary


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make the folder for results, before the long work; remove it again if it stays empty.

    Raises
    ------
    OutputError
        If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot write results there: {error.strerror}.") from None
    try:
        yield
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written; no partial file stays.
    """
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _simulate(case: Case, twin: "Twin", stimuli: list, folder: Path, *, resume: bool) -> "Beat":
    simulate = simulator(case)
    in_steps = case.simulation.propagation != "eikonal"
    every = case.output.snapshot_every if in_steps else 0.0
    done = 0.0
    try:
        with progress("simulating") as show:

            def report(t: float, t_end: float) -> None:
                nonlocal done
                done = t
                show(t, t_end)

            return simulate(
                twin,
                stimuli,
                t_end=case.simulation.t_end,
                dt=case.simulation.dt,
                propagation=case.simulation.propagation,
                diffusion=case.simulation.diffusion,
                scheme=case.simulation.scheme,
                snapshots=folder / "vm.h5" if every else None,
                snapshot_every=every or 5.0,
                checkpoint=folder / CHECKPOINT if in_steps else None,
                resume=resume,
                devices=case.simulation.devices,
                progress=report,
            )
    except KeyboardInterrupt:
        kept = folder / CHECKPOINT
        how = (
            f"the checkpoint is {kept}: run the same command with --resume to go on"
            if kept.exists()
            else "before the first checkpoint; nothing to resume from"
        )
        raise Interrupted(f"interrupted at {done:.1f} ms; {how}") from None


def write_results(case: Case, twin: "Twin", beat: "Beat", folder: Path) -> list[Path]:
    """Write maps, ECG and the case as run; the frames are already there.

    Parameters
    ----------
    case : Case
        The case as run.
    twin : Twin
        Its heart carries the maps.
    beat : Beat
        The results.
    folder : Path
        Where to write.

    Returns
    -------
    list of Path
        All files.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    from twinheart.ecg import write_ecg
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh

    mesh = twin.heart.mesh
    maps = {name: np.asarray(getattr(beat, name)) for name in ("lat", "repol", "apd90")}
    maps = {f"{name}_ms": values for name, values in maps.items()}
    files = [folder / "maps.vtu", folder / "case.toml"]
    write_mesh(
        files[0], TetMesh(mesh.points, mesh.tets, mesh.point_fields | maps, mesh.cell_fields)
    )
    write_text(files[1], case_toml(case))
    if beat.ecg is not None:
        files += write_ecg(folder / "ecg.csv", beat.ecg)
        files += write_ecg(folder / "ecg.hea", beat.ecg)
    if beat.vm_file is not None:
        files.append(beat.vm_file)
        if case.output.paraview:
            files.append(_write_frames(mesh, beat.vm_file, folder / "vm.vtkhdf"))
    return files


def _write_frames(mesh: "TetMesh", frames: Path, path: Path) -> Path:
    """Copy the stored V_m frames into a file that ParaView opens, one at a time."""
    import h5py

    from twinheart.mesh.io import VtkHdfWriter

    with h5py.File(frames) as file, VtkHdfWriter(path, mesh) as writer:
        times: Any = file["t"]
        potentials: Any = file["vm"]
        for t, vm in zip(times, potentials, strict=True):
            writer.append(float(t), {"vm": vm})
    return path


def summarise(beat: "Beat") -> dict[str, Any]:
    """Figures of a beat under the names of the JSON output.

    Parameters
    ----------
    beat : Beat
        The results.

    Returns
    -------
    dict
        Times in ms; NaN where nothing activated or repolarised.
    """
    lat, apd90 = np.asarray(beat.lat), np.asarray(beat.apd90)
    active = np.isfinite(lat)
    recovered = np.isfinite(apd90)
    return {
        "lat_min_ms": float(lat[active].min()) if active.any() else float("nan"),
        "lat_max_ms": float(lat[active].max()) if active.any() else float("nan"),
        "activated_fraction": float(active.mean()),
        "apd90_mean_ms": float(apd90[recovered].mean()) if recovered.any() else float("nan"),
        "qrs_duration_ms": _qrs(beat.ecg),
    }


def _qrs(ecg: "Ecg | None") -> float:
    from twinheart.ecg import qrs_duration

    try:
        return float("nan") if ecg is None else float(qrs_duration(ecg))
    except InputError:  # too short to hold a QRS complex
        return float("nan")


def provenance() -> dict[str, Any]:
    """What made a result: version, commit, libraries, units; nothing in it is random.

    Examples
    --------
    >>> from twinheart.cli.run import provenance
    >>> provenance()["notice"]
    'research software, not for clinical use'
    """
    import jax

    return {
        "notice": "research software, not for clinical use",
        "version": __version__,
        "commit": _commit(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "seed": None,
        "units": "mm, ms, mV",
    }


def _commit() -> str | None:
    """Commit of the checkout the package runs from, or None where it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _report(case: Case, twin: "Twin", beat: "Beat", folder: Path) -> list[Path]:
    from twinheart.report import write_report

    before = set(folder.iterdir())
    page = write_report(
        folder,
        twin.heart,
        beat,
        twin=twin,
        provenance={**provenance(), "case": case.model_dump(exclude={"title"}, exclude_none=True)},
        **({"title": case.title} if case.title else {}),
    )
    return sorted(set(folder.iterdir()) - before | {page})
