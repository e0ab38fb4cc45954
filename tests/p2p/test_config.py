"""Settings that do not go together are refused where they meet, and keys are found where they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from membership.config import LAN, LOCAL, WAN
from membership.ring import MAX_WEIGHT
from p2p import keys as key_files
from p2p.addresses import HostPort
from p2p.config import PeerConfig
from p2p.errors import BadConfig, KeysMissing
from p2p.key_source import KeySource
from p2p.keys import Token, generate
from p2p.zmq_transport import new_key_pair


def config(**changes: Any) -> PeerConfig:
    fields: dict[str, Any] = {"listen": "127.0.0.1:0", "join": (), "keys": KeySource(), **changes}
    return PeerConfig.from_text(**fields)


def test_a_profile_follows_from_the_address_unless_it_is_named() -> None:
    assert config().swim is LOCAL
    assert config(listen="10.0.0.1:7700").swim is LAN
    assert config(profile="wan").swim is WAN
    with pytest.raises(BadConfig, match="no profile 'moon': choose from local, lan, wan"):
        config(profile="moon")


def test_others_are_told_the_listening_address_or_what_was_said_instead() -> None:
    assert config(listen="10.0.0.1:7700").advertise == HostPort("10.0.0.1", 7700)
    behind = config(listen="0.0.0.0:7700", advertise="192.0.2.9")
    assert behind.advertise == HostPort("192.0.2.9", 7700)
    assert config(listen="0.0.0.0:7700", advertise="192.0.2.9:80").advertise == HostPort("192.0.2.9", 80)


def test_behind_a_wildcard_others_are_told_the_way_towards_the_seed() -> None:
    assert config(listen="0.0.0.0:7700", join=("127.0.0.1:1",)).advertise == HostPort("127.0.0.1", 7700)
    with pytest.raises(BadConfig, match="--advertise"):
        config(listen="0.0.0.0:7700")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"slots": 0}, "1 to 4096 slots, not 0"),
        ({"slots": 5_000}, "1 to 4096 slots, not 5000"),
        ({"weight": -1}, "weight is 0 to .*, not -1"),
        ({"weight": int(MAX_WEIGHT) + 1}, "weight is 0 to "),
        ({"zone": "a b"}, "zone"),
        ({"zone": "z" * 65}, "zone"),
        ({"listen": "127.0.0.1:7700", "bulk_port": 7700}, "the same port, 7700"),
        ({"join": ("127.0.0.1:1",) * 65}, "65 addresses"),
        ({"advertise": "192.0.2.9:80"}, "nobody could connect to the advertised 192.0.2.9:80"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        config(**changes)


def test_keys_are_made_on_loopback_and_nowhere_else(tmp_path: Path) -> None:
    source = KeySource(directory=tmp_path / "k")
    with pytest.raises(KeysMissing, match=r"listening on 10\.0\.0\.1:7700 takes keys that the operator"):
        source.load_to_serve(HostPort("10.0.0.1", 7700))
    assert not (tmp_path / "k").exists()
    made = source.load_to_serve(HostPort("127.0.0.1", 7700))
    assert source.load() == made
    assert source.load_to_serve(HostPort("10.0.0.1", 7700)) == made


def test_a_token_stands_for_the_files_and_brings_addresses() -> None:
    held = generate("away", new_key_pair)
    text = Token(held, ("192.0.2.1:7700",)).to_text()
    assert KeySource(token=text).load() == Token(held, ("192.0.2.1:7700",))
    with pytest.raises(BadConfig, match="the token is for cluster 'away', not for 'home'"):
        KeySource(token=text, cluster="home").load()


def test_a_directory_that_was_named_may_hold_a_cluster_of_any_name(tmp_path: Path) -> None:
    key_files.store(generate("odd", new_key_pair), tmp_path)
    assert KeySource(directory=tmp_path).load().keys.cluster == "odd"
    with pytest.raises(BadConfig):
        KeySource(directory=tmp_path, cluster="even").load()
