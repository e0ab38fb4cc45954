"""Grouping while it pays: pairs under their keys, or only piled up where hardly any key comes again.

Between a map task and a reduce task pairs are grouped so that a key is written once for all its values.  The
reduce task groups anyway, so where nearly every key has one value, as in a join, the map task's dict and its
list a key are for nothing: two thirds of what it costs to collect and write a pair.

How many keys will come again is estimated from the first pairs, as by birthdays: of n drawn from N equal
keys about n²/2N repeat one, so with r repetitions N is about n²/2r, and of 2N = n²/r pairs more than a half
repeat one.  So many are piled up, and if there are more of them, all are grouped after all.  Keys that are
not equally frequent repeat sooner, and more of them among the first.

Reduce tasks give the same keys and values in the same order either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from mapreduce.groups import Groups, Rows, add_all
from mapreduce.records import Pair, normal_key

__all__ = ["SAMPLE_PAIRS", "GroupsOrPile"]

SAMPLE_PAIRS = 16_384
# A pile pays if the estimate lets it be a few times as large as the sample.
LEAST_PILE = 4


class GroupsOrPile:
    """Collects pairs for a step without a combiner or an order of values.

    Args:
        sample_pairs: so many are grouped before it is decided.
    """

    def __init__(self, sample_pairs: int = SAMPLE_PAIRS) -> None:
        self._sample_pairs = sample_pairs
        self._groups = Groups()
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._is_decided = False
        self._pile_limit = 0

    def __len__(self) -> int:
        return len(self._groups) + len(self._keys)

    def add_pairs(self, pairs: Iterator[Pair]) -> None:
        """Collect all pairs of an iterator; raises as `Groups.add_pairs` does."""
        if self._pile_limit:
            add_all(self._pile_up, pairs)
            if len(self._keys) > self._pile_limit:
                self._group_pile()
            return
        self._groups.add_pairs(pairs)
        if not self._is_decided and (count := self._groups.pairs) >= self._sample_pairs:
            self._is_decided = True
            limit = count * count // max(1, count - len(self._groups))
            self._pile_limit = limit if limit >= LEAST_PILE * count else 0

    def add_items(self, keys: list[Any], values: list[Any]) -> None:
        """Collect the items of one dict."""
        if len(self):
            self.add_pairs(zip(keys, values, strict=True))
        else:
            self._groups.add_items(keys, values)

    def take_rows(self) -> Rows:
        """Return the keys with rows of values, or of one value each, and start anew."""
        if not self._keys:
            rows = self._groups.take_rows()
        else:
            grouped, columns = self._groups.take()
            keys = chain(chain.from_iterable(map(repeat, grouped, map(len, columns))), self._keys)
            values = chain(chain.from_iterable(columns), self._values)
            rows = Rows(list(keys), list(values), is_single=True, is_distinct=False)
        self._keys, self._values = [], []
        self._is_decided, self._pile_limit = False, 0
        return rows

    def _pile_up(self, pairs: Iterator[Pair]) -> None:
        keys, values = self._keys, self._values
        for key, value in pairs:
            kind = type(key)
            keys.append(key if kind is str or kind is bytes or kind is int else normal_key(key))
            values.append(value)

    def _group_pile(self) -> None:
        keys, values = self._keys, self._values
        self._keys, self._values, self._pile_limit = [], [], 0
        self._groups.add_pairs(zip(keys, values, strict=True))
