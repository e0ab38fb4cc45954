"""What must hold, whatever was done to the peers, and the table of how often it was looked at.

Each row counts how often it was checked and keeps the texts of what broke it.  A row that was never checked
says so: a promise that nobody looked at was not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.chaos.workloads import Expected

__all__ = ["ROWS", "Invariants", "difference"]

MAX_TEXTS = 50

ROWS: Mapping[str, str] = {
    "ended": "every job came to an end, well, within its limit",
    "bytes": "its output is the embedded engine's, byte for byte",
    "counters": "its counters are exact, those of map tasks too",
    "once": "one attempt of each task is committed: as many winners and pairs as there should be",
    "maps again": "no committed map task ran again while at most R-1 peers were down at once",
    "replicas": "each part has R copies of one attempt on peers that serve, within the bound",
    "intermediates": "nothing but its result and its code is left of a job that has ended, within the bound",
    "alive": "no peer ended by itself; each left within the limit when told",
    "agreement": "at the end all peers agree on who is here, within the bound",
    "expired": "after its time to live nothing of a job is left with those who lived to see its end",
    "descriptors": "no peer has more descriptors open at the end than when it had just become warm",
    "processes": "no process of the run is left",
    "files": "no temporary file of the run is left",
}
"""What is checked, by name."""


@dataclass(slots=True)
class Invariants:
    """The table of one run; rows that are not in `ROWS` may be added by whoever checks more."""

    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROWS, 0))
    broken: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=lambda: dict(ROWS))

    def add(self, name: str, text: str) -> None:
        """Add a row."""
        self.checked.setdefault(name, 0)
        self.texts[name] = text

    def check(self, name: str, problem: str) -> bool:
        """Count one look at a row.

        Args:
            name: of the row.
            problem: what is wrong, "" if nothing is.

        Returns:
            Whether it holds.
        """
        self.checked[name] += 1
        if problem:
            texts = self.broken.setdefault(name, [])
            if len(texts) < MAX_TEXTS:
                texts.append(problem)
        return not problem

    @property
    def holds(self) -> bool:
        """Whether nothing was broken."""
        return not self.broken

    def lines(self) -> list[str]:
        """Return the table as text."""
        found: list[str] = []
        for name, text in self.texts.items():
            broken = self.broken.get(name, ())
            verdict = f"BROKEN {len(broken)}x" if broken else "holds" if self.checked[name] else "not checked"
            found.append(f"{verdict:>12}  {self.checked[name]:>6}  {name:<14} {text}")
            found += [f"{'':>22}! {line}" for problem in broken for line in problem.splitlines()]
        return found


def difference(parts: Mapping[str, bytes], expected: Expected) -> str:
    """Tell in one line how an output differs from what is right; "" if it does not."""
    if parts.keys() != expected.parts.keys():
        missing, more = sorted(expected.parts.keys() - parts), sorted(parts.keys() - expected.parts)
        return f"files are missing: {missing}, are too many: {more}"
    for name, right in expected.parts.items():
        if parts[name] != right:
            at = next(
                (place for place, (a, b) in enumerate(zip(parts[name], right, strict=False)) if a != b),
                min(len(parts[name]), len(right)),
            )
            return f"{name} has {len(parts[name])} bytes, {len(right)} are right, and differs from byte {at}"
    return ""
