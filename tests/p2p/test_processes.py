"""Real peers in real processes: how they start, how they end, what they refuse to do.

Nothing here sleeps: tests wait for `ready` lines and for membership events, with a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2p.swarm import LocalPeers, PeerProcess
from tools.measure_membership import Watchtower

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LIMIT_S = 20.0


def heard(tower: Watchtower, name: str, node: str) -> Callable[[], bool]:
    """Whether every other peer has told of this event about the node."""
    others = {index for index, peer in enumerate(tower.peers) if peer.id != node}
    return lambda: (
        others <= {index for _, index, event in tower.events if event.event == name and event.node == node}
    )


def replace_last(local: LocalPeers, victim: PeerProcess) -> None:
    local.peers.remove(victim)
    local.start(1)


def test_members_shows_every_peer_in_text_and_json(
    local: LocalPeers, tower: Watchtower, ringreduce: Run
) -> None:
    address = local.peers[0].address
    rows = json.loads(ringreduce("members", "--peer", address, "--format", "json").stdout)
    assert {row["id"] for row in rows} == {peer.id for peer in local.peers}
    assert {row["pid"] for row in rows} == {peer.pid for peer in local.peers}
    assert {row["address"] for row in rows} == {peer.address for peer in local.peers}
    assert all(row["status"] == "alive" and row["incarnation"] == 1 and row["slots"] >= 1 for row in rows)
    (mine,) = (row for row in rows if row["id"] == local.peers[0].id)
    assert mine["refused"] == {}
    text = ringreduce("members", "--peer", address)
    assert text.returncode == 0
    assert all(peer.id in text.stdout for peer in local.peers)


def test_where_gives_the_same_owners_at_every_peer(
    local: LocalPeers, tower: Watchtower, ringreduce: Run
) -> None:
    answers = [
        json.loads(ringreduce("where", "some key", "--peer", peer.address, "--format", "json").stdout)
        for peer in local.peers[:2]
    ]
    assert answers[0] == answers[1]
    assert [row["rank"] for row in answers[0]] == [1, 2, 3]


def test_a_command_goes_on_with_the_next_address_when_one_does_not_answer(
    local: LocalPeers, ringreduce: Run
) -> None:
    done = ringreduce("members", "--peer", f"127.0.0.1:1,{local.peers[0].address}")
    assert done.returncode == 0


def test_settings_come_from_the_flag_then_the_environment_then_the_file(
    local: LocalPeers, ringreduce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ringreduce.toml").write_text('peers = "127.0.0.1:1"\n')
    assert "127.0.0.1:1:" in ringreduce("members").stderr
    assert "127.0.0.1:2:" in ringreduce("members", RINGREDUCE_PEER="127.0.0.1:2").stderr
    assert (
        "127.0.0.1:3:" in ringreduce("members", "--peer", "127.0.0.1:3", RINGREDUCE_PEER="127.0.0.1:2").stderr
    )


@pytest.mark.parametrize("join", ['"no-such-host.invalid"', '["no-such-host.invalid"]'])
def test_a_peer_takes_its_settings_from_the_file(
    ringreduce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, join: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ringreduce.toml").write_text(f'[peer]\nlisten = "127.0.0.1:0"\njoin = {join}\n')
    done = ringreduce("peer")
    assert done.returncode == 3
    assert "'no-such-host.invalid' does not resolve" in done.stderr


def test_no_peer_reached_is_exit_code_3_and_one_line(ringreduce: Run, local: LocalPeers) -> None:
    done = ringreduce("members", "--peer", "127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr == "error: no peer reached (127.0.0.1:1: nobody answers there)\n"
    assert done.stdout == ""


def test_a_client_with_a_key_of_another_cluster_is_told_so(
    local: LocalPeers, ringreduce: Run, tmp_path: Path
) -> None:
    ringreduce("init", "--keys", str(tmp_path))
    done = ringreduce("members", "--keys", str(tmp_path), "--peer", local.peers[0].address)
    assert done.returncode == 3
    assert "another cluster" in done.stderr


def test_sigterm_makes_a_peer_leave_and_nobody_suspects_it(local: LocalPeers, tower: Watchtower) -> None:
    leaver = tower.peers[-1]
    leaver.process.send_signal(signal.SIGTERM)
    assert tower.look(LIMIT_S, heard(tower, "left", leaver.id))
    assert leaver.process.wait(LIMIT_S) == 0
    assert not [event for _, _, event in tower.events if event.event in ("suspected", "died")]
    replace_last(local, leaver)


def test_a_killed_peer_is_dead_in_all_views_and_no_other_is(local: LocalPeers, tower: Watchtower) -> None:
    victim = tower.peers[-1]
    victim.process.kill()
    assert tower.look(LIMIT_S, heard(tower, "died", victim.id))
    assert {event.node for _, _, event in tower.events if event.event == "died"} == {victim.id}
    victim.process.wait(LIMIT_S)
    replace_last(local, victim)


def test_a_stopped_peer_comes_back_as_the_same_member_and_hurts_nobody(
    local: LocalPeers, tower: Watchtower, ringreduce: Run
) -> None:
    victim = tower.peers[1]
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        assert tower.look(LIMIT_S, heard(tower, "died", victim.id))
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    assert tower.look(LIMIT_S, heard(tower, "returned", victim.id))
    assert {event.node for _, _, event in tower.events if event.event == "died"} == {victim.id}
    tower.await_agreement(LIMIT_S)
    told = ringreduce("why", victim.id[:8], "--peer", tower.peers[0].address, "--format", "json").stdout
    (row,) = json.loads(told)
    assert (row["id"], row["status"], row["pid"]) == (victim.id, "alive", victim.pid)
    assert row["incarnation"] > 1
    assert {"dead", "suspect", "alive"} <= {step["status"] for step in row["history"]}


def test_monitor_prints_a_json_line_for_each_event(
    local: LocalPeers, tower: Watchtower, keys_directory: Path
) -> None:
    command = [sys.executable, "-m", "p2p.cli", "monitor", "--peer", local.peers[0].address]
    command += ["--format", "json", "--keys", str(keys_directory)]
    with _running(command) as process:
        assert json.loads(_line(process))["event"] == "watching"
        (newcomer,) = local.start(1)
        joined = json.loads(_line(process))
        assert (joined["event"], joined["id"], joined["address"]) == ("joined", newcomer.id, newcomer.address)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
    newcomer.process.terminate()
    newcomer.process.wait(LIMIT_S)
    local.peers.remove(newcomer)


def test_a_restarted_peer_keeps_its_name_and_comes_with_a_higher_incarnation(
    local: LocalPeers, tower: Watchtower, ringreduce: Run, keys_directory: Path, tmp_path: Path
) -> None:
    options = ["--keys", str(keys_directory), "--join", local.peers[0].address]
    lives = []
    for event in ("joined", "returned"):
        with LocalPeers(data=tmp_path, options=options, quiet=True) as more:
            (made,) = more.start(1)
            assert tower.look(LIMIT_S, heard(tower, event, made.id))
            rows = json.loads(
                ringreduce("members", "--peer", tower.peers[0].address, "--format", "json").stdout
            )
            lives += [row for row in rows if row["id"] == made.id]
    first, second = lives
    assert first["id"] == second["id"]
    assert first["incarnation"] < second["incarnation"]
    assert first["pid"] != second["pid"]


def test_a_second_peer_on_the_same_directory_is_refused_with_the_reason(
    ringreduce: Run, keys_directory: Path, tmp_path: Path
) -> None:
    with LocalPeers(data=tmp_path, options=["--keys", str(keys_directory)], quiet=True) as first:
        (running,) = first.start(1)
        done = ringreduce("peer", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "peer-0"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: data directory")
    assert f"in use by the peer with process id {running.pid}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_second_peer_on_the_same_port_is_refused_with_the_reason(
    local: LocalPeers, ringreduce: Run
) -> None:
    done = ringreduce("peer", "--listen", local.peers[0].address)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {local.peers[0].address} is in use by another process")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--listen", "192.0.2.1:0"], 2, "192.0.2.1:0 is no address of this machine"),
        (["--listen", "nonsense:port"], 2, "is no port"),
        (["--listen", "no-such-host.invalid:1"], 3, "does not resolve"),
        (["--listen", "127.0.0.1:0", "--join", "no-such-host.invalid:1"], 3, "does not resolve"),
        (["--listen", "127.0.0.1:0", "--slots", "0"], 2, "1 to 4096 slots"),
        (["--listen", "127.0.0.1:0", "--zone", "a b"], 2, "zone"),
        (["--listen", "0.0.0.0:0"], 2, "--advertise"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_an_exit_code(
    local: LocalPeers, ringreduce: Run, arguments: list[str], code: int, says: str
) -> None:
    done = ringreduce("peer", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_listening_beyond_loopback_without_keys_is_refused_and_says_what_to_do(
    ringreduce: Run, tmp_path: Path
) -> None:
    done = ringreduce("peer", "--listen", "192.0.2.1:0", "--keys", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "ringreduce init" in done.stderr
    assert "ringreduce token" in done.stderr
    assert not (tmp_path / "none").exists()


def test_key_files_that_others_can_read_keep_a_peer_from_starting(ringreduce: Run, tmp_path: Path) -> None:
    path = Path(ringreduce("init", "--keys", str(tmp_path)).stdout.strip())
    path.chmod(0o644)
    done = ringreduce("peer", "--listen", "127.0.0.1:0", "--keys", str(tmp_path))
    assert done.returncode == 2
    assert f"run 'chmod 600 {path}'" in done.stderr


def test_a_token_is_all_that_a_newcomer_needs(local: LocalPeers, tower: Watchtower, ringreduce: Run) -> None:
    token = ringreduce("token", "--peer", local.peers[0].address).stdout.strip()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RINGREDUCE_")}
    command = [sys.executable, "-m", "p2p.cli", "peer", "--listen", "127.0.0.1:0"]
    with _running(command, env={**environment, "RINGREDUCE_TOKEN": token}) as process:
        word, _, node = _line(process).split()
        assert word == "ready"
        assert tower.look(LIMIT_S, heard(tower, "joined", node))
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_an_observer_may_look_and_a_token_for_it_starts_no_peer(local: LocalPeers, ringreduce: Run) -> None:
    token = ringreduce("token", "--role", "observe").stdout.strip()
    looked = ringreduce("members", "--peer", local.peers[0].address, RINGREDUCE_TOKEN=token)
    assert looked.returncode == 0
    refused = ringreduce("peer", "--listen", "127.0.0.1:0", RINGREDUCE_TOKEN=token)
    assert refused.returncode == 2
    assert "for observe only" in refused.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="finds the children in /proc")
def test_a_swarm_that_is_killed_leaves_no_peer_behind(keys_directory: Path) -> None:
    command = [sys.executable, "-m", "p2p.cli", "swarm", "2", "--port", "0", "--keys", str(keys_directory)]
    with _running([*command, "--quiet"]) as process:
        ready = [_line(process).split() for _ in range(2)]
        assert all(line[0] == "ready" for line in ready)
        children = [
            int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        assert len(children) == 2
        ends = [os.pidfd_open(child) for child in children]
        process.kill()
        process.wait(LIMIT_S)
        for end in ends:
            assert select.select([end], [], [], LIMIT_S)[0], "a peer outlives its swarm"
            os.close(end)


OWNER = """
import sys
from p2p.local_swarm import LocalSwarm
with LocalSwarm(peers=2, slots=1) as swarm:
    pids = [swarm._guard.pid, *(peer.pid for peer in swarm.local.peers)]
    print(swarm.keys_directory.parent, *pids, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="waits for processes that are not its children")
def test_a_process_that_is_killed_leaves_nothing_of_its_local_swarm() -> None:
    with _running([sys.executable, "-c", OWNER], stdin=subprocess.PIPE) as owner:
        directory, *pids = _line(owner).split()
        assert sorted(path.name for path in Path(directory).iterdir()) == ["keys", "peer-0", "peer-1"]
        ends = [os.pidfd_open(int(pid)) for pid in pids]
        owner.kill()
        owner.wait(LIMIT_S)
        for end in ends:
            assert select.select([end], [], [], LIMIT_S)[0], "a process outlives its owner"
            os.close(end)
    assert not Path(directory).exists()


def test_a_swarm_stops_with_all_its_peers_on_ctrl_c(keys_directory: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "p2p.cli", "swarm", "2", "--port", "0", "--keys", str(keys_directory)]
    with _running([*command, "--quiet", "--data", str(tmp_path)]) as process:
        for _ in range(2):
            assert _line(process).startswith("ready")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["peer-0", "peer-1"]


@contextlib.contextmanager
def _running(
    command: list[str], env: dict[str, str] | None = None, stdin: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, bufsize=0
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[bytes]) -> str:
    """The next line; read byte by byte, so that `select` sees what is left."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([process.stdout], [], [], LIMIT_S)[0], "no line in time"
        byte = process.stdout.read(1)
        assert byte, "the process ended in the middle of a line"
        line += byte
    return line.decode()


FAULTS_OF_ROUNDS = """
import resource
from p2p.process import keep_freed_memory
assert keep_freed_memory()
def rounds(count):
    for _ in range(count):
        held = [b"x" * (1 << 20) for _ in range(6)]
rounds(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
rounds(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="other mallocs keep what they like")
def test_a_peer_uses_the_memory_of_large_messages_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS_OF_ROUNDS], capture_output=True, text=True, check=True
    )
    megabyte = (1 << 20) // os.sysconf("SC_PAGESIZE")
    assert int(done.stdout) < megabyte, "120 MB were given back to the system and taken again"
