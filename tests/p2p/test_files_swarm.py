"""Files of the ring on real peers: the commands, jobs that read them, inputs that are brought.  One swarm."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mapreduce import Csv, Job, Pairs
from mapreduce.errors import InputError, UsageError
from p2p import LocalSwarm
from p2p import file_questions as f
from p2p.file_client import FileClient, FileUnknown
from p2p.key_source import KeySource
from p2p.ring_sources import expand_ring

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LIMIT_S = 60.0
BLOCK = 20_000


@pytest.fixture(scope="module")
def swarm() -> Iterator[LocalSwarm]:
    with LocalSwarm(peers=3, slots=1) as made:
        yield made


@pytest.fixture(scope="module")
def keys(swarm: LocalSwarm) -> dict[str, str]:
    return {"RINGREDUCE_KEYS": str(Path(swarm._directory) / "keys")}


@pytest.fixture(scope="module")
def client(swarm: LocalSwarm, keys: dict[str, str]) -> Iterator[FileClient]:
    with FileClient(KeySource(directory=Path(keys["RINGREDUCE_KEYS"])).load().keys, swarm.peers) as made:
        yield made


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word[:20], 1


def total(word: str, counts: Iterator[int]) -> Iterator[tuple[str, int]]:
    yield word, sum(counts)


COUNT = Job(mapper=words, combiner=total, reducer=total)


def text(lines: int, *, long_line: int = 0) -> bytes:
    rng = random.Random(lines)
    made = [" ".join(f"w{rng.randrange(500)}" for _ in range(rng.randrange(12))) for _ in range(lines)]
    if long_line:
        made.insert(lines // 2, " ".join(["long"] * (long_line // 5)))
    return "\n".join(made).encode()


def counted(data: bytes) -> Counter[str]:
    """What COUNT makes of a text."""
    return Counter(word[:20] for word in data.decode().split())


def on_the_ring(swarm: LocalSwarm, client: FileClient, name: str, data: bytes, job: Job) -> dict[str, int]:
    """The result of a job that reads a file of the ring, in blocks and splits of some kilobytes."""
    client.put(io.BytesIO(data), name, block_bytes=BLOCK)
    with swarm.submit(job, f"ring:{name}", split_bytes=BLOCK, partitions=2) as handle:
        return dict(handle.result(LIMIT_S))


def test_a_job_gives_the_same_as_on_one_machine_wherever_records_and_splits_cross_the_blocks(
    swarm: LocalSwarm, client: FileClient, tmp_path: Path
) -> None:
    data = text(4_000)
    (tmp_path / "words.txt").write_bytes(data)
    client.put(io.BytesIO(data), "words.txt", block_bytes=BLOCK)
    with (
        COUNT.run(str(tmp_path / "words.txt"), split_bytes=27_001, partitions=2) as alone,
        swarm.submit(COUNT, "ring:words.txt", split_bytes=27_001, partitions=2) as handle,
    ):
        result = handle.result(LIMIT_S)
        assert list(result) == list(alone)
        assert result.counters == dict(alone.counters)


def test_a_record_longer_than_what_a_block_brings_along_is_read_whole(
    swarm: LocalSwarm, client: FileClient
) -> None:
    data = text(2_000, long_line=150_000)
    assert on_the_ring(swarm, client, "long.txt", data, COUNT) == counted(data)


def test_tables_have_their_header_and_compressed_files_are_unpacked(
    swarm: LocalSwarm, client: FileClient
) -> None:
    table = "city,people\n" + "".join(f"town{number % 17},{number}\n" for number in range(6_000))

    def people(row: dict[str, str]) -> Iterator[tuple[str, int]]:
        yield row["city"], int(row["people"])

    job = Job(mapper=people, reducer=total, reader=Csv(multiline=False))
    found = on_the_ring(swarm, client, "towns.csv", table.encode(), job)
    assert found == {f"town{town}": sum(range(town, 6_000, 17)) for town in range(17)}
    packed = gzip.compress(text(4_000))
    assert on_the_ring(swarm, client, "words.txt.gz", packed, COUNT) == counted(text(4_000))


def test_pairs_whose_form_shows_in_their_first_bytes_are_read_from_the_ring(
    swarm: LocalSwarm, client: FileClient
) -> None:
    lines = "".join(f'["k{number % 50}", {number}]\n' for number in range(5_000))
    job = Job(mapper=lambda key, value: [(key, value)], reducer=total, reader=Pairs())
    found = on_the_ring(swarm, client, "pairs", lines.encode(), job)
    assert found == {f"k{key}": sum(range(key, 5_000, 50)) for key in range(50)}


PATTERNS = {
    "ring:books": ["books/a.txt", "books/b.txt", "books/notes.md", "books/old/c.txt"],
    "ring:books/old/": ["books/old/c.txt"],
    "ring:books/*.txt": ["books/a.txt", "books/b.txt"],
    "ring:books/**/*.txt": ["books/a.txt", "books/b.txt", "books/old/c.txt"],
    "ring:books/**": ["books/a.txt", "books/b.txt", "books/notes.md", "books/old/c.txt"],
    "ring:book?/[ab].txt": ["books/a.txt", "books/b.txt"],
}


def test_directories_and_patterns_of_the_ring_are_inputs_too(
    swarm: LocalSwarm, client: FileClient, tmp_path: Path
) -> None:
    books = tmp_path / "books"
    (books / "old").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "old/c.txt", "notes.md"):
        (books / name).write_bytes(text(50 + len(name)))
    swarm.put(books, "books")
    assert [row.name for row in swarm.ls("books/")] == [
        "books/a.txt",
        "books/b.txt",
        "books/notes.md",
        "books/old/c.txt",
    ]
    found = {given: [entry.name for entry in expand_ring(client, given)] for given in PATTERNS}
    assert found == PATTERNS
    with swarm.submit(COUNT, "ring:books/*.txt") as handle:
        assert dict(handle.result(LIMIT_S)) == counted(text(55) + b"\n" + text(55))
    with pytest.raises(InputError, match="no file of the ring matches"):
        swarm.submit(COUNT, "ring:books/*.nix")
    with pytest.raises(InputError, match=r"did you mean books/a\.txt"):
        swarm.submit(COUNT, "ring:books/aa.txt")


def test_an_input_that_only_the_client_sees_is_brought_and_taken_back(swarm: LocalSwarm) -> None:
    import fsspec

    with fsspec.open("memory://only-here/words.txt", "wb") as file:
        file.write(text(300))
    said: list[str] = []
    with swarm.submit(COUNT, "memory://only-here/words.txt", on_message=said.append) as handle:
        found = dict(handle.result(LIMIT_S))
    assert found == counted(text(300))
    assert any("memory://only-here/words.txt" in line and "on the ring" in line for line in said)
    assert swarm.ls(".inputs/") == []


def test_files_are_put_fetched_listed_and_removed_from_python(swarm: LocalSwarm, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    swarm.put(tmp_path / "x", "some/x")
    assert swarm.get("some/x") == swarm.get("ring:some/x") == b"content"
    assert swarm.get("some/x", tmp_path / "y") is None
    assert (tmp_path / "y").read_bytes() == b"content"
    assert [(row.name, row.size_bytes, row.replicas) for row in swarm.ls("some/")] == [("some/x", 7, 2)]
    swarm.rm("some/x")
    assert swarm.ls("some/") == []
    with pytest.raises(FileUnknown):
        swarm.get("some/x")


def test_a_directory_is_put_counted_fetched_and_removed_from_python(
    swarm: LocalSwarm, tmp_path: Path
) -> None:
    (tmp_path / "books" / "old").mkdir(parents=True)
    (tmp_path / "books" / "a.txt").write_text("one two\n")
    (tmp_path / "books" / "old" / "b.txt").write_text("two\n")
    swarm.put(tmp_path / "books", "shelf")
    with swarm.submit(COUNT, "ring:shelf/a.txt", tmp_path / "books" / "old") as handle:
        assert dict(handle.result(LIMIT_S)) == {"one": 1, "two": 2}
    assert swarm.get("ring:shelf/", tmp_path / "back") is None
    assert (tmp_path / "back" / "a.txt").read_text() == "one two\n"
    assert (tmp_path / "back" / "old" / "b.txt").read_text() == "two\n"
    with pytest.raises(UsageError, match="name a directory"):
        swarm.get("shelf/")
    with pytest.raises(FileUnknown, match="leave the / out"):
        swarm.get("shelf/a.txt/", tmp_path / "nowhere")
    swarm.rm("shelf/")
    assert swarm.ls("shelf") == []
    with pytest.raises(FileUnknown, match="no file is below shelf/"):
        swarm.get("shelf/", tmp_path / "nowhere")


def test_blocks_that_nobody_holds_when_the_name_is_asked_for_are_sent_again(
    client: FileClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.file_client.LACKING_WAIT_S", 0.0)
    ask, sent = client.ask, client._sent
    told = [f.FileNamed(number=0, reason="lacking", lacking=b"\x02")]
    numbers: list[int] = []

    def ask_forgetful(question: Any, kind: Any) -> Any:
        return told.pop() if isinstance(question, f.NameFile) and told else ask(question, kind)

    def note(reading: Iterator[Any], *more: Any) -> Iterator[tuple[int, int]]:
        return sent((numbers.append(block.number) or block for block in reading), *more)  # type: ignore[func-returns-value]

    monkeypatch.setattr(client, "ask", ask_forgetful)
    monkeypatch.setattr(client, "_sent", note)
    data = text(2_000)[: 2 * BLOCK + 10]
    entry, _ = client.put(io.BytesIO(data), "again/x", block_bytes=BLOCK)
    assert numbers == [0, 1, 2, 1]
    assert b"".join(client.block(entry, number) for number in range(3)) == data


def test_the_commands_say_in_one_line_what_is_wrong(
    ringreduce: Run, swarm: LocalSwarm, keys: dict[str, str], tmp_path: Path
) -> None:
    there = ["--peer", swarm.peers[0]]
    path = tmp_path / "x.txt"
    path.write_bytes(b"one\n")
    done = ringreduce("put", str(path), "cli/x", *there, **keys)
    assert (done.returncode, done.stdout) == (0, "")
    assert "cli/x: 4 bytes" in done.stderr
    assert ringreduce("get", "ring:cli/x", *there, **keys).stdout == "one\n"
    listed = json.loads(ringreduce("ls", "cli/", "--format", "json", *there, **keys).stdout)
    assert [(row["name"], row["size_bytes"], row["replicas"]) for row in listed] == [("cli/x", 4, 2)]
    for arguments, code, words_said in (
        (("put", str(path), "cli/x"), 2, "cli/x exists already"),
        (("put", str(tmp_path / "nix"), "cli/y"), 2, "no such file"),
        (("put", str(path), "cli/../y"), 2, "no name for a file"),
        (("put", str(path), "cli"), 2, "cli: files lie below cli/ on the ring"),
        (("put", str(path), "cli/x/y"), 2, "cli/x/y: cli/x is a file on the ring"),
        (("get", "cli/z"), 2, "no file cli/z is on the ring; did you mean cli/x?"),
        (("get", "ring:cli/z"), 2, "no file cli/z is on the ring; did you mean cli/x?"),
        (("get", "cli/", "-o", str(path)), 2, "is a file, or lies below one; name a directory"),
        (
            ("get", "cli"),
            2,
            "cli is a directory on the ring: fetch all files of it with  ringreduce get cli/ -o",
        ),
        (("rm", "cli/x", "nothing"), 2, "no file nothing is on the ring"),
        (("get", "cli/z"), 2, "did you mean cli/x?"),
        (("rm", "nothing"), 2, "no file nothing is on the ring"),
        (("run", "wordcount", "ring:cli/x"), 2, "submit the job to a peer"),
    ):
        wrong = ringreduce(*arguments, *(there if arguments[0] != "run" else ()), **keys)
        assert (wrong.returncode, wrong.stdout) == (code, "")
        assert words_said in wrong.stderr
        assert wrong.stderr.count("\n") == 1
    assert ringreduce("rm", "ring:cli/x", *there, **keys).returncode == 0
    nobody = ringreduce("ls", "--peer", "127.0.0.1:1", "--timeout", "0.5", **keys)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (3, 1)


def test_scrub_has_every_peer_read_all_that_it_holds_and_damage_is_mended(
    ringreduce: Run, swarm: LocalSwarm, client: FileClient, keys: dict[str, str]
) -> None:
    entry, copies = client.put(io.BytesIO(text(500)), "scrubbed", replicas=2)
    assert copies == 2
    segment = next(Path(swarm._directory).glob(f"**/segments/{entry.file}/*.seg"))
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 1)
    done = ringreduce("scrub", "--peer", swarm.peers[0], "--format", "json", **keys)
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert len(rows) == 3
    assert sum(row["checked"] for row in rows) >= 2
    assert sum(row["damaged"] for row in rows) == 1


def test_a_file_outlives_the_loss_of_a_holder_and_a_job_reads_it_meanwhile(
    swarm: LocalSwarm, client: FileClient
) -> None:
    data = text(6_000)
    entry, copies = client.put(io.BytesIO(data), "lasting", block_bytes=BLOCK)
    assert copies == 2
    swarm.kill(swarm.local.peers[0].id)
    chunks: list[bytes] = []
    client.get(entry, chunks.append)
    assert b"".join(chunks) == data
    with swarm.submit(COUNT, "ring:lasting", split_bytes=BLOCK) as handle:
        assert dict(handle.result(LIMIT_S)) == counted(data)
