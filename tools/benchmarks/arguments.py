"""What the benchmark's options may say."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from mapreduce.settings import parse_size

# What a benchmark may take of the disk: inputs of three kinds, and one output at a time.
MAX_SIZE_BYTES = 16 << 30


def one_or_more(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a parser of names from a known list, divided by commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def size(text: str) -> int:
    """Return a number of bytes that an input may have."""
    try:
        size_bytes = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 10_000 <= size_bytes <= MAX_SIZE_BYTES:
        raise argparse.ArgumentTypeError(f"{text} is not between 10 kB and 16 GiB")
    return size_bytes


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def positives(text: str) -> list[int]:
    """Return whole numbers above 0, divided by commas."""
    return [positive(part) for part in text.split(",")]


def sizes(text: str) -> list[int]:
    """Return sizes of inputs, divided by commas."""
    return [size(part) for part in text.split(",")]
