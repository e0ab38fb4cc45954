"""A segment: written and checked on its way in, verified where it lies; eight megabytes in sixteen runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from p2p.segments import Covers, Entry, Header, Source, describing, parse_header
from p2p.store import Store

JOB = "0123456789abcdef" * 2
RUNS = 16
RUN_BYTES = 512 << 10
COVERS = Covers(partitions=(0,), tasks=tuple(range(RUNS)), attempts=tuple(range(1, RUNS + 1)))


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """The runs of one partition, as map tasks on this peer have written them."""
    path = tmp_path / "outputs"
    path.write_bytes(random.Random(1).randbytes(RUNS * RUN_BYTES))
    return [
        Source(
            entry=Entry(task=task, attempt=task + 1, partition=0, offset=0, length=RUN_BYTES),
            path=str(path),
            offset=task * RUN_BYTES,
        )
        for task in range(RUNS)
    ]


def header_of(sources: list[Source]) -> bytes:
    steps = describing(JOB, 0, sources, COVERS)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            header, _ = end.value
            return bytes(header)


def test_describe_a_segment(benchmark: BenchmarkFixture, sources: list[Source]) -> None:
    assert parse_header(benchmark(header_of, sources)).size == RUNS * RUN_BYTES


def test_read_a_header(benchmark: BenchmarkFixture, sources: list[Source]) -> None:
    header: Header = benchmark(parse_header, header_of(sources))
    assert len(header.entries) == RUNS


def test_take_a_segment_in(benchmark: BenchmarkFixture, sources: list[Source], tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))

    def take() -> None:
        store.take(JOB, 0, sources, COVERS)

    benchmark.pedantic(take, setup=lambda: store.drop_job(JOB), rounds=20, warmup_rounds=1)
    assert store.holds(JOB, 0, attempt=1, partition=0)


def test_verify_a_segment_where_it_lies(
    benchmark: BenchmarkFixture, sources: list[Source], tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    store.take(JOB, 0, sources, COVERS)
    [path] = store.segments()
    assert benchmark(store.verify, path)
