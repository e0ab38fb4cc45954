"""The output directory: refused or made, filled by renames, complete or gone."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from mapreduce.errors import BadValue, EnvironmentFailed, OutputError
from mapreduce.outputs import OutputDirectory, part_name, write_part


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write(directory: OutputDirectory, part: int, attempt: int, text: str) -> None:
    Path(directory.attempt_path(part, attempt)).write_text(text)


# --- before any work ----------------------------------------------------------------------------------


def refusal(path: Path | str) -> str:
    with pytest.raises(OutputError) as refused:
        OutputDirectory(path).check()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_directory_that_is_new_or_empty_is_accepted_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "new", tmp_path / "new/in/new"):
        OutputDirectory(path).check()
    assert everything_below(tmp_path) == ["empty"]


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.hidden").touch()
    assert refusal(tmp_path / "out") == (
        f"{tmp_path}/out: the output directory is not empty; remove it or name another one"
    )


def test_a_directory_of_a_job_that_runs_or_was_killed_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "out/_temporary").mkdir(parents=True)
    assert "another job writes here, or one was killed" in refusal(tmp_path / "out")


@pytest.mark.parametrize("name", ["file", "file/below", "file/far/below"])
def test_a_file_is_no_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert "file" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["", "s3://bucket/out", "a\0b"])
def test_what_is_no_path_of_this_machine_is_refused(name: str) -> None:
    refusal(name)


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    assert "leads nowhere" in refusal(tmp_path / "out")


@pytest.mark.parametrize("name", ["locked", "locked/new"])
def test_a_place_without_permission_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write everywhere, so the question is answered for it
        monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("locked"))
    assert "no permission" in refusal(tmp_path / name)


# --- from prepare to finish ---------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
def test_parts_become_visible_by_commit_and_success_comes_last(tmp_path: Path, durable: bool) -> None:
    out = tmp_path / "a/out"
    directory = OutputDirectory(out, durable=durable)
    directory.check()
    directory.prepare()
    for part, attempt in ((1, 1), (0, 1), (0, 2)):
        write(directory, part, attempt, f"{part} by {attempt}")
    assert [name for name in everything_below(out) if name.startswith("part")] == []
    assert directory.commit(0, 2)
    assert directory.commit(1, 1)
    assert not (out / "_SUCCESS").exists()
    directory.finish()
    assert everything_below(out) == ["_SUCCESS", "part-00000", "part-00001"]
    assert (out / "part-00000").read_text() == "0 by 2"
    assert Path(directory.part_path(1)).read_text() == "1 by 1"


def test_a_commit_may_be_repeated_and_another_attempt_changes_nothing(tmp_path: Path) -> None:
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    write(directory, 0, 1, "first")
    write(directory, 0, 2, "second")
    assert [directory.commit(0, 1), directory.commit(0, 2), directory.commit(0, 1)] == [True, False, True]
    directory.finish()
    assert (tmp_path / "out/part-00000").read_text() == "first"
    assert everything_below(tmp_path / "out") == ["_SUCCESS", "part-00000"]


def test_of_two_jobs_with_one_directory_the_second_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    first, second = OutputDirectory(tmp_path / "out"), OutputDirectory(tmp_path / "out")
    first.check()
    second.check()
    first.prepare()
    with pytest.raises(OutputError, match="another job writes here"):
        second.prepare()
    second.abort()
    write(first, 0, 1, "x")
    first.commit(0, 1)
    first.finish()
    assert everything_below(tmp_path / "out") == ["_SUCCESS", "part-00000"]


def test_a_job_without_parts_leaves_a_directory_that_says_so(tmp_path: Path) -> None:
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    directory.finish()
    assert everything_below(tmp_path) == ["out", "out/_SUCCESS"]


def test_a_commit_that_fails_names_the_part(tmp_path: Path) -> None:
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    with pytest.raises(EnvironmentFailed, match="part-00000: cannot be written"):
        directory.commit(0, 1)  # nothing was written


def test_parts_sort_as_their_numbers() -> None:
    assert part_name(0) == "part-00000"
    assert sorted(map(part_name, range(0, 100_000, 7))) == [part_name(n) for n in range(0, 100_000, 7)]


# --- abort --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
def test_abort_removes_all_that_was_made_with_the_directories_made_for_it(
    tmp_path: Path, finished: bool
) -> None:
    (tmp_path / "kept").mkdir()
    directory = OutputDirectory(tmp_path / "kept/a/b/out")
    directory.prepare()
    write(directory, 0, 1, "x")
    write(directory, 1, 1, "y")
    directory.commit(0, 1)
    if finished:
        directory.finish()
    directory.abort()
    assert everything_below(tmp_path) == ["kept"]


def test_abort_removes_a_part_whose_commit_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    write(directory, 0, 1, "x")
    rename = os.rename

    def interrupted(source: str, target: str) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            directory.commit(0, 1)
    directory.abort()
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("made", ["deep", "out", "_temporary"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "behind"])
def test_an_interrupted_prepare_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, is_done: bool
) -> None:
    mkdir = os.mkdir

    def interrupted(path: str) -> None:
        if os.path.basename(path) != made or is_done:
            mkdir(path)
        if os.path.basename(path) == made:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", interrupted)
        with pytest.raises(KeyboardInterrupt):
            OutputDirectory(tmp_path / "deep" / "out").prepare()
    assert everything_below(tmp_path) == []


def test_abort_leaves_a_directory_that_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    write(directory, 0, 1, "x")
    directory.commit(0, 1)
    directory.abort()
    assert everything_below(tmp_path) == ["out"]


def test_abort_leaves_what_somebody_else_has_put_there(tmp_path: Path) -> None:
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    (tmp_path / "out/mine").touch()
    directory.abort()
    assert everything_below(tmp_path) == ["out", "out/mine"]


def test_abort_before_prepare_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/part-00000").touch()
    OutputDirectory(tmp_path / "out").abort()
    assert everything_below(tmp_path) == ["out", "out/part-00000"]


def test_a_directory_can_be_used_again_after_abort(tmp_path: Path) -> None:
    directory = OutputDirectory(tmp_path / "out")
    directory.prepare()
    directory.abort()
    directory.prepare()
    directory.finish()
    assert everything_below(tmp_path / "out") == ["_SUCCESS"]


# --- writing parts ------------------------------------------------------------------------------------


class FullDisk(io.RawIOBase):
    """A file whose disk has room for so many bytes."""

    name = "out/_temporary/part-00000.1"

    def __init__(self, room_bytes: int, error: int = errno.ENOSPC) -> None:
        self._room_bytes = room_bytes
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if len(data) > self._room_bytes:
            raise OSError(self._error, os.strerror(self._error))
        self._room_bytes -= len(data)
        return len(data)


@pytest.mark.parametrize("room_bytes", [0, 3 << 20])
def test_a_full_disk_names_the_path_and_may_be_tried_again(room_bytes: int) -> None:
    pairs = (("x" * 1_000, number) for number in range(10_000))
    with pytest.raises(EnvironmentFailed, match=r"part-00000\.1: no space left") as failed:
        write_part("text", FullDisk(room_bytes), pairs)  # type: ignore[arg-type]
    assert failed.value.may_retry


def test_a_failing_disk_says_what_the_system_says() -> None:
    with pytest.raises(EnvironmentFailed, match="cannot be written: Input/output error"):
        write_part("text", FullDisk(0, errno.EIO), [("a", 1)])  # type: ignore[arg-type]


def test_a_part_is_written_and_flushed_before_it_is_reported(tmp_path: Path) -> None:
    with open(tmp_path / "part", "wb") as file:
        written_bytes = write_part("text", file, [(f"word {n}", n) for n in range(100_000)])
        assert written_bytes == os.path.getsize(tmp_path / "part")
    lines = (tmp_path / "part").read_text().splitlines()
    assert lines == [f"word {n}\t{n}" for n in range(100_000)]


def test_what_comes_before_a_value_that_cannot_be_written_is_read_no_further(tmp_path: Path) -> None:
    taken = []

    def pairs() -> Any:
        for number in range(1_000_000):
            taken.append(number)
            yield "key", (object() if number == 1_000 else number)

    with (
        open(tmp_path / "part", "wb") as file,
        pytest.raises(BadValue, match="of key 'key' cannot be written"),
    ):
        write_part("jsonl", file, pairs())
    assert len(taken) < 3_000
