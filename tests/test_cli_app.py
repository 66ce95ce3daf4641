"""The command line as a program: exit status, one line of error, clean stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from twinheart.cli import app as app_module
from twinheart.cli import main
from twinheart.cli.terminal import emit, plain, progress
from twinheart.errors import InputError

PROGRAM = [sys.executable, "-c", "import sys; from twinheart.cli import main; sys.exit(main())"]


def one_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.fixture
def failing(monkeypatch):
    """Let `twinheart fail` raise a given error."""

    def install(error):
        def fail():
            raise error

        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(fail)
        app.callback()(app_module.options)
        monkeypatch.setattr(app_module, "app", app)

    return install


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("a\nb"), 2, "twinheart: error: a b"),
        (FileNotFoundError(2, "x", "f.vtu"), 2, "twinheart: error: f.vtu: No such file"),
        (OSError(28, "x", "out.h5"), 2, "twinheart: error: out.h5: No space left on device; free"),
        (MemoryError(), 2, "twinheart: error: out of memory"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("oops"), 1, "twinheart: internal error: ZeroDivisionError: oops"),
    ],
)
def test_error_is_one_line_on_stderr(failing, monkeypatch, capfd, error, status, message):
    monkeypatch.setattr(app_module, "drop_stdout", lambda: None)
    failing(error)
    assert main(["fail"]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert one_line(err or "\n").startswith(message)
    assert "Traceback" not in err


def test_debug_shows_the_traceback(failing, capsys):
    failing(InputError("a"))
    assert main(["fail", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulat"], "No such command 'simulat'"),
        (["simulate", "--dt", "fast"], "Invalid value for '--dt'"),
        (["simulate", "--no-such-option"], "No such option"),
        (["simulate"], "nothing to simulate: give a case file"),
        (["simulate", "none.toml"], "none.toml: cannot read the case file: No such file"),
        (["simulate", "--heart", "demo", "--stim", "apex", "--dt", "-1"], "'simulation.dt' is -1"),
    ],
)
def test_usage_error_is_one_line_and_status_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_help_is_fast_and_light():
    code = (
        "import json, sys; from twinheart.cli import main; main(['--help']); "
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stderr)}
    assert not loaded & {"jax", "numpy", "scipy", "pydantic", "matplotlib", "pyvista", "meshio"}


def test_every_command_is_described(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("demo", "info", "convert", "simulate", "benchmark"):
        assert command in text


def test_example_case_is_written_once(tmp_path, capsys):
    path = tmp_path / "case.toml"
    assert main(["simulate", str(path), "--write-example", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": [str(path)]}
    before = path.read_text()
    assert main(["simulate", str(path), "--write-example"]) == 2
    assert "exists already" in one_line(capsys.readouterr().err)
    assert path.read_text() == before


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_closed_pipe_is_quiet(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (1, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full needs Linux")
def test_full_disk_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "No space left on device" in one_line(done.stderr)


def test_json_has_no_nan_and_is_one_object(capsys):
    emit(
        {"a": np.float32(1.5), "b": [np.nan, np.inf], "c": np.arange(2), "p": Path("x")},
        as_json=True,
    )
    assert json.loads(capsys.readouterr().out) == {
        "a": 1.5,
        "b": [None, None],
        "c": [0, 1],
        "p": "x",
    }


def test_lines_for_the_reader_are_aligned(capsys):
    emit({"lat_max_ms": 63.123456, "lat_ms": {"P1": None, "P8": 40.0}, "files": []}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "lat_max_ms  63.1235",
        "lat_ms      P1 -  P8 40",
        "files       none",
    ]


def test_rows_for_the_reader_are_a_table(capsys):
    rows = [{"region": 1, "axis": "along", "factor": 1.5}, {"region": 12, "axis": "across"}]
    emit({"conduction": rows, "result": "successful"}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "conduction",
        "  region  axis    factor",
        "  1       along   1.5",
        "  12      across  -",
        "result      successful",
    ]


def test_numbers_become_plain():
    assert plain({"n": np.int64(3), "flag": np.True_, "none": None}) == {
        "n": 3,
        "flag": True,
        "none": None,
    }


def test_progress_goes_to_stderr_only(capsys):
    with progress("working") as show:
        show(1.0, 10.0)
    assert capsys.readouterr().out == ""


def test_progress_in_a_log_tells_the_time_left(capsys, monkeypatch):
    clock = iter([0.0, 100.0, 120.0, 160.0])
    monkeypatch.setattr("twinheart.cli.terminal.time.monotonic", lambda: next(clock))
    with progress("working") as show:
        show(5.0, 100.0)
        show(15.0, 100.0)
        show(25.0, 100.0)
    assert capsys.readouterr().err.splitlines() == [
        "working: 15 of 100 ms, about 170 s left",
        "working: 25 of 100 ms, about 225 s left",
    ]
