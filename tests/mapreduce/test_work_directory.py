"""A run's private directory is removed, and if not by its owner then by the next run.

One that is young stays: whoever has just made it may not own it yet. What a killed run leaves, and what
a living one keeps, is shown with whole runs in `test_endings`.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from mapreduce.work_directory import WorkDirectory
from tests.mapreduce.conftest import Place


@pytest.mark.parametrize(("age_s", "is_left"), [(60, True), (7200, False)])
def test_a_directory_without_an_owner_is_swept_when_it_is_old(
    place: Place, age_s: float, is_left: bool
) -> None:
    stray = place.temp / f"ringreduce-{os.getuid()}" / "run-stray"
    (stray / "deep").mkdir(parents=True)
    (stray / "deep" / "file").touch()
    then = time.time() - age_s
    os.utime(stray, (then, then))
    WorkDirectory(str(place.temp)).remove()
    assert stray.exists() == is_left
    shutil.rmtree(stray, ignore_errors=True)


def test_a_removal_that_is_cut_short_is_ended_by_the_next_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = WorkDirectory(str(place.temp))
    for number in range(20):
        Path(directory.path, f"{number}.runs").touch()
    unlink = os.unlink

    def cut_short(path: str) -> None:
        unlink(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", cut_short)
        with pytest.raises(KeyboardInterrupt):
            directory.remove()
    assert "owner" in os.listdir(directory.path)
    assert len(os.listdir(directory.path)) == 20
    os.close(directory._lock)  # as the end of the process does
    WorkDirectory(str(place.temp)).remove()  # the fixture sees that nothing is left
