"""What this machine's files are called on the ring, and that a fetched file is there whole or not at all."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from mapreduce.errors import InputError, UsageError
from p2p.file_progress import FileProgress
from p2p.local_files import directory_for, named_sources, whole_file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "books" / "old").mkdir(parents=True)
    for name in ("a.txt", "books/b.txt", "books/old/c.txt", "books/_SUCCESS"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: str, name: str) -> list[str]:
    return [target for _, target, _ in named_sources(given, name)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "name", "wanted"),
    [
        (("a.txt",), "x", ["x"]),
        (("a.txt",), "x/", ["x/a.txt"]),
        (("a.txt", "books/b.txt"), "x", ["x/a.txt", "x/b.txt"]),
        (("books",), "x", ["x/b.txt", "x/old/c.txt"]),
        (("books/",), "x/", ["x/books/b.txt", "x/books/old/c.txt"]),
        (("books", "a.txt"), "x", ["x/books/b.txt", "x/books/old/c.txt", "x/a.txt"]),
        (("books/*.txt",), "x", ["x"]),
        (("-",), "x", ["x"]),
        (("a.txt",), "ring:x", ["x"]),
        (("books",), "ring:x", ["x/b.txt", "x/old/c.txt"]),
    ],
)
def test_one_file_becomes_the_name_and_more_lie_below_it(
    given: tuple[str, ...], name: str, wanted: list[str]
) -> None:
    assert names(*given, name=name) == wanted


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "name", "error", "said"),
    [
        (("nix",), "x", InputError, "no such file"),
        (("ring:y",), "x", InputError, "on the ring already"),
        (("a.txt", "a.txt"), "x", UsageError, "would both be x/a.txt"),
        (("-", "a.txt"), "x", UsageError, "no name of its own"),
        (("a.txt",), "../x", UsageError, "no name for a file"),
    ],
)
def test_what_cannot_be_put_is_said_in_one_line(
    given: tuple[str, ...], name: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        named_sources(given, name)


def test_a_file_that_could_not_be_fetched_leaves_what_was_there(here: Path) -> None:
    def half() -> None:
        with whole_file("a.txt") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (here / "a.txt").read_text() == "a.txt"
    assert sorted(path.name for path in here.iterdir()) == ["a.txt", "books"]
    with pytest.raises(UsageError, match="cannot be written"), whole_file("nix/x"):
        pass


def test_a_fetched_file_goes_through_a_link_and_keeps_the_mode(here: Path) -> None:
    (here / "a.txt").chmod(0o600)
    (here / "link").symlink_to("a.txt")
    with whole_file("link") as file:
        file.write(b"new")
    assert (here / "link").is_symlink()
    assert (here / "a.txt").read_text() == "new"
    assert (here / "a.txt").stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_written_to_and_stays_a_pipe(here: Path) -> None:
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((here / "pipe").read_bytes()), daemon=True)
    reader.start()
    with whole_file("pipe") as file:
        file.write(b"new")
    reader.join(10.0)
    assert read == [b"new"]
    assert (here / "pipe").is_fifo()


@pytest.mark.usefixtures("here")
def test_a_file_in_the_place_of_a_directory_is_named() -> None:
    for path in ("a.txt/b", "a.txt/b/c"):
        with pytest.raises(UsageError, match=r"a\.txt.*: is a file, or lies below one; name a directory"):
            directory_for(path)
    directory_for("b")
    directory_for("new/old/c")
    assert os.path.isdir("new/old")


def test_progress_is_a_line_a_second_and_nothing_when_quiet() -> None:
    for quiet, lines in ((False, ["put: 2.0 MiB of 4.0 MiB, 1.0 MiB/s", "done"]), (True, [])):
        now = [0.0]
        stream = io.StringIO()
        with FileProgress(
            "put", 4 << 20, quiet=quiet, stream=stream, clock=lambda now=now: now[0]
        ) as progress:
            progress.add(1 << 20)
            now[0] = 2.0
            progress.add(1 << 20)
            progress.add(1 << 20)
            progress.message("done")
        assert stream.getvalue().splitlines() == lines
