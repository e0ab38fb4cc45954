"""Curves: what was measured for each of several sizes, and what bounds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tools.benchmarks.tables import written

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One picture.

    Attributes:
        name: of its file.
        title: for people.
        grows_with: what the horizontal axis counts.
        unit: what the vertical one does.
        lines: {name: points}.
        bound: what bounds the curves, as far as the figures show it; one or two sentences.
    """

    name: str
    title: str
    grows_with: str
    unit: str
    lines: dict[str, list[Point]]
    bound: str


def curve_tables(curves: Sequence[Curves], *, markdown: bool) -> str:
    """Return a table a picture, with its bound under it."""
    found = []
    for each in curves:
        sizes = sorted({x for points in each.lines.values() for x, _ in points})
        rows = [(each.grows_with, *each.lines)]
        for size in sizes:
            cells = (dict(points).get(size) for points in each.lines.values())
            rows.append((f"{size:,.6g}", *("–" if cell is None else f"{cell:,.4g}" for cell in cells)))
        found.append(
            f"{each.title}, {each.unit}\n\n{written(rows, labels=1, markdown=markdown)}\n\n{each.bound}"
        )
    return "\n\n".join(found)


def slope(points: Sequence[Point]) -> float:
    """Return the least-squares slope of points: the cost of one more."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def curves_json(curves: Sequence[Curves], settings: dict[str, Any]) -> str:
    """Return everything."""
    return json.dumps({"settings": settings, "curves": [asdict(each) for each in curves]}, indent=1)
