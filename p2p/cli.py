"""The `ringreduce` command: a table of commands, each imported when it is called.

A command's module may be slow to import (sockets, tables), and most calls need one command only.  So the
table below holds what `--help` shows, and nothing else is imported for it.

Exit codes are those of `mapreduce.console`.
"""

from __future__ import annotations

import gc
import importlib
from dataclasses import dataclass

import click

from mapreduce.console import Guarded
from mapreduce.spelling import closest


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is not imported yet.

    Attributes:
        place: "module:attribute" of the click command.
        help: its line in `ringreduce --help`; the command's own `short_help` says the same.
    """

    place: str
    help: str


# In the order in which help shows them: what a newcomer needs first, first.
COMMANDS: dict[str, Lazy] = {
    "run": Lazy("mapreduce.command:run", "Run a job on this machine's cores."),
    "submit": Lazy("p2p.commands_submit:submit", "Run a job on a swarm."),
    "peer": Lazy("p2p.commands_ring:peer", "Start a peer; SIGTERM makes it leave."),
    "swarm": Lazy("p2p.commands_ring:swarm", "Start N local peers under one process."),
    "jobs": Lazy("p2p.commands_jobs:jobs", "List the jobs of a swarm."),
    "status": Lazy("p2p.commands_jobs:status", "How a job is."),
    "attach": Lazy("p2p.commands_jobs:attach", "Follow a job, and fetch its result."),
    "result": Lazy("p2p.commands_jobs:result", "Fetch a finished job's result."),
    "cancel": Lazy("p2p.commands_jobs:cancel", "End a job."),
    "logs": Lazy("p2p.commands_jobs:logs", "What user code of a job has printed."),
    "put": Lazy("p2p.commands_files:put", "Put files on the ring."),
    "get": Lazy("p2p.commands_files:get", "Fetch files of the ring."),
    "ls": Lazy("p2p.commands_files:ls", "List the files of the ring."),
    "rm": Lazy("p2p.commands_files:rm", "Remove files of the ring."),
    "demo": Lazy("p2p.demo:demo", "A swarm loses its leader in the midst of a job."),
    "members": Lazy("p2p.commands_ring:members", "Who is in the ring."),
    "where": Lazy("p2p.commands_ring:where", "Which peers own a key."),
    "why": Lazy("p2p.commands_ring:why", "Why a member is believed alive, suspect or dead."),
    "monitor": Lazy("p2p.commands_ring:monitor", "Follow membership events."),
    "scrub": Lazy("p2p.commands_ring:scrub", "Check every byte that lies on the ring."),
    "init": Lazy("p2p.commands_ring:init", "Make, or bring, the cluster's keys."),
    "token": Lazy("p2p.commands_ring:token", "Print a token that lets others in."),
    "keys": Lazy("p2p.commands_ring:keys", "List the cluster's keys."),
}


class LazyGroup(Guarded, click.Group):
    """A group whose commands are those of `COMMANDS`."""

    # click calls these with a context that a fixed table has no use for.
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if there is none of that name."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or say what was probably meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(_unknown(name), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])


def _unknown(name: str) -> str:
    from mapreduce.finding import example_named

    if name.endswith(".py") or example_named(name):
        return f"there is no command {name!r}; to run it as a job: ringreduce run {name} INPUT…"
    return f"there is no command {name!r}{closest(name, COMMANDS)}"


cli = LazyGroup(
    name="ringreduce",
    help="MapReduce on a ring of equal peers: on this machine's cores, or on a swarm without a master.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"ringreduce {version('ringreduce')}")
        ctx.exit()


cli.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_version,
        help="Show the version and exit.",
    )
)


def main() -> None:
    """Run the command line as a process; never returns."""
    try:
        cli.main(prog_name="ringreduce")
    finally:
        # The interpreter collects all that is left before it ends: 15 ms for what the system frees at once.
        gc.freeze()


if __name__ == "__main__":
    main()
