"""The commands about the ring's own files: put, get, ls, rm.

Only click and the console are imported here; what a command needs is imported when it runs.  Results go to
stdout, everything else to stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from mapreduce.console import Command
from p2p.command_options import (
    Seconds,
    asked_options,
    format_option,
    key_source,
    print_json,
    print_table,
    split_addresses,
)

if TYPE_CHECKING:
    from p2p.catalogue import Entry
    from p2p.file_client import FileClient

__all__ = ["get", "ls", "put", "rm"]

_quiet = click.option("--quiet", is_flag=True, help="Show no progress.")


def _client(given: dict[str, Any]) -> FileClient:
    from p2p.file_client import FileClient

    keys = key_source(given["keys"], given["cluster"], given["token"]).load().keys
    return FileClient(keys, split_addresses(given["peer"]), timeout_s=given["timeout"])


# ---- put ------------------------------------------------------------------------------------------------


@click.command(cls=Command, short_help="Put files on the ring.")
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.argument("name", metavar="NAME")
@click.option(
    "--replicas",
    type=click.IntRange(1, 8),
    default=2,
    show_default=True,
    metavar="R",
    help="How many peers hold each block.",
)
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@click.option(
    "--ttl",
    type=Seconds(min=1.0),
    metavar="S",
    help="How long to keep it  [default: until it is removed].",
)
@_quiet
@asked_options
def put(
    files: tuple[str, ...],
    name: str,
    replicas: int,
    force: bool,
    ttl: float | None,
    quiet: bool,
    **given: Any,
) -> int:
    """Put files on the ring, where jobs read them as ring:NAME.

    One FILE becomes NAME; several, and the files of a directory, become NAME/… by their own names.
    - is standard input.  Of a directory, empty ones within it and files whose names begin with . or _ are
    left out.
    """
    from mapreduce.console import interruptible
    from p2p.file_progress import FileProgress
    from p2p.local_files import named_sources

    sources = named_sources(files, name)
    with interruptible(), contextlib.ExitStack() as stack:
        client = stack.enter_context(_client(given))
        spooled = {path: stack.enter_context(_spooled()) for path, _, _ in sources if path == "-"}
        total = sum(size for _, _, size in sources)
        progress = stack.enter_context(FileProgress("put", total, quiet=quiet))
        for path, target, _ in sources:
            with spooled[path] if path == "-" else open(path, "rb") as source:
                entry, copies = client.put(
                    source,
                    target,
                    replicas=replicas,
                    replaces=force,
                    ttl_s=ttl,
                    on_progress=progress.add,
                )
            if copies < replicas:
                text = f"{copies} of {replicas} copies are made; the others follow as peers join"
                progress.message(f"warning: {target}: {text}")
            blocks = f"{entry.blocks} block{'s' if entry.blocks != 1 else ''}"
            progress.message(f"{target}: {entry.size_bytes:,} bytes, {blocks}")
    return 0


@contextlib.contextmanager
def _spooled() -> Iterator[BinaryIO]:
    """Copy standard input to a file: its length has to be known, and blocks may have to be sent again."""
    import shutil
    import tempfile

    with tempfile.TemporaryFile(prefix="ringreduce-put-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        yield file


# ---- get ------------------------------------------------------------------------------------------------


@click.command(cls=Command, short_help="Fetch files of the ring.")
@click.argument("name", metavar="NAME")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to  [default: standard output; a directory for NAME/]."
)
@_quiet
@asked_options
def get(name: str, output: str | None, quiet: bool, **given: Any) -> int:
    """Fetch a file of the ring; with a name that ends in /, all files below it.

    Every block is checked before any of it is written.
    """
    from mapreduce.console import interruptible
    from mapreduce.errors import UsageError
    from p2p.file_progress import FileProgress
    from p2p.local_files import fetch_below, ring_name, whole_file

    name = ring_name(name)
    with interruptible(), _client(given) as client:
        if not name.endswith("/"):
            entry = _file(client, name)
            target = output
            if target is not None and (target.endswith("/") or os.path.isdir(target)):
                target = os.path.join(target, os.path.basename(name))
            with FileProgress("get", entry.size_bytes, quiet=quiet) as progress:
                if target is None:
                    client.get(entry, _to_stdout, progress.add)
                    _to_stdout(b"", flushes=True)
                else:
                    with whole_file(target) as file:
                        client.get(entry, file.write, progress.add)
            return 0
        rows = client.files_below(name)
        if output is None:
            raise UsageError(f"{name}: {len(rows)} files: name a directory for them with -o DIR")
        with FileProgress("get", sum(row.size_bytes for row in rows), quiet=quiet) as progress:
            fetch_below(client, name, rows, output, progress.add)
    return 0


def _file(client: FileClient, name: str) -> Entry:
    """Return what a name stands for; of a directory it is said how to fetch that."""
    from p2p.file_client import FileUnknown

    try:
        return client.file(name)
    except FileUnknown:
        if name and client.files(f"{name}/"):
            raise FileUnknown(
                f"{name} is a directory on the ring: fetch all files of it with"
                f"  ringreduce get {name}/ -o DIR"
            ) from None
        raise


def _to_stdout(data: bytes, *, flushes: bool = False) -> None:
    from mapreduce.command import told_if_full

    with told_if_full():
        sys.stdout.buffer.write(data)
        if flushes:
            sys.stdout.buffer.flush()


# ---- ls, rm ---------------------------------------------------------------------------------------------


@click.command(cls=Command, short_help="List the files of the ring.")
@click.argument("prefix", metavar="[PREFIX]", default="")
@format_option
@asked_options
def ls(prefix: str, format: str, **given: Any) -> int:
    """List the files of the ring, or those whose names begin with PREFIX.

    `copies` is that of the block with the fewest, of as many as there should be.
    """
    from p2p.local_files import ring_name

    prefix = ring_name(prefix)
    with _client(given) as client:
        # Names that begin with "." are the swarm's own (inputs that were brought for a job), or meant so.
        rows = [row for row in client.files(prefix) if prefix or not row.name.startswith(".")]
    if format == "json":
        print_json(
            [
                {
                    "name": row.name,
                    "size_bytes": row.size_bytes,
                    "blocks": row.blocks,
                    "copies": row.copies,
                    "replicas": row.replicas,
                    "made_at": row.made_at_s,
                    "expires_at": row.expires_at_s or None,
                    "file": row.file,
                }
                for row in rows
            ]
        )
    else:
        table = [
            {
                "size": f"{row.size_bytes:,}",
                "blocks": row.blocks,
                "copies": f"{row.copies}/{row.replicas}",
                "name": row.name,
            }
            for row in rows
        ]
        print_table(table, ["size", "blocks", "copies", "name"])
    return 0


@click.command(cls=Command, short_help="Remove files of the ring.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@asked_options
def rm(names: tuple[str, ...], **given: Any) -> int:
    """Remove files of the ring; with a name that ends in /, all files below it.

    All names are looked up first: if one is unknown, nothing is removed.
    """
    from p2p.local_files import ring_name

    with _client(given) as client:
        found: dict[str, None] = {}  # a name that was given twice is removed once
        for name in map(ring_name, names):
            if not name.endswith("/"):
                found[client.file(name).name] = None
                continue
            found.update(dict.fromkeys(row.name for row in client.files_below(name)))
        for name in found:
            client.remove(name)
    return 0
