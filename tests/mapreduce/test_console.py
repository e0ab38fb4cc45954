"""What a command says of errors that come from the system, and of a reader that has left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mapreduce.console import DONE, FAILED, UNREAD, exit_code_of


def failing(error: OSError) -> Any:
    raise error


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
def test_a_listing_that_cannot_be_written_names_standard_output() -> None:
    script = """
import click, os
from mapreduce.console import exit_code_of
os._exit(exit_code_of(lambda: click.echo("a row")))
"""
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == FAILED
    assert done.stderr == f"error: cannot write to standard output: {os.strerror(errno.ENOSPC)}\n"


@pytest.mark.parametrize(
    ("guard", "code"),
    [("exit_code_of(listing)", DONE), ("while_read(listing, unread=UNREAD)", UNREAD)],
)
def test_a_reader_that_leaves_ends_a_listing_quietly_with_the_code_that_its_command_has_for_it(
    guard: str, code: int
) -> None:
    script = f"""
import sys
from mapreduce.console import UNREAD, exit_code_of, while_read
def listing():
    for number in range(100_000):
        print("row", number)
    return 5
sys.exit({guard})
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.readline() == "row 0\n"
        listing.stdout.close()
        assert listing.stderr.read() == ""
    assert listing.returncode == code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "there"),
            "there: No such file or directory",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError("in its own words"), "in its own words"),
    ],
)
def test_an_error_of_the_system_is_told_without_its_number(
    capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    assert exit_code_of(lambda: failing(error)) == FAILED
    assert capsys.readouterr().err == f"error: {said}\n"
