"""Keys: made once, kept to oneself, handed on in a token."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from p2p import keys
from p2p.errors import BadConfig, KeysMissing, KeysUnsafe, KeysUnusable
from p2p.keys import KEY_FILE, KeySet, Token
from p2p.roles import Role
from p2p.zmq_transport import new_key_pair

KEYS = keys.generate("home", new_key_pair)


def stored(directory: Path, held: KeySet = KEYS) -> Path:
    assert keys.store(held, directory)
    return directory / KEY_FILE


def test_keys_survive_the_file(tmp_path: Path) -> None:
    stored(tmp_path)
    assert keys.load(tmp_path, "home") == KEYS


def test_key_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = stored(tmp_path / "new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    path = stored(tmp_path)
    path.chmod(mode)
    with pytest.raises(KeysUnsafe, match=f"run 'chmod 600 {path}'"):
        keys.load(tmp_path)


def test_a_directory_in_which_others_may_write_is_refused(tmp_path: Path) -> None:
    stored(tmp_path)
    tmp_path.chmod(0o770)
    with pytest.raises(KeysUnsafe, match=f"run 'chmod 700 {tmp_path}'"):
        keys.load(tmp_path)


def test_missing_keys_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(KeysMissing, match=r"ringreduce init.*ringreduce token"):
        keys.load(tmp_path / "nowhere")


def test_the_keys_of_another_cluster_are_refused(tmp_path: Path) -> None:
    stored(tmp_path)
    with pytest.raises(BadConfig, match="'home', not of 'away'"):
        keys.load(tmp_path, "away")


def test_keys_that_are_there_are_never_replaced(tmp_path: Path) -> None:
    stored(tmp_path)
    assert not keys.store(keys.generate("home", new_key_pair), tmp_path)
    assert keys.load(tmp_path) == KEYS


def test_many_that_start_at_once_on_a_fresh_machine_end_with_one_set(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    got: list[KeySet] = []

    def begin() -> None:
        barrier.wait()
        got.append(keys.load_or_generate(tmp_path / "fresh", "home", new_key_pair))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert all(each == got[0] for each in got)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"cluster": "home"}',
        b'{"cluster": "home", "keys": {}}',
        b'{"cluster": "../../etc", "keys": {"ring": {"public": "x"}}}',
        b'{"cluster": "home", "keys": {"ring": {"public": "too short"}}}',
        b'{"cluster": "home", "keys": {"ring": 7}}',
        b"[" * 20_000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_key_file_is_named(tmp_path: Path, damage: bytes) -> None:
    path = stored(tmp_path)
    path.write_bytes(damage)
    with pytest.raises(KeysUnusable, match=str(path)):
        keys.load(tmp_path)


def test_a_key_file_of_a_later_version_with_another_role_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)
    content = json.loads(path.read_text())
    content["keys"]["admin"] = content["keys"]["peer"]
    path.write_text(json.dumps(content))
    with pytest.raises(KeysUnusable, match="'admin' is no role"):
        keys.load(tmp_path)


def test_a_place_that_cannot_hold_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysUnusable, match="keys cannot be written"):
        keys.store(KEYS, tmp_path / "file")


@pytest.mark.parametrize("role", list(Role))
def test_a_token_gives_its_role_and_nothing_above(role: Role) -> None:
    given = Token.from_text(Token(KEYS.restricted_to(role), ("10.0.0.7:7700",)).to_text())
    assert given.addresses == ("10.0.0.7:7700",)
    assert given.keys.strongest_role is role
    assert given.keys.ring.public == KEYS.ring.public
    assert given.keys.may_serve == (role is Role.PEER)
    if role is not Role.PEER:
        assert given.keys.ring.secret is None
        assert set(given.keys.roles) == {role}


def test_a_token_survives_white_space_and_line_breaks() -> None:
    text = Token(KEYS).to_text()
    assert Token.from_text(f"  {text[:40]}\n{text[40:]}\n").keys == KEYS


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 30])
def test_a_torn_token_is_told_as_such(cut: int) -> None:
    with pytest.raises(KeysUnusable, match="damaged"):
        Token.from_text(Token(KEYS).to_text()[:-cut])


@pytest.mark.parametrize("text", ["", "hello", "rr2.abcd", "rr1." + "A" * 9000])
def test_what_is_no_token_is_told_as_such(text: str) -> None:
    with pytest.raises(KeysUnusable, match="no token"):
        Token.from_text(text)


def test_who_holds_only_a_submit_key_can_pass_on_no_more_than_that() -> None:
    submit = KEYS.restricted_to(Role.SUBMIT)
    assert submit.restricted_to(Role.SUBMIT) == submit
    for role in (Role.PEER, Role.OBSERVE):
        with pytest.raises(KeysUnusable):
            submit.restricted_to(role)


def test_secrets_do_not_show_in_a_repr() -> None:
    shown = repr(KEYS)
    pairs = [KEYS.ring, *KEYS.roles.values()]
    assert all(pair.secret is not None and pair.secret not in shown for pair in pairs)
    assert KEYS.ring.public in shown


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "two words", "x" * 64, "new\nline"])
def test_a_cluster_name_that_could_not_stand_in_a_path_or_a_log_line_is_refused(name: str) -> None:
    with pytest.raises(BadConfig):
        keys.check_cluster_name(name)


def test_the_default_directory_follows_the_users_environment() -> None:
    assert keys.default_directory("c", {"HOME": "/home/u"}) == Path("/home/u/.local/state/ringreduce/c")
    assert keys.default_directory("c", {"HOME": "/home/u", "XDG_STATE_HOME": "/s"}) == Path("/s/ringreduce/c")
    relative = {"HOME": "/home/u", "XDG_STATE_HOME": "state"}  # the specification says to ignore it
    assert keys.default_directory("c", relative) == Path("/home/u/.local/state/ringreduce/c")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)
    os.chown(path, 4711, -1)
    with pytest.raises(KeysUnsafe, match="belongs to user 4711"):
        keys.load(tmp_path)
