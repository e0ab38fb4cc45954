"""From a job and its inputs to a submission: what lies on the ring, what is read in place, what is brought.

Theory
------
An input is one of three kinds, and which it is shows at submission:

* ``ring:NAME`` is a file of the ring; ``ring:NAME/`` all files below it, ``ring:…*`` those that match, as a
  shell would.  Its splits are those that the same file would have on this machine: they depend on its size
  alone.
* What all peers see is read in place.  Each peer looks for it before the job is born (`p2p.submissions`).
* What some peer does not see is put on the ring first, under a name that `ls` does not show, and the job is
  submitted again with that.  It is removed when the job has been followed to its end, else after
  `ring_sources.INPUTS_TTL_S`.  Names that people see (`task.input_path`, messages) stay those that the user
  gave; of a file of the ring that is ``ring:NAME``.

So the output is the same, byte for byte, wherever the inputs lie.

Most submissions have inputs of the second kind only: what the others need is imported when they are met.

⚙ Reads inputs, waits for peers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mapreduce.bundling import Bundle
from mapreduce.inputs import Source, expand
from mapreduce.job import Job
from mapreduce.spec import JobSpec
from mapreduce.submission import spec_of
from p2p import job_questions as q
from p2p.job_client import InputsNotThere, JobClient, Moved
from p2p.spec_packing import pack_spec

if TYPE_CHECKING:
    from p2p.ring_sources import RingSources

__all__ = ["HandedIn", "hand_in", "take_back"]

RING = "ring:"


@dataclass(slots=True)
class HandedIn:
    """A submission that was taken.

    Attributes:
        answer: the peer's.
        brought: names of the inputs that were put on the ring for it.
        where: says where peers read the inputs.
        reads_stdin: peers read the file into which standard input was copied.
    """

    answer: q.Submitted
    brought: list[str] = field(default_factory=list)
    where: str = ""
    reads_stdin: bool = False


def hand_in(
    client: JobClient,
    job: Job,
    packed: Bundle,
    inputs: Sequence[str],
    *,
    stdin_path: str | None = None,
    on_move: Callable[[Moved], None] | None = None,
    tell: Callable[[str], Any] = lambda _line: None,
    on_progress: Callable[[int, int], Any] = lambda _bytes, _total: None,
    brings_stdin: bool = False,
    **options: Any,
) -> HandedIn:
    """Submit a job, after its inputs have been put on the ring where that is needed.

    Args:
        client: of the swarm.
        job, packed: the job, and as it travels.
        inputs: files, directories, globs, URLs, "-", "ring:NAME".
        stdin_path: the file into which standard input was copied.
        on_move: told when another peer has to be asked.
        tell: takes a line for people.
        on_progress: told of inputs on their way: (bytes more, bytes in all).
        brings_stdin: put standard input on the ring without asking who sees the file.
        options: as of `mapreduce.submission.spec_of`.

    Raises:
        JobError, PeerError: what is wrong, in one line.
    """
    ring: RingSources | None = None
    with contextlib.ExitStack() as stack:

        def of_ring() -> RingSources:
            from p2p.ring_sources import RingSources

            return stack.enter_context(RingSources(client, options, tell, on_progress))

        sources: list[Source] = []
        for given in inputs:
            if given.startswith(RING):
                ring = ring or of_ring()
                sources += ring.expand(given)
            else:
                sources += expand([given], stdin_path=stdin_path)
        on_ring = sum(source.name.startswith(RING) for source in sources)
        if brings_stdin and stdin_path is not None:
            ring = ring or of_ring()
            ring.bring([source for source in sources if source.path == stdin_path])
        try:
            answer = client.submit(pack_spec(_spec(job, packed, sources, ring, options)), on_move=on_move)
        except InputsNotThere as error:
            ring = ring or of_ring()
            if not ring.bring_lacking(sources, error):
                raise
            answer = client.submit(pack_spec(_spec(job, packed, sources, ring, options)), on_move=on_move)
        except BaseException:
            if ring is not None:
                ring.take_back()
            raise
        brought = ring.brought if ring is not None else []
        reads_stdin = stdin_path is not None and (ring is None or not ring.has_brought(stdin_path))
        where = _where(
            len({source.path for source in sources}) - on_ring - len(brought), on_ring, len(brought)
        )
        return HandedIn(answer=answer, brought=brought, where=where, reads_stdin=reads_stdin)


def _spec(
    job: Job, packed: Bundle, sources: Sequence[Source], ring: RingSources | None, options: dict[str, Any]
) -> JobSpec:
    if ring is None:
        return spec_of(job, packed, sources, **options)
    return ring.anchored(spec_of(job, packed, ring.planned(sources), **options))


def _where(in_place: int, on_ring: int, brought: int) -> str:
    if not on_ring and not brought:
        return "all peers read its inputs in place"
    parts = []
    if in_place > 0:
        parts.append(f"{in_place} of its inputs are read in place")
    if on_ring:
        parts.append(f"{on_ring} of its inputs lie on the ring")
    if brought:
        parts.append(f"{brought} of its inputs were put on the ring for it, as some peer does not see them")
    return ", ".join(parts)


def take_back(client: JobClient, names: Sequence[str]) -> None:
    """Remove inputs that were put on the ring; what cannot be removed ends with its time to live."""
    from p2p.ring_sources import remove_all

    remove_all(client, names)
