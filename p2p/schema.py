"""From the annotations of a message to the code that packs it and refuses what does not fit.

Theory
------
A message is a frozen dataclass, so its annotations already say what may arrive.  `Schema` compiles them once
into two closures: `pack` turns a message into plain values (tuples, strings, numbers) for msgpack, and
`unpack` turns plain values, which a stranger may have chosen, back into a message or raises `MalformedFrame`
with the path of the field that does not fit.

**Shape.** A dataclass travels as the list of its fields, in order, without names: an unknown field and a
missing field are both a wrong length, and a frame is as small as it can be.  The protocol version stands
for the meaning of the positions.  A union of dataclasses travels as ``[index, fields]``, an enum as its
value, a set as a sorted list.

**Exact.** ``True`` is no int, ``1`` is no float, NaN and the infinities are no numbers.  Everything that
can be long has a limit.  A pure package cannot know the limits of a wire, so they are stated where its
messages are registered, by field (`Bounds`), and otherwise the default of the type holds.

**Fast.** Most messages are flat.  A dataclass whose fields need no work is packed by one `attrgetter`, in
C. Unpacking takes one call for each field; only after a failure is the message walked again, slowly, to
find the name of the field that was wrong.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NewType, Union, get_args, get_origin

from p2p.errors import MalformedFrame

__all__ = ["Bounds", "Schema", "compile_schema"]

Unpack = Callable[[Any], Any]
Pack = Callable[[Any], Any] | None  # None: the value already is what msgpack takes

MAX_WHOLE = (1 << 64) - 1  # what msgpack can carry, and what a ring position needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of one field, or of all fields that name no limits of their own.

    `text_chars` and `bytes_len` bound each string, `items` each sequence or mapping, `least` and `most` each
    int. `pattern` is a regular expression that each string must match as a whole, None for any text.
    """

    text_chars: int = 1_024
    pattern: str | None = None
    bytes_len: int = 64 * 1_024
    items: int = 4_096
    least: int = 0
    most: int = MAX_WHOLE


@dataclass(frozen=True, slots=True)
class Schema:
    """The compiled form of one message type."""

    type: type
    pack: Callable[[Any], Any]
    unpack: Unpack


def compile_schema(message_type: type, bounds: Mapping[str, Bounds] | None = None) -> Schema:
    """Compile the annotations of a dataclass.

    Args:
        message_type: a dataclass with an annotation on every field.
        bounds: limits by field, keyed ``"Type.field"``; a nested dataclass is addressed by its own name.

    Raises:
        TypeError: the type is no dataclass, or an annotation has no safe form on the wire (``Any``,
        ``object``, …).
    """
    compiler = _Compiler(dict(bounds or {}))
    pack, unpack = compiler.dataclass(message_type)
    compiler.check_all_bounds_used(message_type)
    return Schema(message_type, pack, unpack)


class _Compiler:
    def __init__(self, bounds: dict[str, Bounds]) -> None:
        self._bounds = bounds
        self._seen: set[str] = set()
        self._done: dict[type, tuple[Callable[[Any], Any], Unpack]] = {}
        self._open: list[type] = []

    def check_all_bounds_used(self, root: type) -> None:
        if unused := sorted(set(self._bounds) - self._seen):
            raise TypeError(
                f"limits of {root.__name__} name fields that it does not have: {', '.join(unused)}"
            )

    def dataclass(self, cls: type) -> tuple[Callable[[Any], Any], Unpack]:
        if cls in self._done:
            return self._done[cls]
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls!r} is no dataclass")
        if cls in self._open:
            raise TypeError(f"{cls.__name__} contains itself: its depth on the wire would have no bound")
        self._open.append(cls)
        hints = typing.get_type_hints(cls)
        names: list[str] = []
        packs: list[Pack] = []
        unpacks: list[Unpack] = []
        for field in dataclasses.fields(cls):
            path = f"{cls.__name__}.{field.name}"
            self._seen.add(path)
            pack, unpack = self._value(hints[field.name], self._bounds.get(path, Bounds()), path)
            names.append(field.name)
            packs.append(pack)
            unpacks.append(unpack)
        self._open.pop()
        made = _dataclass_pack(names, packs), _dataclass_unpack(cls, names, unpacks)
        self._done[cls] = made
        return made

    def _value(self, hint: Any, bounds: Bounds, path: str) -> tuple[Pack, Unpack]:
        if isinstance(hint, NewType):
            return self._value(hint.__supertype__, bounds, path)
        origin = get_origin(hint)
        if origin is typing.Annotated:
            return self._value(get_args(hint)[0], bounds, path)
        if origin is Union or origin is types.UnionType:
            return self._union(get_args(hint), bounds, path)
        if origin is Literal:
            return None, _literal_unpack(get_args(hint))
        if origin is tuple:
            return self._tuple(get_args(hint), bounds, path)
        if origin is frozenset:
            return self._set(get_args(hint)[0], bounds, path)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(get_args(hint)[0], get_args(hint)[1], bounds, path)
        if isinstance(hint, type):
            return self._plain(hint, bounds, path)
        raise TypeError(f"{path}: {hint!r} has no form on the wire")

    def _plain(self, hint: type, bounds: Bounds, path: str) -> tuple[Pack, Unpack]:
        if hint is int:
            return None, _int_unpack(bounds.least, bounds.most)
        if hint is float:
            return _pack_float, _unpack_float
        if hint is bool:
            return None, _unpack_bool
        if hint is str:
            unpack = _sized_unpack(str, bounds.text_chars, "characters")
            return None, unpack if bounds.pattern is None else _pattern_unpack(unpack, bounds.pattern)
        if hint is bytes:
            return None, _sized_unpack(bytes, bounds.bytes_len, "bytes")
        if hint is type(None):
            return None, _unpack_none
        if issubclass(hint, enum.Enum):
            # Enums that are strings or ints are packed as such, in C.
            return None if issubclass(hint, str | int) else attrgetter("value"), _enum_unpack(hint)
        if dataclasses.is_dataclass(hint):
            return self.dataclass(hint)
        raise TypeError(f"{path}: {hint!r} has no form on the wire")

    def _union(self, options: tuple[Any, ...], bounds: Bounds, path: str) -> tuple[Pack, Unpack]:
        concrete = [option for option in options if option is not type(None)]
        if len(concrete) == 1:
            pack, unpack = self._value(concrete[0], bounds, path)
        elif all(isinstance(option, type) and dataclasses.is_dataclass(option) for option in concrete):
            pack, unpack = _tagged([(option, *self.dataclass(option)) for option in concrete])
        else:
            raise TypeError(f"{path}: a union on the wire holds dataclasses only, or one type and None")
        if len(concrete) == len(options):
            return pack, unpack
        return _optional(pack, unpack)

    def _tuple(self, items: tuple[Any, ...], bounds: Bounds, path: str) -> tuple[Pack, Unpack]:
        if len(items) == 2 and items[1] is Ellipsis:
            pack, unpack = self._value(items[0], bounds, path)
            packs = None if pack is None else _each(pack)
            return packs, _sequence_unpack(unpack, bounds.items)
        made = [self._value(item, bounds, path) for item in items]
        return _fixed(made)

    def _set(self, item: Any, bounds: Bounds, path: str) -> tuple[Pack, Unpack]:
        pack, unpack = self._value(item, bounds, path)
        unpack_all = _sequence_unpack(unpack, bounds.items)

        def pack_set(value: frozenset[Any]) -> list[Any]:
            return sorted(value if pack is None else map(pack, value))

        def unpack_set(value: Any) -> frozenset[Any]:
            items = unpack_all(value)
            distinct = frozenset(items)
            if len(distinct) != len(items):
                raise MalformedFrame("a set names an item twice")
            return distinct

        return pack_set, unpack_set

    def _mapping(self, key: Any, value: Any, bounds: Bounds, path: str) -> tuple[Pack, Unpack]:
        key_pack, key_unpack = self._value(key, bounds, path)
        value_pack, value_unpack = self._value(value, bounds, path)
        if key_pack is not None:
            raise TypeError(f"{path}: keys on the wire are strings or bytes")
        most = bounds.items

        def pack_mapping(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
            if value_pack is None:
                return dict(mapping)
            return {k: value_pack(v) for k, v in mapping.items()}

        def unpack_mapping(mapping: Any) -> dict[Any, Any]:
            if type(mapping) is not dict:
                raise MalformedFrame(f"expected a mapping, got {type(mapping).__name__}")
            if len(mapping) > most:
                raise MalformedFrame(f"{len(mapping)} items, at most {most} are allowed")
            return {key_unpack(k): value_unpack(v) for k, v in mapping.items()}

        return pack_mapping, unpack_mapping


def _dataclass_pack(names: list[str], packs: list[Pack]) -> Callable[[Any], Any]:
    if not names:
        return lambda _message: ()
    if all(pack is None for pack in packs):
        if len(names) > 1:
            return attrgetter(*names)
        only = attrgetter(names[0])
        return lambda message: (only(message),)
    steps = [(attrgetter(name), pack) for name, pack in zip(names, packs, strict=True)]

    def pack_dataclass(message: Any) -> list[Any]:
        return [get(message) if pack is None else pack(get(message)) for get, pack in steps]

    return pack_dataclass


def _dataclass_unpack(cls: type, names: list[str], unpacks: list[Unpack]) -> Unpack:
    count = len(names)

    def unpack_dataclass(value: Any) -> Any:
        if type(value) is not tuple:
            raise MalformedFrame(f"expected the fields of {cls.__name__}, got {type(value).__name__}")
        if len(value) != count:
            raise MalformedFrame(f"{cls.__name__} has {count} fields, got {len(value)}")
        try:
            fields = {name: unpack(item) for name, unpack, item in zip(names, unpacks, value, strict=True)}
        except MalformedFrame:
            raise MalformedFrame(_where(cls.__name__, names, unpacks, value)) from None
        try:
            return cls(**fields)
        except ValueError as error:  # the message's own check in __post_init__
            raise MalformedFrame(f"{cls.__name__}: {error}") from None

    return unpack_dataclass


def _where(type_name: str, names: list[str], unpacks: list[Unpack], value: tuple[Any, ...]) -> str:
    for name, unpack, item in zip(names, unpacks, value, strict=True):
        try:
            unpack(item)
        except MalformedFrame as error:
            return f"{type_name}.{name}: {error}"
    raise AssertionError("a field that was refused is accepted now")


def _tagged(options: list[tuple[type, Callable[[Any], Any], Unpack]]) -> tuple[Pack, Unpack]:
    packs = {cls: (index, pack) for index, (cls, pack, _) in enumerate(options)}
    unpacks = [unpack for _, _, unpack in options]

    def pack_tagged(value: Any) -> tuple[int, Any]:
        index, pack = packs[type(value)]
        return index, pack(value)

    def unpack_tagged(value: Any) -> Any:
        if type(value) is not tuple or len(value) != 2 or type(value[0]) is not int:
            raise MalformedFrame("expected one of several kinds, got something without a kind")
        if not 0 <= value[0] < len(unpacks):
            raise MalformedFrame(f"kind {value[0]} of {len(unpacks)}")
        return unpacks[value[0]](value[1])

    return pack_tagged, unpack_tagged


def _optional(pack: Pack, unpack: Unpack) -> tuple[Pack, Unpack]:
    def unpack_optional(value: Any) -> Any:
        return None if value is None else unpack(value)

    if pack is None:
        return None, unpack_optional

    def pack_optional(value: Any) -> Any:
        return None if value is None else pack(value)

    return pack_optional, unpack_optional


def _fixed(made: list[tuple[Pack, Unpack]]) -> tuple[Pack, Unpack]:
    unpacks = [unpack for _, unpack in made]

    def unpack_fixed(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple or len(value) != len(unpacks):
            raise MalformedFrame(f"expected {len(unpacks)} items")
        return tuple(unpack(item) for unpack, item in zip(unpacks, value, strict=True))

    if all(pack is None for pack, _ in made):
        return None, unpack_fixed
    packs = [pack for pack, _ in made]

    def pack_fixed(value: tuple[Any, ...]) -> list[Any]:
        return [item if pack is None else pack(item) for pack, item in zip(packs, value, strict=True)]

    return pack_fixed, unpack_fixed


def _each(pack: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [pack(value) for value in values]


def _sequence_unpack(unpack: Unpack, most: int) -> Unpack:
    def unpack_sequence(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise MalformedFrame(f"expected a list, got {type(value).__name__}")
        if len(value) > most:
            raise MalformedFrame(f"{len(value)} items, at most {most} are allowed")
        return tuple([unpack(item) for item in value])

    return unpack_sequence


def _int_unpack(least: int, most: int) -> Unpack:
    def unpack_int(value: Any) -> Any:
        if type(value) is not int:
            raise MalformedFrame(f"expected int, got {type(value).__name__}")
        if not least <= value <= most:
            raise MalformedFrame(f"{value} is not between {least} and {most}")
        return value

    return unpack_int


def _sized_unpack(kind: type[str] | type[bytes], most: int, unit: str) -> Unpack:
    def unpack_sized(value: Any) -> Any:
        if type(value) is not kind:
            raise MalformedFrame(f"expected {kind.__name__}, got {type(value).__name__}")
        if len(value) > most:
            raise MalformedFrame(f"{len(value)} {unit}, at most {most} are allowed")
        return value

    return unpack_sized


def _pattern_unpack(unpack: Unpack, pattern: str) -> Unpack:
    matches = re.compile(pattern).fullmatch

    def unpack_pattern(value: Any) -> Any:
        if matches(unpack(value)) is None:
            raise MalformedFrame(f"{value!r:.40} does not match {pattern}")
        return value

    return unpack_pattern


def _literal_unpack(allowed: tuple[Any, ...]) -> Unpack:
    kinds = {(type(value), value) for value in allowed}

    def unpack_literal(value: Any) -> Any:
        # Containers that arrive may be unhashable inside, so the type is looked at first.
        if type(value) not in (str, int, bool, bytes) or (type(value), value) not in kinds:
            raise MalformedFrame(f"expected one of {allowed}")
        return value

    return unpack_literal


def _enum_unpack(cls: type[enum.Enum]) -> Unpack:
    by_value = {(type(member.value), member.value): member for member in cls}

    def unpack_enum(value: Any) -> Any:
        if type(value) in (str, int) and (member := by_value.get((type(value), value))) is not None:
            return member
        raise MalformedFrame(f"no {cls.__name__}")

    return unpack_enum


def _pack_float(value: float) -> float:
    number = float(value)  # an int is a float to the type checker, and not on the wire
    if not math.isfinite(number):
        raise MalformedFrame(f"{number} cannot be sent")
    return number


def _unpack_float(value: Any) -> Any:
    if type(value) is not float:
        raise MalformedFrame(f"expected float, got {type(value).__name__}")
    if not math.isfinite(value):
        raise MalformedFrame(f"{value} is no number")
    return value


def _unpack_bool(value: Any) -> Any:
    if type(value) is not bool:
        raise MalformedFrame(f"expected bool, got {type(value).__name__}")
    return value


def _unpack_none(value: Any) -> Any:
    if value is not None:
        raise MalformedFrame("expected nothing")
    return None
