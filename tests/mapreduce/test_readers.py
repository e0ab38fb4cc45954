"""Readers of files, records, JSON, CSV, pairs and of the user's own: whole, split, batched, damaged."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapreduce import Csv, FixedLength, JsonLines, Pairs, Text, WholeFile, reader
from mapreduce.batches import Batch
from mapreduce.binary import FunctionReader
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.inputs import Reader, expand, plan_splits
from mapreduce.outputs import write_part
from mapreduce.plan import Split

sizes = st.one_of(st.integers(1, 40), st.just(10_000))


def in_a_folder(examples: int = 100) -> settings:
    """Every example overwrites the files of the one before; examples are the same in every run."""
    return settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        deadline=None,
        derandomize=True,
        max_examples=examples,
    )


def batches_of(
    path: Path, reader: Reader, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20
) -> list[Batch]:
    splits = plan_splits(expand([str(path)]), reader, split_bytes)
    return [batch for split in splits for batch in reader.batches(split, batch_bytes)]


def read(path: Path, reader: Reader, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20) -> list[Any]:
    batches = batches_of(path, reader, split_bytes, batch_bytes)
    records = [record for batch in batches for record in batch.records]
    assert [record for batch in batches for record in batch.each()] == records
    assert sum(batch.size_bytes for batch in batches) <= len(path.read_bytes()) or path.suffix == ".gz"
    return records


def refusal(path: Path, reader: Reader, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20) -> str:
    with pytest.raises(InputError) as refused:
        read(path, reader, split_bytes, batch_bytes)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def places(batches: list[Batch]) -> list[str]:
    return [batch.locate(index) for batch in batches for index in range(len(batch.records))]


# --- all readers --------------------------------------------------------------------------------------

ALL: list[Reader] = [
    Text("latin-1"),
    WholeFile("utf-8"),
    FixedLength(10),
    JsonLines(),
    Csv(delimiter=";", header=("a", "b")),
    Pairs("jsonl"),
]


@pytest.mark.parametrize("one", ALL)
def test_a_reader_survives_pickling_and_equals_its_copy(one: Reader) -> None:
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(pickle.loads(cloudpickle.dumps(one))) == hash(one)


@pytest.mark.parametrize("one", [reader for reader in ALL if reader != FixedLength(10)])
def test_an_empty_file_has_no_record_but_as_a_whole_file(tmp_path: Path, one: Reader) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert read(tmp_path / "a", one) == ([""] if isinstance(one, WholeFile) else [])


def test_importing_readers_and_inputs_loads_no_library_that_only_some_jobs_need() -> None:
    code = (
        "import sys; import mapreduce.readers, mapreduce.inputs;"
        "print(*{'csv', 'json', 'gzip', 'bz2', 'lzma', 'msgpack', 'fsspec', 'zstandard', 'glob', 'struct'}"
        " & set(sys.modules))"
    )
    command = [sys.executable, "-S", "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- whole files --------------------------------------------------------------------------------------


def test_a_whole_file_is_one_record(tmp_path: Path) -> None:
    data = "\ufeffone\r\ntwo\rthree".encode()
    (tmp_path / "a").write_bytes(data)
    assert read(tmp_path / "a", WholeFile(), 3, 2) == [data]
    assert read(tmp_path / "a", WholeFile("utf-8"), 3, 2) == ["one\ntwo\nthree"]
    [batch] = batches_of(tmp_path / "a", WholeFile("utf-8"))
    assert (batch.raw, batch.text) == (data, "one\ntwo\nthree")
    assert batch.locate(0) == str(tmp_path / "a")


def test_a_whole_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345\xff")
    assert f"{tmp_path}/a, byte 5: not valid utf-8" in refusal(tmp_path / "a", WholeFile("utf-8"))
    assert "raise WholeFile(max_record_bytes=" in refusal(tmp_path / "a", WholeFile(max_record_bytes=5))
    assert read(tmp_path / "a", WholeFile(max_record_bytes=6)) == [b"12345\xff"]
    [batch] = batches_of(tmp_path / "a", WholeFile("utf-8"))
    assert [type(record) for record in batch.each()] == [InputError]
    with pytest.raises(JobDefinitionError, match="gives no text"):
        assert batches_of(tmp_path / "a", WholeFile())[0].text


# --- records of one length ----------------------------------------------------------------------------


@in_a_folder()
@given(st.integers(1, 9), st.integers(0, 700), sizes, sizes)
def test_records_of_one_length_are_the_file_cut_up(
    tmp_path: Path, length: int, count: int, split_bytes: int, batch_bytes: int
) -> None:
    data = random.Random(count).randbytes(length * count)
    path = tmp_path / "a"
    path.write_bytes(data)
    records = [data[i : i + length] for i in range(0, len(data), length)]
    assert read(path, FixedLength(length), split_bytes, batch_bytes) == records
    batches = batches_of(path, FixedLength(length), split_bytes, batch_bytes)
    assert b"".join(batch.raw for batch in batches) == data
    unaligned = [Split(path=str(path), name="a", start=i, end=i + 5) for i in range(0, len(data) - 5, 5)]
    unaligned.append(Split(path=str(path), name="a", start=5 * len(unaligned), end=len(data)))
    found = [r for split in unaligned for b in FixedLength(length).batches(split, 50) for r in b.records]
    assert found == records


@pytest.mark.parametrize("split_bytes", [1 << 20, 10])
def test_a_short_last_record_is_refused(tmp_path: Path, split_bytes: int) -> None:
    (tmp_path / "a").write_bytes(bytes(1_003))
    assert refusal(tmp_path / "a", FixedLength(10), split_bytes) == (
        f"{tmp_path}/a: 1,003 bytes are no multiple of the record length 10: the last record has 3 bytes"
    )


def test_records_of_compressed_files_are_read_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(range(250))))
    assert len(read(tmp_path / "a.gz", FixedLength(10), 20, 30)) == 25


def test_a_record_is_located_by_number_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(40))
    assert places(batches_of(tmp_path / "a", FixedLength(10), 20))[3] == f"{tmp_path}/a, record 4 (byte 30)"


@pytest.mark.parametrize("length", [0, -1, True, "10"])
def test_a_length_must_be_a_positive_number(length: int) -> None:
    with pytest.raises(JobDefinitionError, match="the length of a record is"):
        FixedLength(length)


# --- JSON lines ---------------------------------------------------------------------------------------

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


# --- CSV ----------------------------------------------------------------------------------------------

fields = st.text('ab ,;"\n\r\té', max_size=4)
tables = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), max_size=10)
)


def written(rows: list[list[str]], end: str, **options: Any) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, **options).writerows(rows)
    return file.getvalue()


def as_open_reads(text: str) -> io.StringIO:
    """Every line end becomes one newline, as in a file opened in text mode."""
    return io.StringIO(text.replace("\r\n", "\n").replace("\r", "\n"), newline="\n")


@in_a_folder(200)
@given(tables, st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans(), sizes)
def test_csv_rows_are_what_csv_dictreader_gives(
    tmp_path: Path, rows: list[list[str]], end: str, final_end: bool, batch_bytes: int
) -> None:
    columns = ["x", "y", "z"][: len(rows[0]) if rows else 1]
    text = written([columns, *rows], end, quoting=csv.QUOTE_ALL)
    path = tmp_path / "a.csv"
    path.write_text(text if final_end else text.removesuffix(end), encoding="utf-8", newline="")
    assert read(path, Csv(), 7, batch_bytes) == list(csv.DictReader(as_open_reads(text)))
    assert read(path, Csv(header=False), 7, batch_bytes) == [
        row for row in csv.reader(as_open_reads(text)) if row
    ]


@in_a_folder()
@given(
    st.lists(st.lists(st.text("ab ,\té", max_size=4), min_size=2, max_size=2), max_size=12),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["utf-8", "cp1252", "utf-16"]),
    sizes,
    sizes,
)
def test_csv_of_one_line_rows_can_be_split(
    tmp_path: Path, rows: list[list[str]], delimiter: str, encoding: str, split_bytes: int, batch_bytes: int
) -> None:
    text = written([["x", "y"], *rows], "\r\n", delimiter=delimiter)
    path = tmp_path / "a.csv"
    path.write_text(text, encoding=encoding, newline="")
    settings = Csv(delimiter=delimiter, encoding=encoding, multiline=False)
    assert settings.splittable == (encoding != "utf-16")
    expected = [{"x": x, "y": y} for x, y in rows]
    assert read(path, settings, split_bytes, batch_bytes) == expected


def test_csv_of_real_size_with_line_ends_in_fields_is_read_in_batches(tmp_path: Path) -> None:
    rng = random.Random(8)
    rows = [
        [str(number), "\n".join(["word"] * rng.randrange(1, 5)), rng.choice(["", 'say "no"', "a,b"])]
        for number in range(20_000)
    ]
    text = written([["id", "text", "note"], *rows], "\n")
    (tmp_path / "a.csv").write_text(text)
    batches = batches_of(tmp_path / "a.csv", Csv(), batch_bytes=10_000)
    assert len(batches) > 10
    assert [list(row.values()) for batch in batches for row in batch.records] == rows
    assert "".join(batch.text for batch in batches) == text
    lines = [int(place.rpartition(" ")[2].replace(",", "")) for place in places(batches[:3])]
    expected, line = [], 2
    for row in rows[: len(lines)]:
        expected.append(line)
        line += row[1].count("\n") + 1
    assert lines == expected


def test_csv_columns_may_be_named_by_the_job(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1|'a|b'\n2|'c'\n")
    one = Csv(delimiter="|", quotechar="'", header=("id", "name"))
    assert read(tmp_path / "a.csv", one) == [{"id": "1", "name": "a|b"}, {"id": "2", "name": "c"}]
    two = Csv(delimiter="|", quotechar=None, header=False)
    assert read(tmp_path / "a.csv", two, 3, 2) == [["1", "'a", "b'"], ["2", "'c'"]]
    assert Csv(header=["a", "b"]) == Csv(header=("a", "b"))  # type: ignore[arg-type]


@pytest.mark.parametrize("multiline", [True, False])
@pytest.mark.parametrize("batch_bytes", [3, 1 << 20])
def test_a_ragged_row_is_named_and_can_be_left_out(tmp_path: Path, multiline: bool, batch_bytes: int) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n\n3\n4,5\n6,7,8\n")
    settings = Csv(multiline=multiline)
    message = refusal(tmp_path / "a.csv", settings, 4, batch_bytes)
    assert message.startswith(f"{tmp_path}/a.csv, line 4")
    assert message.endswith(": 1 fields, but the header names 2 columns")
    records = [r for b in batches_of(tmp_path / "a.csv", settings, 4, batch_bytes) for r in b.each()]
    assert [record if isinstance(record, dict) else "bad" for record in records] == [
        {"x": "1", "y": "2"},
        "bad",
        {"x": "4", "y": "5"},
        "bad",
    ]


@pytest.mark.parametrize("multiline", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_an_undecodable_row_is_named_and_can_be_left_out(
    tmp_path: Path, multiline: bool, encoding: str
) -> None:
    bad = b"\xff" if encoding == "utf-8" else b"\x00\xdc"
    parts = ['x,y\n1,"2\n2"\n' if multiline else "x,y\n1,2\n", '3,"', '"\n4,5\n']
    (tmp_path / "a.csv").write_bytes(
        bad.join([(parts[0] + parts[1]).encode(encoding), parts[2].encode(encoding)])
    )
    settings = Csv(multiline=multiline, encoding=encoding)
    assert f"line {4 if multiline else 3}" in refusal(tmp_path / "a.csv", settings)
    for batch_bytes in (5, 1 << 20):
        records = [r for b in batches_of(tmp_path / "a.csv", settings, 4, batch_bytes) for r in b.each()]
        assert [record["x"] if isinstance(record, dict) else "bad" for record in records] == ["1", "bad", "4"]


def test_a_quote_that_is_never_closed_is_an_error_and_does_not_swallow_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n1,"2\n2"\n3,"4\n5,6\n7,8\n')
    for batch_bytes in (2, 9, 1 << 20):
        message = refusal(tmp_path / "a.csv", Csv(), batch_bytes=batch_bytes)
        assert message == f"{tmp_path}/a.csv, line 4: a quoted field begins here and is never closed"
    message = refusal(tmp_path / "a.csv", Csv(max_record_bytes=12), batch_bytes=5)
    assert message == f"{tmp_path}/a.csv, line 4: a quoted field begins here and goes on for 13 characters"


def test_a_row_over_two_lines_is_refused_where_the_job_says_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n1,"2\n3"\n4,5\n')
    assert "Csv(multiline=True)" in refusal(tmp_path / "a.csv", Csv(multiline=False))
    [batch] = batches_of(tmp_path / "a.csv", Csv(multiline=False))
    good = [record for record in batch.each() if isinstance(record, dict)]
    assert good == [{"x": "4", "y": "5"}]


@pytest.mark.parametrize(
    ("content", "part"),
    [("\n1,2\n", "line 1: no header"), ("a,b,a\n1,2,3\n", "line 1: the header names column 'a' twice")],
)
@pytest.mark.parametrize("settings", [Csv(), Csv(multiline=False)])
def test_a_header_must_name_each_column_once(tmp_path: Path, content: str, part: str, settings: Csv) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert part in refusal(tmp_path / "a.csv", settings)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Csv(delimiter=""),
        lambda: Csv(delimiter=",,"),
        lambda: Csv(quotechar="''"),
        lambda: Csv(header=("a", "a")),
        lambda: Csv(encoding="nonsense"),
    ],
)
def test_csv_settings_that_make_no_sense_are_refused_at_once(build: Callable[[], Csv]) -> None:
    with pytest.raises(JobDefinitionError):
        build()


# --- pairs --------------------------------------------------------------------------------------------

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


# --- the user's own reader ----------------------------------------------------------------------------


@reader
def paragraphs(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of each paragraph."""
    some: list[bytes] = []
    for line in file:
        if line.strip():
            some.append(line.rstrip())
        elif some:
            yield some
            some = []
    if some:
        yield some


@reader(pairs=True)
def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    return enumerate(file)


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_a_function_of_a_file_is_a_reader(tmp_path: Path, name: str) -> None:
    data = b"\n".join(b"a %d\nb\n" % number for number in range(5_000))
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    batches = batches_of(tmp_path / name, paragraphs, 100, 10_000)
    assert [r for batch in batches for r in batch.records] == [[b"a %d" % n, b"b"] for n in range(5_000)]
    assert max(len(batch.records) for batch in batches) <= 1_000
    assert max(batch.size_bytes for batch in batches) <= 20_000 or name.endswith("gz")
    assert places(batches)[4_321] == f"{tmp_path / name}, record 4,322"
    assert not paragraphs.splittable
    assert not paragraphs.gives_pairs
    assert list(paragraphs(io.BytesIO(b"x\n"))) == [[b"x"]]


def test_a_reader_of_pairs_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\ny")
    assert numbered.gives_pairs
    assert read(tmp_path / "a", numbered) == [(0, b"x\n"), (1, b"y")]
    wrong = reader(pairs=True)(lambda file: [file.read()])
    with pytest.raises(JobDefinitionError, match=r"has pairs=True but gave a bytes"):
        read(tmp_path / "a", wrong)


def test_an_exception_of_the_function_comes_out_as_it_is(tmp_path: Path) -> None:
    class Mine(Exception):
        pass

    @reader
    def broken(file: BinaryIO) -> Iterator[bytes]:
        yield file.read(1)
        raise Mine("third block is odd")

    (tmp_path / "a").write_bytes(b"x")
    batches = broken.batches(Split(path=str(tmp_path / "a"), name="a"), 1)
    assert next(batches).records == [b"x"]
    with pytest.raises(Mine, match="third block"):
        next(batches)


def test_a_reader_may_close_its_file_and_is_closed_when_it_is_not_read_to_its_end(tmp_path: Path) -> None:
    left = []

    @reader
    def closing(file: BinaryIO) -> Iterator[bytes]:
        with file:
            yield from file.read().split()
        yield b"end"

    @reader
    def watched(file: BinaryIO) -> Iterator[bytes]:
        try:
            for line in file:  # noqa: UP028  # `yield from` would close the file itself
                yield line
        finally:
            left.append(file.closed)

    (tmp_path / "a").write_bytes(b"x y\nz\n")
    assert read(tmp_path / "a", closing) == [b"x", b"y", b"z", b"end"]
    batches = watched.batches(Split(path=str(tmp_path / "a"), name="a"), 1)
    assert next(iter(batches)).records == [b"x y\n"]
    batches.close()  # type: ignore[attr-defined]
    assert left == [False]


def test_a_function_that_yields_nothing_to_iterate_is_named(tmp_path: Path) -> None:
    def forgets_to_yield(file: BinaryIO) -> None:
        file.read()

    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(JobDefinitionError, match="forgets_to_yield returned NoneType; it must yield"):
        read(tmp_path / "a", reader(forgets_to_yield))  # type: ignore[arg-type]
    with pytest.raises(JobDefinitionError, match="expected a function"):
        reader("utf-8")  # type: ignore[call-overload]


def test_a_cut_off_file_is_an_error_of_the_input_inside_the_function_too(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a\n\n" * 50_000)[:-9])
    assert "truncated gzip stream" in refusal(tmp_path / "a.gz", paragraphs)


def test_a_decorated_function_travels_to_another_process() -> None:
    copied = pickle.loads(cloudpickle.dumps(paragraphs))
    assert isinstance(copied, FunctionReader)
    assert list(copied(io.BytesIO(b"x\n\ny"))) == [[b"x"], [b"y"]]
