"""Lines of JSON, and pairs as jobs write them, come back as they were, wherever splits and batches fall.

The oracle is what wrote them: `json.dumps`, and the engine's own writer of parts. A line that is neither is
named with its place, and can be left out.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce import JsonLines, Pairs
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.outputs import write_part
from tests.mapreduce.reading import batches_of, in_a_folder, places, read, refusal, sizes

# --- JSON lines ----------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@in_a_folder()
@given(
    st.lists(values, max_size=12),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\n "]),
    st.booleans(),
    sizes,
    sizes,
)
def test_json_lines_are_what_json_loads(
    tmp_path: Path, given_values: list[Any], end: str, ascii_only: bool, split_bytes: int, batch_bytes: int
) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in given_values]
    path.write_text(end.join(lines), encoding="utf-8", errors="surrogatepass", newline="")
    reader = JsonLines(errors="surrogatepass")
    assert read(path, reader, split_bytes, batch_bytes) == given_values


BAD_JSON = [b"{", b"[1,2", b"1, 2", b"1 2", b"nul", b"{'a': 1}", b'"a\tb"', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("bad", BAD_JSON)
def test_a_line_that_is_no_json_is_named_and_can_be_left_out(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "a").write_bytes(b'1\n\n[2]\n"3"\n' + bad + b"\n5\n")
    message = refusal(tmp_path / "a", JsonLines())
    assert message.startswith(f"{tmp_path}/a, line 5 (byte ")
    for batch_bytes in (4, 1 << 20):
        records = [r for b in batches_of(tmp_path / "a", JsonLines(), 1 << 20, batch_bytes) for r in b.each()]
        assert [r for r in records if not isinstance(r, InputError)] == [1, [2], "3", 5]
        assert isinstance(records[3], InputError)


def test_json_says_what_is_wrong_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": 1}\n{"a": }\n')
    assert refusal(tmp_path / "a", JsonLines()) == (
        f"{tmp_path}/a, line 2 (byte 9): not valid JSON: Expecting value at character 7"
    )


def test_json_values_are_located_past_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n\n \n2\n3\n")
    batches = batches_of(tmp_path / "a", JsonLines())
    assert [place.split(", ")[1] for place in places(batches)] == [
        "line 1 (byte 0)",
        "line 4 (byte 5)",
        "line 5 (byte 7)",
    ]
    assert (batches[0].raw, batches[0].text) == (b"1\n\n \n2\n3\n", "1\n\n \n2\n3\n")


# --- pairs ---------------------------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=6)
keys = st.recursive(plain, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
pair_values = st.recursive(
    plain | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


def write_pairs(path: Path, out_format: str, pairs: list[tuple[Any, Any]]) -> None:
    with open(path, "wb") as file:
        write_part(out_format, file, pairs)


@in_a_folder(150)
@given(
    st.sampled_from(["jsonl", "msgpack"]), st.lists(st.tuples(keys, pair_values), max_size=12), sizes, sizes
)
def test_pairs_come_back_as_they_were_written(
    tmp_path: Path, out_format: str, pairs: list[tuple[Any, Any]], split_bytes: int, batch_bytes: int
) -> None:
    part = tmp_path / "part-00000"
    write_pairs(part, out_format, pairs)
    named = tmp_path / f"part.{out_format}"
    write_pairs(named, out_format, pairs)
    for path, one in ((part, Pairs()), (part, Pairs(out_format)), (named, Pairs())):
        found = read(path, one, split_bytes, batch_bytes)
        assert found == pairs
        assert list(map(repr, found)) == list(map(repr, pairs))  # 1, 1.0 and True are different


line_text = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=6)


@in_a_folder(150)
@given(st.lists(st.tuples(line_text, pair_values | line_text), max_size=12), sizes, sizes)
def test_pairs_of_text_have_strings_for_keys_and_values_that_mean_what_json_means(
    tmp_path: Path, pairs: list[tuple[str, Any]], split_bytes: int, batch_bytes: int
) -> None:
    pairs = [(key, value) for key, value in pairs if not isinstance(value, str) or "\n" not in value]
    pairs = [(key, value) for key, value in pairs if not isinstance(value, str) or "\r" not in value]
    write_pairs(tmp_path / "part-00000", "text", pairs)

    def meaning(value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) and value == value.strip() else value
        except ValueError:
            return value

    expected = [(key, meaning(value)) for key, value in pairs]
    assert repr(read(tmp_path / "part-00000", Pairs("text"), split_bytes, batch_bytes)) == repr(expected)


@pytest.mark.parametrize(
    ("content", "format_found"),
    [
        (b"[1, 2]\n", "jsonl"),
        (b'["a\\tb", 2]\n', "jsonl"),
        (b"[1, 2]\t3\n", "text"),
        (b"word\t1\n", "text"),
        (b"\x92\x01\x02", "msgpack"),
        (b"", "text"),
    ],
)
def test_the_format_of_a_part_is_told_by_its_first_bytes(
    tmp_path: Path, content: bytes, format_found: str
) -> None:
    (tmp_path / "part-00000").write_bytes(content)
    found = read(tmp_path / "part-00000", Pairs())
    assert found == read(tmp_path / "part-00000", Pairs(format_found))
    assert Pairs().alignment_bytes(str(tmp_path / "part-00000")) == int(format_found != "msgpack")


def test_compressed_parts_are_told_apart_too(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(msgpack.packb(["a", 1]) * 3))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'["a", 1]\n' * 3))
    assert read(tmp_path / "a.gz", Pairs()) == read(tmp_path / "b.jsonl.gz", Pairs()) == [("a", 1)] * 3


@pytest.mark.parametrize(
    ("out_format", "content", "part"),
    [
        ("text", b"a\t1\nb\n", "line 2 (byte 4): not a pair: expected key, tab, value"),
        ("jsonl", b'["a", 1]\n["b"]\n', "line 2 (byte 9): not a pair: expected an array [key, value]"),
        ("jsonl", b'["a", 1]\n{"b": 2}\n', "line 2 (byte 9): not a pair"),
        ("jsonl", b'["a", 1]\n["b", 2\n', "line 2 (byte 9): not valid JSON"),
        ("msgpack", msgpack.packb(["a", 1]) + b"\x93\x01\x02\x03", "something other than [key, value]"),
        ("msgpack", msgpack.packb(["a", 1]) + b"\x92\xa5ab", "ends inside pair 2"),
        ("msgpack", msgpack.packb(["a", 1]) + b"\xc1", "not msgpack as a job writes it"),
        ("msgpack", msgpack.packb(["a", 1]) + b"\x92\x01\xa1\xff", "not msgpack as a job writes it"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path: Path, out_format: str, content: bytes, part: str) -> None:
    (tmp_path / "a").write_bytes(content)
    for batch_bytes in (3, 1 << 20):
        assert part in refusal(tmp_path / "a", Pairs(out_format), batch_bytes=batch_bytes)


def test_a_packed_pair_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(msgpack.packb(["a", 1]) + msgpack.packb(["b", "x" * 10_000]))
    message = refusal(tmp_path / "a", Pairs("msgpack", max_record_bytes=100), batch_bytes=50)
    assert "pair 2: larger than 100 bytes" in message


def test_lines_of_pairs_that_are_bad_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\t1\nb\nc\t[3]\n")
    [batch] = batches_of(tmp_path / "a", Pairs("text"))
    assert [record for record in batch.each() if not isinstance(record, InputError)] == [("a", 1), ("c", [3])]
    assert Pairs().gives_pairs
    with pytest.raises(JobDefinitionError, match="the formats are text, jsonl, msgpack"):
        Pairs("csv")
