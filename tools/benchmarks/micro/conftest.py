"""What the micro-benchmarks share: how long each may take, and the words they work on."""

from __future__ import annotations

import importlib.util
import random

import pytest

DISTINCT_WORDS = 20_000
WORDS = 100_000


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise pytest.UsageError("micro-benchmarks need pytest-benchmark: pip install -e '.[bench]'")
    # Half a second is enough for a median, and all of them together end within half a minute.
    if config.option.benchmark_max_time == "1.0":
        config.option.benchmark_max_time = "0.5"


@pytest.fixture(scope="session")
def words() -> list[str]:
    """A hundred thousand words as they follow each other in a text: a few often, most of them seldom."""
    rng = random.Random(1)
    known = [f"w{number:x}" for number in range(DISTINCT_WORDS)]
    weights = [1 / (rank + 10) for rank in range(DISTINCT_WORDS)]
    return rng.choices(known, weights, k=WORDS)
