"""Virtual environments of the engines that the benchmark stands us beside, one each.

An environment is made once, by pip from whatever registry pip is configured for, and kept below the
benchmark's cache under the digest of what is in it: another pin makes another one.  Versions are pinned, so
that a table can be made again.  Nothing of an engine is ever imported by us: its forms in
`tools/benchmarks/engines/` run as scripts under the environment's own interpreter.

⚙ This module runs processes and writes files.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALL_LIMIT_S = 1800.0
SHOWN_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What is installed for an engine.

    Attributes:
        name: of the engine, and of the script with its forms.
        requirements: what pip installs, pinned.
        programs: which must be on the PATH besides.
        standing: it has workers that outlive a job, so its start is told apart.
        cannot: questions that its documentation shows no way to answer.
        worker, coordinator: stand in the command lines of its processes, see `tools.benchmarks.strikes`; no
            worker: it has one process.
    """

    name: str
    requirements: tuple[str, ...]
    programs: tuple[str, ...] = ()
    standing: bool = True
    cannot: frozenset[str] = frozenset()
    worker: str = ""
    coordinator: str = ""


ENGINES = {
    engine.name: engine
    for engine in (
        Engine(name="dask", requirements=("dask[dataframe,distributed]==2026.8.0",), worker="spawn_main"),
        Engine(name="ray", requirements=("ray[data]==2.60.0",), worker="ray::", coordinator="gcs_server"),
        Engine(
            name="spark",
            requirements=("pyspark==4.3.0",),
            programs=("java",),
            worker="java",
            coordinator="java",
        ),
        # Neither reads files of records without line ends; mrjob shows no way to a sum over all keys in the
        # midst of a job.  It still asks setuptools for pkg_resources, which newer ones no longer have.
        Engine(
            name="mrjob",
            requirements=("mrjob==0.7.4", "setuptools<81"),
            standing=False,
            cannot=frozenset({"sort", "pagerank"}),
            worker="mrjob_forms",
        ),
        Engine(name="polars", requirements=("polars==2.1.0",), standing=False, cannot=frozenset({"sort"})),
        Engine(name="duckdb", requirements=("duckdb==2.0.0",), standing=False, cannot=frozenset({"sort"})),
    )
}


class EngineMissing(Exception):
    """An engine cannot be installed here; the message says why in one line."""


def interpreter_of(engine: Engine, cache: Path) -> Path:
    """Return the interpreter of an engine's environment, made now if it is not there.

    Args:
        engine: which.
        cache: a directory; made if need be.

    Raises:
        EngineMissing: a program it needs is not here, or pip could not install it.
    """
    for program in engine.programs:
        if shutil.which(program) is None:
            raise EngineMissing(f"{engine.name} is left out: it needs the program {program!r}")
    pins = "\n".join((*engine.requirements, sys.version))
    folder = cache / "engines" / f"{engine.name}-{hashlib.blake2b(pins.encode(), digest_size=6).hexdigest()}"
    python = folder / "bin" / "python"
    # Written last: an environment without it was left unfinished.
    marker = folder / "requirements.txt"
    if marker.is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(engine, [sys.executable, "-m", "venv", str(folder)])
    _run(engine, [str(python), "-m", "pip", "install", "--quiet", *engine.requirements])
    marker.write_text("\n".join(engine.requirements) + "\n")
    return python


def _run(engine: Engine, command: list[str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, errors="replace", timeout=INSTALL_LIMIT_S
        )
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or [error.stderr]
        told = " ".join(" ".join(said[:SHOWN_LINES]).split())
        raise EngineMissing(f"{engine.name} is left out: pip could not install it: {told}") from None
    except subprocess.TimeoutExpired:
        raise EngineMissing(
            f"{engine.name} is left out: pip took longer than {INSTALL_LIMIT_S:g} s"
        ) from None
