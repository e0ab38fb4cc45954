"""Compressed inputs: whole, concatenated, padded, cut off and damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapreduce.errors import EnvironmentFailed, InputError
from mapreduce.streams import codec_of, open_source, reading

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
ENDINGS = sorted(COMPRESS)
all_endings = pytest.mark.parametrize("ending", ENDINGS)

random_text = random.Random(3)
TEXT = b"".join(random_text.choice([b"alpha ", b"beta\n", b"gamma\r\n"]) for _ in range(60_000))


def read(path: Path) -> bytes:
    with open_source(str(path), path.name) as file:
        return file.read()


@all_endings
def test_a_compressed_file_is_what_was_compressed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(COMPRESS[ending](TEXT))
    assert read(path) == TEXT


@all_endings
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    derandomize=True,
    max_examples=25,
)
@given(pieces=st.lists(st.binary(max_size=300), max_size=6), sizes=st.lists(st.integers(1, 400), min_size=1))
def test_concatenated_streams_are_one_stream_however_it_is_read(
    tmp_path: Path, ending: str, pieces: list[bytes], sizes: list[int]
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"".join(map(COMPRESS[ending], pieces)))
    found: list[bytes] = []
    with open_source(str(path)) as file:
        while data := file.read(sizes[len(found) % len(sizes)]):
            found.append(data)
            assert file.tell() == sum(map(len, found))
    assert b"".join(found) == b"".join(pieces)


@all_endings
def test_many_small_streams_do_not_depend_on_where_reads_end(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{ending}"
    pieces = [TEXT[i : i + 900] for i in range(0, 30_000, 900)]
    path.write_bytes(b"".join(map(COMPRESS[ending], pieces)))
    for size in (1, 7, 1000):
        monkeypatch.setattr("mapreduce.streams.READ_BYTES", size)
        assert read(path) == b"".join(pieces)


@all_endings
def test_a_file_that_ends_early_is_an_error_wherever_it_ends(tmp_path: Path, ending: str) -> None:
    whole = COMPRESS[ending](TEXT[:3_000]) + COMPRESS[ending](TEXT[3_000:5_000])
    first = len(COMPRESS[ending](TEXT[:3_000]))
    path = tmp_path / f"cut{ending}"
    for length in sorted({*range(1, len(whole), 61), first - 1, first + 1, len(whole) - 1} - {first}):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as refused:
            read(path)
        message = str(refused.value)
        assert message.startswith(f"cut{ending}: truncated ")
        assert "uncompressed bytes" in message
        assert "\n" not in message


def test_the_message_says_how_far_a_truncated_file_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x" * 1000) + gzip.compress(TEXT)[:-4])
    with pytest.raises(InputError, match=f"truncated gzip stream after {1000 + len(TEXT):,} uncompressed"):
        read(path)


@all_endings
def test_an_empty_file_is_a_file_of_no_streams(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a{ending}").write_bytes(b"")
    assert read(tmp_path / f"a{ending}") == b""


@all_endings
def test_data_that_is_not_compressed_is_named_as_such(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"these are plain words, not a compressed file\n" * 9)
    with pytest.raises(InputError, match=rf"a{ending}: damaged or no \w+ data, though its name says so"):
        read(path)


@all_endings
def test_a_flipped_byte_is_never_read_as_data(tmp_path: Path, ending: str) -> None:
    if ending == ".lzma":
        pytest.skip("the old format has no checksum")
    if ending == ".zst":
        whole = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT))
    else:
        whole = bytearray(COMPRESS[ending](TEXT))
    path = tmp_path / f"a{ending}"
    whole[len(whole) // 2] ^= 0x55
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"damaged|truncated"):
        read(path)


@all_endings
def test_bytes_behind_the_streams_are_an_error_and_not_dropped(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(COMPRESS[ending](b"data") + b"and more that was never compressed")
    with pytest.raises(InputError, match="after 4 uncompressed bytes"):
        read(path)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_zero_bytes_between_and_behind_streams_are_padding(tmp_path: Path, ending: str) -> None:
    # Python's lzma module would silently end at the padding and drop the second stream.
    path = tmp_path / f"a{ending}"
    path.write_bytes(COMPRESS[ending](b"one") + b"\0" * 512 + COMPRESS[ending](b"two") + b"\0" * 8)
    assert read(path) == b"onetwo"


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_data_that_expands_a_thousandfold_is_given_in_pieces(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(COMPRESS[ending](bytes(8 << 20)))
    with open_source(str(path)) as file:
        pieces = list(iter(lambda: file.read(100_000), b""))
    assert sum(map(len, pieces)) == 8 << 20
    assert {byte for piece in pieces for byte in piece} == {0}


@pytest.mark.parametrize(
    ("path", "codec"),
    [
        ("a.GZ", "gzip"),
        ("b.lzma", "xz"),
        ("c.txt", None),
        ("gz", None),
        (".gz", None),
        ("dir.gz/a", None),
        ("https://h/a.bz2?token=x.gz", "bz2"),
        ("zip://a.zst::b.zip", "zstd"),
        ("simplecache::s3://b/a.xz", "xz"),
    ],
)
def test_the_ending_tells_the_compression(path: str, codec: str | None) -> None:
    assert codec_of(path) == codec


def test_a_compressed_file_serves_a_text_wrapper_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT))
    with open_source(str(path)) as file:
        assert list(file) == TEXT.splitlines(keepends=True)
    with open_source(str(path)) as file:
        wrapped = io.TextIOWrapper(file, newline="")
        assert wrapped.read().encode() == TEXT
        wrapped.close()


def test_a_file_that_is_not_there_is_an_error_of_the_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such file"):
        open_source(str(tmp_path / "gone"), "gone")
    with pytest.raises(InputError, match="is a directory"):
        open_source(str(tmp_path))


def test_a_failing_disk_may_be_tried_again() -> None:
    expected = pytest.raises(EnvironmentFailed, match=r"a\.txt: cannot be read: Input/output error")
    with expected as failed, reading("a.txt"):
        raise OSError(5, "Input/output error")
    assert failed.value.may_retry


def test_a_failing_service_is_named_with_its_url() -> None:
    expected = pytest.raises(EnvironmentFailed, match=r"s3://b/k: cannot be read: RuntimeError: slow down")
    with expected, reading("s3://b/k"):
        raise RuntimeError("slow\ndown")
