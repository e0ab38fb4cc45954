"""The order of the values under one key: a secondary sort, where a job asks for one.

Without one, values stay in (map task, sequence) order.  The order is user code, called for each value; what
it raises is told together with the key, since that says which records to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["FailedAtKey", "ValueOrder", "sort_values"]

ValueOrder = Callable[[Any], Any]


class FailedAtKey(Exception):
    """Code of the user's raised while values were put into order; carries what it raised, and their key."""

    def __init__(self, key: Any, failure: Exception) -> None:
        super().__init__(key, failure)
        self.key = key
        self.failure = failure


def sort_values(keys: Iterable[Any], columns: Iterable[list[Any]], value_order: ValueOrder) -> None:
    """Sort each key's values in place.

    Raises:
        FailedAtKey: user code raised.
    """
    for key, values in zip(keys, columns, strict=True):
        if len(values) > 1:
            try:
                values.sort(key=value_order)
            except Exception as failure:
                raise FailedAtKey(key, failure) from None
