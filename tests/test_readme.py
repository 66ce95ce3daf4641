"""The README's code and commands run as they stand there, only shorter."""

import re
import shlex
from pathlib import Path

import pytest

from twinheart.anatomy import demo_heart, mesh_of_heart
from twinheart.cli import main
from twinheart.mesh.io import write_mesh

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

# What makes a block quick enough for a test; everything else runs as written.
SHORTER = {
    "t_end=450.0": "t_end=5.0",
    "--t-end 450": "--t-end 5",
    "demo --out report": "demo --out report --t-end 5",
}


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language, with the settings of `SHORTER`."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    for long, short in SHORTER.items():
        found = [block.replace(long, short) for block in found]
    return found


def commands() -> list[str]:
    """Every `twinheart` command of the README."""
    lines = "".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("twinheart ")]


def test_there_is_something_to_test():
    assert len(blocks("python")) >= 1
    assert len(commands()) >= 4


# The bundled heart is coarse, which it says.
@pytest.mark.filterwarnings("ignore::twinheart.tissue.ConductionWarning")
@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    write_mesh(folder / "heart.vtu", mesh_of_heart(demo_heart()))
    return folder


@pytest.mark.parametrize("command", commands())
def test_command_runs(command, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    arguments = shlex.split(command)[1:]
    assert main(arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
