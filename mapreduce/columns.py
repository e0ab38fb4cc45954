"""Columns: how keys and values become bytes, and come back.

Columns, not records: one msgpack call for a whole list.  msgpack has no tuples and Python users do, so a
column remembers how its arrays are to come back: as lists, as tuples, or (mixed and nested cases) with tuples
marked one by one.  Integers beyond 64 bits are marked the same way.  A column of equal values is written as
one of them and their number.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from operator import is_
from typing import Any, NoReturn

import msgpack

from mapreduce.errors import BadValue

PLAIN_KINDS = frozenset({type(None), bool, int, float, str, bytes})
# What an instance of a subclass holds, whatever it says of itself: of `class Colour(str, Enum)`, str() gives
# "Colour.RED" and msgpack the string.
HELD: tuple[tuple[type, Callable[[Any], Any]], ...] = (
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


def mark(value: Any) -> Any:
    """Say how msgpack shall carry what it cannot; called only for such values."""
    kind = type(value)
    if kind is tuple:
        return msgpack.ExtType(_EXT_TUPLE, pack_marked(list(value)))
    if kind is int:
        return msgpack.ExtType(_EXT_BIG_INT, str(value).encode())
    if isinstance(value, tuple):
        return msgpack.ExtType(_EXT_TUPLE, pack_marked(list(value)))
    for base, value_of in HELD:
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


def pack_marked(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=mark, strict_types=True, unicode_errors="surrogatepass")
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
    if not kinds <= PLAIN_KINDS:
        form = MARKED
        if kinds in ({tuple}, {list}) and set(map(type, chain.from_iterable(values))) <= PLAIN_KINDS:
            form = TUPLES if kinds == {tuple} else PLAIN
    try:
        if form != MARKED:
            try:
                return _pack_plain(form, values)
            except OverflowError:
                pass  # an integer beyond 64 bits has to be marked
        return MARKED, pack_marked(values)
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
    return type(value) in PLAIN_KINDS or (type(value) is tuple and all(map(_is_unchangeable, value)))


def _pack_plain(form: int, values: list[Any]) -> tuple[int, bytes]:
    try:
        return form, msgpack.packb(values)
    except UnicodeEncodeError:
        return form | SURROGATES, msgpack.packb(values, unicode_errors="surrogatepass")


def _refuse_value(values: list[Any], error: Exception) -> NoReturn:
    for value in values:
        try:
            pack_marked(value)
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
    if kind in PLAIN_KINDS:
        return 8
    try:
        return len(pack_marked(value))
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
