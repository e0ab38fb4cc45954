"""A job's own source files, so that it can run where the user's disk is not.

What travels is the job file and the modules beside it that the job imports: those that were imported when
it was loaded, and those that its source, and theirs in turn, name in an import statement, also inside a
function.  A job without a file (by module, or by value) starts from the modules that its pickle names.
A package travels with all its Python files.  What is installed is expected to be installed there as well,
and data travels as side files.  A module that is only ever imported by a name made at run time is not
found, unless loading the job has imported it.

Taking what is imported, not all that lies there, keeps a job file in a home directory from dragging the
home directory along, and lets the digest change only when the job does.

⚙ This module reads and writes files.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mapreduce.errors import EnvironmentFailed, JobDefinitionError
from mapreduce.loading import OUR_PACKAGES, Code, is_installed, own_modules

MAX_FILES = 1000
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A job, ready to travel to a machine that has none of the user's files.

    Attributes:
        job: the pickled job.
        files: {path below the job's directory, with "/": content}.
        file: which of them is the job file; None: the job is carried by value or by module.
        digest: of all of the above, hexadecimal.
        root: where the files lie with the user, for whoever speaks of them; "" where that is not known.
    """

    job: bytes
    files: Mapping[str, bytes]
    file: str | None
    digest: str
    root: str = ""


def bundle(code: Code) -> Bundle:
    """Collect a job's files, in the process that has loaded it.

    Raises:
        JobDefinitionError: a file cannot be read, or they are more than `MAX_FILES` or `MAX_BYTES`.
    """
    root = os.path.realpath(code.sys_path[0]) if code.sys_path else os.getcwd()
    files: dict[str, bytes] = {}
    wanted: list[str] = []
    size_bytes = 0
    main = os.path.basename(code.file) if code.file is not None else None
    if main is not None:
        wanted = [main, *sorted({name.partition(".")[0] for name in own_modules()})]
    elif not is_installed(root):
        wanted = _named_in(code.job, root)
    seen = set(OUR_PACKAGES)
    while wanted:  # ends: a name is looked at once, and names come from files within the bounds
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        for path in [name] if name == main else _sources(root, name):
            files[path] = _read(root, path)
            size_bytes += len(files[path])
            if len(files) > MAX_FILES or size_bytes > MAX_BYTES:
                raise _too_much(root)
            wanted += _imported(files[path])
    ordered = dict(sorted(files.items()))
    shown = os.path.dirname(code.file) if code.file is not None else root
    return Bundle(job=code.job, files=ordered, file=main, digest=digest(code.job, ordered, main), root=shown)


def unbundle(packed: Bundle, directory: str) -> Code:
    """Write a bundle's files below a directory, on the machine where the job is to run.

    Raises:
        JobDefinitionError: the bundle is not what its digest says, or names a path outside the directory.
        EnvironmentFailed: the files cannot be written.
    """
    if digest(packed.job, packed.files, packed.file) != packed.digest:
        raise JobDefinitionError("the job's files were damaged on the way: their digest does not fit")
    # The job file is named apart from the files, so its name is looked at as well.
    for path in [*packed.files, *([packed.file] if packed.file is not None else [])]:
        if not all(part.strip() and part not in (".", "..") for part in path.split("/")) or "\0" in path:
            raise JobDefinitionError(f"the job brings a file with the path {path!r}, which is not allowed")
    root = os.path.abspath(directory)
    try:
        for path, content in packed.files.items():
            target = os.path.join(root, *path.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)
    except OSError as error:
        raise EnvironmentFailed(f"cannot write the job's files to {root}: {error.strerror}") from None
    file_path = os.path.join(root, packed.file) if packed.file is not None else None
    return Code(job=packed.job, file=file_path, sys_path=(root,))


def digest(job: bytes, files: Mapping[str, bytes], main: str | None) -> str:
    """Return the digest of a bundle's parts, by blake2b; lengths keep one part from leaking into the next."""
    state = hashlib.blake2b(digest_size=32)
    for part in (job, (main or "").encode(), *(p for n in sorted(files) for p in (n.encode(), files[n]))):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()


def _named_in(pickled: bytes, root: str) -> list[str]:
    """Return the modules in `root` whose names occur in a pickle: of imported functions, or used by code."""
    words = {word.decode() for word in re.findall(rb"[A-Za-z_][A-Za-z0-9_]*", pickled)}
    try:
        beside = {entry.removesuffix(".py") for entry in os.listdir(root)}
    except OSError:
        return []
    return sorted(words & beside)


def _sources(root: str, name: str) -> Iterator[str]:
    """Yield the Python files that importing `name` from `root` may need."""
    if not name.isidentifier():
        return
    if os.path.isfile(os.path.join(root, f"{name}.py")):
        yield f"{name}.py"
    top = os.path.join(root, name)
    for directory, below, names in os.walk(top):
        below[:] = sorted(b for b in below if b.isidentifier() and b != "__pycache__")
        for file in sorted(names):
            if file.endswith(".py"):
                yield os.path.relpath(os.path.join(directory, file), root).replace(os.sep, "/")


def _read(root: str, path: str) -> bytes:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise JobDefinitionError(f"cannot read {os.path.join(root, path)}: {error.strerror}") from None


def _too_much(root: str) -> JobDefinitionError:
    return JobDefinitionError(
        f"the modules that the job imports from {root} are too much to send along: more than "
        f"{MAX_FILES:,} files or {MAX_BYTES >> 20} MiB; install them on every peer instead"
    )


def _imported(source: bytes) -> list[str]:
    """Return the top-level names that a module's import statements name, outside its own package."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a template, a module for another Python: it travels as it is
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module.partition(".")[0])
    return names
