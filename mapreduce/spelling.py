"""Suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" with the known name nearest to a misspelt one, or "" if none is near."""
    import difflib  # only ever needed on the way to an error

    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
