"""Where settings come from, and what a size is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapreduce.command import run
from mapreduce.errors import UsageError
from mapreduce.settings import TABLES, environment_variable, from_file, parse_size
from p2p.cli import COMMANDS


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4096", 4096),
        ("1KiB", 1024),
        ("1k", 1024),
        ("100K", 102_400),
        ("32MiB", 32 << 20),
        ("32mib", 32 << 20),
        ("1G", 1 << 30),
        ("2TiB", 2 << 40),
        ("10MB", 10_000_000),
        ("1.5k", 1536),
        (" 7 kB ", 7000),
        ("5B", 5),
    ],
)
def test_a_size_has_a_unit_or_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "1x", "-1", "1 2", "1KiBs", "1i", "1ib", "0x10", "1e6", "٣"])
def test_what_is_no_size_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "0k", "0.5", "0.0001k"])
def test_less_than_a_byte_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="less than one byte"):
        parse_size(text)


def test_every_option_has_its_variable() -> None:
    assert environment_variable("split_size") == "RINGREDUCE_SPLIT_SIZE"
    assert environment_variable("on-bad-record") == "RINGREDUCE_ON_BAD_RECORD"


def settings(
    path: Path, text: str, options: tuple[str, ...] = ("workers", "split_size", "param", "quiet")
) -> dict:
    file = path / "ringreduce.toml"
    file.write_text(text, encoding="utf-8")
    return from_file("run", options, str(file))


def test_no_file_means_no_settings(tmp_path: Path) -> None:
    assert from_file("run", ["workers"], str(tmp_path / "ringreduce.toml")) == {}


def test_a_command_reads_its_own_table_and_takes_both_spellings(tmp_path: Path) -> None:
    text = '[run]\nworkers = 4\nsplit-size = "1k"\n[submit]\nworkers = 9\n'
    assert settings(tmp_path, text) == {"workers": "4", "split_size": "1k"}


def test_a_table_of_params_becomes_pairs(tmp_path: Path) -> None:
    text = "[run]\nparam = { rounds = 20, name = 'a b', fast = true }\n"
    assert settings(tmp_path, text) == {"param": ["rounds=20", "name=a b", "fast=true"]}


def test_shared_settings_reach_only_commands_that_have_the_option(tmp_path: Path) -> None:
    assert settings(tmp_path, 'peers = "a:1"\nquiet = true\n') == {"quiet": "true"}


def test_a_commands_table_wins_over_what_stands_above(tmp_path: Path) -> None:
    assert settings(tmp_path, "quiet = true\n[run]\nquiet = false\n") == {"quiet": "false"}


@pytest.mark.parametrize("text", ["[run]\nworker = 4\n", "quite = true\n", "[runn]\nworkers = 4\n"])
def test_a_misspelt_setting_is_an_error_with_a_suggestion(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        settings(tmp_path, text)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ringreduce\.toml is not valid TOML: .*line 1"):
        settings(tmp_path, "[run\n")


def test_the_peers_of_all_commands_and_the_table_of_the_peer_command_stand_in_one_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ringreduce.toml"
    path.write_text('peers = "10.0.0.7:7700"\ncluster = "blue"\n[peer]\nslots = 3\n')
    assert from_file("members", {"peer"}, str(path)) == {"peer": "10.0.0.7:7700"}
    assert from_file("peer", {"slots", "cluster"}, str(path)) == {"slots": "3", "cluster": "blue"}


def test_every_command_may_have_its_table() -> None:
    assert set(COMMANDS) <= TABLES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers = [1, 2]", "expected a single value"),
        ("param = 3", "'3' is not of the form"),
        ("workers = 2.5", "'2.5' is not a valid integer"),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused_and_the_file_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ringreduce.toml").write_text(f"[run]\n{text}\n")
    assert run.main(["wordcount", "in.txt"], standalone_mode=False) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "ringreduce.toml" in told
