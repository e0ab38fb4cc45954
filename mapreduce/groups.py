"""Grouping by hash: pairs, as they come, under their keys.

Python's `==` would merge keys that must stay apart (see `mapreduce.records`).  Checking every key's type
costs as much as the grouping itself; `Groups` therefore checks only keys *new* to its dict, as long as all of
them are of a kind that equals nothing outside the kind (str, bytes, None and tuples of these).  The first
other key moves it to a form with a token for each key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import msgpack

from mapreduce.columns import PLAIN_KINDS, mark
from mapreduce.errors import JobDefinitionError
from mapreduce.records import Pair, in_key_order, normal_key, sorts_by_itself


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
    """Keys and what stands beside each: a list of its values, or with `is_single` its one value.

    With `is_distinct` no key stands twice.
    """

    keys: list[Any]
    rows: list[Any]
    is_single: bool
    is_distinct: bool = True


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
        self._pack = msgpack.Packer(default=mark, unicode_errors="surrogatepass").pack

    def __len__(self) -> int:
        if self._unique is not None:
            return len(self._unique[0])
        if self._counts is not None:
            return len(self._counts)
        return len(self._by_token) if self._by_key is None else len(self._by_key)

    @property
    def pairs(self) -> int:
        """How many pairs are grouped here; counted anew at each call."""
        if self._unique is not None:
            return len(self._unique[0])
        if self._counts is not None:
            return sum(self._counts.values())
        if self._by_key is not None:
            return sum(map(len, self._by_key.values()))
        return sum(len(values) for _, values in self._by_token.values())

    def add_pairs(self, pairs: Iterator[Pair]) -> None:
        """Group all pairs of an iterator.

        Raises:
            BadKey: a key cannot be a key.
            JobDefinitionError: something is not a pair.
            Exception: what the iterator itself raises; pairs before it are grouped.
        """
        self._group_unique()
        add_all(self._add_pairs, pairs)

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
        by_token = self._by_token
        for key, value in pairs:
            kind = type(key)
            if kind is int or kind is str or kind is bytes:
                # As `_one` does, without a call: whole numbers are frequent keys.
                entry = by_token.get(key)
                if entry is None:
                    by_token[key] = (key, [value])
                else:
                    entry[1].append(value)
            else:
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
            if sorts_by_itself(keys):
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


def add_all(add: Callable[[Iterator[Pair]], None], pairs: Iterator[Pair]) -> None:
    """Call a function that takes pairs apart, one after another.

    Raises:
        JobDefinitionError: one was no pair; told by where the exception comes from: the function's own frame.
        Exception: what else the function or the iterator raises.
    """
    try:
        add(pairs)
    except (TypeError, ValueError) as error:
        trace = error.__traceback__
        ours = trace is not None and trace.tb_next is not None and trace.tb_next.tb_next is None
        if ours and "unpack" in str(error):
            raise JobDefinitionError(f"user code must yield pairs, (key, value): {error}") from None
        raise


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
        if not set(map(type, keys)) <= PLAIN_KINDS - {float}:
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
        return Rows(keys, values, is_single=True, is_distinct=False)
