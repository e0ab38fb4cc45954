"""A task that reads a file of the ring begins when its blocks are here, and again when it lacks another."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mapreduce.effects import RunTask, StageSetup
from mapreduce.pieces import pieces_path
from mapreduce.record import Failure, StageKind
from mapreduce.spec import InputSplit
from mapreduce.streams import open_source
from membership.ring import Ring
from membership.view import Member, NodeId, View
from p2p.blocks import RingPath, places
from p2p.file_client import block_segment
from p2p.ring_inputs import MAX_BEGINNINGS, PAUSE_S, TRIES, RingInputs, pieces_here
from p2p.segments import FILE_STAGE
from p2p.store import Store

FILE = "a" * 40
DATA = bytes(range(256)) * 4  # four blocks
PATH = RingPath(file=FILE, block_bytes=256, size_bytes=len(DATA), name="x")
JOB = "b" * 32


class Desk:
    """What `RingInputs` uses of the service that it is a part of: notes what it is told."""

    def __init__(self, directory: Path) -> None:
        self.me = NodeId("me")
        self.store = Store(str(directory))
        self.begun: list[int] = []
        self.fetched: list[tuple[int, list[NodeId]]] = []
        self.failed: list[Failure] = []
        self.known: dict[int, list[NodeId]] = {}
        members = [Member(NodeId(name), f"{name}:1") for name in ("me", "one", "two")]
        self.swim = SimpleNamespace(view=View.of(members))
        self.more: list[list[int]] = []
        self.runner = SimpleNamespace(run=self.run)
        self.ring_files = SimpleNamespace(
            blocks=SimpleNamespace(
                use=lambda _file, _now: None,
                holders=lambda _file, block: self.known.get(block, []),
                places=lambda file, blocks, copies: places(file, blocks, copies, Ring.of(members)),
            )
        )

    def run(self, task: RunTask, more_blocks: Collection[int] = ()) -> None:
        self.begun.append(task.attempt)
        self.more.append(sorted(more_blocks))

    def fetch(
        self, job: str, stage: int, attempt: int, holders: list[NodeId], _tag: object, _now: float
    ) -> None:
        assert (job, stage) == (FILE, FILE_STAGE)
        self.fetched.append((attempt - 1, holders))

    def task_failed(self, _job: str, _attempt: int, failure: Failure, _now: float) -> None:
        self.failed.append(failure)

    def bring(self, *blocks: int) -> None:
        for block in blocks:
            at = block * 256
            data = DATA[at : at + 256]
            before, after = DATA[at - 1 : at] if at else b"", DATA[at + 256 : at + 260]
            header, body = block_segment(FILE, block, data, before, after)
            incoming = self.store.receive(header, own=True)
            incoming.write(body)
            incoming.finish()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def inputs(desk: Desk) -> RingInputs:
    made: Any = desk
    return RingInputs(made)


def task(start: int, end: int, path: str = str(PATH)) -> RunTask:
    setup = StageSetup(
        job=JOB,
        stage=0,
        step=0,
        step_name="s",
        kind=StageKind.MAP,
        partitions=1,
        borders=None,
        out_format="",
        map_only=False,
    )
    split = InputSplit(path=path, name="ring:x", start=start, end=end, size_bytes=end - start, key="k")
    return RunTask(setup=setup, task=0, attempt=7, number=1, split=split)


def test_a_task_whose_block_is_here_begins_at_once(desk: Desk, inputs: RingInputs) -> None:
    desk.bring(1)
    inputs.run(task(256, 512), 0.0)
    assert (desk.begun, desk.fetched) == ([7], [])


def test_a_task_that_reads_no_file_of_the_ring_is_not_looked_at(desk: Desk, inputs: RingInputs) -> None:
    inputs.run(task(0, 10, "/a/b"), 0.0)
    assert desk.begun == [7]


def test_what_is_lacking_is_fetched_from_holders_and_then_the_task_begins(
    desk: Desk, inputs: RingInputs
) -> None:
    desk.bring(1)
    desk.known = {2: [NodeId("two")]}
    inputs.run(task(300, 800), 0.0)
    assert desk.fetched == [(2, ["two"]), (3, desk.fetched[1][1])]
    assert sorted(desk.fetched[1][1]) == ["one", "two"]  # of whom nothing was heard: everybody else
    inputs.fetched(JOB, 7, 2, "", 1.0)
    assert desk.begun == []
    inputs.fetched(JOB, 7, 3, "", 1.0)
    assert desk.begun == [7]


def test_a_block_that_nobody_gives_is_asked_for_again_and_then_the_attempt_fails(
    desk: Desk, inputs: RingInputs
) -> None:
    inputs.run(task(0, 256), 0.0)
    now = 0.0
    for number in range(1, TRIES):
        inputs.fetched(JOB, 7, 0, "nobody has it", now)
        assert inputs.next_deadline() == now + PAUSE_S
        now += PAUSE_S
        inputs.tick(now)
        assert len(desk.fetched) == 1 + number
    inputs.fetched(JOB, 7, 0, "nobody has it", now)
    assert [failure.kind for failure in desk.failed] == ["EnvironmentFailed"]
    assert "block 0 of 4" in desk.failed[0].message
    assert desk.begun == []


def test_a_task_that_is_cancelled_while_it_waits_never_begins(desk: Desk, inputs: RingInputs) -> None:
    inputs.run(task(0, 256), 0.0)
    inputs.cancel(JOB, 7)
    inputs.fetched(JOB, 7, 0, "", 1.0)
    assert desk.begun == []


def test_a_reader_that_lacks_another_block_is_begun_again_but_not_for_ever(
    desk: Desk, inputs: RingInputs
) -> None:
    desk.bring(0)
    inputs.lacks(task(0, 256), 700, 0.0)
    assert [block for block, _ in desk.fetched] == [2]
    desk.bring(2)
    inputs.fetched(JOB, 7, 2, "", 1.0)
    assert (desk.begun, desk.more) == ([7], [[2]])
    for _ in range(MAX_BEGINNINGS):
        inputs.lacks(task(0, 256), 700, 0.0)
    assert len(desk.begun) == MAX_BEGINNINGS
    assert len(desk.failed) == 1


def test_blocks_and_what_they_bring_along_read_as_the_file(desk: Desk) -> None:
    desk.bring(0, 2)
    path = pieces_path(pieces_here(desk.store, PATH, 512, 768), len(DATA), "x")
    with open_source(path) as file:
        file.seek(511)
        assert file.read(1 + 256 + 4) == DATA[511:772]
        file.seek(0)
        assert file.read(260) == DATA[:260]
    desk.bring(3)
    path = pieces_path(pieces_here(desk.store, PATH, 512, 768), len(DATA), "x")
    with open_source(path) as file:
        file.seek(511)
        assert file.read() == DATA[511:]


def test_blocks_far_from_the_split_are_read_when_they_turned_out_to_be_needed(desk: Desk) -> None:
    desk.bring(0, 1, 3)
    for more, last in (((), 516), ((3,), 1_024)):
        path = pieces_path(pieces_here(desk.store, PATH, 0, 256, more), len(DATA), "x")
        with open_source(path) as file:
            file.seek(512)
            assert file.read(4) == DATA[512:516]  # what block 1 brings along
            if last > 516:
                file.seek(768)
                assert file.read() == DATA[768:]
