"""Stages: done once, again where an input changed, never half."""

import json

import pytest

from twinheart.cli.stages import Stages, file_digest
from twinheart.errors import InputError


class Work:
    """Two stages, the second after the first; counts what is done."""

    def __init__(self, folder, source):
        self.folder, self.source, self.done = folder, source, []

    def run(self, size=1, colour="red"):
        stages = Stages(self.folder, ("one", "two"))

        def one():
            self.done.append("one")
            (self.folder / "one.txt").write_text(self.source.read_text() * size)
            return {"length": len(self.source.read_text()) * size}

        def two():
            self.done.append("two")
            return {"colour": colour, "text": (self.folder / "one.txt").read_text()}

        first = stages.run(
            "one", one, settings={"size": size}, inputs=[self.source], files=("one.txt", "not.txt")
        )
        second = stages.run("two", two, settings={"colour": colour}, after=("one",))
        return first, second, [row["done_before"] for row in stages.done]


@pytest.fixture
def work(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("abc")
    (tmp_path / "out").mkdir()
    return Work(tmp_path / "out", source)


def test_what_is_done_is_not_done_again(work):
    first = work.run()
    again = work.run()
    assert work.done == ["one", "two"]
    assert first[2] == [False, False]
    assert again[2] == [True, True]
    assert first[:2] == again[:2] == ({"length": 3}, {"colour": "red", "text": "abc"})


def test_a_change_is_followed_downstream_only(work):
    work.run()
    work.run(colour="blue")
    assert work.done == ["one", "two", "two"]
    work.run(size=2, colour="blue")
    assert work.done[3:] == ["one", "two"]
    work.source.write_text("abcd")
    assert work.run(size=2, colour="blue")[1]["text"] == "abcdabcd"


@pytest.mark.parametrize("damage", ["record", "file", "shorter"])
def test_what_is_damaged_is_done_again(work, damage):
    work.run()
    if damage == "record":
        (work.folder / "one.json").write_text("{")
    elif damage == "file":
        (work.folder / "one.txt").unlink()
    else:
        (work.folder / "one.txt").write_text("a")
    assert work.run()[1]["text"] == "abc"
    assert work.done == ["one", "two", "one"]


def test_a_stage_that_fails_leaves_no_record(work):
    work.run()
    stages = Stages(work.folder, ("one",))

    def failing():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.run("one", failing, settings={"size": 3}, inputs=[work.source])
    assert not (work.folder / "one.json").exists()
    assert json.loads((work.folder / "two.json").read_text())["record"]["text"] == "abc"


def test_digests_are_of_content(tmp_path):
    one, two = tmp_path / "one.hea", tmp_path / "two"
    one.write_text("header")
    (tmp_path / "one.dat").write_text("signals")
    two.mkdir()
    (two / "slice").write_text("x")
    record, folder = file_digest(tmp_path / "one"), file_digest(two)
    (tmp_path / "one.dat").write_text("Signals")
    assert file_digest(tmp_path / "one") != record  # a WFDB record is all its files
    (two / "slice").write_text("y")
    assert file_digest(two) != folder
    with pytest.raises(InputError, match="no such file"):
        file_digest(tmp_path / "nothing")
