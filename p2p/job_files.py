"""A job's files on this peer: its code and side files, and the places where its attempts write.

    DIR/JOB/code/…            the user's source files, as they were bundled
    DIR/JOB/side/NAME         side files
    DIR/JOB/attempts/STAGE/…  what attempts write, until it has been pushed to where it shall lie

Everything here can be made again from the job's spec, so all of it is removed when the peer starts and when
the job is over.  Nothing here opens a pickle: the code is only handed on to children, by which it is opened
after its digest has been checked.

Where a child speaks of the user's files (tracebacks, refusals, the stack of a crash) it names these copies,
which tell the user nothing; `OpenedJob.as_users` says it with the paths that they have with the user.

⚙ This module makes, writes and removes files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mapreduce.bundling import Bundle, unbundle
from mapreduce.columns import unpack_column
from mapreduce.errors import EnvironmentFailed, JobDefinitionError
from mapreduce.loading import near_path
from mapreduce.loads import packed_code
from mapreduce.spec import JobPlan, JobSpec

__all__ = ["JobFiles", "OpenedJob"]


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A job whose cargo lies unpacked on this peer.

    Attributes:
        plan: the job's.
        code: for children, see `mapreduce.loads.packed_code`.
        params: by name.
        side_files: {name: local path}.
        private: the ways to write the directory of the code, each with a "/" at the end, the longest first.
        root: that directory as it is with the user, "" if that is not known.
    """

    plan: JobPlan
    code: bytes
    params: Mapping[str, Any]
    side_files: Mapping[str, str]
    private: tuple[str, ...] = ()
    root: str = ""

    def as_users(self, text: str) -> str:
        """Return a text that names files of the job as the user knows them."""
        shown = os.path.join(self.root, "") if self.root else ""
        for directory in self.private:
            text = text.replace(directory, shown)
        return text


class JobFiles:
    """The files of all jobs of this peer.

    Args:
        directory: their place; what an earlier life left there is removed.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._opened: dict[str, OpenedJob] = {}
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory, mode=0o700, exist_ok=True)

    def open(self, job: str, spec: JobSpec) -> OpenedJob:
        """Unpack a job's cargo; does nothing if that has been done.

        Raises:
            JobDefinitionError: the code is damaged, or brings files that are not allowed.
            EnvironmentFailed: the files cannot be written.
        """
        opened = self._opened.get(job)
        if opened is not None:
            return opened
        root = os.path.join(self._directory, job)
        code = spec.code
        bundle = Bundle(job=code.job, files=code.files, file=code.file, digest=code.digest)
        side_files: dict[str, str] = {}
        try:
            unbundled = unbundle(bundle, os.path.join(root, "code"))
            os.makedirs(os.path.join(root, "side"), exist_ok=True)
            for number, (name, content) in enumerate(spec.side_files.items()):
                # The user's name for it may be any text; where it lies is ours to choose.
                path = os.path.join(root, "side", f"{number}")
                with open(path, "wb") as file:
                    file.write(content)
                side_files[name] = path
        except OSError as error:
            raise EnvironmentFailed(f"cannot write the job's files: {error.strerror or error}") from None
        values = unpack_column(spec.params.form, spec.params.data)
        if len(values) != len(spec.param_names):
            raise JobDefinitionError("the job's parameters do not fit their names")
        opened = OpenedJob(
            plan=spec.plan,
            code=packed_code(unbundled),
            params=dict(zip(spec.param_names, values, strict=True)),
            side_files=side_files,
            private=_spellings(os.path.join(root, "code")),
            root=code.root,
        )
        self._opened[job] = opened
        return opened

    def get(self, job: str) -> OpenedJob | None:
        """Return a job that was opened."""
        return self._opened.get(job)

    def work_directory(self, job: str, stage: int) -> str:
        """Return where attempts of a stage write; made if need be.

        Raises:
            OSError: it cannot be made.
        """
        path = os.path.join(self._directory, job, "attempts", str(stage))
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def drop(self, job: str, stages: Iterable[int]) -> None:
        """Remove what attempts of some stages have written."""
        for stage in stages:
            shutil.rmtree(os.path.join(self._directory, job, "attempts", str(stage)), ignore_errors=True)

    def drop_job(self, job: str) -> None:
        """Remove everything of a job."""
        self._opened.pop(job, None)
        shutil.rmtree(os.path.join(self._directory, job), ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _spellings(directory: str) -> tuple[str, ...]:
    """Return the paths by which Python or we may speak of a directory, the longest first."""
    found = {os.path.abspath(directory), os.path.realpath(directory), near_path(os.path.abspath(directory))}
    return tuple(sorted((os.path.join(path, "") for path in found), key=lambda path: (-len(path), path)))
