"""A file of which only pieces are here reads as the whole, and says which byte is not here or is damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import xxhash

from mapreduce.pieces import BlockDamaged, BlockNotHere, Piece, pieces_path
from mapreduce.streams import codec_of, is_url, open_source

DATA = random.Random(5).randbytes(1_000)


def piece(directory: Path, at: int, length: int, lead: bytes = b"header") -> Piece:
    """A range of DATA in a file of its own, behind something else."""
    path = directory / f"{at}.{length}"
    body = DATA[at : at + length]
    path.write_bytes(lead + body)
    return Piece(
        at=at,
        length=length,
        path=str(path),
        offset=len(lead),
        body_offset=len(lead),
        body_length=length,
        digest=xxhash.xxh3_128_digest(body),
    )


def test_pieces_that_cover_a_file_read_as_the_file(tmp_path: Path) -> None:
    pieces = [piece(tmp_path, at, 300) for at in (0, 200, 450, 700)]
    path = pieces_path(pieces, 1_000, "x.bin")
    with open_source(path, "ring:x.bin") as file:
        assert file.read() == DATA
        for at, length in ((0, 1), (199, 3), (299, 200), (999, 10), (1_000, 5), (449, 1)):
            file.seek(at)
            assert file.read(length) == DATA[at : at + length]


def test_a_byte_that_lies_nowhere_here_is_named_by_its_offset(tmp_path: Path) -> None:
    path = pieces_path([piece(tmp_path, 0, 100), piece(tmp_path, 500, 100)], 1_000, "x")
    with open_source(path) as file:
        file.seek(550)
        assert file.read(50) == DATA[550:600]
        with pytest.raises(BlockNotHere, match=r"^600$"):
            file.read(1)
        file.seek(100)
        with pytest.raises(BlockNotHere, match=r"^100$"):
            file.read(1)


def test_what_is_damaged_is_never_read(tmp_path: Path) -> None:
    made = piece(tmp_path, 0, 1_000)
    with open(made.path, "r+b") as file:
        file.seek(900)
        file.write(b"rotten")
    with open_source(pieces_path([made], 1_000, "x")) as source:
        with pytest.raises(BlockDamaged) as caught:
            source.read(10)
        assert str(caught.value) == made.path


def test_a_file_of_no_bytes_needs_no_piece() -> None:
    with open_source(pieces_path([], 0, "x")) as file:
        assert file.read() == b""


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.gz", "gzip"), ("b.txt", None), ("c", None), ("d.tar.zst", "zstd"), ("e. x/y", None)],
)
def test_the_path_ends_as_the_name_does(name: str, codec: str | None) -> None:
    path = pieces_path([], 0, name)
    assert codec_of(path) == codec
    assert is_url(path)
