"""What the commands that talk to peers share: options, and how rows are printed.

Only click is imported here; what a command needs is imported when it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mapreduce.errors import UsageError

if TYPE_CHECKING:
    from p2p.job_client import JobClient
    from p2p.key_source import KeySource

__all__ = [
    "DEFAULT_ADDRESS",
    "Seconds",
    "Where",
    "asked_options",
    "format_option",
    "key_options",
    "key_source",
    "options",
    "peer_options",
    "print_json",
    "print_table",
    "some_peer",
    "split_addresses",
    "token_option",
    "waiting_options",
]

DEFAULT_ADDRESS = "127.0.0.1:7700"

F = TypeVar("F", bound=Callable[..., Any])


def options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Seconds(click.FloatRange):
    """A time on the command line: a number that is one, and ends."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, or fail as click expects."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


def some_peer(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuse a --peer that names none, as an unset variable in a script gives it."""
    if not split_addresses(value):
        raise UsageError(f"--peer is empty: name a peer by HOST:PORT, as in {DEFAULT_ADDRESS}")
    return value


key_options = options(
    click.option(
        "--keys",
        type=click.Path(path_type=Path),
        help="Directory of the cluster's keys [default: below ~/.local/state/ringreduce].",
    ),
    click.option("--cluster", help="The cluster's name [default: that of the keys, or 'default']."),
)
token_option = click.option(
    "--token", help="A token instead of key files; best given as RINGREDUCE_TOKEN, which ps does not show."
)
format_option = click.option(
    "--format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
_peer_option = click.option(
    "--peer",
    default=DEFAULT_ADDRESS,
    callback=some_peer,
    show_default=True,
    metavar="ADDR[,ADDR…]",
    help="The peer to ask; further ones are asked when it does not answer.",
)


def _answer_timeout(*names: str) -> Callable[[F], F]:
    return click.option(
        *names,
        type=Seconds(min=0.1),
        default=3.0,
        show_default=True,
        metavar="SECONDS",
        help="How long each peer has to answer.",
    )


asked_options = options(_peer_option, _answer_timeout("--timeout"), key_options, token_option)
peer_options = options(_peer_option, _answer_timeout("--timeout"), format_option, key_options, token_option)
# Of a command whose --timeout is how long it waits for a job.
waiting_options = options(
    _peer_option, _answer_timeout("--peer-timeout"), format_option, key_options, token_option
)


def split_addresses(addresses: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in addresses.split(",") if part.strip())


def key_source(directory: Path | None, cluster: str | None, token: str | None) -> KeySource:
    from p2p.key_source import KeySource

    return KeySource(directory=directory, cluster=cluster, token=token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which swarm, and by which peers: what the options of a command about jobs say.

    Attributes:
        peer: their addresses.
        timeout: how long each has to answer, in seconds.
        keys, cluster, token: see `key_source`.
    """

    peer: str
    timeout: float
    keys: Path | None
    cluster: str | None
    token: str | None

    def client(self) -> JobClient:
        """Return a client of that swarm.

        Raises:
            PeerError: there are no such keys.
        """
        from p2p.job_client import JobClient

        keys = key_source(self.keys, self.cluster, self.token).load().keys
        return JobClient(keys, split_addresses(self.peer), timeout_s=self.timeout)


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON list with a row a line, for programs and for grep."""
    import json

    click.echo("[" + ",\n ".join(json.dumps(row) for row in rows) + "]")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    cells = [[str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in [list(columns), *cells]) for place in range(len(columns))]
    for line in [list(columns), *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
