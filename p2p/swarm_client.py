"""A swarm from Python: hand in a job, watch it, take its result.

    swarm = Swarm("127.0.0.1:7700")
    handle = swarm.submit(job, ["books/"])
    for event in handle.events():
        print(event)
    for key, value in handle.result():
        ...
    swarm.put("books/", "books")
    swarm.submit(job, "ring:books/")

What a job is when it has been handed in is a `p2p.handles.JobHandle`; files are put, listed and fetched by
their names on the ring.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapreduce.bundling import bundle
from mapreduce.errors import UsageError
from mapreduce.inputs import paths_of
from mapreduce.job import Job
from mapreduce.loading import Code, name_of, pack
from mapreduce.plan import DEFAULT_SPLIT_BYTES
from p2p import job_questions as q
from p2p.addresses import parse_address
from p2p.errors import BadAddress
from p2p.handing_in import hand_in
from p2p.handles import JobHandle
from p2p.job_client import JobClient
from p2p.key_source import KeySource
from p2p.keys import KeySet

if TYPE_CHECKING:
    from p2p.file_client import FileClient
    from p2p.file_questions import FileRow

__all__ = ["Swarm"]


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
