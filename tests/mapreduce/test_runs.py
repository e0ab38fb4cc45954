"""Runs come back as they were written, whatever their blocks; damage anywhere is told as DamagedRun."""

from __future__ import annotations

import io
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import runs
from mapreduce.errors import BadValue
from mapreduce.runs import BLOCK_BYTES, DamagedRun, RunWriter, columns_of, read_blocks

Groups = list[tuple[Any, list[Any]]]

keys = st.one_of(st.text(max_size=3), st.integers(), st.tuples(st.text(max_size=1), st.none()), st.none())
values = st.one_of(st.integers(), st.text(max_size=4), st.lists(st.integers(), max_size=2))
groups = st.lists(st.tuples(keys, st.lists(values, max_size=6)), max_size=12)


def written(some: Groups, *, block_values: int | None = None, compress: bool = False) -> bytes:
    file = io.BytesIO()
    writer = RunWriter(file, "job/map-00001/1/0", compress=compress)
    if block_values is not None:
        writer._block_values = block_values
    writer.write_groups([key for key, _ in some], [column for _, column in some])
    assert writer.finish() == len(file.getvalue())
    assert writer.values_written == sum(len(column) for _, column in some)
    return file.getvalue()


def read(data: bytes) -> list[tuple[Any, Any]]:
    """Read a run's pairs."""
    pairs: list[tuple[Any, Any]] = []
    for some_keys, counts, some_values in read_blocks(io.BytesIO(data), 0, len(data)):
        columns = columns_of(counts, some_values)
        if columns is None:
            pairs += zip(some_keys, some_values, strict=True)
        else:
            assert list(chain.from_iterable(columns)) == some_values
            pairs += [
                (key, value) for key, column in zip(some_keys, columns, strict=True) for value in column
            ]
    return pairs


def pairs_of(some: Groups) -> list[tuple[Any, Any]]:
    return [(key, value) for key, column in some for value in column]


def blocks_of(data: bytes) -> list[runs.Block]:
    return list(read_blocks(io.BytesIO(data), 0, len(data)))


# --- round trips --------------------------------------------------------------------------------------


@given(groups, st.integers(1, 20), st.booleans())
def test_groups_come_back_whatever_the_size_of_blocks(
    some: Groups, block_values: int, compress: bool
) -> None:
    assert read(written(some, block_values=block_values, compress=compress)) == pairs_of(some)


@given(st.lists(st.tuples(keys, values), max_size=40), st.integers(1, 20))
def test_pairs_come_back_in_their_order(some: list[tuple[Any, Any]], block_values: int) -> None:
    file = io.BytesIO()
    writer = RunWriter(file)
    writer._block_values = block_values
    writer.write_pairs([key for key, _ in some], [value for _, value in some])
    writer.write_stream(iter(some))
    writer.finish()
    assert read(file.getvalue()) == [*some, *some]
    assert writer.keys_written == writer.values_written == 2 * len(some)


def test_an_empty_run_is_a_run() -> None:
    assert read(written([])) == []
    file = io.BytesIO()
    RunWriter(file).finish()
    assert read(file.getvalue()) == []


def test_one_key_may_have_a_hundred_thousand_values() -> None:
    some: Groups = [("before", [1]), ("many", list(range(100_000))), ("after", [2, 3])]
    data = written(some)
    assert read(data) == pairs_of(some)
    assert len(blocks_of(data)) > 1, "its values go on in the next block"


def test_blocks_hold_about_a_mebibyte() -> None:
    some: Groups = [(f"key {number}", [f"{number:050}"]) for number in range(120_000)]
    data = written(some)
    assert read(data) == pairs_of(some)
    sizes = [len("".join(some_values)) for _, _, some_values in blocks_of(data)]
    assert max(sizes) < 2 * BLOCK_BYTES
    assert len(sizes) < 4 * len(data) / BLOCK_BYTES


def test_values_that_suddenly_grow_do_not_make_huge_blocks() -> None:
    small: Groups = [(number, [0]) for number in range(20_000)]
    grown: Groups = [
        (-1, [f"{number:050000}" for number in range(300)]),
        *((number, [f"{number:030000}"]) for number in range(300)),
    ]
    data = written([*small, *grown])
    assert read(data) == pairs_of([*small, *grown])
    assert all(sum(map(len, map(str, some))) <= 5 * BLOCK_BYTES for _, _, some in blocks_of(data))


def test_equal_values_lie_there_once() -> None:
    same: Groups = [(number, ["the same long value" * 50]) for number in range(5_000)]
    data = written(same)
    assert read(data) == pairs_of(same)
    assert len(data) < 5_000 * 20


def test_one_value_larger_than_a_block_has_a_block_of_its_own() -> None:
    some: Groups = [("a", [1]), ("big", ["z" * (5 * BLOCK_BYTES)]), ("b", [2])]
    assert read(written(some)) == pairs_of(some)


def test_keys_of_tuples_stay_tuples_and_values_of_lists_stay_lists() -> None:
    some: Groups = [(("a", 1), [[1, 2]]), (("b", (2**70,)), [(1, 2), [3]])]
    assert read(written(some)) == pairs_of(some)


def test_runs_may_lie_one_behind_the_other() -> None:
    first, second = written([("a", [1])]), written([("b", [2, 3])])
    file = io.BytesIO(b"junk" + first + second)
    found = [list(read_blocks(file, 4, len(first))), list(read_blocks(file, 4 + len(first), len(second)))]
    assert found == [[(["a"], None, [1])], [(["b"], [2], [2, 3])]]


def test_two_readers_may_share_a_file() -> None:
    data = written([(number, [number]) for number in range(50)], block_values=1)
    file = io.BytesIO(data)
    one, other = read_blocks(file, 0, len(data)), read_blocks(file, 0, len(data))
    assert [block for pair in zip(one, other, strict=True) for block in pair] == [
        block for block in blocks_of(data) for _ in range(2)
    ]


def test_a_reader_may_enter_at_every_block() -> None:
    file = io.BytesIO()
    writer = RunWriter(file, "label")
    writer._block_values = 1
    for number in range(5):
        writer.write_pairs([number], [number])
    length = writer.finish()
    blocks = blocks_of(file.getvalue())
    assert len(blocks) == len(writer.block_offsets) > 2
    ends = [*writer.block_offsets[1:], length]
    for block, start, end in zip(blocks, writer.block_offsets, ends, strict=True):
        assert list(read_blocks(file, start, end - start, whole=False)) == [block]


def test_the_writer_names_the_run_by_its_digest() -> None:
    def digest(value: int) -> bytes:
        writer = RunWriter(io.BytesIO(), "label")
        writer.write_pairs(["a"], [value])
        writer.finish()
        return writer.digest

    assert digest(1) == digest(1) != digest(2)


def test_values_that_cannot_be_sent_are_refused() -> None:
    with pytest.raises(BadValue, match="set cannot be sent"):
        RunWriter(io.BytesIO()).write_pairs(["a"], [{1}])


# --- damage -------------------------------------------------------------------------------------------


def small_run(*, compress: bool) -> bytes:
    some: Groups = [("a", [1]), ("b", ["value", 2]), (("c", None), [[1]]), ("d", [b"x" * 40])]
    return written(some, block_values=2, compress=compress)


@pytest.mark.parametrize("compress", [False, True])
def test_every_changed_byte_is_damage(compress: bool) -> None:
    data = small_run(compress=compress)
    assert len(blocks_of(data)) > 1
    for position in range(len(data)):
        for change in (*(1 << bit for bit in range(8)), 0xFF, data[position]):
            if change:
                damaged = bytearray(data)
                damaged[position] ^= change
                with pytest.raises(DamagedRun):
                    blocks_of(bytes(damaged))


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncation_is_damage(compress: bool) -> None:
    data = small_run(compress=compress)
    for length in range(len(data)):
        with pytest.raises(DamagedRun):
            list(read_blocks(io.BytesIO(data[:length]), 0, length))
        with pytest.raises(DamagedRun):
            list(read_blocks(io.BytesIO(data[:length]), 0, len(data)))
        with pytest.raises(DamagedRun):
            list(read_blocks(io.BytesIO(data), 0, length))


def test_bytes_behind_the_footer_are_damage() -> None:
    data = small_run(compress=False)
    with pytest.raises(DamagedRun):
        blocks_of(data + b"x")
    with pytest.raises(DamagedRun):
        blocks_of(data + data)


def test_blocks_that_changed_places_are_damage() -> None:
    file = io.BytesIO()
    writer = RunWriter(file)
    writer._block_values = 1
    writer.write_pairs(["a"], [1])
    writer.write_pairs(["b"], [2])
    writer.finish()
    data, (first, second) = file.getvalue(), writer.block_offsets
    size = second - first
    swapped = data[:first] + data[second : second + size] + data[first:second] + data[second + size :]
    with pytest.raises(DamagedRun, match="digest"):
        blocks_of(swapped)


@pytest.mark.parametrize("compress", [False, True])
def test_a_reader_that_enters_midway_sees_every_changed_byte_of_its_blocks(compress: bool) -> None:
    file = io.BytesIO()
    writer = RunWriter(file, compress=compress)
    writer.write_pairs(["a", "b"], ["value", 1])
    start, end = writer.block_offsets[0], writer.bytes_written
    writer.finish()
    for position in range(start, end):
        for change in range(1, 256):
            damaged = bytearray(file.getvalue())
            damaged[position] ^= change
            with pytest.raises(DamagedRun):
                list(read_blocks(io.BytesIO(damaged), start, end - start, whole=False))
            with pytest.raises(DamagedRun):
                list(read_blocks(io.BytesIO(damaged), start, len(damaged) - start, whole=False))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_what_is_no_run_is_damage(data: bytes) -> None:
    for blob in (data, runs.MAGIC + data, small_run(compress=False)[:30] + data):
        with pytest.raises(DamagedRun):
            blocks_of(blob)
