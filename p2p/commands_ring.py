"""The commands of the ring itself: peers, questions to them, keys.

Only click and the console are imported here; what a command needs is imported when it runs, because most
of them are over in a fraction of a second.  Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mapreduce.console import Command
from p2p.command_options import (
    DEFAULT_ADDRESS,
    format_option,
    key_options,
    key_source,
    peer_options,
    print_json,
    print_table,
    split_addresses,
    token_option,
)

if TYPE_CHECKING:
    from membership.view import Member
    from p2p.client import Client
    from p2p.ring_questions import Happened, Story

__all__ = ["init", "keys", "members", "monitor", "peer", "scrub", "swarm", "token", "where", "why"]


class _Repeatable(click.Option):
    """An option that may be given several times, and in the settings file once, without a list around it."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Let one string stand for a list of one."""
        return super().type_cast_value(ctx, [value] if isinstance(value, str) else value)


# ---- peers ------------------------------------------------------------


@click.command(cls=Command, short_help="Start a peer; SIGTERM makes it leave.")
@click.option(
    "--listen",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="ADDR",
    help="Where to serve; port 0: any.",
)
@click.option(
    "--join",
    cls=_Repeatable,
    multiple=True,
    metavar="ADDR",
    help="A peer to join through; repeatable, may be down.",
)
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Keeps the peer's name and data."
)
@click.option("--slots", type=int, help="Tasks at a time [default: the number of processors].")
@click.option("--zone", default="", help="Failure domain; copies go to other zones.")
@click.option(
    "--weight", type=int, default=1, show_default=True, help="Share of the ring, relative to others."
)
@click.option(
    "--profile", type=click.Choice(["local", "lan", "wan"]), help="[default: local on loopback, else lan]"
)
@click.option("--advertise", metavar="ADDR", help="What others connect to, where it is not --listen.")
@click.option(
    "--bulk-port", type=click.IntRange(0, 65_535), default=0, help="Port for data [default: any free one]."
)
@key_options
@token_option
@click.option("--lifeline", type=int, hidden=True)
@click.option("--die-with-parent", is_flag=True, hidden=True)
def peer(
    listen: str,
    join: Sequence[str],
    data: Path | None,
    slots: int | None,
    zone: str,
    weight: int,
    profile: str | None,
    advertise: str | None,
    bulk_port: int,
    keys: Path | None,
    cluster: str | None,
    token: str | None,
    lifeline: int | None,
    die_with_parent: bool,
) -> int:
    """Start a peer.

    It prints 'ready ADDR NODE-ID' once it serves, and runs until SIGTERM or Ctrl-C, when it leaves the ring
    gracefully.  On loopback the cluster's keys are made at the first start; elsewhere see 'ringreduce init'.
    """
    from p2p.config import PeerConfig
    from p2p.runner import run_peer

    config = PeerConfig.from_text(
        listen=listen,
        join=tuple(part for text in join for part in split_addresses(text)),
        advertise=advertise,
        bulk_port=bulk_port,
        data=data,
        slots=slots,
        zone=zone,
        weight=weight,
        profile=profile,
        keys=key_source(keys, cluster, token),
    )
    return run_peer(config, lifeline=lifeline, die_with_parent=die_with_parent)


@click.command(cls=Command, short_help="Start N local peers under one process.")
@click.argument("count", metavar="N", type=click.IntRange(1, 256))
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Each peer gets a directory in it."
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port of the first peer [default: 7700 if it is free]."
)
@click.option("--slots", type=int, help="Tasks at a time of each peer [default: the number of processors].")
@click.option("--quiet", is_flag=True, help="Drop what the peers write to stderr.")
@key_options
def swarm(
    count: int,
    data: Path | None,
    port: int | None,
    slots: int | None,
    quiet: bool,
    keys: Path | None,
    cluster: str | None,
) -> int:
    """Start N peers on this machine.

    Each prints its 'ready ADDR NODE-ID'.  They run until this command
    ends, by Ctrl-C or SIGTERM, and end with it.
    """
    from p2p.swarm_command import run_swarm

    options = []
    for name, value in (("--keys", keys), ("--cluster", cluster), ("--slots", slots)):
        if value is not None:
            options += [name, str(value)]
    return run_swarm(count, data=data, port=port, options=options, quiet=quiet)


# ---- questions ------------------------------------------------------------


@click.command(cls=Command, short_help="Who is in the ring.")
@peer_options
def members(format: str, **where_to: Any) -> None:
    """Show the members as a peer sees them.

    In JSON the row of the peer that answered also holds what it has refused, by kind, and its other counters.
    """
    from p2p.questions import AskMembers, MembersAre

    with _client(**where_to) as client:
        answer = client.ask(AskMembers(number=0), MembersAre)
    rows = [_row(member) for member in answer.members]
    if format == "json":
        for row in rows:
            if row["id"] == answer.me:
                row["refused"] = dict(answer.refused)
                row["counters"] = dict(answer.counters)
                row["health"] = answer.health
                row["cluster"] = answer.cluster
                row["ring_digest"] = answer.ring_digest.hex()
        print_json(rows)
        return
    for row in rows:
        row["marks"] = ",".join(name for name in ("full", "failing", "draining") if row[name])
    print_table(rows, ("id", "address", "status", "incarnation", "pid", "slots", "zone", "marks"))
    if answer.refused:
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(answer.refused.items()))
        click.echo(f"refused by {answer.me}: {told}", err=True)


@click.command(cls=Command, short_help="Which peers own a key.")
@click.argument("key")
@click.option("--count", type=click.IntRange(1, 1_024), default=3, show_default=True, help="How many owners.")
@peer_options
def where(key: str, count: int, format: str, **where_to: Any) -> None:
    """Show the owners of KEY, nearest first, and why it is them."""
    from p2p.ring_questions import AskWhere, WhereIs

    with _client(**where_to) as client:
        answer = client.ask(AskWhere(number=0, key=key, count=count), WhereIs)
    rows = [{"rank": rank, **_row(member)} for rank, member in enumerate(answer.owners, start=1)]
    if format == "json":
        print_json(rows)
        return
    print_table(rows, ("rank", "id", "address", "status", "zone"))
    click.echo()
    for line in answer.explanation:
        click.echo(line)


@click.command(cls=Command, short_help="Why a member is believed alive, suspect or dead.")
@click.argument("node", metavar="NODE")
@peer_options
def why(node: str, format: str, **where_to: Any) -> int:
    """Tell the story of NODE as a peer knows it: who suspected it, who confirmed, who refuted, and when.

    NODE is a node id or its beginning.
    """
    from mapreduce.errors import UsageError
    from p2p.ring_questions import AskWhy, WhyIs

    if not node:
        raise UsageError("NODE is empty: give a node id or its beginning; 'ringreduce members' shows them")
    with _client(**where_to) as client:
        answer = client.ask(AskWhy(number=0, node=node), WhyIs)
    if format == "json":
        print_json([{**_row(story.member), "history": _history(story)} for story in answer.stories])
    else:
        for story in answer.stories:
            _tell(story)
    if not answer.stories:
        click.echo(f"error: no member's id begins with {node!r}", err=True)
        return 2
    return 0


@click.command(cls=Command, short_help="Follow membership events.")
@peer_options
def monitor(format: str, **where_to: Any) -> None:
    """Print membership events as a peer sees them, one a line, until Ctrl-C."""
    import time

    with _client(**where_to) as client:
        told = 0
        for event in client.watch():
            if event.event != "watching" and event.sequence > told + 1:
                click.echo(f"{event.sequence - told - 1} events were missed", err=True)
            told = event.sequence
            if format == "json":
                click.echo(json.dumps({"time": time.time(), **_event_row(event)}))
            else:
                stamp = time.strftime("%H:%M:%S")
                by = f" by {', '.join(event.by)}" if event.by else ""
                click.echo(f"{stamp} {event.event} {event.node} {event.address} @{event.incarnation}{by}")
            sys.stdout.flush()


@click.command(cls=Command, short_help="Check every byte that lies on the ring.")
@peer_options
def scrub(format: str, **where_to: Any) -> int:
    """Have all peers read through what they hold now, which each does once an hour in any case.

    What is damaged is removed and comes again from another holder.  Peers read at the pace of repairs.
    """
    from mapreduce.console import interruptible
    from p2p.errors import NoPeerReached
    from p2p.questions import AskMembers, MembersAre
    from p2p.scrub_client import scrub_all

    rows: list[dict[str, Any]] = []
    with interruptible(), _client(**where_to) as client:
        answer = client.ask(AskMembers(number=0), MembersAre)
        for member in sorted(answer.members, key=lambda member: member.id):
            if member.status not in ("alive", "suspect"):  # a suspect holds what it holds
                continue
            row: dict[str, Any] = {"id": member.id, "address": member.address}
            try:
                with _client(**{**where_to, "peer": member.address}) as its:
                    told = scrub_all(its)
                row |= {"checked": told.checked, "damaged": told.damaged}
            except NoPeerReached as error:
                row |= {"checked": None, "damaged": None}
                click.echo(f"warning: {error}", err=True)
            rows.append(row)
    if format == "json":
        print_json(rows)
    else:
        print_table(rows, ("id", "address", "checked", "damaged"))
    return 3 if any(row["checked"] is None for row in rows) else 0


# ---- keys ------------------------------------------------------------


@click.command(cls=Command, short_help="Make, or bring, the cluster's keys.")
@key_options
@click.option("--token", metavar="TOKEN|-", help="Take the keys from a token; '-' reads it from stdin.")
def init(keys: Path | None, cluster: str | None, token: str | None) -> int:
    """Make the keys of a new cluster, or take those of an existing one from a token.

    Where the cluster runs, 'ringreduce token' prints the token.  Keys that lie there already are
    never changed.
    """
    from p2p import keys as key_files
    from p2p.zmq_transport import new_key_pair

    if token == "-":
        token = sys.stdin.read(key_files.MAX_TOKEN_CHARS + 1)
    if token is None:
        made = key_files.generate(cluster or key_files.DEFAULT_CLUSTER, new_key_pair)
    else:
        made = key_source(None, cluster, token).load().keys
    directory = key_source(keys, made.cluster, None).path
    path = directory / key_files.KEY_FILE
    if not key_files.store(made, directory):
        click.echo(
            f"error: {path} is there already: remove it first, or name another --cluster or --keys", err=True
        )
        return 2
    click.echo(path)
    return 0


@click.command(cls=Command, short_help="Print a token that lets others in.")
@click.option(
    "--role",
    type=click.Choice(["peer", "submit", "observe"]),
    default="peer",
    show_default=True,
    help="What its holder may do: join as a peer, hand in jobs, or only look.",
)
@click.option("--peer", default="", metavar="ADDR[,ADDR…]", help="Addresses for the newcomer to begin with.")
@key_options
def token(role: str, peer: str, keys: Path | None, cluster: str | None) -> None:
    """Print a token on stdout.  It holds secret keys: pass it on as you would a password."""
    from p2p.addresses import parse_address
    from p2p.keys import Token
    from p2p.roles import Role

    wanted = Role.from_label(role)
    assert wanted is not None, "click has checked the choice"
    addresses = tuple(str(parse_address(address)) for address in split_addresses(peer))
    held = key_source(keys, cluster, None).load().keys
    click.echo(Token(held.restricted_to(wanted), addresses).to_text())


@click.command(cls=Command, short_help="List the cluster's keys.")
@format_option
@key_options
@token_option
def keys(format: str, keys: Path | None, cluster: str | None, token: str | None) -> None:
    """List the keys: the public halves, and of which role the secret half is here."""
    source = key_source(keys, cluster, token)
    held = source.load().keys
    pairs = {"ring": held.ring, **{role.label: pair for role, pair in sorted(held.roles.items())}}
    rows = [
        {"cluster": held.cluster, "role": name, "public": pair.public, "secret": pair.secret is not None}
        for name, pair in pairs.items()
    ]
    if format == "json":
        print_json(rows)
        return
    print_table(rows, ("cluster", "role", "public", "secret"))


# ---- shared ------------------------------------------------------------


def _client(
    *,
    peer: str,
    timeout: float,
    keys: Path | None,
    cluster: str | None,
    token: str | None,
) -> Client:
    from p2p.client import Client

    return Client(key_source(keys, cluster, token).load().keys, split_addresses(peer), timeout_s=timeout)


def _row(member: Member) -> dict[str, Any]:
    from mapreduce.placement import DRAINING, FAILING, FULL

    return {
        "id": member.id,
        "address": member.address,
        "status": member.status.value,
        "incarnation": member.incarnation,
        "pid": member.pid,
        "slots": member.slots,
        "full": any(name == FULL for name, _ in member.meta),
        "failing": any(name == FAILING for name, _ in member.meta),
        "draining": any(name == DRAINING for name, _ in member.meta),
        "zone": member.zone,
        "weight": member.weight,
        "session": member.session,
        "meta": dict(member.meta),
    }


def _event_row(event: Happened) -> dict[str, Any]:
    return {
        "event": event.event,
        "id": event.node,
        "address": event.address,
        "incarnation": event.incarnation,
        "by": list(event.by),
    }


def _history(story: Story) -> list[dict[str, Any]]:
    return [
        {
            "age_s": round(step.age_s, 3),
            "cause": step.cause.value,
            "by": list(step.by),
            "status": step.status.value,
            "incarnation": step.incarnation,
        }
        for step in story.steps
    ]


def _tell(story: Story) -> None:
    member = story.member
    click.echo(f"{member.id} at {member.address} is {member.status.value} @{member.incarnation}")
    for step in story.steps:
        by = f" by {', '.join(step.by)}" if step.by else ""
        click.echo(
            f"  {step.age_s:8.1f} s ago  {step.cause.value}{by}: {step.status.value} @{step.incarnation}"
        )
