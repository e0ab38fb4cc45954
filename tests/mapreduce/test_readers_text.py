"""Lines of text: no line is lost or doubled, whatever the line ends, encodings, splits and batches.

The oracle is what Python itself gives for the whole file: `io.TextIOWrapper(newline=None)`.
"""

from __future__ import annotations

import codecs
import encodings.aliases
import gzip
import io
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mapreduce import Text
from mapreduce.errors import InputError, JobDefinitionError
from mapreduce.inputs import expand, plan_splits
from mapreduce.lines import is_linewise
from mapreduce.plan import Split
from tests.mapreduce.reading import batches_of, in_a_folder

# \v, \f, \x1c, \x85 and \u2028 end lines for str.splitlines, but not in files.
CHARACTERS = "ab \té€😀\v\f\x1c\x1e\x85\u2028\u2029あ漢"
LINE_ENDS = ["\n", "\r\n", "\r", "\n\n", "\r\r\n"]
WITH_STATE = ["utf-16", "utf-16-le", "utf-32", "utf-32-be", "utf-7", "cp037", "cp1140", "iso2022_jp", "hz"]
ENCODINGS = [
    "utf-8",
    "utf-8-sig",
    "latin-1",
    "ascii",
    "gb18030",
    "shift_jis",
    "euc_kr",
    "cp1252",
    *WITH_STATE,
]

texts = st.lists(st.one_of(st.text(CHARACTERS, max_size=5), st.sampled_from(LINE_ENDS)), max_size=30).map(
    "".join
)
sizes = st.one_of(st.integers(1, 12), st.just(1_000))


def lines_of(data: bytes, encoding: str, errors: str = "strict") -> list[str]:
    """The oracle: the lines of a whole file, without their ends."""
    whole = io.TextIOWrapper(io.BytesIO(data), encoding, errors, newline=None).read().removeprefix("\ufeff")
    return whole.removesuffix("\n").split("\n") if whole else []


def check(path: Path, reader: Text, split_bytes: int, batch_bytes: int, lines: list[str]) -> None:
    batches = batches_of(path, reader, split_bytes, batch_bytes)
    assert [line for batch in batches for line in batch.records] == lines
    assert [line for batch in batches for line in batch.each()] == lines
    assert "".join(batch.text for batch in batches) == "".join(line + "\n" for line in lines)


@in_a_folder(400)
@given(texts, st.sampled_from(ENCODINGS), st.booleans(), sizes, sizes)
@example("a\r\nb", "utf-8", False, 2, 1)
@example("\r\n\r\r\n\n", "utf-8", True, 1, 1)
@example("\r", "latin-1", False, 1, 1)
@example("", "utf-8", True, 1, 1)
def test_splits_and_batches_give_the_lines_of_the_whole_file(
    tmp_path: Path, text: str, encoding: str, marked: bool, split_bytes: int, batch_bytes: int
) -> None:
    text = text.encode(encoding, "ignore").decode(encoding)
    data = text.encode(encoding)
    if marked and encoding in ("utf-8", "utf-16-le", "utf-32-be", "gb18030"):
        data = "\ufeff".encode(encoding) + data
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    check(path, Text(encoding), split_bytes, batch_bytes, lines_of(data, encoding))


@in_a_folder(300)
@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"\x81", b"\xc3", b"\xa9", b"\xff"])).map(
        b"".join
    ),
    st.sampled_from(["utf-8", "ascii", "gbk", "shift_jis", "big5", "euc_jp", "cp1252", "johab", "utf-16-le"]),
    st.sampled_from(["replace", "ignore", "backslashreplace", "surrogateescape"]),
    sizes,
    sizes,
)
def test_undecodable_bytes_do_not_change_where_lines_end(
    tmp_path: Path, data: bytes, encoding: str, errors: str, split_bytes: int, batch_bytes: int
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    check(path, Text(encoding, errors), split_bytes, batch_bytes, lines_of(data, encoding, errors))


@in_a_folder()
@given(texts, sizes, sizes)
def test_raw_batches_are_the_file_itself(
    tmp_path: Path, text: str, split_bytes: int, batch_bytes: int
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    batches = batches_of(path, Text(), split_bytes, batch_bytes)
    assert b"".join(batch.raw for batch in batches) == text.encode()
    assert sum(batch.size_bytes for batch in batches) == len(text.encode())


@in_a_folder()
@given(texts, sizes)
def test_compressed_lines_are_the_same_lines(tmp_path: Path, text: str, batch_bytes: int) -> None:
    path = tmp_path / "a.txt.gz"
    half = len(text.encode()) // 2
    path.write_bytes(gzip.compress(text.encode()[:half]) + gzip.compress(text.encode()[half:]))
    check(path, Text(), 3, batch_bytes, lines_of(text.encode(), "utf-8"))


@in_a_folder()
@given(texts, sizes, sizes)
def test_a_split_holds_the_lines_whose_first_byte_lies_in_it(
    tmp_path: Path, text: str, split_bytes: int, batch_bytes: int
) -> None:
    data = text.encode()
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    starts = {0} | {
        i + 1
        for i, byte in enumerate(data)
        if byte == 10 or (byte == 13 and data[i + 1 : i + 2] != b"\n")
    }  # fmt: skip
    starts.discard(len(data))
    for split in plan_splits(expand([str(path)]), Text(), split_bytes):
        found = sum(len(batch.records) for batch in Text().batches(split, batch_bytes))
        assert found == sum(split.start <= start < split.end for start in starts)


@pytest.mark.parametrize(
    ("content", "lines"),
    [(b"", []), (b"a", ["a"]), (b"a\n", ["a"]), (b"a\n\n", ["a", ""]), (b"\n", [""]), (b"\xef\xbb\xbf", [])],
)
def test_the_last_line_needs_no_end_and_an_end_makes_no_line(
    tmp_path: Path, content: bytes, lines: list[str]
) -> None:
    (tmp_path / "a").write_bytes(content)
    check(tmp_path / "a", Text(), 1, 1, lines)
    check(tmp_path / "a", Text(), 100, 100, lines)


def test_real_text_in_megabytes_is_read_alike_by_many_splits_and_batches(tmp_path: Path) -> None:
    rng = random.Random(5)
    words = ["whale", "Ça", "the", "漢字", "x" * 5_000]
    data = "".join(
        " ".join(rng.choices(words, weights=[9, 9, 9, 9, 0.02], k=rng.randrange(14)))
        + rng.choice(["\n", "\r\n", "\r"])
        for _ in range(20_000)
    ).encode()
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    expected = lines_of(data, "utf-8")
    for split_bytes, batch_bytes in [(1 << 20, 1 << 16), (10_007, 4_099), (100_000, 1 << 20), (1 << 30, 777)]:
        check(path, Text(), split_bytes, batch_bytes, expected)


def test_a_long_line_is_one_record_and_its_splits_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"short\n" + b"x" * 3_000_000 + b"\nlast")
    counts = []
    for split in plan_splits(expand([str(path)]), Text(), 100_000):
        records = [line for batch in Text().batches(split, 10_000) for line in batch.records]
        counts.append(list(map(len, records)))
    assert counts == [[5, 3_000_000], *[[]] * (len(counts) - 2), [4]]


@in_a_folder()
@given(st.lists(st.integers(0, 40), max_size=12), st.sampled_from(["\n", "\r\n"]), sizes, sizes)
def test_whether_a_line_is_too_long_does_not_depend_on_splits_or_batches(
    tmp_path: Path, lengths: list[int], end: str, split_bytes: int, batch_bytes: int
) -> None:
    path = tmp_path / "a"
    path.write_text("".join("x" * length + end for length in lengths), newline="")
    reader = Text(max_record_bytes=25)
    if any(length + len(end) > 25 for length in lengths):
        with pytest.raises(InputError, match=r"a line longer than 25 bytes; .*max_record_bytes="):
            batches_of(path, reader, split_bytes, batch_bytes)
    else:
        batches = batches_of(path, reader, split_bytes, batch_bytes)
        assert [len(line) for batch in batches for line in batch.records] == lengths


def test_a_line_that_is_too_long_is_refused_in_encodings_with_a_state_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("b\n" + "x" * 1_000, encoding="utf-16")
    with pytest.raises(InputError, match=r"line 2: longer than 100 characters"):
        batches_of(tmp_path / "a", Text("utf-16", max_record_bytes=100), 10, 10)


def test_a_file_that_shrinks_below_a_split_is_an_error_and_not_a_short_answer(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\ntwo\n")
    for split in (
        Split(path=str(path), name="a", start=0, end=100),
        Split(path=str(path), name="a", start=50, end=100),
        Split(path=str(path), name="a", start=6, end=100),
    ):
        with pytest.raises(InputError, match=r"a: has shrunk since the job began: .* ends at byte 100"):
            list(Text().batches(split, 10))


# --- bytes that are no text ---------------------------------------------------------------------------


def failure(path: Path, reader: Text, split_bytes: int = 1 << 20, batch_bytes: int = 1 << 20) -> str:
    def use() -> None:
        for batch in batches_of(path, reader, split_bytes, batch_bytes):
            assert isinstance(batch.records, list)

    with pytest.raises(InputError) as refused:
        use()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("split_bytes", "batch_bytes"), [(1 << 20, 1 << 20), (7, 3), (16, 5)])
def test_an_undecodable_byte_is_named_by_file_line_and_offset(
    tmp_path: Path, split_bytes: int, batch_bytes: int
) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("\ufeffüber\r\nzwei\rdrei\n".encode() + b"caf\xe9 cr\xe8me\n")
    message = failure(path, Text(), split_bytes, batch_bytes)
    assert message.startswith(f"{path}, line 4 (byte 23): not valid utf-8 (invalid continuation byte: e9)")
    assert 'errors="replace"' in message
    assert "--encoding" in message


def test_an_undecodable_byte_of_an_encoding_with_a_state_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("eins\nzwei\n".encode("utf-16-le") + b"\x00\xdc" + "drei".encode("utf-16-le"))
    for batch_bytes in (1, 3, 100):
        message = failure(path, Text("utf-16-le"), batch_bytes=batch_bytes)
        assert message.startswith(f"{path}, line 3: byte 20: not valid utf-16-le (illegal encoding: 00 dc)")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "ascii", "gbk", "cp037"])
def test_each_gives_an_error_in_the_place_of_a_bad_line_and_all_other_lines(
    tmp_path: Path, encoding: str
) -> None:
    bad = {"utf-16-le": b"\x00\xdc", "utf-8": b"\xff", "ascii": b"\x80", "gbk": b"\xff", "cp037": b""}[
        encoding
    ]
    lines = [f"line {number}".encode(encoding) for number in range(9)]
    for number in (2, 3, 8):
        lines[number] += bad + b"".join([bad, bad])
    path = tmp_path / "a"
    path.write_bytes("\n".encode(encoding).join(lines))
    for batch_bytes in (1, 5, 100):
        records = [
            record
            for batch in batches_of(path, Text(encoding), 1 << 20, batch_bytes)
            for record in batch.each()
        ]
        wrong = [number for number, record in enumerate(records) if isinstance(record, InputError)]
        assert wrong == ([2, 3, 8] if bad else [])
        assert [r for r in records if isinstance(r, str)] == [f"line {n}" for n in range(9) if n not in wrong]
        for number in wrong:
            offset = sum(len(line) + 1 for line in lines[:number]) + len("line n")
            place = f"line {number + 1}: byte" if encoding in WITH_STATE else f"byte {offset}:"
            assert str(records[number]).startswith(f"{path}, {place}")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_locate_names_line_and_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = b"eins\r\nzwei\rdrei\n\nf\xc3\xbcnf"
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    places = [
        batch.locate(index)
        for batch in batches_of(path, Text(), 5, 4)
        for index in range(len(batch.records))
    ]  # fmt: skip
    starts = [0, 6, 11, 16, 17]
    assert places == [f"{path}, line {n + 1} (byte {start})" for n, start in enumerate(starts)]


# --- encodings ----------------------------------------------------------------------------------------


def known_codecs() -> set[str]:
    names = {codecs.lookup(alias).name for alias in encodings.aliases.aliases.values() if not _missing(alias)}
    return {name for name in names if codecs.lookup(name)._is_text_encoding}


def _missing(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:  # of another operating system
        return True
    return False


@pytest.mark.parametrize("codec", sorted(name for name in known_codecs() if is_linewise(name)))
def test_an_encoding_is_cut_as_bytes_only_if_line_ends_are_bytes_of_their_own(codec: str) -> None:
    for end in "\n\r":
        assert end.encode(codec) == end.encode("ascii")
        for byte in range(256):
            # Whatever stands before a line end, it stays one: no byte takes it for its second half.
            for before in (bytes([byte]), bytes([0x81, 0x30, byte])):
                assert (before + end.encode()).decode(codec, "replace").endswith(end)
            if byte != ord(end):
                assert end not in bytes([byte]).decode(codec, "ignore")


@pytest.mark.parametrize(
    "codec", ["utf-8", "gb18030", "big5hkscs", "shift_jis_2004", "euc_jis_2004", "johab"]
)
def test_no_character_of_many_bytes_holds_a_line_end_or_depends_on_the_one_before(codec: str) -> None:
    characters = [chr(code) for code in [*range(0x20, 0xD800, 7), *range(0xE000, 0x30000, 11)]]
    found = [character.encode(codec, "ignore") for character in characters]
    assert not any(b"\n" in one or b"\r" in one for one in found)
    assert "".join(characters).encode(codec, "ignore") == b"".join(found)


def test_utf_16_without_a_byte_order_mark_is_refused_with_the_way_to_choose(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("words", encoding="utf-16-le")
    assert "choose the byte order, as in --encoding utf-16-le" in failure(tmp_path / "a", Text("utf-16"))


def test_common_encodings_can_be_split_and_those_with_a_state_cannot() -> None:
    for encoding in ("utf-8", "UTF8", "utf-8-sig", "latin-1", "cp1252", "ascii", "gbk", "shift-jis"):
        assert Text(encoding).splittable
        assert Text(encoding).batch_kinds == ("records", "text", "bytes")
    for encoding in WITH_STATE:
        assert not Text(encoding).splittable
        assert Text(encoding).alignment_bytes("a") == 0


def test_bytes_of_an_encoding_with_a_state_are_refused_with_another_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\n", encoding="utf-16")
    [batch] = batches_of(tmp_path / "a", Text("utf-16"), 10, 10)
    with pytest.raises(JobDefinitionError, match=r'use @batch\("text"\)'):
        assert batch.raw


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"encoding": "utf-9"}, "encoding 'utf-9' is not known"),
        ({"encoding": "base64"}, "encoding 'base64' is not known"),
        ({"encoding": "a\0b"}, "is not known"),
        ({"errors": "skip"}, "errors='skip' is not known; choose strict"),
        ({"max_record_bytes": 0}, "max_record_bytes is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(arguments: dict[str, str], part: str) -> None:
    with pytest.raises(JobDefinitionError) as refused:
        Text(**arguments)  # type: ignore[arg-type]
    assert part in str(refused.value)
