"""Where a command puts a job's result: into a directory, as `run` does, or to standard output.

Parts come from the peers that hold them; each is seen when all of it is here and right.  In a directory that
is a rename; what goes to standard output is gathered in a temporary file first.

Only the standard library is imported here; what is needed of a swarm is imported when it is used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2p.job_client import JobClient
    from p2p.job_questions import JobView, PartRow

__all__ = ["fetch", "try_output"]

# A result of this size repays many times what it takes to load `p2p.process`.
LARGE_BYTES = 16 << 20


def try_output(output: str | None) -> None:
    """Make the output directory and remove it again: a job is not to run for what cannot be written.

    Raises:
        UsageError: it cannot be made, or is there already.
    """
    if output is None:
        return
    from mapreduce.outputs import OutputDirectory

    target = OutputDirectory(output)
    target.prepare()
    target.abort()


def fetch(client: JobClient, view: JobView, output: str | None) -> None:
    """Bring the parts of a job's result into a directory, or to stdout.

    Args:
        client: whom to ask for them.
        view: the job, which has ended well.
        output: the directory; None: standard output.

    Raises:
        JobError, PeerError, OSError: a part cannot be had, or not be written.
    """
    if output is None:
        _fetch_to_stdout(client, view)
        return
    from mapreduce.outputs import OutputDirectory, writing
    from p2p.handles import emptied

    target = OutputDirectory(output)
    target.prepare()
    try:
        for row in _parts(client, view):
            path = target.attempt_path(row.part, 1)
            with writing(path), open(path, "wb") as file:
                client.write_part(view.job, row, file.write, emptied(file))
            target.commit(row.part, 1)
        target.finish()
    except BaseException:
        target.abort()
        raise


def _parts(client: JobClient, view: JobView) -> list[PartRow]:
    """Return what there is to be fetched, and make ready for it."""
    rows = client.parts(view.job)
    if sum(row.size_bytes for row in rows) >= LARGE_BYTES:
        from p2p.process import keep_freed_memory

        keep_freed_memory()
    return rows


def _fetch_to_stdout(client: JobClient, view: JobView) -> None:
    """Write each part when all of it is here and right: half a part on stdout could not be taken back."""
    import tempfile

    from mapreduce.command import told_if_full
    from p2p.handles import emptied

    out = sys.stdout.buffer
    for row in _parts(client, view):
        with tempfile.TemporaryFile() as file:
            client.write_part(view.job, row, file.write, emptied(file))
            file.seek(0)
            with told_if_full():
                while block := file.read(1 << 20):
                    out.write(block)
    with told_if_full():
        out.flush()
