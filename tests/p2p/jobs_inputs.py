"""Inputs of jobs in tests: words by a seed, so that every run reads the same."""

from __future__ import annotations

import random
from pathlib import Path


def words_in(path: Path, *, lines: int = 1_000, seed: int = 0) -> str:
    """Write some 100 kB of words for a thousand lines; returns the path."""
    rng = random.Random(seed)
    vocabulary = [f"w{rng.randrange(10**6):x}" for _ in range(700)]
    with path.open("w") as file:
        for _ in range(lines):
            file.write(" ".join(rng.choices(vocabulary, k=rng.randrange(30))) + "\n")
    return str(path)
