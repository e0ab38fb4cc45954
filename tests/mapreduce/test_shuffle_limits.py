"""How much a map task holds at a time: pairs between two looks at its memory, spills that are merged."""

from __future__ import annotations

import pytest

from mapreduce.columns import pack_column, unpack_column
from mapreduce.merging import merge_runs
from mapreduce.run_files import RunRange
from tests.mapreduce.map_task import Files, output


def test_large_pairs_are_looked_at_more_often_than_small_ones() -> None:
    def looks(value: bytes, pairs: int) -> int:
        asked = 0

        def is_short() -> bool:
            nonlocal asked
            asked += 1
            return False

        task = output(Files(), spill_bytes=1 << 50, memory_is_short=is_short)
        task.add(((number, value) for number in range(pairs)), lambda pair: None)
        return asked

    assert looks(b"x", 100_000) < 15
    assert looks(b"x" * (1 << 20), 3000) > 300  # of one object: it takes no memory here


def test_no_more_spills_are_merged_at_once_than_asked() -> None:
    files = Files()
    task = output(files, spill_bytes=0, memory_is_short=lambda: True, chunk_pairs=3, fan_in=4)
    task.add(((number % 7, number) for number in range(60)), lambda pair: None)
    spills = len(files.made)
    assert spills == 20
    path, file = files.create()
    with file:
        ranges: list[RunRange | None] = task.finish(file, path)
    assert len(files.made) - spills - 1 == 7  # 20 runs through 5, and these through 2
    (run,) = ranges
    assert run is not None
    found = {key: list(values) for key, values in merge_runs([run], files, None)}
    assert found == {key: list(range(key, 60, 7)) for key in range(7)}


def test_an_array_between_equal_strings_is_a_value_like_others() -> None:
    np = pytest.importorskip("numpy")
    values = ["a", np.array([1, 2]), "a"]
    assert unpack_column(*pack_column(values)) == ["a", [1, 2], "a"]
