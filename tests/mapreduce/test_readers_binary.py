"""Bytes become records: a whole file, pieces of one length, or whatever a user's function makes of a file.

Pieces of one length can be split anywhere and each is read once; a function gets the file from its start, and
what it raises, leaves open or forgets to yield is told for what it is.
"""

from __future__ import annotations

import gzip
import io
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapreduce import FixedLength, WholeFile, reader
from mapreduce.binary import FunctionReader
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.plan import Split
from tests.mapreduce.reading import batches_of, in_a_folder, places, read, refusal, sizes

# --- whole files ---------------------------------------------------------------------------------------


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


# --- records of one length -----------------------------------------------------------------------------


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


# --- the user's own reader -----------------------------------------------------------------------------


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
