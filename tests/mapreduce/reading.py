"""How tests of readers read a file: cut into splits and batches of any size, and refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mapreduce.batches import Batch
from mapreduce.errors import InputError
from mapreduce.inputs import Reader, expand, plan_splits

sizes = st.one_of(st.integers(1, 40), st.just(10_000))


def in_a_folder(examples: int = 100) -> settings:
    """Every example overwrites the files of the one before; examples are the same in every run."""
    return settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        deadline=None,
        derandomize=True,
        max_examples=examples,
    )


def batches_of(
    path: Path, reader: Reader, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20
) -> list[Batch]:
    splits = plan_splits(expand([str(path)]), reader, split_bytes)
    return [batch for split in splits for batch in reader.batches(split, batch_bytes)]


def read(path: Path, reader: Reader, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20) -> list[Any]:
    batches = batches_of(path, reader, split_bytes, batch_bytes)
    records = [record for batch in batches for record in batch.records]
    assert [record for batch in batches for record in batch.each()] == records
    assert sum(batch.size_bytes for batch in batches) <= len(path.read_bytes()) or path.suffix == ".gz"
    return records


def refusal(path: Path, reader: Reader, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20) -> str:
    with pytest.raises(InputError) as refused:
        read(path, reader, split_bytes, batch_bytes)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def places(batches: list[Batch]) -> list[str]:
    return [batch.locate(index) for batch in batches for index in range(len(batch.records))]
