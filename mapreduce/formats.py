"""The three formats of a job's output: how pairs become bytes.

    text     key<TAB>value, a line each.  Strings and bytes stand as they are; anything else is JSON.
    jsonl    a JSON array [key, value], a line each.
    msgpack  msgpack arrays [key, value], one behind the other.

What JSON cannot say: tuples are written as arrays, bytes (in `jsonl`, or inside another value) as a
string in base64, a dict's keys that are not strings as strings.  NaN and the infinities are written as
Python's json does.
Nothing is escaped in `text`: a tab or a newline in a string is there in the line; `jsonl` keeps it apart.

*Lone surrogates.*  Python strings may hold code points that UTF-8 cannot say.  Those of `surrogateescape`
(U+DC80 to U+DCFF) stand for bytes that were read, and `text` writes these very bytes.  Other lone
surrogates are written as `surrogatepass` does.  `jsonl` escapes all of them (\\udc80), which is valid JSON
and valid UTF-8; `msgpack` uses `surrogatepass`.

A few hundred pairs are encoded at a time.  Usual types take a short way inside one comprehension; the
rest is asked of the format's library.  Only when that refuses are the pairs looked at one by one, to name
the one that cannot be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from mapreduce.columns import short_repr
from mapreduce.errors import BadValue

Pair = tuple[Any, Any]
FORMATS = ("text", "jsonl", "msgpack")

_ENDINGS = {".txt": "text", ".tsv": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".msgpack": "msgpack"}
MSGPACK_PAIR = b"\x92"

# Pairs in one chunk, and its bytes.  Larger chunks gain nothing, leave the caches, and hold so many values in
# memory at once.
CHUNK_PAIRS = 512
CHUNK_BYTES = 64 << 10

_SURROGATES = re.compile("[\ud800-\udfff]")
_UNESCAPED_SURROGATES = re.compile("([\ud800-\udc7f\udd00-\udfff]+)")


def encoded(out_format: str, pairs: Iterable[Pair]) -> Iterator[bytes]:
    """Encode pairs.

    Args:
        out_format: one of FORMATS.
        pairs: any number of (key, value).

    Yields:
        Bytes of whole pairs, about 64 KiB at a time.

    Raises:
        BadValue: a key or a value cannot be written in this format; the message names the key.
    """
    encode = encoder(out_format)
    remaining = iter(pairs)
    count = CHUNK_PAIRS
    while chunk := list(islice(remaining, count)):
        data = encode(chunk)
        # Where pairs are large, fewer of them are held at a time.
        count = max(1, min(CHUNK_PAIRS, 2 * count, count * CHUNK_BYTES // (len(data) or 1)))
        yield data


def encoder(out_format: str) -> Callable[[list[Pair]], bytes]:
    """Return the function that encodes a list of pairs in a format."""
    match out_format:
        case "text":
            return encode_text
        case "jsonl":
            return encode_jsonl
        case "msgpack":
            return encode_msgpack
        case _:
            raise ValueError(f"no output format {out_format!r}")


def format_by_ending(path: str) -> str | None:
    """Return the format that a file's ending names, before that of a compression, if it names one."""
    root, ending = os.path.splitext(path)
    if ending.lower() in (".gz", ".bz2", ".xz", ".lzma", ".zst"):
        ending = os.path.splitext(root)[1]
    return _ENDINGS.get(ending.lower())


def format_by_content(beginning: bytes) -> str:
    """Tell the format of a part by its first bytes; a part of no bytes is a part of any format.

    0x92 cannot begin UTF-8, and begins every msgpack array of two.  A line of `text` has a tab behind its
    key, while JSON has no raw tab.
    """
    if beginning.startswith(MSGPACK_PAIR):
        return "msgpack"
    line = beginning.split(b"\n", 1)[0]
    return "jsonl" if line.startswith(b"[") and b"\t" not in line else "text"


# --- text -------------------------------------------------------------------------------------------


def encode_text(pairs: list[Pair]) -> bytes:
    """Encode pairs as lines  key<TAB>value."""
    try:
        text = "\n".join(map("\t".join, pairs)) + "\n"
    except TypeError:  # not all are strings
        try:
            return b"\n".join(map(b"\t".join, pairs)) + b"\n"
        except TypeError:  # not all are bytes
            text = _mixed_text(pairs)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _with_surrogates(text)


def _mixed_text(pairs: list[Pair]) -> str:
    try:
        text = _text_of_alike(pairs)
        if text is not None:
            return text
        return "".join(
            [
                f"{key}\t{value}\n"
                if type(value) is int and type(key) is str
                else f"{key}\t{_json(value)}\n"
                if type(value) in _ENDS and type(key) is str
                else f"{_text_of(key)}\t{_text_of(value)}\n"
                for key, value in pairs
            ]
        )
    except _REFUSALS as error:
        raise _refused(pairs, _text_of, error) from None


def _text_of_alike(pairs: list[Pair]) -> str | None:
    """Return the lines of pairs whose values are of one type and can be written in one call; else None."""
    kind = type(pairs[0][1])
    if kind not in _ENDS:
        return None
    values = list(map(itemgetter(1), pairs))
    pieces = _json_in_one_call(values, kind) if set(map(type, values)) == {kind} else None
    if pieces is None:
        return None
    keys = list(map(itemgetter(0), pairs))
    if set(map(type, keys)) != {str}:
        keys = list(map(_text_of, keys))
    begin, end = _ENDS[kind]
    return "".join([f"{key}\t{begin}{piece}{end}\n" for key, piece in zip(keys, pieces, strict=True)])


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        # Comes back as the same bytes when the whole chunk is encoded.
        return str(bytes(value), "utf-8", "surrogateescape")
    return _json(value)


def _with_surrogates(text: str) -> bytes:
    return b"".join(
        piece.encode("utf-8", "surrogatepass" if number % 2 else "surrogateescape")
        for number, piece in enumerate(_UNESCAPED_SURROGATES.split(text))
    )


# --- JSON -------------------------------------------------------------------------------------------


def encode_jsonl(pairs: list[Pair]) -> bytes:
    """Encode pairs as lines  [key, value]."""
    pieces = _json_in_one_call(pairs, tuple)
    if pieces is not None:
        text = "[" + "]\n[".join(pieces) + "]\n"
    else:
        try:
            text = "".join([f"[{_json(key)}, {_json(value)}]\n" for key, value in pairs])
        except _REFUSALS as error:
            raise _refused(pairs, _json, error) from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Surrogates stand in strings only, and JSON's escape for one is the name of its code point.
        return _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


# So few values are written one by one.
FEW_VALUES: Final = 8
# How the JSON of a value begins and ends, for types whose values are written many in one call.
_ENDS = {list: ("[", "]"), tuple: ("[", "]"), dict: ("{", "}"), float: ("", "")}


def _json_in_one_call(values: list[Any], kind: type) -> list[str] | None:
    """Return the JSON of each value without its `_ENDS`; a call for each would take most of the time.

    The JSON of the whole list is cut where one value ends and the next begins.  What looks like that may
    also stand within a value; then there are more pieces than values.

    Returns:
        None where that is so, and where a value is refused: written one by one it is told which.  Also where
        there are only a few values: a look ahead at one that is large would cost as much as writing it.
    """
    if len(values) < FEW_VALUES:
        return None
    begin, end = _ENDS[kind]
    seam = f"{end}, {begin}"
    try:
        if seam in _json(values[0]):
            return None  # the others will be like it
        pieces = _dumps()(values)[1 + len(begin) : -1 - len(end)].split(seam)
    except _REFUSALS:
        return None
    return pieces if len(pieces) == len(values) else None


@cache
def _dumps() -> Callable[[Any], str]:
    """Return the function that writes a value as JSON."""
    import json

    # Circular values end in a RecursionError, at no cost for all others.
    encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=_known_to_json)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    # `encode` makes such a C encoder anew for each value that is not a string: two thirds of its time.
    quote = json.encoder.encode_basestring
    write = make(None, _known_to_json, quote, None, ": ", ", ", False, False, True)
    return lambda value: "".join(write(value, 0))


def _json(value: Any) -> str:
    if type(value) is int:
        return str(value)
    try:
        return _dumps()(value)
    except TypeError:  # perhaps a dict's keys, for which json asks nobody
        return _dumps()(_with_string_keys(value))


def _known_to_json(value: Any) -> Any:
    """Say what a value is in JSON; called only for types that json does not know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        from base64 import b64encode

        return b64encode(value).decode()
    return _plain_value(value)


def _with_string_keys(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return list(map(_with_string_keys, value))
    if not isinstance(value, dict):
        return value
    named = {}
    for key, inner in value.items():
        if key is not None and not isinstance(key, (str, int, float)):
            key = _known_to_json(key) if isinstance(key, (bytes, bytearray)) else _json(key)
        named[key] = _with_string_keys(inner)
    return named


# --- msgpack ----------------------------------------------------------------------------------------


def encode_msgpack(pairs: list[Pair]) -> bytes:
    """Encode pairs as msgpack arrays."""
    import msgpack

    if set(map(type, pairs)) != {tuple}:
        pairs = list(map(tuple, pairs))
    try:
        array: bytes = msgpack.packb(pairs, default=_plain_value, unicode_errors="surrogatepass")
    except _REFUSALS as error:
        raise _refused(pairs, _packed_alone, error) from None
    # One call for the whole chunk made an array of the pairs; they are what follows its header.
    return array[1 if len(pairs) < 16 else 3 :]


def _packed_alone(value: Any) -> Any:
    import msgpack

    return msgpack.packb(value, default=_plain_value, unicode_errors="surrogatepass")


# --- what cannot be written ---------------------------------------------------------------------------

_REFUSALS = (TypeError, ValueError, OverflowError, RecursionError)


def _plain_value(value: Any) -> Any:
    """Return the plain value of a numpy scalar or array, or of a memoryview.

    Raises:
        TypeError: it is of a type that no format can say.
    """
    kind = type(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    hint = "; yield sorted(…) instead" if isinstance(value, (set, frozenset)) else ""
    raise TypeError(f"a {kind.__qualname__} has no form in the output{hint}")


def _refused(pairs: list[Pair], probe: Callable[[Any], Any], error: BaseException) -> BadValue:
    """Find the pair that could not be written and say why."""
    for key, value in pairs:
        for role, part in (("key", key), ("value", value)):
            try:
                probe(part)
            except _REFUSALS as cause:
                why = "it is nested too deeply" if isinstance(cause, RecursionError) else str(cause)
                of = "" if role == "key" else f" of key {short_repr(key)}"
                return BadValue(f"the {role} {short_repr(part)}{of} cannot be written: {why}")
    return BadValue(f"pairs cannot be written: {error}")
