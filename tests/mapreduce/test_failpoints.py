"""Failpoints: the table and the code agree, off means off, and one armed file hurts one process once."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapreduce import failpoints
from mapreduce.failpoints import FAILPOINTS, failpoint

ROOT = Path(__file__).parents[2]
PACKAGES = ("membership", "mapreduce", "p2p")
ARRIVES = "from mapreduce.failpoints import failpoint\nfailpoint('grant.send')\nprint('went on')"


def names_in_the_code() -> Iterator[str]:
    """Every text in the sources that looks like a failpoint's name and is one, or is given to `failpoint`."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "failpoints.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id="failpoint"), args=[ast.Constant(value=str(name))]):
                        assert name in FAILPOINTS, f"{path}, line {node.lineno}: {name} is not in the table"
                    case ast.Constant(value=str(name)) if name in FAILPOINTS:
                        yield name


def test_every_failpoint_stands_in_the_code_exactly_once() -> None:
    assert Counter(names_in_the_code()) == Counter(list(FAILPOINTS))


def test_every_message_table_names_failpoints_only() -> None:
    source = (ROOT / "p2p" / "message_moments.py").read_text(encoding="utf-8")
    tables = re.findall(r"^_(?:BEFORE_SENDING|ON_HEARING): .*?^}", source, re.DOTALL | re.MULTILINE)
    named = [name for table in tables for name in re.findall(r'"(.+?)"', table)]
    assert len(tables) == 2
    assert named
    assert set(named) <= set(FAILPOINTS)


def test_no_pure_module_holds_a_failpoint() -> None:
    for path in (ROOT / "membership").rglob("*.py"):
        assert "failpoint" not in path.read_text(encoding="utf-8"), path


def test_nothing_is_armed_without_the_variable() -> None:
    assert not failpoints.is_armed()
    assert not failpoints.is_cut()
    failpoint("grant.send")
    failpoint("")


@pytest.mark.parametrize(
    "text", ["grant.send", "grant.send=", "nowhere=kill", "grant.send=sing", "grant.send=cut:x"]
)
def test_an_arming_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"failpoint|float"):
        failpoints.parse(text)


def test_an_arming_says_what_where_how_long_and_when() -> None:
    assert failpoints.parse("push.chunk=cut:2.5@3\n") == ("push.chunk", "cut", 2.5, 3)
    assert failpoints.parse("push.chunk=kill") == ("push.chunk", "kill", 0.0, 1)


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that arms failpoints in this process."""
    path = tmp_path / "armed"
    monkeypatch.setattr(failpoints, "_file", str(path))
    monkeypatch.setattr(failpoints, "_state", failpoints._State())
    return path


def test_the_nth_arrival_is_hurt_and_leaves_a_proof(armed: Path) -> None:
    armed.write_text("vote.sync=eio@3")
    failpoint("vote.sync")
    failpoint("vote.save")
    failpoint("vote.sync")
    assert armed.exists()
    with pytest.raises(OSError, match="Input/output error"):
        failpoint("vote.sync")
    assert not armed.exists()
    assert armed.with_suffix(".fired").read_text().split() == [str(os.getpid()), "vote.sync", "eio"]


def test_a_broken_disk_stays_broken_until_something_else_is_armed(armed: Path) -> None:
    armed.write_text("vote.sync=eio")
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            failpoint("vote.sync")
    armed.write_text("vote.save=slow:0")
    failpoint("vote.sync")


def test_only_one_process_wins_an_armed_file(armed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    armed.write_text("vote.sync=eio")
    win = failpoints._win

    def somebody_was_faster(arming: failpoints._Arming) -> bool:
        armed.unlink()
        return win(arming)

    monkeypatch.setattr(failpoints, "_win", somebody_was_faster)
    failpoint("vote.sync")
    assert not armed.with_suffix(".fired").exists()


def test_a_cut_ends_by_itself(armed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    armed.write_text("push.chunk=cut:2")
    failpoint("push.chunk")
    assert failpoints.is_cut()
    now[0] = 102.5
    assert not failpoints.is_cut()


def test_kill_ends_the_process_at_once(tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    armed.write_text("grant.send=kill")
    environment = {**os.environ, failpoints.VARIABLE: str(armed)}
    run = [sys.executable, "-c", ARRIVES]
    first = subprocess.run(run, capture_output=True, check=False, cwd=ROOT, env=environment)
    again = subprocess.run(run, capture_output=True, check=False, cwd=ROOT, env=environment)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, b"")
    assert (again.returncode, again.stdout) == (0, b"went on\n")
