"""A swarm from Python: hand in a job, watch it, take its result.

    swarm = Swarm("127.0.0.1:7700")
    handle = swarm.submit(job, ["books/"])
    for event in handle.events():
        print(event)
    for key, value in handle.result():
        ...
    swarm.put("books/", "books")
    swarm.submit(job, "ring:books/")

A handle has a connection of its own, so that several can be followed at once; it ends with the handle and its
result, or earlier by `close` or at the end of a `with` block.  Nothing of the job depends on it: a handle
that is closed, or dies, leaves the job running.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mapreduce.bundling import bundle
from mapreduce.errors import UsageError
from mapreduce.inputs import paths_of
from mapreduce.job import Job
from mapreduce.loading import Code, name_of, pack
from mapreduce.outcome import NOBODY, EventRecord, JobStatus
from mapreduce.plan import DEFAULT_SPLIT_BYTES
from mapreduce.records import Pair
from membership.view import NodeId
from p2p import job_questions as q
from p2p.addresses import parse_address
from p2p.errors import BadAddress, PeerError
from p2p.handing_in import hand_in, take_back
from p2p.job_client import JobClient, Moved, ResultGone, failure_of, report_of
from p2p.key_source import KeySource
from p2p.keys import KeySet

if TYPE_CHECKING:
    from p2p.file_client import FileClient
    from p2p.file_questions import FileRow

__all__ = [
    "QUORUM_LOST",
    "JobEvent",
    "JobHandle",
    "JobTimeout",
    "QuorumMissing",
    "Swarm",
    "SwarmResult",
    "emptied",
    "progress_line",
]

QUORUM_LOST = "QUORUM_LOST"
MAX_TOLD = 4_096


class JobTimeout(PeerError):
    """The job has not ended in time; it goes on."""

    exit_code = 4


class QuorumMissing(PeerError):
    """The job has not ended in time, because its group lacks a majority; it goes on when that is back."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        kind: "progress", "moved" (to another peer to follow from), "waiting", "ended", or that of an entry of
            the job's log: "leader", "stage", "lost", "again", "healed", …
        text: one line.
        node: the peer it is about, "" for none.
        at_s: wall clock.
        view: the job as it was then; None with "moved".
    """

    kind: str
    text: str
    node: NodeId = NOBODY
    at_s: float = 0.0
    view: q.JobView | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.kind != "progress" else self.text


class JobHandle:
    """A job on a swarm.

    Args:
        client: for this handle alone; it is closed with it.
        job: the job's id.
        warnings: what the swarm said of the submission.
        began_at: when it was handed in, monotonic seconds; None for a job of earlier.
        brought: names of inputs that were put on the ring for it; removed when it is seen to have ended.
    """

    def __init__(
        self,
        client: JobClient,
        job: str,
        *,
        warnings: Sequence[str] = (),
        began_at: float | None = None,
        brought: Sequence[str] = (),
    ) -> None:
        self.id = job
        self.warnings = tuple(warnings)
        self.client = client
        self._began_at = began_at
        self._view: q.JobView | None = None
        self._took_s: float | None = None
        self._brought = list(brought)

    def __enter__(self) -> JobHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the job goes on."""
        self.client.close()

    def status(self) -> q.JobView:
        """Return how the job is now.

        Raises:
            JobUnknown: no peer knows it any more.
        """
        if self._view is None or not self._view.state.is_final:
            self._take(self.client.view(self.id))
        assert self._view is not None
        return self._view

    def events(self, timeout_s: float | None = None) -> Iterator[JobEvent]:
        """Yield what happens, until the job has ended.

        Args:
            timeout_s: how long to follow it; None: to the end.

        Raises:
            JobTimeout, QuorumMissing: it has not ended in that time.
            NoPeerReached: no peer answers any more.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        told: set[EventRecord] = set()
        line = waiting = ""
        if self._view is not None and self._view.state.is_final:
            return
        for news in self.client.follow(self.id):
            if isinstance(news, Moved):
                yield JobEvent(kind="moved", text=str(news), at_s=time.time())
            elif news is not None:
                self._take(news)
                # A view may be older than the one before, and the log drops what is old.
                fresh = [event for event in news.events if event not in told]
                told = told.union(fresh) if len(told) < MAX_TOLD else set(news.events)
                for event in fresh:
                    yield JobEvent(
                        kind=event.kind, text=event.text, node=event.node, at_s=event.at_s, view=news
                    )
                if news.waiting_for != waiting:
                    waiting = news.waiting_for
                    yield JobEvent(kind="waiting", text=waiting or "it moves again", view=news)
                now_line = progress_line(news)
                if now_line != line:
                    line = now_line
                    yield JobEvent(kind="progress", text=line, at_s=time.time(), view=news)
                if news.state.is_final:
                    text = f"job {self.id[:12]} has ended: {news.state}"
                    yield JobEvent(kind="ended", text=text, at_s=news.ended_at_s, view=news)
                    return
            if deadline is not None and time.monotonic() >= deadline:
                if waiting and "quorum" in waiting:
                    text = f"{QUORUM_LOST}: job {self.id[:12]}: {waiting}; it goes on when they are back"
                    raise QuorumMissing(text)
                raise JobTimeout(f"job {self.id[:12]} has not ended in {timeout_s:g} s; it goes on")

    def wait(self, timeout_s: float | None = None) -> q.JobView:
        """Return how the job has ended, as soon as it has.

        Raises: as `events`.
        """
        for _ in self.events(timeout_s):
            pass
        return self.status()

    def result(self, timeout_s: float | None = None) -> SwarmResult:
        """Wait for the job and give its result.

        Raises:
            JobError: it failed, or was cancelled.
            ResultGone: it was there and is no more.
            JobTimeout, QuorumMissing, NoPeerReached: as `events`.
        """
        view = self.wait(timeout_s)
        if view.state is not JobStatus.COMMITTED:
            raise failure_of(view)
        return SwarmResult(self, view, self._took_s)

    def cancel(self) -> q.JobView | None:
        """End the job; returns how it is then, None if nobody who leads it was reached."""
        view = self.client.cancel(self.id)
        if view is not None:
            self._take(view)
        return view

    def logs(self) -> list[q.LogsAre]:
        """Return what user code has printed, peer by peer, the end of it."""
        return self.client.logs(self.id)

    def report(self) -> dict[str, Any]:
        """Return what the job did and cost so far, as `--report` writes it."""
        return report_of(self.status(), self._took_s)

    def _take(self, view: q.JobView) -> None:
        self._view = view
        if view.state.is_final and self._began_at is not None and self._took_s is None:
            self._took_s = time.monotonic() - self._began_at
        if view.state.is_final and self._brought:
            names, self._brought = self._brought, []
            take_back(self.client, names)


class SwarmResult:
    """A finished job's output: iterate it for (key, value) pairs, in part and key order.

    Attributes:
        counters: {name: value}, summed over all tasks.
    """

    def __init__(self, handle: JobHandle, view: q.JobView, took_s: float | None) -> None:
        self._handle = handle  # whose connection ends with it
        self._view = view
        self._took_s = took_s
        self.counters: dict[str, int] = dict(view.counters)

    def __enter__(self) -> SwarmResult:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the parts stay with the swarm, and the connection is the handle's."""

    def __iter__(self) -> Iterator[Pair]:
        if self._view.out_format:
            raise ResultGone(
                f"job {self._view.job[:12]} was submitted for {self._view.out_format} output: fetch its parts"
            )
        import tempfile

        from mapreduce.runs import read_blocks

        for row in self._handle.client.parts(self._view.job):
            if not row.attempt:
                continue
            with tempfile.TemporaryFile() as file:
                self._handle.client.write_part(self._view.job, row, file.write, emptied(file))
                for keys, _, values in read_blocks(file, 0, row.size_bytes):
                    yield from zip(keys, values, strict=True)

    def report(self) -> dict[str, Any]:
        """Return what the job did and cost, as `--report` writes it."""
        return report_of(self._view, self._took_s)


class Swarm:
    """A swarm, by the address of any of its peers.

    Args:
        peers: "host:port", or several, by commas or in a list.
        keys: the directory of the cluster's keys; default: as the command line.
        cluster: its name.
        token: a token instead of key files.

    Raises:
        BadAddress: no peer is named, or one of them is no address.
        KeysMissing, KeysUnusable: as `p2p.key_source.KeySource`.
    """

    def __init__(
        self,
        peers: str | Sequence[str],
        *,
        keys: str | os.PathLike[str] | None = None,
        cluster: str | None = None,
        token: str | None = None,
    ) -> None:
        given = peers.split(",") if isinstance(peers, str) else list(peers)
        self.peers = [address.strip() for address in given if address.strip()]
        if not self.peers:
            raise BadAddress("peers is empty: name a peer by HOST:PORT, as in 127.0.0.1:7700")
        for address in self.peers:
            parse_address(address)
        directory = Path(keys) if keys is not None else None
        self._keys: KeySet = KeySource(directory=directory, cluster=cluster, token=token).load().keys
        self._handles: weakref.WeakSet[JobHandle] = weakref.WeakSet()

    def submit(
        self,
        job: Job,
        inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *more_inputs: str | os.PathLike[str],
        partitions: int | None = None,
        split_bytes: int = DEFAULT_SPLIT_BYTES,
        params: Mapping[str, Any] | None = None,
        out_format: str = "",
        replicas: int = 2,
        strict_replicas: bool = False,
        priority: int = 0,
        ttl_s: float = 3600.0,
        code: Code | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> JobHandle:
        """Hand in a job; returns when it exists and will outlive the peer that took it.

        Args:
            job: what to run.
            inputs: files, directories, globs, fsspec URLs, "ring:NAME".  What all peers see is read in place;
                other inputs are put on the ring, and removed when the handle has seen the job's end.
            more_inputs: the same.
            partitions, split_bytes, params: as `mapreduce.local.run`.
            out_format: "" for a result to iterate; "text", "jsonl" or "msgpack" for parts.
            replicas, strict_replicas, priority, ttl_s: as in `mapreduce.spec.JobPlan`.
            code: the job as it travels; default: packed here.
            on_message: takes lines for people.

        Raises:
            TypeError: `job` is no Job, or `inputs` are no paths.
            JobError, PeerError: what is wrong, in one line.
        """
        if not isinstance(job, Job):
            raise TypeError(f"job: expected a Job, got {job!r}; 'ringreduce submit' takes the name of a file")
        given = [*paths_of(inputs), *paths_of(more_inputs)]
        began_at = time.monotonic()
        client = self.client()
        try:
            tell = on_message or (lambda _: None)
            packed = code if code is not None else pack(job)
            handed = hand_in(
                client,
                job,
                bundle(packed),
                given,
                on_move=lambda moved: tell(str(moved)),
                tell=tell,
                name=name_of(packed.file) if packed.file is not None else "",
                partitions=partitions,
                split_bytes=split_bytes,
                params=params,
                out_format=out_format,
                replicas=replicas,
                strict_replicas=strict_replicas,
                priority=priority,
                ttl_s=ttl_s,
            )
        except BaseException:
            client.close()
            raise
        answer, brought = handed.answer, handed.brought
        handle = JobHandle(client, answer.job, warnings=answer.warnings, began_at=began_at, brought=brought)
        return self._handle(handle)

    # ---- files ---------------------------------------------------------------------------------------------

    def put(
        self,
        path: str | os.PathLike[str],
        name: str,
        *,
        replicas: int = 2,
        replaces: bool = False,
        ttl_s: float | None = None,
    ) -> None:
        """Put a file, or a directory with all its files, on the ring.

        Args:
            path: of this machine.
            name: what it shall be called; of a directory, what its files' names begin with.
            replicas: how many peers hold each block.
            replaces: it may take the place of a file that there is.
            ttl_s: how long to keep it; None: until it is removed.

        Raises:
            TypeError: `name` is no text.
            InputError: there is no such file.
            FileExists, FileRefused, NoPeerReached: the ring does not take it.
        """
        from p2p.local_files import named_sources

        if not isinstance(name, str):
            raise TypeError(f"name: expected what the file shall be called, got {name!r}")
        with self._files() as client:
            for where, target, _ in named_sources([os.fspath(path)], name):
                with open(where, "rb") as source:
                    client.put(source, target, replicas=replicas, replaces=replaces, ttl_s=ttl_s)

    def get(self, name: str, path: str | os.PathLike[str] | None = None) -> bytes | None:
        """Fetch a file of the ring, or with a name that ends in "/" all files below it.

        Args:
            name: the file's.
            path: where to write it, a directory for several; None: it is returned.

        Raises:
            FileUnknown, FileLost: it is not there, or none of its holders is.
            UsageError: it cannot be written, or several cannot be returned.
        """
        from p2p.local_files import fetch_below, ring_name, whole_file

        name = ring_name(name)
        with self._files() as client:
            if name.endswith("/"):
                if path is None:
                    raise UsageError(f"{name}: name a directory for its files, as in get({name!r}, 'here')")
                fetch_below(client, name, client.files_below(name), os.fspath(path))
                return None
            entry = client.file(name)
            if path is not None:
                with whole_file(os.fspath(path)) as file:
                    client.get(entry, file.write)
                return None
            chunks: list[bytes] = []
            client.get(entry, chunks.append)
            return b"".join(chunks)

    def ls(self, prefix: str = "") -> list[FileRow]:
        """Return the files of the ring whose names begin so, in order of their names."""
        from p2p.local_files import ring_name

        with self._files() as client:
            return client.files(ring_name(prefix))

    def rm(self, name: str) -> None:
        """Remove a file of the ring, or with a name that ends in "/" all files below it.

        Raises:
            FileUnknown: there is none of that name.
        """
        from p2p.local_files import ring_name

        name = ring_name(name)
        with self._files() as client:
            for one in [row.name for row in client.files_below(name)] if name.endswith("/") else [name]:
                client.remove(one)

    def _files(self) -> FileClient:
        from p2p.file_client import FileClient  # a job needs nothing of it

        return FileClient(self._keys, self.peers)

    def job(self, prefix: str) -> JobHandle:
        """Return a handle of a job by any beginning of its id.

        Raises:
            JobUnknown: it fits none, or several.
        """
        client = self.client()
        try:
            return self._handle(JobHandle(client, client.find(prefix)))
        except BaseException:
            client.close()
            raise

    def jobs(self) -> list[q.JobRow]:
        """Return the jobs that the swarm knows, youngest first."""
        with self.client() as client:
            return list(client.jobs().jobs)

    def client(self) -> JobClient:
        """Return a fresh connection to the swarm."""
        return JobClient(self._keys, self.peers)

    def close(self) -> None:
        """Hang up all handles that are still open; their jobs go on."""
        for handle in list(self._handles):
            handle.close()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handle(self, handle: JobHandle) -> JobHandle:
        self._handles.add(handle)
        weakref.finalize(handle, handle.client.close)
        return handle


def progress_line(view: q.JobView) -> str:
    """Return a job's progress as one line: the stage that runs, and how many there are."""
    if view.state.is_final:
        return f"{view.state}"
    for number, stage in enumerate(view.stages):
        if stage.total < 0 or stage.done < stage.total:
            total = "?" if stage.total < 0 else f"{stage.total}"
            return f"{stage.name}: {stage.done}/{total} tasks (stage {number + 1} of {len(view.stages)})"
    return "finishing"


def emptied(file: BinaryIO) -> Callable[[], None]:
    """Return what empties a file again."""

    def restart() -> None:
        file.seek(0)
        file.truncate()

    return restart
