"""Where a command's settings come from, and how sizes are written.

The order is  flag, then environment (`RINGREDUCE_SPLIT_SIZE` for `--split-size`), then `ringreduce.toml`
in the current directory, then the default.  In the file each command has a table of its own name, and
the few settings that all commands share may stand above the tables:

    peers = "10.0.0.7:7700"

    [run]
    workers = 4
    split-size = "64MiB"
    param = { rounds = 20 }

`peers` is every command's --peer: a file cannot hold both a setting and a table called peer.

A name that no option has is an error: a misspelt setting that is silently dropped is found hours later.

⚙ This module reads a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from mapreduce.errors import UsageError
from mapreduce.spelling import closest

ENVIRONMENT_PREFIX = "RINGREDUCE_"
SETTINGS_FILE = "ringreduce.toml"

# What may stand above the tables of the settings file; a command without such an option ignores it.
SHARED = frozenset({"cluster", "data", "keys", "peers", "quiet", "temp_dir", "traceback"})
_OPTION_OF = {"peers": "peer"}

# The tables there may be; which of them there are is known in `p2p.cli` alone, and a test compares the two.
TABLES = frozenset(
    {
        "attach",
        "cancel",
        "demo",
        "get",
        "init",
        "jobs",
        "keys",
        "logs",
        "ls",
        "members",
        "monitor",
        "peer",
        "put",
        "result",
        "rm",
        "run",
        "scrub",
        "status",
        "submit",
        "swarm",
        "token",
        "where",
        "why",
    }
)

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return the bytes that `text` stands for: "4096", "100k", "32MiB", "1.5G", "10MB".

    As with dd and ulimit, `k`, `M`, `G`, `T` and `KiB` … `TiB` are powers of 1024; `kB` … `TB` are powers of
    1000.  Upper and lower case are the same.

    Raises:
        ValueError: it is no size, or less than one byte.
    """
    match = _SIZE.fullmatch(text)
    unit = match[2].lower() if match else ""
    base = 1000 if unit.endswith("b") and not unit.endswith("ib") and len(unit) > 1 else 1024
    letter = unit.removesuffix("b").removesuffix("i")
    if not match or letter not in _POWERS or unit in ("i", "ib"):
        raise ValueError(f"{text!r} is not a size: write bytes, or a number with k, M, G, KiB, MiB or GiB")
    size = (
        int(float(match[1]) * base ** _POWERS[letter])
        if "." in match[1]
        else int(match[1]) * base ** _POWERS[letter]
    )
    if size < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return size


def environment_variable(option: str) -> str:
    """Return the variable that stands for an option, e.g. RINGREDUCE_SPLIT_SIZE for split_size."""
    return ENVIRONMENT_PREFIX + option.upper().replace("-", "_")


def from_file(command: str, options: Collection[str], path: str = SETTINGS_FILE) -> dict[str, Any]:
    """Read a command's settings from the settings file.

    Args:
        command: the command's name, which is its table's name.
        options: the names that may stand in the table, with '_'; the file may write '-' instead.
        path: the file; one that does not exist holds no settings.

    Returns:
        {option: value}: each value a text, as it would stand on a command line, or a list of such texts;
        a table {K: V} becomes the list ["K=V", ...].

    Raises:
        UsageError: the file is no TOML, or names a setting that does not exist.
    """
    if not os.path.isfile(path):
        return {}
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    shared = {key: value for key, value in document.items() if not isinstance(value, dict)}
    for table in document.keys() - shared.keys() - TABLES:
        raise UsageError(f"{path}: there is no command for the table [{table}]{closest(table, TABLES)}")
    own = document.get(command, {})
    if not isinstance(own, dict):
        raise UsageError(f"{path}: {command!r} names the table [{command}]; it cannot be a setting as well")
    shared = _renamed(shared, path, SHARED, "above the tables")
    shared = {_OPTION_OF.get(key, key): value for key, value in shared.items()}
    found = {
        **{key: value for key, value in shared.items() if key in options},
        **_renamed(own, path, options, f"in [{command}]"),
    }
    return {key: _as_written(value) for key, value in found.items()}


def _renamed(table: Mapping[str, Any], path: str, known: Collection[str], where: str) -> dict[str, Any]:
    renamed = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(f"{path}: there is no setting {key!r} {where}{closest(name, known)}")
        renamed[name] = value
    return renamed


def _as_written(value: Any) -> str | list[str]:
    # As text every value meets the checks of the command line: 2.5 workers are refused, not rounded.
    if isinstance(value, dict):
        return [f"{key}={_text(item)}" for key, item in value.items()]
    return list(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, default=str)
