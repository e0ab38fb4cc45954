"""What a command says of errors that come from the system."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import pytest

from mapreduce.console import FAILED, exit_code_of


class FullStdout(io.StringIO):
    """Standard output on a disk that takes nothing."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(error: OSError) -> Any:
    raise error


def test_a_listing_that_cannot_be_written_names_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", FullStdout())
        assert exit_code_of(lambda: print("a row")) == FAILED
    said = f"error: cannot write to standard output: {os.strerror(errno.ENOSPC)}\n"
    assert capsys.readouterr().err == said


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
