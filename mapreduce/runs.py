"""Runs: the one form in which records lie on disk and cross the network.

A run is a header, blocks, and a footer:

    header  magic "RRUN", version, flags, length of the label, label (job, task, attempt, partition)
    block   length, codec, xxh3-128 of the rest (its seed is the codec)  |  lengths and forms of three
            columns, then the columns: keys, number of values of each key (left out when it is one for
            all), values
    footer  a block of length 0 whose checksum is that of the header and all block checksums

Blocks hold about 1 MiB.  A key's values may go on in the next block.  Checksums stand before the bytes,
are taken over the bytes as they are stored, and are verified before anything is decompressed or
decoded, so damaged bytes reach neither zstd nor msgpack.  A run is written once and never changed.

Whether a run's keys are sorted is its writer's business: map outputs and spills are, a step's output
(pairs in the order the reducer gave them) need not be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice, repeat
from typing import Any, BinaryIO, Final, NoReturn

import msgpack
from xxhash import xxh3_128_digest

from mapreduce.columns import TUPLES, pack_column, short_repr, unpack_column
from mapreduce.errors import BadValue
from mapreduce.records import Pair

MAGIC: Final = b"RRUN"
VERSION: Final = 1
BLOCK_BYTES: Final = 1 << 20
# More would not fit the length field with room for a codec's overhead.
MAX_BLOCK_BYTES: Final = (1 << 31) - 1
MAX_LABEL_BYTES: Final = 1024
FIRST_BLOCK_VALUES: Final = 8_192
MAX_BLOCK_VALUES: Final = 1 << 18

PLAIN_CODEC: Final = 0
ZSTD_CODEC: Final = 1

_HEADER = struct.Struct("<4sBBH")
_BLOCK = struct.Struct("<IB16s")
_COLUMNS = struct.Struct("<IIIBBB")

Block = tuple[list[Any], list[int] | None, list[Any]]


class DamagedRun(Exception):
    """The bytes are not those that were written; another copy has to serve."""


class RunWriter:
    """Writes one run to a binary file, from its current position on.

    Args:
        file: where to write; not closed here.
        label: what the run is, for people and for checks: "job/task/attempt/partition".
        compress: zstd level 1 for every block; worth it on slow links, not on a local disk.
    """

    def __init__(self, file: BinaryIO, label: str = "", *, compress: bool = False) -> None:
        self._file = file
        self._block_values = FIRST_BLOCK_VALUES
        self._compress = None
        if compress:
            import zstandard

            self._compress = zstandard.ZstdCompressor(level=1).compress
        encoded = label.encode()[:MAX_LABEL_BYTES]
        header = _HEADER.pack(MAGIC, VERSION, 0, len(encoded)) + encoded
        self._digested = [header]
        self.bytes_written = self._file.write(header)
        self.keys_written = 0
        self.values_written = 0
        # Offsets at which a reader may enter: the start of each block, relative to the run's start.
        self.block_offsets: list[int] = []

    def write_groups(self, keys: Sequence[Any], columns: Sequence[Sequence[Any]]) -> None:
        """Write keys, each with its list of values, in the order given."""
        counts = list(map(len, columns))
        values = list(chain.from_iterable(columns))
        if len(values) <= self._block_values:
            self._write_block(list(keys), counts if len(values) > len(keys) or 0 in counts else None, values)
            return
        if len(values) == len(keys) and 0 not in counts:
            self.write_pairs(keys, values)
            return
        ends = list(accumulate(counts))
        key, value = 0, 0
        while value < len(values):
            # Take keys until their values fill a block; a key with more values than that is cut.
            stop = min(value + self._block_values, len(values))
            first, some = key, []
            position = value
            while position < stop:
                some.append(min(ends[key], stop) - position)
                position += some[-1]
                if position == ends[key]:
                    key += 1
            last = key + 1 if position != (ends[key - 1] if key else 0) else key
            self._write_block(list(keys[first:last]), some, values[value:stop])
            value = stop

    def write_pairs(self, keys: Sequence[Any], values: Sequence[Any]) -> None:
        """Write pairs in the order given."""
        if len(keys) <= self._block_values:
            self._write_block(list(keys), None, list(values))
            return
        start = 0
        while start < len(keys):
            stop = min(start + self._block_values, len(keys))
            self._write_block(list(keys[start:stop]), None, list(values[start:stop]))
            start = stop

    def write_stream(self, pairs: Iterator[Pair]) -> None:
        """Write pairs as they come."""
        while chunk := list(islice(pairs, FIRST_BLOCK_VALUES)):
            keys, values = zip(*chunk, strict=True)
            self.write_pairs(keys, values)

    def finish(self) -> int:
        """Write the footer.

        Returns:
            The run's length in bytes.
        """
        self.bytes_written += self._file.write(_BLOCK.pack(0, 0, self.digest))
        return self.bytes_written

    @property
    def digest(self) -> bytes:
        """The digest of everything written, as the footer holds it."""
        return xxh3_128_digest(b"".join(self._digested))

    def _write_block(self, keys: list[Any], counts: list[int] | None, values: list[Any]) -> None:
        key_form, key_bytes = pack_column(keys)
        count_bytes = b"" if counts is None else msgpack.packb(counts)
        try:
            value_form, value_bytes = pack_column(values)
        except BadValue:
            _refuse_value(keys, counts, values)
        size = len(key_bytes) + len(count_bytes) + len(value_bytes)
        if size > 4 * BLOCK_BYTES and len(values) > 1:
            # Values grew: halve the block until it is of a good size.
            self._block_values = max(1, len(values) // 2)
            self._write_halves(keys, counts, values)
            return
        if size > MAX_BLOCK_BYTES - _COLUMNS.size:
            raise BadValue(f"one value takes {size:,} bytes; more than {MAX_BLOCK_BYTES:,} cannot be sent")
        payload = b"".join(
            (
                _COLUMNS.pack(len(key_bytes), len(count_bytes), len(value_bytes), key_form, 0, value_form),
                key_bytes,
                count_bytes,
                value_bytes,
            )
        )
        codec = PLAIN_CODEC
        if self._compress is not None:
            payload, codec = self._compress(payload), ZSTD_CODEC
        checksum = xxh3_128_digest(payload, codec)
        self._digested.append(checksum)
        self.block_offsets.append(self.bytes_written)
        self._file.write(_BLOCK.pack(len(payload), codec, checksum))
        self._file.write(payload)
        self.bytes_written += _BLOCK.size + len(payload)
        self.keys_written += len(keys)
        self.values_written += len(values)
        wanted = len(values) * BLOCK_BYTES // max(1, size)
        self._block_values = max(16, min(MAX_BLOCK_VALUES, wanted))

    def _write_halves(self, keys: list[Any], counts: list[int] | None, values: list[Any]) -> None:
        middle = len(values) // 2
        if counts is None:
            self._write_block(keys[:middle], None, values[:middle])
            self._write_block(keys[middle:], None, values[middle:])
            return
        left, seen = 0, 0
        while seen + counts[left] <= middle:
            seen += counts[left]
            left += 1
        cut = middle - seen  # how many values of key `left` go into the first half
        head_keys = keys[: left + (1 if cut else 0)]
        head_counts = counts[:left] + ([cut] if cut else [])
        self._write_block(head_keys, head_counts, values[:middle])
        self._write_block(keys[left:], [counts[left] - cut, *counts[left + 1 :]], values[middle:])


def _refuse_value(keys: list[Any], counts: list[int] | None, values: list[Any]) -> NoReturn:
    """Name the key of the first value that cannot be sent."""
    owners = keys if counts is None else chain.from_iterable(map(repeat, keys, counts))
    for key, value in zip(owners, values, strict=True):
        try:
            pack_column([value])
        except BadValue as error:
            raise BadValue(f"under key {short_repr(key)}: {error}") from None
    raise AssertionError("a column is refused for one of its values")


def read_blocks(file: BinaryIO, offset: int, length: int, *, whole: bool = True) -> Iterator[Block]:
    """Read a run's blocks, verified.

    Args:
        file: a seekable binary file; its position is moved only within one block's reading, so several
            readers may share it.
        offset: the run's first byte in the file, or a block's with `whole=False`.
        length: how many bytes to read.
        whole: expect header and footer and check the digest over all blocks; False reads the blocks
            that lie in the range.

    Yields:
        (keys, counts or None, values), see the module's docstring.

    Raises:
        DamagedRun: anything is not as it was written.
    """
    end = offset + length
    digested: list[bytes] = []
    if whole:
        digested.append(_read_header(file, offset, end))
        offset += len(digested[0])
    decompress = None
    while offset < end:
        file.seek(offset)
        head = file.read(_BLOCK.size)
        if len(head) < _BLOCK.size or offset + _BLOCK.size > end:
            raise DamagedRun(f"run ends within a block's head at byte {offset}")
        size, codec, checksum = _BLOCK.unpack(head)
        if size == 0:
            if codec or offset + _BLOCK.size != end:
                raise DamagedRun(f"a footer at byte {offset}, where none belongs")
            if whole and xxh3_128_digest(b"".join(digested)) != checksum:
                raise DamagedRun("the run's digest is not that of its header and blocks")
            return
        if offset + _BLOCK.size + size > end:
            raise DamagedRun(f"block at byte {offset} reaches behind the run's end")
        payload = file.read(size)
        if len(payload) != size or xxh3_128_digest(payload, codec) != checksum:
            raise DamagedRun(f"checksum mismatch in the block at byte {offset}")
        digested.append(checksum)
        offset += _BLOCK.size + size
        if codec == ZSTD_CODEC:
            if decompress is None:
                import zstandard

                decompress = zstandard.ZstdDecompressor().decompress
            payload = decompress(payload)
        elif codec != PLAIN_CODEC:
            raise DamagedRun(f"unknown codec {codec}")
        yield _decode(payload)
    if whole:
        raise DamagedRun("the run has no footer")


def _read_header(file: BinaryIO, offset: int, end: int) -> bytes:
    file.seek(offset)
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise DamagedRun("too short for a run")
    magic, version, _flags, label_bytes = _HEADER.unpack(head)
    if magic != MAGIC:
        raise DamagedRun("not a run: wrong magic")
    if version != VERSION:
        raise DamagedRun(f"run of version {version}; this program reads version {VERSION}")
    if offset + _HEADER.size + label_bytes > end:
        raise DamagedRun("header reaches behind the run's end")
    return head + file.read(label_bytes)


def _decode(payload: bytes) -> Block:
    key_bytes, count_bytes, value_bytes, key_form, _, value_form = _COLUMNS.unpack_from(payload)
    view = memoryview(payload)
    start = _COLUMNS.size
    # Keys are never lists, so arrays among them come back as tuples.
    keys = unpack_column(key_form | TUPLES, view[start : start + key_bytes])
    start += key_bytes
    counts = msgpack.unpackb(view[start : start + count_bytes]) if count_bytes else None
    start += count_bytes
    return keys, counts, unpack_column(value_form, view[start : start + value_bytes])


def columns_of(counts: list[int] | None, values: list[Any]) -> list[list[Any]] | None:
    """Cut a block's values into one list a key; None when each key has one value."""
    if counts is None:
        return None
    rest = iter(values)
    return [list(islice(rest, count)) for count in counts]
