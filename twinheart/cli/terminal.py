"""What the commands say: one JSON object or a table on stdout, everything else on stderr."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer


def say(text: str) -> None:
    """Print a note for the human on stderr."""
    print(text, file=sys.stderr, flush=True)


def drop_stdout() -> None:
    """Let what is still to be written to a closed stdout vanish, instead of failing at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def plain(value: Any) -> Any:
    """Turn numbers and arrays into what JSON knows; missing (NaN) and infinite become null.

    Parameters
    ----------
    value : any
        Nested dictionaries and sequences of numbers, numpy scalars or arrays, paths and text.

    Returns
    -------
    dict, list, str, int, float, bool or None
        The same, fit for `json.dumps`.

    Examples
    --------
    >>> from twinheart.cli.terminal import plain
    >>> plain({"lat_ms": {1: float("nan"), 2: 3.0}})
    {'lat_ms': {'1': None, '2': 3.0}}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and jax, scalars and arrays alike
        return plain(value.tolist())
    return float(value) if math.isfinite(value) else None


def emit(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the result of a command on stdout: one JSON object, or aligned lines to be read.

    Parameters
    ----------
    record : mapping
        Named results.
    as_json : bool
        Print exactly one JSON object.
    """
    values = plain(record)
    if as_json:
        text = json.dumps(values)
    else:
        width = max(map(len, values), default=0)
        text = "\n".join(_line(f"{name:<{width}}", item) for name, item in values.items())
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # typer would turn this into a failure of its own kind; the work itself is done.
        drop_stdout()
        raise typer.Exit(128 + 13) from None


def _line(name: str, value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return "\n".join([name.rstrip(), *_table(value)])
    return f"{name}  {_in_words(value)}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Indented, aligned lines: the rows' names as the head, then their values."""
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [head, *([_in_words(row.get(name)) for name in head] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (map(str.ljust, row, widths) for row in cells)
    return ["  " + "  ".join(line).rstrip() for line in lines]


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_in_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


@contextmanager
def progress(title: str) -> Iterator[Callable[[float, float], None]]:
    """Show a bar with the time left on stderr; yields a function of (done, total) in ms.

    Where stderr is no terminal, a line is written at most every half minute instead.
    """
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} ms"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(bar, completed=float(done), total=float(total))


class _Lines:
    """Progress for logs: rare lines instead of a bar."""

    def __init__(self, title: str, every: float = 30.0):
        self.title, self.every = title, every
        self.said = time.monotonic()
        self.first: tuple[float, float] | None = None  # when, and how much was done by then

    def __call__(self, done: float, total: float) -> None:
        now = time.monotonic()
        if self.first is None:  # set-up and compilation are over: the pace is known from here on
            self.first = (now, done)
        elif now - self.said >= self.every:
            self.said = now
            start, before = self.first
            left = (now - start) * (total - done) / max(done - before, 1e-9)
            say(f"{self.title}: {done:.0f} of {total:.0f} ms, about {left:.0f} s left")
