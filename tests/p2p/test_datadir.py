"""The peer's directory: one peer at a time, one name for ever, lives that are counted."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from p2p import datadir
from p2p.datadir import LOCK_FILE, NODE_FILE, DataDirectory, Identity
from p2p.errors import DataDirectoryBusy, DataDirectoryUnusable


def test_a_restarted_peer_keeps_its_name_and_raises_both_numbers(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "p") as directory:
        first = directory.begin_life(1_000)
    with DataDirectory(tmp_path / "p") as directory:
        second = directory.begin_life(5_000)
    assert first == Identity(first.id, 1, 1_000)
    assert second == Identity(first.id, 2, 5_000)


def test_a_clock_that_was_set_back_does_not_lower_the_session(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        directory.begin_life(9_000)
    with DataDirectory(tmp_path) as directory:
        assert directory.begin_life(10).session == 9_001


def test_the_next_life_begins_above_what_was_remembered(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        me = directory.begin_life(1)
        directory.remember(Identity(me.id, 41, 77))
    with DataDirectory(tmp_path) as directory:
        assert directory.begin_life(1) == Identity(me.id, 42, 78)


def test_a_second_peer_in_the_same_directory_is_refused_with_the_holders_pid(tmp_path: Path) -> None:
    with (
        DataDirectory(tmp_path),
        pytest.raises(DataDirectoryBusy, match=rf"in use by the peer with process id {os.getpid()}"),
    ):
        DataDirectory(tmp_path)
    DataDirectory(tmp_path).close()  # and it is free afterwards


def test_two_new_peers_have_two_names(tmp_path: Path) -> None:
    names = set()
    for name in ("a", "b"):
        with DataDirectory(tmp_path / name) as directory:
            names.add(directory.begin_life(1).id)
    assert len(names) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[1]", b'{"id": "", "incarnation": 1, "session": 1}', b'{"id": "a b"}', b"\xff"]
)
def test_a_damaged_node_file_is_named_and_not_replaced(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / NODE_FILE).write_bytes(damage)
    with DataDirectory(tmp_path) as directory, pytest.raises(DataDirectoryUnusable, match="is damaged"):
        directory.begin_life(1)
    assert (tmp_path / NODE_FILE).read_bytes() == damage


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryUnusable, match="file"):
        DataDirectory(tmp_path / "file" / "below")


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_temporary_directory_is_gone_with_its_peer(own_tmp: Path) -> None:
    with DataDirectory(None) as directory:
        directory.begin_life(1)
        assert directory.path.parent == own_tmp
    assert list(own_tmp.iterdir()) == []


def test_what_a_killed_peer_left_behind_is_removed_by_the_next_and_nothing_else(own_tmp: Path) -> None:
    left_behind = own_tmp / f"{datadir.TEMPORARY_PREFIX}dead"
    just_starting = own_tmp / f"{datadir.TEMPORARY_PREFIX}new"
    foreign = own_tmp / "other"
    for path in (left_behind, just_starting, foreign):
        path.mkdir()
    (left_behind / LOCK_FILE).write_text("1\n")
    with DataDirectory(None) as alive, DataDirectory(None):
        assert alive.path.exists()
        assert not left_behind.exists()
        assert just_starting.exists()
        assert foreign.exists()
