"""The packages point in one direction, and the pure modules are pure: held by reading the sources.

Pure code has no clock, socket, file, thread, environment, process, `uuid4`, builtin `hash()` or global
random, so that it can run in a simulator through ten thousand histories and give the same answer each time.
The modules that are not pure stand in one list below, each with its reason; adding to it is a decision.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("membership", "mapreduce", "p2p")

# What a package may import of ours, besides itself.
BELOW = {
    "membership": (),
    "mapreduce": ("membership",),
    "p2p": ("mapreduce", "membership"),
}

# The modules of the pure packages that touch the world, and why each must.
SHELL = {
    "mapreduce.attempt": "runs user code on files",
    "mapreduce.batches": "counts the lines of a file for a message",
    "mapreduce.binary": "reads records of binary files",
    "mapreduce.bundling": "reads a job's source files",
    "mapreduce.child": "the process that runs user code",
    "mapreduce.child_output": "reads what children print",
    "mapreduce.child_process": "starts and ends child processes",
    "mapreduce.command": "the command line of `run`",
    "mapreduce.console": "signals, exit codes, standard streams",
    "mapreduce.executor": "feeds and watches child processes",
    "mapreduce.failpoints": "ends processes where a test wants it",
    "mapreduce.finding": "looks for job files",
    "mapreduce.inputs": "opens inputs",
    "mapreduce.lines": "reads lines of files",
    "mapreduce.loading": "executes job files",
    "mapreduce.embedded": "a job's run on this machine",
    "mapreduce.local": "the embedded engine",
    "mapreduce.order_stream": "what a child hears from its parent",
    "mapreduce.outputs": "writes parts",
    "mapreduce.parsing": "reads JSON and pairs of files",
    "mapreduce.pieces": "reads ranges of files as one file",
    "mapreduce.progress": "shows progress as time passes",
    "mapreduce.readers": "reads records of files",
    "mapreduce.settings": "reads the settings file",
    "mapreduce.streams": "opens compressed files and URLs",
    "mapreduce.submission": "reads side files, and inputs as far as planning needs it",
    "mapreduce.tables": "reads CSV files",
    "mapreduce.task_files": "files, locks and memory of a task",
    "mapreduce.user_frames": "knows where files of ours and of Python lie",
    "mapreduce.work_directory": "makes, locks and removes directories",
}

# The pure modules of the package that is otherwise all shell.
PURE_IN_P2P = (
    "p2p.blocks",
    "p2p.catalogue",
    "p2p.errors",
    "p2p.fetches",
    "p2p.job_views",
    "p2p.naming",
    "p2p.replication",
    "p2p.schema",
    "p2p.segment_index",
    "p2p.submissions",
    "p2p.wire",
)

# User code like any other: it may do what users do, but only through what users have.
EXAMPLES = "mapreduce.examples"

# A pure module may reach into the shell in these places only, when called.
DOORS = {
    "mapreduce": "loads its public names when they are first used",
    "mapreduce.job": "Job.run and Job.main are how a user's script enters the shell",
}

IMPURE = frozenset(
    [
        *(
            "asyncio",
            "concurrent",
            "multiprocessing",
            "queue",
            "threading",
            "_thread",
            "subprocess",
            "signal",
        ),
        *("socket", "socketserver", "select", "selectors", "ssl", "http", "urllib", "requests", "zmq"),
        *("os", "io", "pathlib", "shutil", "tempfile", "glob", "fcntl", "mmap", "sqlite3", "fsspec"),
        *("time", "sys", "platform", "sysconfig", "resource", "getpass", "atexit", "logging"),
        *("secrets", "uuid"),
    ]
)
IMPURE_CALLS = frozenset({"hash", "open", "print", "input", "id", "__import__", "eval", "exec", "breakpoint"})
# What is pure of modules that mostly are not: it only works on text and memory.
PURE_PARTS = frozenset(
    ["io.BytesIO", "io.StringIO"]
    + [f"os.path.{name}" for name in ("basename", "dirname", "join", "split", "splitext")]
)
IMPURE_METHODS = frozenset(
    {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
)

# Slow to import, or only for people at a terminal: a peer starts without them.
NOT_FOR_A_PEER = ("networkx", "rich", "click", "matplotlib", "numpy", "cloudpickle", "fsspec", "hypothesis")

# A submission of ten lines takes as long as its imports: classes of messages that it never meets, and what of
# the standard library is slow for the little it would be used for.
NOT_FOR_A_SUBMISSION = (
    *("membership.config", "membership.register", "membership.ring", "membership.ring_types"),
    *("p2p.config", "p2p.file_questions", "p2p.job_inquiries", "p2p.protocol", "p2p.ring_questions"),
    *("asyncio", "fractions", "importlib.metadata", "multiprocessing", "networkx", "rich"),
    *("secrets", "tempfile"),
)


@dataclass(frozen=True)
class Import:
    """One import: of which module, on which line, and whether it happens when the module is imported."""

    module: str
    line: int
    at_import: bool
    for_types: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if "__pycache__" not in path.parts
}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
PURE = [
    name
    for name in MODULES
    if name in PURE_IN_P2P
    or (not name.startswith("p2p") and name not in SHELL and not name.startswith(EXAMPLES))
]


def imports_of(source: str, module: str = "", is_package: bool = False) -> list[Import]:
    """Return all imports in a source; `from a import b` counts as a.b where that is a module of ours."""
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool, for_types: bool) -> None:
        match node:
            case ast.Import(names=names):
                found.extend(Import(alias.name, node.lineno, at_import, for_types) for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                if level:
                    parents = module.split(".")[
                        : None if is_package and level == 1 else -(level - is_package)
                    ]
                    base = ".".join([*parents, *([base] if base else [])])
                for alias in names:
                    full = f"{base}.{alias.name}"
                    found.append(
                        Import(full if full in MODULES else str(base), node.lineno, at_import, for_types)
                    )
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for child in node.body:
                    visit(child, at_import, True)
                for child in node.orelse:
                    visit(child, at_import, for_types)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                at_import = False
        for child in ast.iter_child_nodes(node):
            visit(child, at_import, for_types)

    visit(ast.parse(source), True, False)
    return found


def imports(module: str) -> list[Import]:
    return imports_of(SOURCES[module], module, MODULES[module].name == "__init__.py")


def dotted(tree: ast.AST) -> Iterator[str]:
    """Yield each a.b.c that a source uses, as a whole."""
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            whole = ast.unparse(node)
            if whole.replace(".", "").isidentifier():
                yield whole


def impurities(source: str) -> Iterator[str]:
    """Yield what a source does that pure code must not do."""
    tree = ast.parse(source)
    impure_parts = {d.partition(".")[0] for d in dotted(tree) if d not in PURE_PARTS}
    for found in imports_of(source):
        if found.module.partition(".")[0] in IMPURE and not found.for_types:
            if found.module in ("io", "os") and found.module not in impure_parts:
                continue
            yield f"line {found.line}: imports {found.module}"
    # A hash that nobody looks at only asks whether there is one.
    dropped = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="hash")) if node in dropped:
                pass
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield f"line {node.lineno}: calls {name}()"
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in IMPURE_METHODS:
                yield f"line {node.lineno}: reads the clock with {owner}.{name}"
            case ast.ImportFrom(module="io" | "os" as module, names=names) if not PURE_PARTS.issuperset(
                f"{module}.{alias.name}" for alias in names
            ):
                yield f"line {node.lineno}: imports from {module}"
            # The type is welcome, since randomness is injected; the module's functions share one state.
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                yield f"line {node.lineno}: uses the global random.{name}"
            case ast.ImportFrom(module="random", names=names) if [a.name for a in names] != ["Random"]:
                yield f"line {node.lineno}: imports functions of the global random"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="random"), attr="Random"), args=[]):
                yield f"line {node.lineno}: makes a Random that is seeded by the system"
            case ast.For(iter=ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset"))):
                yield f"line {node.lineno}: loops over a set, whose order is not fixed"


def reached(module: str) -> set[str]:
    """Return the modules that are imported when `module` is, other packages by their first name."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            parents = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
            waiting += parents
            waiting += [i.module for i in imports(name) if i.at_import and not i.for_types]
    return seen | {name.partition(".")[0] for name in seen}


def peers_modules() -> list[str]:
    """What runs in a peer's process, or in its children."""
    return [name for name in ("p2p.peer", "mapreduce.child", "membership.swim") if name in MODULES]


# -- the rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    package = module.partition(".")[0]
    for found in imports(module):
        target = found.module.partition(".")[0]
        if target in (*PACKAGES, "tools", "tests"):
            assert target in (package, *BELOW[package]), (
                f"{module}, line {found.line}: imports {found.module}"
            )


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_touch_nothing_but_their_arguments(module: str) -> None:
    assert list(impurities(SOURCES[module])) == []


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_do_not_import_the_shell(module: str) -> None:
    for found in imports(module):
        if found.module in SHELL and not found.for_types:
            assert module in DOORS, f"line {found.line}: imports {found.module}"
            assert not found.at_import, f"line {found.line}: imports {found.module} before it is called"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(EXAMPLES + ".")])
def test_examples_use_what_users_have(module: str) -> None:
    for found in imports(module):
        if found.module.partition(".")[0] in PACKAGES and not found.module.startswith(EXAMPLES):
            assert found.module == "mapreduce", f"line {found.line}: that is not the public interface"


def test_only_one_module_knows_of_zeromq() -> None:
    knowing = {name for name in MODULES for found in imports(name) if found.module.partition(".")[0] == "zmq"}
    assert knowing <= {"p2p.zmq_transport"}


def test_pickles_are_opened_in_child_processes_only() -> None:
    opening = {
        name
        for name, source in SOURCES.items()
        if {"pickle.loads", "pickle.load", "pickle.Unpickler"}.intersection(dotted(ast.parse(source)))
    }
    assert opening == {"mapreduce.child", "mapreduce.order_stream", "mapreduce.loading"}
    assert not reached("p2p.peer").intersection({"mapreduce.child", "mapreduce.order_stream"})
    # What unpacks a job's code is part of the embedded engine, too; a peer calls nothing of it.
    callers = {name for name in MODULES for found in imports(name) if found.module == "mapreduce.loading"}
    asked_of_it = {
        alias.name
        for name in callers
        if name.startswith("p2p.")
        for node in ast.walk(ast.parse(SOURCES[name]))
        if isinstance(node, ast.ImportFrom) and node.module == "mapreduce.loading"
        for alias in node.names
    }
    assert "unpack" not in asked_of_it


@pytest.mark.parametrize("module", peers_modules())
def test_a_peer_starts_without_what_it_does_not_need(module: str) -> None:
    assert not reached(module).intersection(NOT_FOR_A_PEER)


def test_a_submission_starts_without_what_it_does_not_need() -> None:
    parts = ("p2p.cli", "p2p.commands_submit", "p2p.handing_in", "p2p.job_questions", "p2p.swarm_client")
    for module in parts:
        assert not reached(module).intersection(NOT_FOR_A_SUBMISSION), module


@pytest.mark.parametrize(
    ("module", "unwanted"), [("mapreduce.child", NOT_FOR_A_PEER), ("p2p.swarm_client", NOT_FOR_A_SUBMISSION)]
)
def test_what_is_read_from_the_sources_is_what_python_imports(module: str, unwanted: tuple[str, ...]) -> None:
    script = f"import sys; import {module}; print([n for n in {unwanted} if n in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True, text=True
    ).stdout
    assert output.strip() == "[]"


def test_the_list_of_impure_modules_names_modules_that_exist() -> None:
    assert [name for name in SHELL if name not in MODULES] == []


def test_the_list_of_impure_modules_names_no_pure_ones() -> None:
    def touches(module: str) -> bool:
        return bool(list(impurities(SOURCES[module]))) or any(i.module in SHELL for i in imports(module))

    assert [name for name in SHELL if name in MODULES and not touches(name)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith(".errors")])
def test_errors_are_leaves(name: str) -> None:
    package = name.partition(".")[0]
    assert [found for found in imports(name) if found.module.partition(".")[0] == package] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_file_opens_with_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(SOURCES[module]))


# -- the rules can fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import path",
        "def f():\n    import socket",
        "import os\nos.path.exists(x)",
        "import os\nos.path.join(x).encode(), os.getcwd()",
        "import io\nio.open(x)",
        "import random\nx = random.random()",
        "from random import choice",
        "import random\nrng = random.Random()",
        "x = hash('a')",
        "open('f')",
        "from datetime import datetime\nx = datetime.now()",
        "for x in {1, 2}:\n    pass",
        "for x in set(y):\n    pass",
    ],
)
def test_impure_code_is_seen(source: str) -> None:
    assert len(list(impurities(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import random\ndef f(rng: random.Random): return rng.random()",
        "from random import Random\nrng = Random(7)",
        "import random\nrng = random.Random(7)",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import socket",
        "def __hash__(self): return 1",
        "import os\nos.path.splitext(x)[0]",
        "import io\nio.StringIO(text)",
        "from io import StringIO",
        "for x in sorted({1, 2}):\n    pass",
        "try:\n    hash(key)\nexcept TypeError:\n    pass",
    ],
)
def test_pure_code_is_not_blamed(source: str) -> None:
    assert list(impurities(source)) == []


def test_imports_are_told_apart_by_when_they_happen() -> None:
    source = (
        "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    from c import d\nclass C:\n    import e\n"
    )
    assert imports_of(source) == [
        Import("a", 1, True, False),
        Import("b", 3, True, True),
        Import("c", 5, False, False),
        Import("e", 7, True, False),
    ]


def test_relative_imports_are_resolved() -> None:
    assert imports_of("from . import x", "p2p.cli")[0].module == "p2p"
    assert imports_of("from .a import x", "p2p.cli")[0].module == "p2p.a"
    assert imports_of("from .a import x", "p2p", is_package=True)[0].module == "p2p.a"
    assert imports_of("from ..a import x", "p2p.b.c")[0].module == "p2p.a"
