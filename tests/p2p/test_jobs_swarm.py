"""Jobs on real peers in processes of their own: the same bytes as one process, and clear words otherwise.

Nothing here sleeps: tests follow a job's events, with a limit.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mapreduce import Job, finding
from mapreduce.bundling import bundle
from mapreduce.inputs import expand
from mapreduce.loading import pack
from mapreduce.submission import spec_of
from p2p.job_client import InputsNotThere, JobClient
from p2p.key_source import KeySource
from p2p.spec_packing import pack_spec
from p2p.swarm import LocalPeers
from p2p.swarm_client import Swarm
from tests.p2p.jobs_inputs import words_in

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LIMIT_S = 60.0
REPORTED = frozenset(
    [
        *("job_id", "state", "wall_s", "cpu_s", "input_bytes", "shuffle_bytes", "replica_bytes", "map_tasks"),
        *("reduce_tasks", "attempts", "maps_run_again", "leader_changes", "peers_lost", "counters"),
    ]
)


@pytest.fixture(scope="module")
def address(keys_directory: Path) -> Iterator[str]:
    """Three peers with a slot each; the first one's address."""
    with LocalPeers(options=["--keys", str(keys_directory), "--slots", "1"], quiet=True) as local:
        local.start(3)
        yield local.peers[0].address


@pytest.fixture(scope="module")
def swarm(address: str, keys_directory: Path) -> Iterator[Swarm]:
    """The same, from Python."""
    with Swarm(address, keys=keys_directory) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def client(address: str, keys_directory: Path) -> Iterator[JobClient]:
    """A client of the same."""
    with JobClient(KeySource(directory=keys_directory).load().keys, [address]) as client:
        yield client


def parts_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def wordcount(path: str, **options: object) -> bytes:
    """A packed spec of the shipped word count."""
    job, code, _ = finding.load("wordcount", {})
    given: dict[str, object] = {"split_bytes": 20_000, "partitions": 3, "out_format": "text", **options}
    return pack_spec(spec_of(job, bundle(code), expand([path]), **given))  # type: ignore[arg-type]


# -- the same bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["wordcount", "inverted_index", "total_sort", "top_words"])
def test_a_swarm_gives_the_bytes_of_the_embedded_engine(
    ringreduce: Run, address: str, tmp_path: Path, example: str
) -> None:
    inputs = [words_in(tmp_path / f"{number}.txt", seed=number) for number in range(3)]
    shape = ["-r", "4", "--split-size", "20k"]
    alone = ringreduce("run", example, *inputs, *shape, "-o", str(tmp_path / "alone"))
    assert alone.returncode == 0, alone.stderr
    done = ringreduce("submit", example, *inputs, *shape, "--peer", address, "-o", str(tmp_path / "swarm"))
    assert done.returncode == 0, done.stderr
    assert parts_of(tmp_path / "swarm") == parts_of(tmp_path / "alone")


def test_without_o_all_parts_go_to_stdout_in_order(ringreduce: Run, address: str, tmp_path: Path) -> None:
    path = words_in(tmp_path / "words.txt")
    alone = ringreduce("run", "wordcount", path, "-r", "3")
    done = ringreduce("submit", "wordcount", path, "-r", "3", "--peer", address)
    assert done.stdout == alone.stdout != ""
    assert done.returncode == 0


def test_a_handle_gives_pairs_counters_and_a_report(swarm: Swarm, tmp_path: Path) -> None:
    from mapreduce.examples import wordcount as example

    path = words_in(tmp_path / "words.txt")
    with closing(swarm.submit(example.job, [path], partitions=2)) as handle:
        kinds = [event.kind for event in handle.events(LIMIT_S)]
        result = handle.result(LIMIT_S)
        assert list(result) == list(example.job.run([path], partitions=2))
    assert kinds[-1] == "ended"
    assert {"leader", "stage", "progress"} <= set(kinds)
    report = result.report()
    assert report["state"] == "COMMITTED"
    assert (report["map_tasks"], report["reduce_tasks"], report["maps_run_again"]) == (1, 2, 0)


def test_the_report_says_what_the_job_did(ringreduce: Run, address: str, tmp_path: Path) -> None:
    path = words_in(tmp_path / "words.txt")
    report = tmp_path / "report.json"
    shape = ["-r", "2", "--split-size", "30k", "--peer", address, "-o", str(tmp_path / "out")]
    assert ringreduce("submit", "wordcount", path, *shape, "--report", str(report)).returncode == 0
    found = json.loads(report.read_text())
    assert found["input_bytes"] == os.path.getsize(path)
    assert found["map_tasks"] == -(-os.path.getsize(path) // 30_720)
    assert found["reduce_tasks"] == 2
    # Each task once, and a second attempt of those that were slow.
    assert found["attempts"] == found["map_tasks"] + 2 + found["speculated"] + found["failed_attempts"]
    assert found["state"] == "COMMITTED"
    assert 0 < found["cpu_s"] < 10 * found["wall_s"]
    assert found["shuffle_bytes"] > 0
    # Every byte of the shuffle and of the result lies twice; one of the copies may be where it was made.
    once = found["shuffle_bytes"] + found["output_bytes"]
    assert once <= found["replica_bytes"] <= 2 * once
    assert (found["maps_run_again"], found["leader_changes"], found["peers_lost"]) == (0, 0, 0)
    assert found["counters"] == {}
    kinds = Counter(event["kind"] for event in found["events"])
    assert {"leader", "stage", "claimed", "granted", "pushed", "committed"} <= kinds.keys()
    granted = sum(int(e["text"].split()[0]) for e in found["events"] if e["kind"] == "granted")
    assert granted >= found["attempts"]
    assert all(event["node"] and event["time"] > 0 for event in found["events"])
    status = ringreduce("status", found["job_id"], "--format", "json", "--peer", address)
    assert json.loads(status.stdout)["events"] == found["events"]


def test_the_embedded_engine_reports_the_same(ringreduce: Run, address: str, tmp_path: Path) -> None:
    path = words_in(tmp_path / "words.txt")
    reports = []
    for number, where in enumerate((["run"], ["submit", "--peer", address])):
        report = tmp_path / f"{number}.json"
        shape = ["-r", "2", "--split-size", "30k", "-o", str(tmp_path / f"out{number}")]
        done = ringreduce(*where, "wordcount", path, *shape, "--report", str(report))
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(report.read_text()))
    alone, swarm = reports
    assert alone.keys() >= REPORTED
    assert swarm.keys() >= REPORTED
    same = ("input_bytes", "output_bytes", "output_records", "map_tasks", "reduce_tasks", "counters", "state")
    assert {name: alone[name] for name in same} == {name: swarm[name] for name in same}
    assert alone["cpu_s"] > 0
    assert alone["attempts"] == alone["map_tasks"] + alone["reduce_tasks"]


# -- looking, fetching, ending --------------------------------------------------------------------------


def test_a_detached_job_is_listed_attached_to_and_fetched_twice(
    ringreduce: Run, address: str, tmp_path: Path
) -> None:
    path = words_in(tmp_path / "words.txt")
    job = ringreduce("submit", "wordcount", path, "-r", "2", "--detach", "--peer", address).stdout.strip()
    assert re.fullmatch("[0-9a-f]{32}", job)
    attached = ringreduce("attach", job[:8], "--peer", address)
    assert attached.returncode == 0, attached.stderr
    for _ in range(2):
        assert ringreduce("result", job[:8], "--peer", address).stdout == attached.stdout != ""
    rows = json.loads(ringreduce("jobs", "--peer", address, "--format", "json").stdout)
    assert [row["state"] for row in rows if row["id"] == job] == ["COMMITTED"]
    status = json.loads(ringreduce("status", job, "--peer", address, "--format", "json").stdout)
    assert {"id", "state", "leader", "epoch", "members", "stages", "counters"} <= status.keys()
    assert status["id"] == job
    assert [(stage["done"], stage["total"]) for stage in status["stages"]] == [(1, 1), (2, 2)]


def test_unknown_ids_get_one_clear_line(ringreduce: Run, address: str) -> None:
    for prefix, words in (
        ("abcd", "no job 'abcd' is known"),
        ("f" * 32, f"no job '{'f' * 32}' is known"),
        ("ab", "too short"),
        ("xyz!", "no job's id"),
    ):
        for command in ("status", "result", "cancel", "attach", "logs"):
            done = ringreduce(command, prefix, "--peer", address)
            assert (done.returncode, done.stdout) == (2, "")
            assert words in done.stderr
            assert done.stderr.count("\n") == 1


SLOW = """
import time
from mapreduce import task

def mapper(line):
    print("looks at", line)
    task.status("waiting")
    time.sleep(600)
    yield line, 1

def reducer(key, values):
    yield key, sum(values)
"""


def test_a_job_can_be_left_and_ended(ringreduce: Run, address: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "in.txt").write_text("one\n")
    job, path = str(tmp_path / "slow.py"), str(tmp_path / "in.txt")
    left = ringreduce("submit", job, path, "--peer", address, "--timeout", "1")
    assert left.returncode == 4
    assert "it goes on" in left.stderr
    found = re.search("job ([0-9a-f]{12})", left.stderr)
    assert found is not None
    early = ringreduce("result", found[1], "--peer", address)
    assert early.returncode == 4
    assert "still running" in early.stderr
    ended = ringreduce("cancel", found[1], "--peer", address)
    assert (ended.returncode, "is CANCELLED" in ended.stderr) == (0, True), ended.stderr
    again = ringreduce("cancel", found[1], "--peer", address)
    assert (again.returncode, "has ended already" in again.stderr) == (0, True)
    gone = ringreduce("result", found[1], "--peer", address)
    assert (gone.returncode, "was cancelled" in gone.stderr) == (1, True)
    assert "looks at one" in ringreduce("logs", found[1], "--peer", address).stdout


def test_the_end_of_a_finished_job_stays_what_it_was(ringreduce: Run, address: str, tmp_path: Path) -> None:
    path = words_in(tmp_path / "words.txt")
    job = ringreduce("submit", "wordcount", path, "--detach", "--peer", address).stdout.strip()
    assert ringreduce("attach", job, "--peer", address).returncode == 0
    done = ringreduce("cancel", job, "--peer", address)
    assert (done.returncode, "has ended already: COMMITTED" in done.stderr) == (2, True)


# -- whose fault it is ----------------------------------------------------------------------------------


def test_a_failing_mapper_fails_the_job_with_the_users_own_traceback(
    ringreduce: Run, address: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text("def mapper(line):\n    yield line, 1 // int(line)\n")
    (tmp_path / "in.txt").write_text("1\n0\n")
    done = ringreduce("submit", str(tmp_path / "bad.py"), str(tmp_path / "in.txt"), "--peer", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"step 'bad', task map-00000, attempt 3 of 3 on [0-9a-f]+ .*line 2", done.stderr)
    assert "ZeroDivisionError" in done.stderr
    assert "yield line, 1 // int(line)" in done.stderr
    assert f'File "{tmp_path / "bad.py"}", line 2' in done.stderr
    assert "mapreduce/attempt.py" not in done.stderr


def test_a_module_that_no_peer_has_is_named_at_submission(
    ringreduce: Run, address: str, tmp_path: Path
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "onlyhere.py").write_text("VALUE = 1\n")
    (tmp_path / "job.py").write_text("import onlyhere\n\ndef mapper(line):\n    yield line, onlyhere.VALUE\n")
    (tmp_path / "in.txt").write_text("1\n")
    done = ringreduce(
        "submit",
        str(tmp_path / "job.py"),
        str(tmp_path / "in.txt"),
        "--peer",
        address,
        PYTHONPATH=os.pathsep.join([str(tmp_path / "far"), os.getcwd()]),
    )
    assert done.returncode == 2
    assert "no module 'onlyhere'" in done.stderr
    assert re.search("on peer [0-9a-f]{16}", done.stderr)


def test_an_input_that_a_peer_cannot_read_is_named_at_submission(client: JobClient, tmp_path: Path) -> None:
    path = words_in(tmp_path / "words.txt")
    packed = wordcount(path)
    os.unlink(path)
    with pytest.raises(InputsNotThere) as refused:
        client.submit(packed)
    assert refused.value.paths == (path,)
    assert "on peer" in str(refused.value)


def test_another_python_is_said_at_submission(client: JobClient, tmp_path: Path) -> None:
    from dataclasses import replace

    from mapreduce.errors import JobDefinitionError
    from p2p.spec_packing import unpack_spec

    spec = unpack_spec(wordcount(words_in(tmp_path / "words.txt")))
    other = replace(spec, plan=replace(spec.plan, python="3.99"))
    with pytest.raises(JobDefinitionError, match=r"packed by Python 3\.99, and this peer runs 3"):
        client.submit(pack_spec(other))


def test_strict_replicas_refuses_what_plain_replicas_warn_of(
    ringreduce: Run, address: str, tmp_path: Path
) -> None:
    path = words_in(tmp_path / "words.txt")
    wide = ["--peer", address, "--replicas", "5"]
    refused = ringreduce("submit", "wordcount", path, *wide, "--strict-replicas")
    assert refused.returncode == 2
    assert "5 copies are wanted and 3 peers are here" in refused.stderr
    warned = ringreduce("submit", "wordcount", path, *wide, "-o", str(tmp_path / "out"))
    assert warned.returncode == 0
    assert "copies are missing until more join" in warned.stderr


def test_one_nonce_is_one_job(client: JobClient, tmp_path: Path) -> None:
    packed = wordcount(words_in(tmp_path / "words.txt"))
    first = client.submit(packed, "ab" * 16)
    again = client.submit(packed, "ab" * 16)
    other = client.submit(packed, "cd" * 16)
    assert first.job == again.job != other.job
    assert set(first.members) == set(again.members)


def test_a_large_job_is_uploaded(swarm: Swarm, tmp_path: Path) -> None:
    (tmp_path / "side").write_bytes(os.urandom(1 << 20))
    (tmp_path / "in.txt").write_text("1\n")
    job = Job(mapper=_size_of_side_file, side_files={"side": str(tmp_path / "side")})
    with closing(swarm.submit(job, [str(tmp_path / "in.txt")], code=pack(job))) as handle:
        assert list(handle.result(LIMIT_S)) == [("size", 1 << 20)]


def _size_of_side_file(_line: str) -> Iterator[tuple[str, int]]:
    from mapreduce import task

    yield "size", os.path.getsize(task.side_file("side"))
