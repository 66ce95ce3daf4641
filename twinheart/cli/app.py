"""The `twinheart` command: its groups, and how errors reach the user."""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from twinheart.cli.ablate import ablate
from twinheart.cli.anatomy import anatomy
from twinheart.cli.benchmark import benchmark
from twinheart.cli.calibrate import calibrate
from twinheart.cli.cell import cell
from twinheart.cli.convert import convert
from twinheart.cli.demo import demo
from twinheart.cli.ecg import ecg
from twinheart.cli.export import export
from twinheart.cli.induce import induce
from twinheart.cli.info import info
from twinheart.cli.leadfield import leadfield
from twinheart.cli.locate_vt import locate_vt
from twinheart.cli.mesh import mesh
from twinheart.cli.plan import plan
from twinheart.cli.risk import risk
from twinheart.cli.sbc import sbc
from twinheart.cli.scar import scar
from twinheart.cli.screen import screen
from twinheart.cli.simulate import simulate
from twinheart.cli.terminal import drop_stdout, say
from twinheart.cli.torso import torso
from twinheart.errors import TwinheartError

USER_ERROR, BUG, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="twinheart",
    help="A heart mesh in; activation map, 12-lead ECG and report out. Not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(info)
app.command()(convert)
app.command()(simulate)
app.command()(scar)
app.command()(screen)
app.command()(induce)
app.command()(locate_vt)
app.command()(export)
app.command()(ablate)
app.command()(plan)
app.command()(risk)
app.command()(torso)
app.command()(leadfield)
calibrate.command("sbc")(sbc)
app.add_typer(anatomy, name="anatomy")
app.add_typer(calibrate, name="calibrate")
app.add_typer(cell, name="cell")
app.add_typer(ecg, name="ecg")
app.add_typer(mesh, name="mesh")
app.add_typer(benchmark, name="benchmark")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from twinheart import __version__

        typer.echo(f"twinheart {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")
    ] = False,
) -> None:
    """Options that stand before any command; `main` has already acted on `--debug`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: the entry point of `twinheart`.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the name of the program; by default those of this process.

    Returns
    -------
    int
        0; 2 for an error that the user can mend, told in one line on stderr; 130 after Ctrl-C;
        141 where the reader of stdout has gone; 1 for a bug.

    Examples
    --------
    >>> from twinheart.cli import main
    >>> main(["--version"])
    twinheart 0...
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with warnings.catch_warnings(), _measurements_said():
            warnings.simplefilter("default", UserWarning)  # said, never raised
            warnings.showwarning = _note
            status = typer.main.get_command(app).main(given, "twinheart", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc()
        return _report(error)


def _note(message: Warning | str, *_: object) -> None:
    """Say a warning as one line on stderr, without the place in the code it comes from."""
    say(f"twinheart: note: {' '.join(str(message).split())}")


@contextmanager
def _measurements_said() -> Iterator[None]:
    """Say what is measured of cells: without a word of it a command seems to hang for minutes."""
    log = logging.getLogger("twinheart.cell.paced_cache")
    handler, level = logging.Handler(), log.level
    handler.emit = lambda record: _note(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _report(error: BaseException) -> int:
    """Say an error in one line on stderr and return the exit status that belongs to it."""
    if isinstance(error, SystemExit):  # typer's own way out when stdout is a closed pipe
        drop_stdout()
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        say("twinheart: interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        drop_stdout()
        return 128 + 13
    message = getattr(error, "format_message", None)  # bad arguments; typer's class is private
    if message is not None:
        say(f"twinheart: error: {message()} (see 'twinheart --help')")
        return USER_ERROR
    if isinstance(error, TwinheartError):
        say(f"twinheart: error: {' '.join(str(error).split())}")
        return USER_ERROR
    if isinstance(error, OSError):
        say(f"twinheart: error: {_describe(error)}")
        return USER_ERROR
    if isinstance(error, MemoryError):
        say("twinheart: error: out of memory; use a coarser mesh or store fewer snapshots.")
        return USER_ERROR
    if _is_missing_platform(error):
        say(
            "twinheart: error: jax cannot start what JAX_PLATFORMS="
            f"{os.environ.get('JAX_PLATFORMS', '')} names; unset it to run on the CPU, or see "
            "'twinheart benchmark heart --device gpu' for why there is no GPU."
        )
        return USER_ERROR
    first = (str(error).splitlines() or [""])[0]
    say(
        f"twinheart: internal error: {type(error).__name__}: {first} (a bug in twinheart: please "
        "report it with what --debug prints)"
    )
    return BUG


def _is_missing_platform(error: BaseException) -> bool:
    """Whether jax finds none of the platforms it was told to use."""
    jax = sys.modules.get("jax")
    told = os.environ.get("JAX_PLATFORMS")
    if jax is None or not told or not isinstance(error, RuntimeError | AssertionError):
        return False
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return True
    return False


def _describe(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ENOSPC:
        reason += "; free some space or choose another --out"
        drop_stdout()
    return f"{error.filename or 'cannot write the output'}: {reason}."
