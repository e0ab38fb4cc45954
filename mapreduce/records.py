"""Keys and values: what they may be, how they are told apart, ordered, encoded and partitioned.

Theory of operation
-------------------
*Identity.*  Two keys are one key when their encoded forms are equal.  Python's `==` is coarser
(`1 == 1.0 == True`, `0.0 == -0.0`), so a dict of keys would merge what must stay apart.  Checking every
key's type costs as much as the grouping itself; `Groups` therefore checks only keys *new* to its dict, as
long as all of them are of a kind that equals nothing outside the kind (str, bytes, None and tuples of
these).  The first other key moves it to a form with a token for each key.

*Order.*  By type rank (None, bool, int, float, str, bytes, tuple), then by value; tuples element by
element.  Columns of one type, which is nearly all, are sorted by C comparisons without a key function.

*Encoding.*  Columns, not records: one msgpack call for a whole list.  msgpack has no tuples and Python
users do, so a column remembers how its arrays are to come back: as lists, as tuples, or (mixed and nested
cases) with tuples marked one by one.  Integers beyond 64 bits are marked the same way.

*Partition.*  xxh3-64 of the encoded key, modulo the number of partitions: stable across processes,
machines and versions, as the builtin `hash` is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from math import copysign
from operator import is_
from typing import Any, NamedTuple, NoReturn

import msgpack
from xxhash import xxh3_64_intdigest

from mapreduce.errors import BadKey, BadValue, JobDefinitionError

Pair = tuple[Any, Any]

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_RANK = {type(None): 0, bool: 1, int: 2, float: 3, str: 4, bytes: 5, tuple: 6}
# What an instance of a subclass holds, whatever it says of itself: of `class Colour(str, Enum)`, str() gives
# "Colour.RED" and msgpack the string.
_HELD: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (bytes, bytes.__bytes__),
    (int, int.__int__),
    (float, float.__float__),
)
_EXT_TUPLE = 1
_EXT_BIG_INT = 2
# An encoded value longer than this would not fit the blocks that carry it.
MAX_VALUE_BYTES = 1 << 30

# How a column's arrays come back, and whether its strings hold lone surrogates.
PLAIN, TUPLES, MARKED, SURROGATES = 0, 1, 2, 4
# All values are equal strings or one and the same object: how many there are, and one of them.
CONSTANT = 8


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
    for base, value_of in _HELD:
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
    return _pack_marked(normal_key(left)) == _pack_marked(normal_key(right))


def order_key(key: Any) -> Any:
    """Return a value that sorts as `key` does among keys of any type."""
    kind = type(key)
    if kind is tuple:
        return 6, tuple(map(order_key, key))
    if kind is float:
        return 3, key, copysign(1.0, key)
    return _RANK[kind], (0 if key is None else key)


def _sorts_by_itself(keys: Sequence[Any]) -> bool:
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
    """Sort distinct keys in place, by type rank, then value."""
    if _sorts_by_itself(keys):
        keys.sort()
    else:
        keys.sort(key=order_key)


class Partitions:
    """Tells the partition of each key by the hash of its encoded form."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pack = msgpack.Packer(default=_mark).pack
        self._pack_any = msgpack.Packer(default=_mark, unicode_errors="surrogatepass").pack

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


# --- encoding ---------------------------------------------------------------------------------------


def _mark(value: Any) -> Any:
    """Say how msgpack shall carry what it cannot; called only for such values."""
    kind = type(value)
    if kind is tuple:
        return msgpack.ExtType(_EXT_TUPLE, _pack_marked(list(value)))
    if kind is int:
        return msgpack.ExtType(_EXT_BIG_INT, str(value).encode())
    if isinstance(value, tuple):
        return msgpack.ExtType(_EXT_TUPLE, _pack_marked(list(value)))
    for base, value_of in _HELD:
        if isinstance(value, base):
            return value_of(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list):
        return list(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    hint = "; yield sorted(…) instead" if isinstance(value, (set, frozenset)) else ""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise BadValue(
        f"a {name} cannot be sent{hint}: values are what msgpack carries "
        "(None, bool, int, float, str, bytes, list, dict) and tuples"
    )


def _pack_marked(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=_mark, strict_types=True, unicode_errors="surrogatepass")
    return packed


def _unmark(code: int, data: bytes) -> Any:
    if code == _EXT_TUPLE:
        return tuple(_unpack_marked(data))
    if code == _EXT_BIG_INT:
        return int(data)
    raise ValueError(f"unknown record extension {code}")


def _unpack_marked(data: bytes | memoryview) -> Any:
    return msgpack.unpackb(data, ext_hook=_unmark, strict_map_key=False, unicode_errors="surrogatepass")


def pack_column(values: list[Any]) -> tuple[int, bytes]:
    """Encode a list of values; the first result is the form that `unpack_column` needs.

    Raises:
        BadValue: a value is of a type that cannot be sent, or nested too deeply.
    """
    if _is_constant(values):
        form, packed = pack_column(values[:1])
        return form | CONSTANT, msgpack.packb(len(values)) + packed
    form = PLAIN
    kinds = set(map(type, values))
    if not kinds <= _PLAIN:
        form = MARKED
        if kinds in ({tuple}, {list}) and set(map(type, chain.from_iterable(values))) <= _PLAIN:
            form = TUPLES if kinds == {tuple} else PLAIN
    try:
        if form != MARKED:
            try:
                return _pack_plain(form, values)
            except OverflowError:
                pass  # an integer beyond 64 bits has to be marked
        return MARKED, _pack_marked(values)
    except (TypeError, ValueError, RecursionError) as error:
        _refuse_value(values, error)


def _is_constant(values: list[Any]) -> bool:
    """True for a column of several values that are one object, or equal strings or bytes.

    A list or a dict is never constant: those who read it may change one of the values and not the others.
    """
    if len(values) < 2 or not _is_unchangeable(values[0]):
        return False
    first = values[0]
    if type(first) is str or type(first) is bytes:
        # Not before all are known to be strings: an array, compared with one, is neither true nor false.
        if type(values[-1]) is not type(first) or values[-1] != first or len(set(map(type, values))) > 1:
            return False
        return values.count(first) == len(values)
    return values[-1] is first and all(map(is_, values, repeat(first)))


def _is_unchangeable(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_unchangeable, value)))


def _pack_plain(form: int, values: list[Any]) -> tuple[int, bytes]:
    try:
        return form, msgpack.packb(values)
    except UnicodeEncodeError:
        return form | SURROGATES, msgpack.packb(values, unicode_errors="surrogatepass")


def _refuse_value(values: list[Any], error: Exception) -> NoReturn:
    for value in values:
        try:
            _pack_marked(value)
        except BadValue:
            raise
        except Exception as cause:
            deep = isinstance(cause, RecursionError) or "recursion" in str(cause)
            reason = "it is nested too deeply, or holds itself" if deep else str(cause)
            raise BadValue(f"value {short_repr(value)} cannot be sent: {reason}") from error
    raise error


def unpack_column(form: int, data: bytes | memoryview) -> list[Any]:
    """Decode what `pack_column` made."""
    if form == PLAIN:
        column: list[Any] = msgpack.unpackb(data, strict_map_key=False)
        return column
    if form & CONSTANT:
        unpacker = msgpack.Unpacker(max_buffer_size=len(data))
        unpacker.feed(data)
        count = unpacker.unpack()
        return unpack_column(form & ~CONSTANT, memoryview(data)[unpacker.tell() :]) * int(count)
    if form & MARKED:
        marked: list[Any] = _unpack_marked(data)
        return marked
    errors = "surrogatepass" if form & SURROGATES else None
    return list(
        msgpack.unpackb(data, use_list=not form & TUPLES, strict_map_key=False, unicode_errors=errors)
    )


def encoded_size(value: Any) -> int:
    """Return about how many bytes a value takes, for estimates; it depends on the value alone."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value)
    if kind in _PLAIN:
        return 8
    try:
        return len(_pack_marked(value))
    except (TypeError, ValueError, RecursionError, BadValue):
        return 64  # its encoding will tell what is wrong with it


def short_repr(value: Any) -> str:
    """Return a value's repr, cut to 80 characters; never fails, whatever the value does."""
    from reprlib import Repr

    brief = Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 100
    brief.maxlist = brief.maxtuple = brief.maxdict = 20
    try:
        text = brief.repr(value)
    except Exception:  # of a whole number too long for Python to write it
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "…"


# --- grouping ---------------------------------------------------------------------------------------


class _Unsafe(Exception):
    """A key arrived that may equal a key of another type: a signal between two loops, not an error."""


class _Counts(dict[Any, int]):
    """{key: how often it came}, while every value so far was one and the same object."""

    def __missing__(self, key: Any) -> int:
        kind = type(key)
        if kind is not str and kind is not bytes and not _is_safe(key):
            raise _Unsafe
        return 0


class _ByKey(dict[Any, list[Any]]):
    """{key: values} while all keys are of kinds that equal nothing but themselves."""

    def __missing__(self, key: Any) -> list[Any]:
        kind = type(key)
        if kind is not str and kind is not bytes and not _is_safe(key):
            raise _Unsafe
        fresh = self[key] = []
        return fresh


def _is_safe(key: Any) -> bool:
    kind = type(key)
    if kind is tuple:
        return all(map(_is_safe, key))
    return kind is str or kind is bytes or key is None


_NOTHING: Any = object()


class Rows(NamedTuple):
    """Keys and what stands beside each: a list of its values, or with `is_single` its one value."""

    keys: list[Any]
    rows: list[Any]
    is_single: bool


class Groups:
    """Values grouped under their keys, in the order they came.

    Grows by `add_pairs` and `add_column`; read by `take`, which empties it.

    It begins in the cheapest form and changes to the next when it must:

        unique      one dict's items, which a batch mapper gave: nothing has to be grouped
        counts      the same object is every value (a mapper that yields (word, 1)): a number a key
        lists       any values; keys of kinds that equal nothing but themselves
        tokens      any keys

    A list a key costs two cache misses a pair more than a number; for counting words that is half of the
    whole work.
    """

    def __init__(self) -> None:
        self._unique: tuple[list[Any], list[Any]] | None = None
        self._counts: _Counts | None = _Counts()
        self._constant: Any = _NOTHING
        self._by_key: _ByKey | None = _ByKey()
        self._by_token: dict[Any, tuple[Any, list[Any]]] = {}
        self._pack = msgpack.Packer(default=_mark, unicode_errors="surrogatepass").pack

    def __len__(self) -> int:
        if self._unique is not None:
            return len(self._unique[0])
        if self._counts is not None:
            return len(self._counts)
        return len(self._by_token) if self._by_key is None else len(self._by_key)

    def add_pairs(self, pairs: Iterator[Pair]) -> None:
        """Group all pairs of an iterator.

        Raises:
            BadKey: a key cannot be a key.
            JobDefinitionError: something is not a pair.
            Exception: what the iterator itself raises; pairs before it are grouped.
        """
        self._group_unique()
        try:
            self._add_pairs(pairs)
        except (TypeError, ValueError) as error:
            trace = error.__traceback__
            ours = trace is not None and trace.tb_next is not None and trace.tb_next.tb_next is None
            if ours and "unpack" in str(error):
                raise JobDefinitionError(f"user code must yield pairs, (key, value): {error}") from None
            raise

    def _add_pairs(self, pairs: Iterator[Pair]) -> None:
        key = value = None
        try:
            if self._counts is not None:
                counts = self._counts
                constant = self._constant
                for key, value in pairs:
                    if value is not constant:
                        if constant is not _NOTHING:
                            break
                        constant = self._constant = value
                    counts[key] += 1
                else:
                    return
                self._to_lists()
                self._one(key, value)
            if self._by_key is not None:
                groups = self._by_key
                for key, value in pairs:
                    groups[key].append(value)
                return
        except _Unsafe:
            self._to_tokens()
            self._one(key, value)
        except (TypeError, ValueError) as error:
            # An unhashable key fails in the dict before __missing__ can look at it.
            trace = error.__traceback__
            if trace is None or trace.tb_next is not None or _is_hashable(key):
                raise
            self._to_tokens()
            self._one(normal_key(key), value)
        for key, value in pairs:
            self._one(key, value)

    def add_column(self, keys: Sequence[Any], columns: Iterable[Sequence[Any]] | None, values: Any) -> None:
        """Group a block's keys: `columns` holds each key's values, or is None when `values` is one a key."""
        self._group_unique()
        self._to_lists()
        groups = self._by_key
        if groups is not None and not set(map(type, keys)) <= {str, bytes} and not all(map(_is_safe, keys)):
            self._to_tokens()
            groups = None
        if groups is not None:
            # An append a key without a turn of Python's own loop.
            if columns is None:
                deque(map(list.append, map(groups.__getitem__, keys), values), 0)
            else:
                deque(map(list.extend, map(groups.__getitem__, keys), columns), 0)
            return
        if columns is None:
            columns = ((value,) for value in values)
        for key, some in zip(keys, columns, strict=True):
            token = key if type(key) in (str, bytes, int) else self._token(key)
            entry = self._by_token.get(token)
            if entry is None:
                entry = self._by_token[token] = (key, [])
            entry[1].extend(some)

    def add_items(self, keys: list[Any], values: list[Any]) -> None:
        """Group the items of one dict; raises as `add_pairs` does."""
        if not len(self) and set(map(type, keys)) <= {str, bytes}:
            self._unique = keys, values
        else:
            self.add_pairs(zip(keys, values, strict=True))

    def take(self) -> tuple[list[Any], list[list[Any]]]:
        """Return the keys in order of first arrival and each one's values, and start anew."""
        self._group_unique()
        if self._counts is not None:
            keys = list(self._counts)
            columns = [[self._constant] * count for count in self._counts.values()]
        elif self._by_key is not None:
            keys, columns = list(self._by_key), list(self._by_key.values())
        else:
            keys = [key for key, _ in self._by_token.values()]
            columns = [values for _, values in self._by_token.values()]
        self._restart()
        return keys, columns

    def take_in_key_order(self) -> tuple[list[Any], list[list[Any]]]:
        """Return what `take` does, sorted by key."""
        by_key = self._by_key
        if by_key is not None and self._counts is None and self._unique is None:
            keys = list(by_key)
            if _sorts_by_itself(keys):
                keys.sort()
                columns = list(map(by_key.__getitem__, keys))
                self._restart()
                return keys, columns
        return in_key_order(*self.take(), distinct=True)

    def take_rows(self) -> Rows:
        """Return the keys in order of first arrival with rows of values, or of one value each; start anew."""
        if self._unique is not None:
            keys, values = self._unique
            self._restart()
            return Rows(keys, values, is_single=True)
        return Rows(*self.take(), is_single=False)

    def take_to_combine(self) -> tuple[list[Any], list[Any], list[int], list[Iterable[Any]]]:
        """Return everything in the shape a combiner needs, and start anew.

        Returns:
            The keys; each one's first value; the indexes of the keys that have several values; and all
            the values of these.
        """
        columns: list[Iterable[Any]]
        if self._unique is not None:
            keys, values = self._unique
            several, columns = [], []
        elif self._counts is not None:
            keys, counts = list(self._counts), list(self._counts.values())
            values = [self._constant] * len(keys)
            several = [index for index, count in enumerate(counts) if count > 1]
            columns = [repeat(self._constant, counts[index]) for index in several]
        else:
            keys, held = self.take()
            values = [column[0] for column in held]
            several = [index for index, column in enumerate(held) if len(column) > 1]
            columns = [held[index] for index in several]
        self._restart()
        return keys, values, several, columns

    def _restart(self) -> None:
        self._unique = None
        self._counts, self._constant = _Counts(), _NOTHING
        self._by_key, self._by_token = _ByKey(), {}

    def _group_unique(self) -> None:
        if self._unique is not None:
            keys, values = self._unique
            self._unique = None
            self._add_pairs(zip(keys, values, strict=True))

    def _one(self, key: Any, value: Any) -> None:
        """Group one pair, whatever the form."""
        if self._by_key is not None:
            try:
                self._by_key[key].append(value)
                return
            except _Unsafe:
                self._to_tokens()
        kind = type(key)
        token = key if kind is int or kind is str or kind is bytes else self._token(key)
        entry = self._by_token.get(token)
        if entry is None:
            self._by_token[token] = (normal_key(key), [value])
        else:
            entry[1].append(value)

    def _token(self, key: Any) -> Any:
        """Return something that equals another key's token only if both encode alike."""
        key = normal_key(key)
        if type(key) in (int, str, bytes):
            return key
        if type(key) is tuple:
            kinds = tuple(map(type, key))
            if float not in kinds and tuple not in kinds:
                return kinds, key
        return None, self._pack(key)

    def _to_lists(self) -> None:
        if self._counts is not None:
            assert self._by_key is not None
            for key, count in self._counts.items():
                self._by_key[key].extend([self._constant] * count)
            self._counts = None

    def _to_tokens(self) -> None:
        self._to_lists()
        assert self._by_key is not None
        for key, values in self._by_key.items():
            self._by_token[self._token(key)] = (key, values)
        self._by_key = None


def _is_hashable(key: Any) -> bool:
    try:
        hash(key)
    except (TypeError, ValueError):  # a writable memoryview raises the second
        return False
    return True


def _name_what_is_no_pair(held: Iterable[Any]) -> None:
    try:
        for _key, _value in held:
            pass
    except (TypeError, ValueError) as error:
        raise JobDefinitionError(f"user code must yield pairs, (key, value): {error}") from None


class Pile:
    """Pairs as they came, ungrouped: for steps that only sort, where hashing keys would be wasted."""

    def __init__(self) -> None:
        self._keys: list[Any] = []
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add_pairs(self, pairs: Iterator[Pair]) -> None:
        """Add all pairs of an iterator; raises as `Groups.add_pairs` does."""
        held = list(pairs)
        if not held:
            return
        try:
            keys, values = map(list, zip(*held, strict=True))
        except (TypeError, ValueError):
            _name_what_is_no_pair(held)
            raise
        if not set(map(type, keys)) <= _PLAIN - {float}:
            keys = list(map(normal_key, keys))
        self._keys += keys
        self._values += values

    def add_items(self, keys: list[Any], values: list[Any]) -> None:
        """Add the items of one dict."""
        self.add_pairs(zip(keys, values, strict=True))

    def take_rows(self) -> Rows:
        """Return keys, with repetitions, and their values, and start anew."""
        keys, values = self._keys, self._values
        self._keys, self._values = [], []
        return Rows(keys, values, is_single=True)


def in_key_order(keys: list[Any], rows: list[Any], *, distinct: bool) -> tuple[list[Any], list[Any]]:
    """Sort keys and take the rows beside them along; rows of equal keys keep their order.

    Args:
        keys: may be sorted in place.
        rows: anything, one a key.
        distinct: no key stands twice, which is faster to sort.
    """
    if _sorts_by_itself(keys):
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


def places_among(borders: Sequence[Any], keys: Sequence[Any]) -> list[int]:
    """Return for each key how many of the sorted borders are less than it."""
    if _sorts_by_itself(keys) and _sorts_by_itself([*keys[:1], *borders]):
        return list(map(bisect_left, repeat(borders), keys))
    return list(map(bisect_left, repeat(list(map(order_key, borders))), map(order_key, keys)))
