"""The table of commands: complete, lazy, and helpful to those who misspell."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from mapreduce.errors import EnvironmentFailed
from mapreduce.outcome import NOBODY, JobStatus, Totals
from p2p import commands_files
from p2p.cli import COMMANDS, cli
from p2p.command_options import Where
from p2p.errors import BadAddress
from p2p.following import counted
from p2p.job_questions import JobView
from p2p.result_output import try_output
from p2p.swarm_client import Swarm

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("RINGREDUCE_")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a command line imports."""
    script = (
        "import sys\nfrom p2p.cli import cli\n"
        f"cli.main({list(arguments)!r}, standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    return set(python("-c", script).stderr.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_row_of_the_table_is_a_command_that_says_the_same(name: str) -> None:
    context = click.Context(cli, info_name="ringreduce")
    command = cli.get_command(context, name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.short_help == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    outcome = CliRunner().invoke(cli, [name, "--help"], prog_name="ringreduce")
    assert outcome.exit_code == 0
    assert f"Usage: ringreduce {name}" in outcome.output


def test_help_shows_the_table_in_its_order() -> None:
    outcome = CliRunner().invoke(cli, ["--help"])
    assert outcome.exit_code == 0
    places = [outcome.output.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_help_imports_no_command() -> None:
    assert not loaded_by("--help") & {lazy.place.partition(":")[0] for lazy in COMMANDS.values()}


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help")])
def test_help_imports_nothing_slow(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert "p2p.cli" in loaded
    assert not loaded & {
        "rich",
        "zmq",
        "networkx",
        "cloudpickle",
        "fsspec",
        "msgpack",
        "asyncio",
        "mapreduce.local",
    }


def test_an_unknown_command_is_bad_usage_with_a_suggestion() -> None:
    outcome = CliRunner().invoke(cli, ["rnu"])
    assert outcome.exit_code == 2
    assert "there is no command 'rnu' (did you mean 'run'?)" in outcome.stderr


@pytest.mark.parametrize("job", ["wordcount", "inverted-index", "count.py"])
def test_a_job_in_the_place_of_a_command_is_recognised(job: str) -> None:
    outcome = CliRunner().invoke(cli, [job, "books"])
    assert outcome.exit_code == 2
    assert f"ringreduce run {job} INPUT" in outcome.stderr


def test_errors_of_commands_become_exit_codes_of_the_group() -> None:
    outcome = CliRunner().invoke(cli, ["run", "no-such-job", "in.txt"])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: there is no job 'no-such-job'")


@pytest.mark.parametrize("peer", ["", ",", " , "])
@pytest.mark.parametrize("arguments", [("ls",), ("jobs",), ("members",), ("submit", "wordcount", "in.txt")])
def test_an_empty_peer_is_bad_usage(arguments: tuple[str, ...], peer: str) -> None:
    outcome = CliRunner().invoke(cli, [*arguments, "--peer", peer])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: --peer is empty")


def test_asking_why_of_nobody_is_bad_usage() -> None:
    outcome = CliRunner().invoke(cli, ["why", ""])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: NODE is empty")


@pytest.mark.parametrize("peers", ["", ",", [], "127.0.0.1:abc"])
def test_a_swarm_without_a_peer_that_can_be_asked_is_refused_at_once(peers: str | list[str]) -> None:
    with pytest.raises(BadAddress, match=r"peers is empty|is no port"):
        Swarm(peers)


@pytest.mark.parametrize("seconds", ["nan", "inf"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--timeout"),
        ("jobs", "--timeout"),
        ("put", "x", "y", "--ttl"),
        ("submit", "wordcount", "in.txt", "--ttl"),
        ("submit", "wordcount", "in.txt", "--timeout"),
        ("attach", "abc", "--wait"),
        ("attach", "abc", "--timeout"),
        ("attach", "abc", "--peer-timeout"),
    ],
)
def test_a_time_that_is_no_number_or_never_ends_is_bad_usage(
    arguments: tuple[str, ...], seconds: str
) -> None:
    outcome = CliRunner().invoke(cli, [*arguments, seconds])
    assert outcome.exit_code == 2
    assert arguments[-1] in outcome.stderr


@pytest.mark.parametrize("name", ["submit", "attach"])
def test_the_timeout_of_a_command_that_waits_is_that_of_the_job(name: str) -> None:
    context = click.Context(cli, info_name="ringreduce")
    command = cli.get_command(context, name)
    assert command is not None
    told = {option: p.help for p in command.params if isinstance(p, click.Option) for option in p.opts}
    assert told["--timeout"] == "Wait so long; then exit with 4, and the job goes on."
    if name == "attach":
        assert told["--wait"] == told["--timeout"]
        assert told["--peer-timeout"] == "How long each peer has to answer."


def test_an_output_that_cannot_be_made_is_known_before_the_job_is_handed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr("os.mkdir", refuse)  # as /proc does, whose permissions allow it
    for arguments in (("submit", "wordcount", "in.txt"), ("attach", "abc")):
        outcome = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "out")])
        assert outcome.exit_code == 2
        assert "cannot be made" in outcome.stderr


def test_trying_the_output_leaves_nothing_behind(tmp_path: Path) -> None:
    try_output(str(tmp_path / "a" / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("-o", "out"), ("--report", "r.json"), ("--timeout", "3")])
def test_what_only_a_follower_does_is_refused_with_detach(option: tuple[str, str]) -> None:
    outcome = CliRunner().invoke(cli, ["submit", "wordcount", "in.txt", "--detach", *option])
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"error: {option[0]} has no effect with --detach")


def test_a_full_standard_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=Full()))
    with pytest.raises(EnvironmentFailed, match="cannot write to standard output: No space left"):
        commands_files._to_stdout(b"x")


@pytest.mark.parametrize(("count", "said"), [(0, "0 peers"), (1, "1 peer"), (2, "2 peers")])
def test_one_is_counted_in_the_singular(count: int, said: str) -> None:
    assert counted(count, "peer") == said


def running(job: str) -> JobView:
    return JobView(
        job=job,
        name="count.py",
        state=JobStatus.RUNNING,
        leader=NOBODY,
        ballot=1,
        epoch=1,
        members=(),
        stages=(),
        counters={},
        totals=Totals(),
        failure=None,
        events=(),
        born_at_s=0.0,
        ended_at_s=0.0,
        input_bytes=0,
        out_format="text",
    )


def test_the_result_of_a_job_that_goes_on_is_a_matter_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        def __enter__(self) -> Asked:
            return self

        def __exit__(self, *_: object) -> None: ...

        def find(self, job: str) -> str:
            return job

        def view(self, job: str) -> JobView:
            return running(job)

    monkeypatch.setattr(Where, "client", lambda _: Asked())
    outcome = CliRunner().invoke(cli, ["result", "abcdef"])
    assert outcome.exit_code == 4
    assert outcome.stderr == "error: job abcdef is still running: 'ringreduce attach abcdef' waits\n"


def test_the_version_is_shown() -> None:
    outcome = CliRunner().invoke(cli, ["--version"])
    assert outcome.exit_code == 0
    assert outcome.output.startswith("ringreduce ")


def test_the_package_is_runnable() -> None:
    child = python("-m", "p2p", "--help")
    assert child.returncode == 0
    assert "Usage: ringreduce" in child.stdout
