"""Well-formed messages that mean nothing: whatever fits the annotations of a table of messages."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NewType

from hypothesis import reject
from hypothesis import strategies as st

from membership.errors import InvalidGroup
from p2p.catalogue import Entry
from p2p.wire import Kind

IDS = ("a", "b", "c", "d")
ADDRESSES = ("memory:1", "memory:2", "memory:3", "nowhere:1", "x")
JOBS = ("ab" * 16, "cd" * 16)
FILES = ("ab" * 20, "cd" * 20)
NUMBERS = st.integers(0, 3) | st.sampled_from([1 << 31, (1 << 63) - 1, (1 << 64) - 1])
# Where the name of a field says what kind of text it takes.
TEXTS = {
    "job": JOBS,
    "key": tuple(f"job/{job}" for job in JOBS),
    "prefix": ("", "ab"),
    "nonce": ("ab",),
    "upload": ("", "ab", *FILES),
    "spec_digest": ("", "ab"),
    "reply_to": ADDRESSES,
    "file": FILES,
    "put": FILES,
}
# Most that fits an entry's annotations is no entry: its digests must fit its size.
ENTRIES = st.builds(
    lambda name, version, file, is_removal, blocks, replicas, expires_at_s: Entry(
        name=name,
        version=version,
        file=file,
        is_removal=is_removal,
        size_bytes=10 * blocks,
        block_bytes=10,
        digests=bytes(16 * blocks),
        replicas=replicas,
        expires_at_s=expires_at_s,
    ),
    st.sampled_from(IDS),
    NUMBERS,
    st.sampled_from(FILES),
    st.booleans(),
    st.integers(0, 3),
    st.integers(1, 8),
    st.sampled_from([0.0, 1.0, 2e9]),
)


def messages(kinds: Iterable[Kind]) -> st.SearchStrategy[Any]:
    """Any message of a table."""
    by_tag = {kind.tag: _values(kind.message) for kind in kinds}

    def of(tag: int) -> st.SearchStrategy[Any]:  # a function, since hypothesis prints what it is given
        return by_tag[tag]

    return st.sampled_from(sorted(by_tag)).flatmap(of)


def _values(hint: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Anything that fits an annotation, with names and numbers that mean something here."""
    if isinstance(hint, NewType):
        return st.sampled_from(IDS)
    if hint is Entry:
        return ENTRIES
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_values(option, name) for option in inside))
    if origin is tuple and inside[-1] is Ellipsis:
        return st.lists(_values(inside[0], name), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*(_values(item, name) for item in inside))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(st.sampled_from(IDS), _values(inside[1], name), max_size=3)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {field.name: _values(hints[field.name], field.name) for field in dataclasses.fields(hint)}
        make: Any = hint
        return st.fixed_dictionaries(fields).map(lambda filled: _made(make, filled))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 64) if name in ("weight", "count") else NUMBERS,
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bytes: st.binary(max_size=16),
        str: st.sampled_from(TEXTS.get(name, ADDRESSES if "address" in name else IDS)),
        type(None): st.none(),
    }
    return plain[hint]


def _made(make: Any, filled: dict[str, Any]) -> Any:
    """A value, unless its type itself refuses to be one: what cannot be built cannot be said."""
    try:
        return make(**filled)
    except InvalidGroup:
        reject()
