"""The ring's files on whole peers in memory, on a clock of its own: names, copies, scrubbing, leaving."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import xxhash

from mapreduce.placement import DRAINING, FAILING, FULL
from mapreduce.spec import InputSplit, JobPlan, StepPlan
from p2p import file_questions as f
from p2p.block_puts import MAX_UPLOADS
from p2p.blocks import MAX_BLOCKS, RingPath, attempt_of
from p2p.catalogue import REMOVAL_KEPT_S, Entry
from p2p.disk import REFUSALS
from p2p.file_client import block_segment
from p2p.job_hearing import Heard
from p2p.replication import SURPLUS_S
from p2p.ring_questions import AskScrub, ScrubIs
from p2p.scrubbing import SCRUB_PERIOD_S
from p2p.segments import FILE_STAGE, WHOLE, Covers, pack_header, with_head
from p2p.store import Store
from tests.p2p.memory_swarm import Asker, MemorySwarm, Node
from tests.p2p.ring_puts import BLOCK, content, copies, entry_of, holders, put


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[MemorySwarm]:
    made = MemorySwarm(tmp_path)
    yield made
    made.close()


def read(node: Node, name: str, block: int) -> bytes:
    entry = node.engine.ring_files.catalogue.get(name)
    assert entry is not None
    located = node.engine.store.find(entry.file, FILE_STAGE, attempt_of(block))
    assert located is not None
    return node.engine.store.read(located)


def test_a_file_lies_on_as_many_peers_as_were_asked_for_and_all_know_its_name(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b", "c", "d")
    data = content(35_000)
    assert put(swarm, "books/one", data).reason == ""
    assert copies(swarm, 4) == [2, 2, 2, 2]
    assert swarm.run(5, lambda: all(one.engine.ring_files.catalogue.get("books/one") for one in nodes))
    for block in range(4):
        for name in holders(swarm, block):
            assert read(swarm.nodes[name], "books/one", block) == data[block * BLOCK : (block + 1) * BLOCK]


def test_a_name_that_exists_is_refused_unless_it_is_to_be_replaced(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b", "c")
    assert put(swarm, "x", content(100)).reason == ""
    refused = put(swarm, "x", content(200), file="b" * 40)
    assert refused.reason == "exists"
    assert "--force" in refused.text
    assert put(swarm, "x", content(200), file="b" * 40, replaces=True).reason == ""
    swarm.run(1)
    assert {one.engine.ring_files.catalogue.get("x").file for one in nodes} == {"b" * 40}  # type: ignore[union-attr]


def test_of_two_puts_of_one_name_at_the_same_time_one_is_refused(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b", "c", "d")
    askers = [Asker(swarm), Asker(swarm)]
    for number, (asker, node) in enumerate(zip(askers, nodes[1:], strict=False)):
        entry = entry_of("x", b"", str(number) * 40, 1)
        asker.say(node, f.NameFile(number=number, entry=entry, replaces=False))
    answers: list[f.FileNamed] = []
    assert swarm.run(
        20, lambda: answers.extend(one for asker in askers for one in asker.heard()) or len(answers) == 2
    )
    assert sorted(answer.reason for answer in answers) == ["", "exists"]


def test_without_a_majority_no_name_is_given(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    for name in ("b", "c"):
        swarm.nodes[name].end.close()  # they are silent, and nobody has noticed yet
        swarm.crash(name)
    asker = Asker(swarm)
    entry = entry_of("x", b"", "1" * 40, 1)
    answer = asker.ask(swarm.nodes["a"], f.NameFile(number=1, entry=entry, replaces=False))
    assert answer.reason == "quorum"
    assert "b, c" in answer.text
    assert swarm.nodes["a"].engine.ring_files.catalogue.get("x") is None


def test_copies_are_made_again_when_a_peer_dies_and_when_one_joins_the_ring_is_as_it_should_be(
    swarm: MemorySwarm,
) -> None:
    first = swarm.start("a", "b", "c")[0]
    put(swarm, "x", content(55_000))
    swarm.crash("b", wipe=True)
    assert swarm.run(30, lambda: copies(swarm, 6) == [2] * 6)
    swarm.add("d", join=[first.peer.swim.me.address])
    assert swarm.run(30, lambda: any("d" in holders(swarm, block) for block in range(6)))
    assert swarm.run(60 + SURPLUS_S, lambda: copies(swarm, 6) == [2] * 6)


def test_after_all_peers_have_been_killed_the_files_are_there_again(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    put(swarm, "x", content(25_000))
    for name in ("a", "b", "c"):
        swarm.crash(name)
    nodes = swarm.start("a", "b", "c")
    assert all(one.engine.ring_files.catalogue.get("x") for one in nodes)
    assert copies(swarm, 3) == [2, 2, 2]


def test_a_peer_that_was_away_learns_of_new_names_and_of_removals(swarm: MemorySwarm) -> None:
    first = swarm.start("a", "b", "c")[0]
    put(swarm, "old", content(100))
    swarm.crash("c")
    assert swarm.run(30, swarm.agreed)
    put(swarm, "new", content(100), file="b" * 40)
    asker = Asker(swarm)
    removal = Entry(name="old", version=0, file="c" * 40, is_removal=True, expires_at_s=1e9 + REMOVAL_KEPT_S)
    assert asker.ask(first, f.NameFile(number=1, entry=removal, replaces=True)).reason == ""
    third = swarm.add("c", join=[first.peer.swim.me.address])
    names = third.engine.ring_files.catalogue
    assert swarm.run(15, lambda: names.get("new") is not None and names.get("old") is None)


def test_what_is_removed_is_dropped_everywhere_after_a_while(swarm: MemorySwarm) -> None:
    first = swarm.start("a", "b", "c")[0]
    put(swarm, "x", content(100))
    removal = Entry(name="x", version=0, file="c" * 40, is_removal=True, expires_at_s=1e9 + REMOVAL_KEPT_S)
    assert Asker(swarm).ask(first, f.NameFile(number=1, entry=removal, replaces=True)).reason == ""
    assert swarm.run(120, lambda: copies(swarm, 1) == [0])
    again = Asker(swarm).ask(
        first, f.NameFile(number=2, entry=replace(removal, file="d" * 40), replaces=True)
    )
    assert again.reason == "unknown"


def test_a_damaged_copy_is_found_by_scrubbing_and_made_again_from_another(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    data = content(5_000)
    put(swarm, "x", data)
    victim = swarm.nodes[sorted(holders(swarm, 0))[0]]
    located = victim.engine.store.find("a" * 40, FILE_STAGE, 1)
    assert located is not None
    with open(located.path, "r+b") as file:
        file.seek(located.offset + 2_000)
        file.write(b"rotten")
    swarm.now += SCRUB_PERIOD_S  # nobody looks before
    assert swarm.run(60, lambda: victim.engine.store.damaged == 1)
    assert swarm.run(60, lambda: copies(swarm, 1) == [2])
    assert {read(swarm.nodes[name], "x", 0) for name in holders(swarm, 0)} == {data}


def test_a_peer_reads_through_all_that_it_holds_when_it_is_asked_to(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    put(swarm, "x", content(35_000))
    victim = swarm.nodes[sorted(holders(swarm, 0))[0]]
    store, asker = victim.engine.store, Asker(swarm)
    held = store.segments()
    located = store.find("a" * 40, FILE_STAGE, 1)
    assert located is not None
    os.unlink(located.path)

    def told(*, begins: bool) -> ScrubIs:
        return cast(ScrubIs, asker.ask(victim, AskScrub(number=7, begins=begins)))

    assert told(begins=False).checked == 0
    assert told(begins=True).waiting == len(held)
    assert swarm.run(5, lambda: told(begins=False).waiting == 0)
    assert told(begins=False) == ScrubIs(number=7, checked=len(held), damaged=1, waiting=0)
    assert store.damaged == 1
    assert swarm.run(60, lambda: copies(swarm, 4) == [2] * 4)


def test_a_damaged_copy_is_never_sent_on(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    data = content(5_000)
    put(swarm, "x", data)
    holding = sorted(holders(swarm, 0))
    victim = swarm.nodes[holding[0]]
    located = victim.engine.store.find("a" * 40, FILE_STAGE, 1)
    assert located is not None
    with open(located.path, "r+b") as file:
        file.seek(located.offset)
        file.write(b"rotten")
    outsider = next(name for name in swarm.nodes if name not in holding)
    swarm.crash(outsider, wipe=True)
    swarm.crash(holding[1])  # the sound copy is away, and nothing may be made of the other one
    swarm.add("d", join=[victim.peer.swim.me.address])
    assert swarm.run(30, lambda: victim.engine.store.damaged == 1)
    assert copies(swarm, 1) == [0]
    swarm.add(holding[1], join=[victim.peer.swim.me.address])
    assert swarm.run(60, lambda: copies(swarm, 1) == [2])
    assert {read(swarm.nodes[name], "x", 0) for name in holders(swarm, 0)} == {data}


def test_a_peer_that_leaves_hands_its_only_copies_on_first(swarm: MemorySwarm) -> None:
    swarm.start("a", "b", "c")
    put(swarm, "x", content(45_000), replicas=1)
    assert copies(swarm, 5) == [1] * 5
    leaver = next(iter(holders(swarm, 0)))
    peer = swarm.nodes[leaver].peer
    others = [one for name, one in swarm.nodes.items() if name != leaver]

    def has_left() -> bool:
        peer.leave(swarm.now)
        return peer.has_left

    assert swarm.run(30, has_left)
    swarm.crash(leaver)
    assert min(copies(swarm, 5)) >= 1
    assert all("draining" in dict(one.peer.swim.view.get(peer.swim.me.id).meta) for one in others)  # type: ignore[union-attr]


def test_when_all_leave_at_once_nobody_waits_for_another(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b", "c")
    put(swarm, "x", content(45_000))
    began = swarm.now

    def all_have_left() -> bool:
        for node in nodes:
            node.peer.leave(swarm.now)
        return all(node.peer.has_left for node in nodes)

    assert swarm.run(30, all_have_left)
    assert swarm.now - began < 6


def test_a_full_peer_says_so_takes_nothing_and_is_passed_over(
    swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = swarm.start("a", "b", "c")
    full = nodes[1]
    usual = Store.is_full
    monkeypatch.setattr(
        Store,
        "is_full",
        lambda store, more_bytes=0: store is full.engine.store or usual(store, more_bytes),
    )

    def all_know() -> bool:
        views = [one.peer.swim.view.get(full.id) for one in nodes]
        return all(view is not None and FULL in dict(view.meta) for view in views)

    assert swarm.run(10, all_know)
    put(swarm, "x", content(75_000))
    assert copies(swarm, 8) == [2] * 8
    assert all("b" not in holders(swarm, block) for block in range(8))
    monkeypatch.setattr(Store, "is_full", usual)
    assert swarm.run(60, lambda: any("b" in holders(swarm, block) for block in range(8)))
    assert DRAINING not in dict(full.peer.swim.me.meta)


def test_a_peer_whose_disk_takes_nothing_says_so_until_a_probe_goes_well(
    swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = swarm.start("a", "b")
    failing = nodes[1]

    def all_say(mark: str | None) -> bool:
        views = [one.peer.swim.view.get(failing.id) for one in nodes]
        return all(view is not None and dict(view.meta).get(FAILING) == mark for view in views)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("p2p.disk.write_all", refuse)
        for number in range(REFUSALS):
            with pytest.raises(OSError, match="Input/output error"):
                failing.engine.store.put("a" * 32, 0, number, 1, b"data")
        assert swarm.run(10, lambda: all_say("Input/output error"))
        assert not swarm.run(40, lambda: all_say(None))  # a probe fails as well
    assert swarm.run(40, lambda: all_say(None))
    assert failing.engine.store.segments() == []


def test_a_temporary_file_is_forgotten_by_all_when_its_time_is_over(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b", "c")
    entry = replace(entry_of("x", b"", "1" * 40, 1), made_at_s=5.0, expires_at_s=25.0)  # the client's clock
    assert Asker(swarm).ask(nodes[0], f.NameFile(number=1, entry=entry, replaces=False)).reason == ""
    assert all(one.engine.ring_files.catalogue.get("x") for one in nodes)
    assert swarm.run(40, lambda: not any(one.engine.ring_files.catalogue.get("x") for one in nodes))


def test_a_block_that_is_said_again_is_not_written_twice(swarm: MemorySwarm) -> None:
    node = swarm.start("a")[0]
    header, body = block_segment("a" * 40, 0, b"data", b"", b"")
    asker = Asker(swarm)
    for upload in ("1" * 40, "2" * 40):
        chunk = f.PutBlock(number=1, upload=upload, header=header, offset=0, data=body, blocks=1, copies=2)
        answer = asker.ask(node, chunk)
        assert (answer.received, answer.copies, answer.reason) == (4, 1, "")
    assert len(node.engine.store.segments()) == 1


def test_only_blocks_of_files_are_taken_from_clients(swarm: MemorySwarm) -> None:
    node = swarm.start("a")[0]
    header, body = block_segment("a" * 32, 0, b"data", b"", b"")  # the id of a job
    chunk = f.PutBlock(number=1, upload="1" * 40, header=header, offset=0, data=body, blocks=1, copies=1)
    assert "no block" in Asker(swarm).ask(node, chunk).reason
    assert node.engine.store.segments() == []


def chunk_of(file: str, number: int, block: bytes, blocks: int, copies: int) -> f.PutBlock:
    header, body = block_segment(file, number, block, b"", b"")
    upload = f"{number:040x}"
    return f.PutBlock(
        number=1, upload=upload, header=header, offset=0, data=body, blocks=blocks, copies=copies
    )


def test_blocks_wait_for_their_name_as_long_as_others_come_and_no_name_is_given_without_them(
    swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.block_keeper.UNNAMED_S", 20.0)
    nodes = swarm.start("a", "b", "c")
    data, file, asker = content(25_000), "a" * 40, Asker(swarm)
    name = f.NameFile(number=9, entry=entry_of("x", data, file, 1), replaces=False)
    for number, node in enumerate(nodes):  # each peer gets one block, and hears of the others
        block = data[number * BLOCK :][:BLOCK]
        assert asker.ask(node, chunk_of(file, number, block, 3, 1)).copies == 1
        swarm.run(15)
    assert copies(swarm, 3) == [1, 1, 1]
    swarm.run(70)
    assert copies(swarm, 3) == [0, 0, 0]
    answer = asker.ask(nodes[0], name)
    assert (answer.reason, answer.lacking) == ("lacking", b"\x07")
    for number, node in enumerate(nodes):
        assert asker.ask(node, chunk_of(file, number, data[number * BLOCK :][:BLOCK], 3, 1)).copies == 1
    assert swarm.run(10, lambda: asker.ask(nodes[0], name).reason == "")


def test_blocks_wait_for_their_name_as_long_as_another_comes_however_slowly(
    swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.block_keeper.UNNAMED_S", 20.0)
    nodes = swarm.start("a", "b", "c")
    data, file, asker = content(2 * BLOCK), "a" * 40, Asker(swarm)
    assert asker.ask(nodes[0], chunk_of(file, 0, data[:BLOCK], 2, 1)).copies == 1
    slow = chunk_of(file, 1, data[BLOCK:], 2, 1)
    step = len(slow.data) // 6
    received = 0
    for at in range(0, 5 * step, step):
        some = replace(slow, header=slow.header if not at else b"", offset=at, data=slow.data[at : at + step])
        received = asker.ask(nodes[1], some).received
        swarm.run(15)
        assert copies(swarm, 2) == [1, 0]
    for _ in range(6):  # who only asks how far it is brings nothing
        received = asker.ask(nodes[1], replace(slow, header=b"", offset=received, data=b"")).received
        swarm.run(10)
    assert copies(swarm, 2) == [0, 0]


def test_a_block_whose_only_holder_leaves_is_lacking(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b", "c")
    data, file, asker = content(100), "a" * 40, Asker(swarm)
    assert asker.ask(nodes[1], chunk_of(file, 0, data, 1, 1)).copies == 1
    nodes[1].peer.leave(swarm.now)
    assert swarm.run(10, lambda: DRAINING in dict(nodes[0].peer.swim.view.get(nodes[1].id).meta))  # type: ignore[union-attr]
    name = f.NameFile(number=9, entry=entry_of("x", data, file, 1), replaces=False)
    assert asker.ask(nodes[0], name).reason == "lacking"


def test_a_slow_put_is_not_starved_by_a_fast_one(swarm: MemorySwarm) -> None:
    node = swarm.start("a")[0]
    slow, fast = Asker(swarm), Asker(swarm)
    whole = chunk_of("5" * 40, 0, content(10_000), 1, 1)
    first = replace(whole, upload="f" * 40, data=whole.data[:5_000])
    assert slow.ask(node, first).received == 5_000
    for number in range(MAX_UPLOADS):
        chunk = replace(chunk_of(f"{number:040x}", 0, b"x", 1, 1), upload=f"{number:040x}")
        assert fast.ask(node, chunk).copies == 1
    rest = replace(first, header=b"", offset=5_000, data=whole.data[5_000:])
    assert slow.ask(node, rest).copies == 1


def test_of_too_many_uploads_the_one_that_was_silent_longest_goes(swarm: MemorySwarm) -> None:
    node, asker = swarm.start("a")[0], Asker(swarm)
    firsts = []
    for number in range(MAX_UPLOADS):
        whole = replace(chunk_of(f"{number:040x}", 0, content(100), 1, 1), upload=f"{number:040x}")
        firsts.append((replace(whole, data=whole.data[:50]), whole.data[50:]))
        assert asker.ask(node, firsts[-1][0]).received == 50
    assert asker.ask(node, replace(firsts[0][0], header=b"", offset=50, data=b"")).received == 50
    one_more = replace(chunk_of("e" * 40, 0, b"x", 1, 1), upload="e" * 40)
    assert asker.ask(node, one_more).copies == 1
    received = [
        asker.ask(node, replace(first, header=b"", offset=50, data=rest)).received
        for first, rest in firsts[:2]
    ]
    assert received == [100, 0]


def test_a_block_that_was_dropped_after_its_upload_is_asked_for_again(swarm: MemorySwarm) -> None:
    node, asker = swarm.start("a")[0], Asker(swarm)
    chunk = chunk_of("a" * 40, 0, b"x", 1, 1)
    assert asker.ask(node, chunk).copies == 1
    node.engine.store.drop_job("a" * 40)
    again = asker.ask(node, replace(chunk, header=b"", offset=len(chunk.data), data=b""))
    assert (again.received, again.copies) == (0, 0)
    assert asker.ask(node, chunk).copies == 1


def test_a_file_that_has_lost_its_name_stays_as_long_as_a_job_reads_it(swarm: MemorySwarm) -> None:
    nodes = swarm.start("a", "b")
    put(swarm, "x", content(100))
    path = RingPath(file="a" * 40, block_bytes=BLOCK, size_bytes=100, name="x")
    split = InputSplit(path=str(path), start=0, end=100, name="x", key="x")
    step = StepPlan(name="only", splits=(split,))
    plan = JobPlan(name="long", steps=(step,), split_bytes=100, python="3.11")
    job = "1" * 32
    for node in nodes:
        node.engine.take_plan(job, plan)
        node.engine.heard[job] = Heard(nodes[0].id, (), "")
    removal = Entry(name="x", version=0, file="c" * 40, is_removal=True, expires_at_s=1e9 + REMOVAL_KEPT_S)
    assert Asker(swarm).ask(nodes[0], f.NameFile(number=1, entry=removal, replaces=True)).reason == ""
    swarm.run(120)
    assert copies(swarm, 1) == [2]
    for node in nodes:
        node.engine.forget(job)
    assert swarm.run(30, lambda: copies(swarm, 1) == [0])


def test_an_entry_that_cannot_be_removed_ends_no_peer(
    swarm: MemorySwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = swarm.start("a")[0]
    entry = replace(entry_of("x", b"", "1" * 40, 1), expires_at_s=2.0)
    assert Asker(swarm).ask(node, f.NameFile(number=1, entry=entry, replaces=False)).reason == ""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr("p2p.name_files.os.unlink", refuse)
        node.engine.ring_files.tick(swarm.now + 2 * REMOVAL_KEPT_S)
    assert any("Read-only file system" in line for line in node.log)
    assert node.engine.ring_files.catalogue.known("x") is None


@pytest.mark.parametrize("attempt", [0, 3, MAX_BLOCKS + 1, 1 << 62])
def test_what_is_no_block_of_the_file_is_refused_whatever_its_number_and_the_peer_starts_again(
    swarm: MemorySwarm, attempt: int
) -> None:
    (node,) = swarm.start("a")
    rows = [(0, attempt, WHOLE, 0, BLOCK, 0, 0, 0)]
    covers = Covers(partitions=(), tasks=(0,), attempts=(attempt,))
    data = content(BLOCK)
    header = pack_header("a" * 40, FILE_STAGE, BLOCK, xxhash.xxh3_128_digest(data), rows, covers)
    chunk = f.PutBlock(number=1, upload="b" * 40, header=header, offset=0, data=data, blocks=2, copies=1)
    answer = Asker(swarm).ask(node, chunk)
    assert answer.copies == 0
    assert "block" in answer.reason
    assert node.engine.store.segments() == []
    swarm.crash("a")
    swarm.start("a")


def test_a_segment_with_an_impossible_block_number_that_lies_on_the_disk_is_dropped(
    swarm: MemorySwarm,
) -> None:
    (node,) = swarm.start("a")
    assert put(swarm, "books", content(BLOCK), replicas=1).reason == ""
    (path,) = node.engine.store.segments()
    header = pack_header(
        "a" * 40,
        FILE_STAGE,
        0,
        xxhash.xxh3_128_digest(b""),
        [],
        Covers(partitions=(), tasks=(0,), attempts=(0,)),
    )
    Path(f"{path.removesuffix('.seg')}0.seg").write_bytes(with_head(header))
    swarm.crash("a")
    (node,) = swarm.start("a")
    assert holders(swarm, 0) == {"a"}
    assert node.engine.store.segments() == [path]
