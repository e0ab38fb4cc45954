"""How pairs become bytes: every format against its own library, and what cannot be written."""

from __future__ import annotations

import base64
import json
import math
from collections import OrderedDict
from enum import IntEnum, StrEnum
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import formats
from mapreduce.errors import BadValue
from mapreduce.formats import FORMATS, encoded, encoder

Pair = tuple[Any, Any]
SEEDED = settings(derandomize=True, deadline=None, max_examples=200)


def write(out_format: str, *pairs: Pair) -> bytes:
    return b"".join(encoded(out_format, pairs))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3, alphabet="abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


def as_lists(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return list(map(as_lists, value))
    if isinstance(value, dict):
        return {key: as_lists(inner) for key, inner in value.items()}
    return value


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@SEEDED
@given(st.lists(st.tuples(values, values), max_size=40))
def test_text_is_strings_as_they_are_and_all_else_as_json(pairs: list[Pair]) -> None:
    assert write("text", *pairs) == "".join(f"{text_of(k)}\t{text_of(v)}\n" for k, v in pairs).encode()


@SEEDED
@given(st.lists(st.tuples(values, values), max_size=40))
def test_jsonl_is_an_array_of_two_a_line(pairs: list[Pair]) -> None:
    expected = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    assert write("jsonl", *pairs) == expected.encode()


# Strings and values with all that also stands where one value ends and the next begins.
seamy = st.text(max_size=6, alphabet='[]{}, "\n\\1')
of_one_type: tuple[st.SearchStrategy[Any], ...] = (
    st.lists(seamy | st.integers() | st.lists(seamy, max_size=2), max_size=3),
    st.tuples(seamy, seamy),
    st.dictionaries(seamy, seamy | st.dictionaries(seamy, seamy, max_size=1), max_size=2),
    st.floats(),
)


@SEEDED
@given(st.one_of([st.lists(st.tuples(seamy | st.integers(), kind), max_size=16) for kind in of_one_type]))
def test_values_of_one_type_are_written_together_as_one_by_one(pairs: list[Pair]) -> None:
    assert write("text", *pairs) == b"".join(write("text", pair) for pair in pairs)
    assert write("jsonl", *pairs) == b"".join(write("jsonl", pair) for pair in pairs)
    assert write("text", *pairs) == "".join(f"{text_of(k)}\t{text_of(v)}\n" for k, v in pairs).encode()


@SEEDED
@given(st.lists(st.tuples(values, values), max_size=40))
def test_msgpack_is_a_stream_of_arrays_of_two(pairs: list[Pair]) -> None:
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(write("msgpack", *pairs))
    assert repr(list(unpacker)) == repr(as_lists(pairs))


@pytest.mark.parametrize("out_format", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 511, 512, 513, 70_000])
def test_any_number_of_pairs_is_written_in_order(out_format: str, count: int) -> None:
    pairs = [(f"k{number}", number) for number in range(count)]
    encode = encoder(out_format)
    assert write(out_format, *pairs) == b"".join(encode([pair]) for pair in pairs)


@pytest.mark.parametrize("out_format", FORMATS)
def test_pairs_may_be_lists(out_format: str) -> None:
    assert write(out_format, ["a", 1], ["b", 2.5]) == write(out_format, ("a", 1), ("b", 2.5))  # type: ignore[arg-type]


@pytest.mark.parametrize("out_format", ["text", "jsonl"])
def test_a_large_value_is_written_once(out_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written_chars = 0

    def counting(value: Any) -> str:
        nonlocal written_chars
        written_chars += len(text := json.dumps(value))
        return text

    monkeypatch.setattr(formats, "_dumps", lambda: counting)
    made = encoder(out_format)([("key", ["a string"] * 10_000)])
    assert written_chars <= len(made)


def test_few_large_values_are_held_at_a_time() -> None:
    held: list[int] = []

    def pairs() -> Any:
        for number in range(2_000):
            held.append(number)
            yield number, "x" * 100_000

    chunks = encoded("text", pairs())
    next(chunks)
    first = len(held)
    for _ in range(3):
        next(chunks)
    assert len(held) - first <= 3 * 10


# --- bytes --------------------------------------------------------------------------------------------


@SEEDED
@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8) | st.integers() | st.text("aé"))))
def test_text_writes_bytes_as_they_are_beside_anything_else(pairs: list[Pair]) -> None:
    expected = b"".join(
        k + b"\t" + (v if isinstance(v, bytes) else str(v).encode()) + b"\n" for k, v in pairs
    )
    assert write("text", *pairs) == expected


def test_json_writes_bytes_in_base64() -> None:
    raw = bytes(range(256))
    code = base64.b64encode(raw).decode()
    assert json.loads(write("jsonl", (raw, {"a": [raw, bytearray(raw)]}))) == [code, {"a": [code, code]}]
    assert write("text", ("k", (raw, 1))) == f'k\t["{code}", 1]\n'.encode()


def test_msgpack_keeps_bytes_and_strings_apart() -> None:
    assert msgpack.unpackb(write("msgpack", (b"a", ["a", bytearray(b"b")]))) == [b"a", ["a", b"b"]]


# --- lone surrogates ----------------------------------------------------------------------------------


@SEEDED
@given(st.binary(max_size=12))
def test_text_writes_the_bytes_that_surrogateescape_stood_for(raw: bytes) -> None:
    assert write("text", (raw.decode("utf-8", "surrogateescape"), 1)) == raw + b"\t1\n"


any_text = st.text(st.characters(categories=["Cs", "Ll"]), max_size=6)


@SEEDED
@given(st.lists(st.tuples(any_text, any_text), min_size=1, max_size=20))
def test_strings_with_lone_surrogates_survive_in_json_and_msgpack(pairs: list[Pair]) -> None:
    lines = write("jsonl", *pairs).decode("utf-8", "strict").splitlines()
    unpacker = msgpack.Unpacker(unicode_errors="surrogatepass")
    unpacker.feed(write("msgpack", *pairs))
    assert list(map(tuple, unpacker)) == pairs
    found = [tuple(json.loads(line)) for line in lines]
    # In JSON a high surrogate followed by a low one is one character beyond the first plane.
    assert found == [tuple(json.loads(json.dumps(pair))) for pair in pairs]


def test_text_writes_other_lone_surrogates_as_surrogatepass_does() -> None:
    line = write("text", ("\ud800é\udcff", "\udfff"))
    assert line == b"\xed\xa0\x80\xc3\xa9\xff\t\xed\xbf\xbf\n"


# --- numbers and types beyond the plain ones ----------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (10**30, "1" + "0" * 30),
        (math.inf, "Infinity"),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (Colour.RED, "red"),
        (Level.HIGH, "3"),
        ((1, (2, "x")), '[1, [2, "x"]]'),
        ({1: "a", None: [], (1, "b"): 2, b"k": 3}, '{"1": "a", "null": [], "[1, \\"b\\"]": 2, "aw==": 3}'),
        (OrderedDict(b=1, a=2), '{"b": 1, "a": 2}'),
        (np.int64(7), "7"),
        (np.float64(0.5), "0.5"),
        (np.float32(0.5), "0.5"),
        (np.bool_(True), "true"),
        (np.array([1, 2]), "[1, 2]"),
        (np.str_("s"), "s"),
    ],
)
def test_values_are_written_as_what_they_are(value: Any, text: str) -> None:
    assert write("text", ("k", value), (value, 1)) == f"k\t{text}\n{text}\t1\n".encode()
    inner = json.dumps(text) if isinstance(value, str) else text
    assert write("jsonl", ("k", value)) == f'["k", {inner}]\n'.encode()


def test_tabs_and_newlines_stand_in_text_as_they_are_and_are_escaped_in_json() -> None:
    assert write("text", ("a\tb", "c\nd")) == b"a\tb\tc\nd\n"
    assert write("jsonl", ("a\tb", "c\nd")) == b'["a\\tb", "c\\nd"]\n'


# --- what cannot be written ---------------------------------------------------------------------------


class Thing:
    def __repr__(self) -> str:
        return "Thing()"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


circle: list[Any] = []
circle.append(circle)


@pytest.mark.parametrize("out_format", FORMATS)
@pytest.mark.parametrize(
    ("value", "part"),
    [
        (Thing(), "Thing has no form in the output"),
        ([1, {"a": Thing()}], "Thing has no form in the output"),
        ({3, 1}, "yield sorted(…) instead"),
        (1 + 2j, "a complex has no form"),
        (nested(100_000), ""),
        (circle, ""),
    ],
)
def test_a_value_without_a_form_is_named_with_its_key(out_format: str, value: Any, part: str) -> None:
    pairs = [(f"k{number}", number) for number in range(900)]
    with pytest.raises(BadValue) as refused:
        write(out_format, *pairs, ("the key", value), *pairs)
    message = str(refused.value)
    assert " of key 'the key' cannot be written: " in message
    assert part in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("out_format", FORMATS)
def test_a_key_without_a_form_is_named(out_format: str) -> None:
    with pytest.raises(BadValue, match=r"^the key Thing\(\) cannot be written"):
        write(out_format, (Thing(), 1))


def test_an_integer_too_large_for_a_format_is_named() -> None:
    with pytest.raises(BadValue, match="of key 'k' cannot be written"):
        write("msgpack", ("k", 2**64))
    with pytest.raises(BadValue, match="of key 'k' cannot be written"):
        write("text", ("k", 10**5_000))
