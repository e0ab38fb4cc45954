"""How options of the chaos script are read from text."""

from __future__ import annotations

import argparse

__all__ = ["count", "size"]

_SUFFIXES = {"KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}
_MOST = 64


def count(text: str) -> int:
    """Return a number of peers, copies, slots or lanes."""
    number = int(text)
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and {_MOST}")
    return number


def size(text: str) -> int:
    """Return a number of bytes: 1000000, 64KB, 256MB."""
    for suffix, factor in _SUFFIXES.items():
        if text.upper().endswith(suffix):
            return int(float(text[: -len(suffix)]) * factor)
    return int(text)
