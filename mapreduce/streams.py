"""Opening one input file, wherever it lies and however it is compressed.

The standard library's gzip, bz2 and lzma files, and zstandard's reader, disagree on what follows a
stream: some go on with a concatenated stream, some skip padding, some drop the rest of the file without a
word.  A dropped rest is a wrong answer, so decompression is driven here, by one loop over the four
libraries' decompressor objects, with one rule: a file is any number of complete streams, with zero
bytes between them where the format allows padding (gzip from tapes, xz), and nothing else.  A file of
no bytes is a file of no streams.

Positions of a compressed file are counted in uncompressed bytes, here and in all messages.

⚙ This module opens files and URLs.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from mapreduce.errors import EnvironmentFailed, InputError, JobError

# How paths begin that `mapreduce.pieces` opens.
PIECES = "pieces://"
CODECS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".lzma": "xz", ".zst": "zstd"}
MAY_BE_PADDED = ("gzip", "xz")

READ_BYTES = 128 << 10
# zstandard's decompressor objects know no limit of output, and 4 bytes of input can stand for 128 KiB:
# this bounds what one call can return to 128 MiB, at no measurable cost for ordinary data.
ZSTD_FEED_BYTES = 4 << 10
# zstd --long=31 writes frames that need such a window.
ZSTD_WINDOW_BYTES = 1 << 31

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")


def is_url(path: str) -> bool:
    """Tell whether a path is an fsspec URL (`s3://…`, `zip://…::…`); `file://` is one too."""
    return _URL.match(path) is not None


def codec_of(path: str) -> str | None:
    """Return "gzip", "bz2", "xz" or "zstd" as the path's ending says, or None for plain bytes."""
    if is_url(path):
        path = path.split("::", 1)[0] if "://" in path.split("::", 1)[0] else path
        path = path.split("?", 1)[0] if path.startswith(("http://", "https://")) else path
    return CODECS.get(os.path.splitext(path)[1].lower())


def open_source(path: str, name: str | None = None) -> BinaryIO:
    """Open an input file for reading, decompressed if its ending says that it is compressed.

    Args:
        path: a local path, an fsspec URL, or one that `mapreduce.pieces.pieces_path` has made.
        name: what messages call it; default: the path.

    Returns:
        A binary file.  It can seek unless it is compressed (then `tell` counts uncompressed bytes).

    Raises:
        InputError: it cannot be opened.  Reading raises it too, when a compressed stream is damaged or
            ends early.
        EnvironmentFailed: the machine or a remote service said no.
    """
    name = name or path
    codec = codec_of(path)
    with reading(name):
        if path.startswith(PIECES):
            from mapreduce.pieces import Pieces

            file = _buffered(Pieces(path))
        elif is_url(path):
            import fsspec

            system, inner = fsspec.core.url_to_fs(path)
            file = _buffered(_Remote(system, system.open(inner, "rb"), name))
        else:
            file = open(path, "rb")  # noqa: SIM115  # the caller closes it
    return file if codec is None else _buffered(_Decompressed(file, codec, name))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what opening or reading `name` raises into an error that names it.

    Raises:
        InputError: it is not there, or not for us to read.
        EnvironmentFailed: any other failure of the system or of a remote service; it may pass.
    """
    try:
        yield
    except JobError:
        raise
    except FileNotFoundError:
        raise InputError(f"{shown(name)}: no such file") from None
    except PermissionError:
        raise InputError(f"{shown(name)}: no permission to read it") from None
    except IsADirectoryError:
        raise InputError(f"{shown(name)}: is a directory") from None
    except OSError as error:
        raise EnvironmentFailed(f"{shown(name)}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        if not is_url(name):
            raise
        # File systems behind URLs raise whatever their client library raises.
        raise EnvironmentFailed(
            f"{shown(name)}: cannot be read: {type(error).__name__}: {one_line(error)}"
        ) from error


def shown(name: str) -> str:
    """Return a file's name as a message may hold it: printable, on one line."""
    if name.isprintable():
        return name
    return name.encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode("ascii")


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return io.BufferedReader(raw, READ_BYTES)


class _Remote(io.RawIOBase):
    """A file of an fsspec file system, which keeps that alive: some close their files when they go."""

    def __init__(self, system: Any, file: Any, name: str) -> None:
        self._system = system
        self._file = file
        self._name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with reading(self._name):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def readinto(self, target: Any) -> int:
        with reading(self._name):
            data = self._file.read(len(target))
        target[: len(data)] = data
        return len(data)


class _Decompressed(io.RawIOBase):
    """The uncompressed bytes of a file of one or more concatenated streams."""

    def __init__(self, source: BinaryIO, codec: str, name: str) -> None:
        self._source = source
        self._codec = codec
        self._name = shown(name)
        self._new_decoder, self._failures = _library(codec)
        self._decoder: Any = None  # None between two streams
        self._input = b""  # compressed, not yet given to the decoder
        self._ready = memoryview(b"")  # decompressed, not yet asked for
        self._position = 0
        self._streams_begun = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def readinto(self, target: Any) -> int:
        if not self._ready:
            self._ready = memoryview(self._more(len(target)))
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._position += count
        return count

    def _more(self, limit: int) -> bytes:
        """Return some uncompressed bytes, of at most `limit` where the library can; b"" at the end."""
        while True:
            if not self._input and (self._decoder is None or getattr(self._decoder, "needs_input", True)):
                with reading(self._name):
                    self._input = self._source.read(READ_BYTES)
                if not self._input:
                    return self._at_end_of_input(limit)
            if self._decoder is None:
                if self._streams_begun and self._codec in MAY_BE_PADDED:
                    self._input = self._input.lstrip(b"\0")
                    if not self._input:
                        continue
                self._decoder = self._new_decoder()
                self._streams_begun += 1
            output = self._decode(limit)
            if output:
                return output

    def _at_end_of_input(self, limit: int) -> bytes:
        if self._decoder is None:
            return b""
        output = self._decode(limit)  # zlib may still hold some that was over an earlier limit
        if not output and self._decoder is not None:
            raise InputError(
                f"{self._name}: truncated {self._codec} stream after {self._position:,} uncompressed bytes; "
                "fetch or make the file again"
            )
        return output

    def _decode(self, limit: int) -> bytes:
        decoder, fed = self._decoder, self._input
        try:
            if self._codec == "zstd":
                output = decoder.decompress(fed[:ZSTD_FEED_BYTES])
                rest = fed[ZSTD_FEED_BYTES:]
            else:
                output = decoder.decompress(fed, limit)
                rest = decoder.unconsumed_tail if self._codec == "gzip" else b""
        except self._failures as error:
            raise InputError(self._explained(error)) from None
        if decoder.eof:
            rest = decoder.unused_data + (rest if self._codec == "zstd" else b"")
            self._decoder = None
        self._input = rest
        return cast(bytes, output)

    def _explained(self, error: Exception) -> str:
        if self._position == 0 and self._streams_begun == 1:
            return (
                f"{self._name}: damaged or no {self._codec} data, though its name says so ({one_line(error)})"
            )
        return (
            f"{self._name}: damaged {self._codec} stream after {self._position:,} uncompressed bytes "
            f"({one_line(error)})"
        )


def _library(codec: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return what makes a decompressor object for one stream, and what that raises on damage."""
    if codec == "gzip":
        import zlib

        return lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), (zlib.error,)
    if codec == "bz2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, ValueError)
    if codec == "xz":
        import lzma

        return lzma.LZMADecompressor, (lzma.LZMAError,)
    import zstandard

    library = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    return library.decompressobj, (zstandard.ZstdError,)
