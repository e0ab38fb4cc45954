"""Keys: what they may be, how they are told apart, ordered and partitioned.

Theory of operation
-------------------
*Identity.*  Two keys are one key when their encoded forms are equal.  Python's `==` is coarser
(`1 == 1.0 == True`, `0.0 == -0.0`), so a dict of keys would merge what must stay apart; `mapreduce.groups`
sees to that.

*Order.*  By type rank (None, bool, int, float, str, bytes, tuple), then by value; tuples element by
element.  Columns of one type, which is nearly all, are sorted by C comparisons without a key function.

*Partition.*  xxh3-64 of the encoded key, modulo the number of partitions: stable across processes,
machines and versions, as the builtin `hash` is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import repeat
from math import copysign
from operator import is_
from typing import Any

import msgpack
from xxhash import xxh3_64_intdigest

from mapreduce.columns import HELD, mark, pack_marked, short_repr
from mapreduce.errors import BadKey

Pair = tuple[Any, Any]

_RANK = {type(None): 0, bool: 1, int: 2, float: 3, str: 4, bytes: 5, tuple: 6}


def normal_key(key: Any) -> Any:
    """Return the plain key that `key` stands for: subclasses and numpy scalars become their base type.

    Raises:
        BadKey: it cannot be a key; the message says why and what to do.
    """
    kind = type(key)
    if kind in _RANK:
        if kind is float and key != key:
            raise BadKey("NaN cannot be a key: it equals nothing, not even itself")
        if kind is tuple:
            return tuple(normal_key(element) for element in key)
        return key
    for base, value_of in HELD:
        if isinstance(key, base):
            return normal_key(value_of(key))
    if isinstance(key, tuple):
        return normal_key(tuple(key))
    if kind.__module__ == "numpy" and hasattr(key, "item") and getattr(key, "ndim", 1) == 0:
        return normal_key(key.item())
    hint = ""
    if isinstance(key, list):
        hint = "; use a tuple"
    elif isinstance(key, (bytearray, memoryview)):
        hint = "; use bytes(…)"
    raise BadKey(
        f"the {kind.__name__} {short_repr(key)} cannot be a key{hint}: "
        "keys are None, bool, int, float, str, bytes or tuples of these"
    )


def is_one_key(left: Any, right: Any) -> bool:
    """True when two keys are the same: of one type, with one value."""
    if left is right:
        return True
    return pack_marked(normal_key(left)) == pack_marked(normal_key(right))


def order_key(key: Any) -> Any:
    """Return a value that sorts as `key` does among keys of any type."""
    kind = type(key)
    if kind is tuple:
        return 6, tuple(map(order_key, key))
    if kind is float:
        return 3, key, copysign(1.0, key)
    return _RANK[kind], (0 if key is None else key)


def sorts_by_itself(keys: Sequence[Any]) -> bool:
    """Whether Python's own comparison puts these keys into key order."""
    kinds = set(map(type, keys))
    if len(kinds) != 1:
        return not kinds
    kind = kinds.pop()
    if kind is tuple:
        shapes = {tuple(map(type, key)) for key in keys}
        # Tuples of one shape compare by C unless an element is itself a tuple or a float (-0.0, 0.0).
        return len(shapes) == 1 and not {tuple, float, type(None)} & set(shapes.pop())
    return kind in (str, bytes, int, bool)


def sort_keys(keys: list[Any]) -> None:
    """Sort keys in place, by type rank, then value."""
    if sorts_by_itself(keys):
        keys.sort()
    else:
        keys.sort(key=order_key)


class Partitions:
    """Tells the partition of each key by the hash of its encoded form."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pack = msgpack.Packer(default=mark).pack
        self._pack_any = msgpack.Packer(default=mark, unicode_errors="surrogatepass").pack

    def of(self, keys: Iterable[Any]) -> list[int]:
        """Return the partition of each key, in order."""
        count = self._count
        keys = list(keys)
        if count == 1:
            return [0] * len(keys)
        try:
            return [digest % count for digest in map(xxh3_64_intdigest, map(self._pack, keys))]
        except UnicodeEncodeError:  # lone surrogates
            return [digest % count for digest in map(xxh3_64_intdigest, map(self._pack_any, keys))]


def in_key_order(
    keys: list[Any], rows: list[Any], *, distinct: bool, alike: bool | None = None
) -> tuple[list[Any], list[Any]]:
    """Sort keys and take the rows beside them along; rows of equal keys keep their order.

    Args:
        keys: may be sorted in place.
        rows: anything, one a key.
        distinct: no key stands twice, which is faster to sort.
        alike: what `sorts_by_itself` says of the keys, where the caller knows it.
    """
    if sorts_by_itself(keys) if alike is None else alike:
        if rows and all(map(is_, rows, repeat(rows[0]))):
            keys.sort()
            return keys, rows
        if distinct:
            by_key = dict(zip(keys, rows, strict=True))
            keys.sort()
            return keys, list(map(by_key.__getitem__, keys))
        order = sorted(range(len(keys)), key=keys.__getitem__)
    else:
        ordering = list(map(order_key, keys))
        order = sorted(range(len(keys)), key=ordering.__getitem__)
    return list(map(keys.__getitem__, order)), list(map(rows.__getitem__, order))


def places_among(borders: Sequence[Any], keys: Sequence[Any], *, alike: bool) -> list[int]:
    """Return for each key how many of the sorted borders are less than it; `alike` as for `in_key_order`."""
    if alike and sorts_by_itself([*keys[:1], *borders]):
        return list(map(bisect_left, repeat(borders), keys))
    return list(map(bisect_left, repeat(list(map(order_key, borders))), map(order_key, keys)))
