"""`twinheart calibrate sbc`: whether the intervals of a calibration hold what they promise."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

RESULTS = "sbc.jsonl"
_FEW, _MANY = 10, 100_000


def sbc(
    cases: Annotated[int, typer.Option(help="Synthetic patients.")] = 200,
    sampled: Annotated[int, typer.Option(help="So many of them are sampled by NUTS, too.")] = 20,
    seed: Annotated[int, typer.Option(help="Of patients, noise and starts.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes, one core each; default: one for each core.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of sbc.jsonl, one line for each case.")] = Path(
        "sbc"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw patients from the prior, fit them, and count how often the truth is in its interval.

    Run it again with the same --out to go on after an interruption.
    """
    import os
    import time

    from twinheart.calibration.sbc import Trial, run_cases, sbc_summary
    from twinheart.cli.run import results_folder

    for name, value, least, most in (
        ("cases", cases, _FEW, _MANY), ("sampled", sampled, 0, cases), ("seed", seed, 0, 2**31)
    ):  # fmt: skip
        if not least <= value <= most:
            raise InputError(f"--{name} is {value}, expected {least} to {most}.")
    cores = os.cpu_count() or 1
    if workers is not None and not 1 <= workers <= 4 * cores:
        raise InputError(f"--workers is {workers}, expected 1 to {4 * cores}.")
    test, start = Trial(seed=seed), time.perf_counter()
    file = out / RESULTS

    def progress(done: int, of: int) -> None:
        say(f"sbc: {done} of {of} cases, {time.perf_counter() - start:.0f} s")

    with results_folder(out):
        try:
            results = run_cases(
                test, cases, file, sampled=sampled, workers=workers or cores, progress=progress
            )
        except KeyboardInterrupt:
            say(f"twinheart: interrupted; run the same command to go on from {file}")
            raise typer.Exit(130) from None
    summary: dict[str, Any] = sbc_summary(results, test.names)
    emit(summary | {"wall_s": time.perf_counter() - start, "files": [str(file)]}, as_json=as_json)
