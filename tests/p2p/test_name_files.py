"""Entries of names on disk: what is damaged goes, what cannot be read just now stays."""

from __future__ import annotations

import builtins
import errno
from pathlib import Path

import pytest

from p2p.catalogue import Entry
from p2p.name_files import NameFiles

KEPT = Entry(name="x", version=1, file="a" * 40)


def test_an_entry_is_loaded_as_it_was_saved_until_it_is_removed(tmp_path: Path) -> None:
    names = NameFiles(str(tmp_path))
    names.save(KEPT)
    assert list(names.load()) == [KEPT]
    names.remove("x")
    names.remove("x")
    assert list(names.load()) == []


def test_a_damaged_entry_and_what_was_half_written_are_removed(tmp_path: Path) -> None:
    names = NameFiles(str(tmp_path))
    names.save(KEPT)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (tmp_path / "some.name.tmp").write_bytes(b"half")
    assert list(names.load()) == []
    assert list(tmp_path.iterdir()) == []


def test_an_entry_that_cannot_be_read_just_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = NameFiles(str(tmp_path))
    names.save(KEPT)

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as starved:
        starved.setattr(builtins, "open", refuse)
        assert list(names.load()) == []
    assert list(names.load()) == [KEPT]
