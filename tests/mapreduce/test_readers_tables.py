"""Rows of CSV are what Python's own csv module gives for the whole file, quoted line ends and all.

A row that is ragged, undecodable or never closed is named by its first line, can be left out, and does not
swallow those behind it; settings that make no sense are refused before a file is opened.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce import Csv
from mapreduce.errors import JobDefinitionError
from tests.mapreduce.reading import batches_of, in_a_folder, places, read, refusal, sizes

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
