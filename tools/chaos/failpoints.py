"""Every named moment of a job's life × {kill, stop, cut}, and where the disk is written to × {eio, slow}:
`python -m tools.chaos failpoints`.

Theory
------
One *round* is one combination.  A swarm of real peers, all started with the variable that lets failpoints be
armed, waits; the round writes the file that arms one of them (`mapreduce.failpoints`), submits a small job
from a client process, follows it with a second one that fetches the result into a directory, and meanwhile
does what an operator would: a peer that was stopped is resumed after `STOP_S`, one that was killed is started
again on its data, a client that was killed is started again.

Then the *claims*: the failpoint fired, once, in the process that left the proof; every command ended in time
with code 0; the parts are byte for byte the embedded engine's; the counters are exact; all peers agree that
all are alive; no half-written file and no outputs of the job but its result lie anywhere.

Some moments only come after a loss: for these the round kills the job's leader when the first tasks are
committed, and starts it again once others have noticed.

⚙ This module starts processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mapreduce.failpoints import VARIABLE
from tools.chaos import proc
from tools.chaos.chaos_peer import PeerState, PeerWouldNotStart
from tools.chaos.faults import Place
from tools.chaos.moments import AFTER_A_LOSS, IN_CHILDREN, OFTEN
from tools.chaos.naps import NapSwarm

__all__ = ["ArmedLoopback", "Outcome", "Rounds", "run_failpoints"]

STOP_S: Final = 10.0
CUT_S: Final = 4.0
SLOW_S: Final = 0.5
NOTICED_S: Final = 2.5  # after so long a killed peer is known to be dead (the local profile)
ROUND_LIMIT_S: Final = 45.0
SETTLE_LIMIT_S: Final = 20.0
FIRE_LIMIT_S: Final = 12.0  # after the end of the job: leaders linger before they let go
NAP_S: Final = 0.08
LONG_NAP_S: Final = 0.4


class ArmedLoopback:
    """Surroundings: loopback, and the file that may arm failpoints.

    Args:
        armed: the file.
    """

    name = "armed loopback"

    def __init__(self, armed: Path) -> None:
        self._armed = armed

    def place(self, number: int) -> Place:  # noqa: ARG002 - all the same
        """See `Surroundings.place`."""
        return Place(environment=((VARIABLE, str(self._armed)),))

    def client_prefix(self) -> tuple[str, ...]:
        """See `Surroundings.client_prefix`."""
        return ()

    def close(self) -> None:
        """See `Surroundings.close`."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a round ended.

    Attributes:
        hit: the failpoint was to fire at the so-manieth arrival.
        who: what fired, as "peer 2", "a child of peer 2" or "client".
        took_s: from submission to the fetched result.
        wrong: every claim that did not hold; empty: the round was right.
    """

    name: str
    action: str
    hit: int
    who: str = ""
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if not self.wrong else "WRONG: " + "; ".join(self.wrong)
        return (
            f"{self.name}={self.action}@{self.hit} in {self.who or 'nobody'}, {self.took_s:.1f} s: {verdict}"
        )


@dataclass(slots=True, eq=False)
class _Round:
    """What is known of the round that runs."""

    outcome: Outcome
    began_at: float
    process: subprocess.Popen[bytes]
    job: str = ""
    commands: int = 0
    fired_at: float = 0.0
    fired_pid: int = 0
    resume_at: float = 0.0
    ended_at: float = 0.0
    loss_is_due: bool = False
    restart_at: dict[int, float] = field(default_factory=dict)
    hurt: set[int] = field(default_factory=set)


class Rounds(NapSwarm):
    """A swarm on which rounds run one after the other.  Use it as a context manager.

    Args:
        directory: an empty one, removed at the end.
        peers: how many.
        replicas: R of the jobs.
        seed: chooses which arrival is hurt.

    Raises:
        PeerWouldNotStart: a peer did not come up.
    """

    def __init__(self, directory: Path, *, peers: int, replicas: int, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._armed = directory / "armed"
        super().__init__(
            directory,
            ArmedLoopback(self._armed),
            peers=peers,
            replicas=replicas,
            seed=seed,
            variables=((VARIABLE, str(self._armed)),),
        )

    # ---- a round ---------------------------------------------------------------------------------------

    def run(self, name: str, action: str) -> Outcome:
        """Run one combination; nothing is raised for what goes wrong in it."""
        hit = self.rng.randint(1, 3) if name in OFTEN else 1
        outcome = self._attempted(Outcome(name=name, action=action, hit=hit))
        if not outcome.who and hit > 1:  # it did not come so often this time
            outcome = self._attempted(Outcome(name=name, action=action, hit=1))
        return outcome

    def _attempted(self, outcome: Outcome) -> Outcome:
        self._arm(outcome)
        now = time.monotonic()
        is_long = outcome.name in AFTER_A_LOSS
        one = _Round(outcome, now, self.submit(LONG_NAP_S if is_long else NAP_S), loss_is_due=is_long)
        try:
            self._see_through(one, now + ROUND_LIMIT_S)
            outcome.took_s = (one.ended_at or time.monotonic()) - one.began_at
            self._tidy(one)
            if not outcome.wrong:
                self._check(one)
        except PeerWouldNotStart as error:
            outcome.wrong.append(str(error))
        finally:
            self._end(one)
        return outcome

    def _arm(self, outcome: Outcome) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._armed}.fired")
        seconds = {"cut": f":{CUT_S:g}", "slow": f":{SLOW_S:g}"}.get(outcome.action, "")
        self._write_armed(f"{outcome.name}={outcome.action}{seconds}@{outcome.hit}")

    def _write_armed(self, text: str) -> None:
        beside = self._armed.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self._armed)

    def _see_through(self, one: _Round, deadline: float) -> None:
        """Do what is due until the result is fetched, and the failpoint has fired and is over."""
        wait_until = deadline
        while time.monotonic() < min(deadline, wait_until):
            time.sleep(0.02)
            self._look_after_peers(one)
            self._look_for_proof(one)
            if one.ended_at:
                if one.fired_at and not one.resume_at:
                    return
                wait_until = one.ended_at + FIRE_LIMIT_S
                continue
            if one.loss_is_due and one.job:
                self._lose_the_leader(one)
            if one.process.poll() is not None:
                self._next_command(one)
        if not one.ended_at:
            one.outcome.wrong.append(f"no result after {ROUND_LIMIT_S:g} s ({self._state_of(one)})")

    def _next_command(self, one: _Round) -> None:
        """A client command has ended: what comes after it?"""
        assert one.process.stdout is not None
        said = one.process.stdout.read().decode("utf-8", "replace").strip()
        code = one.process.returncode
        one.process.stdout.close()
        was_ours = one.process.pid == one.fired_pid
        if not one.job:
            if code != 0:
                one.outcome.wrong.append(f"submit ended with code {code}: {said[-300:]}")
                one.ended_at = time.monotonic()
                return
            one.job = said.splitlines()[-1]
            one.process = self._attach(one)
        elif code == -signal.SIGKILL and was_ours:
            one.process = self._attach(one)
        else:
            one.ended_at = time.monotonic()
            if code != 0:
                one.outcome.wrong.append(f"attach ended with code {code}: {said[-300:]}")

    def _look_for_proof(self, one: _Round) -> None:
        now = time.monotonic()
        if one.resume_at and now >= one.resume_at:
            one.resume_at = 0.0
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.fired_pid, signal.SIGCONT)
        if one.fired_at:
            return
        try:
            pid, name, action = Path(f"{self._armed}.fired").read_text().split()
        except (FileNotFoundError, ValueError):
            return
        assert (name, action) == (one.outcome.name, one.outcome.action), "the proof is another round's"
        one.fired_at, one.fired_pid = now, int(pid)
        one.outcome.who = self._who(one, int(pid))
        if action == "stop":
            one.resume_at = now + STOP_S
        elif action == "cut":
            one.resume_at = now + CUT_S  # nothing to do then but to look again

    def _who(self, one: _Round, pid: int) -> str:
        for peer in self.cluster.peers:
            if peer.process is not None and peer.pid == pid:
                one.hurt.add(peer.number)
                return f"peer {peer.number}"
            if peer.process is not None and pid in proc.descendants(peer.pid):
                return f"a child of peer {peer.number}"
        # One that was killed is no child of anybody any more.
        return "a child" if one.outcome.name in IN_CHILDREN else "client"

    def _look_after_peers(self, one: _Round) -> None:
        """Start again whom the failpoint killed: when others have noticed, or the job needs it no more."""
        now = time.monotonic()
        for peer in self.cluster.poll():
            one.hurt.add(peer.number)
            one.restart_at[peer.number] = now + NOTICED_S
        for number, due in list(one.restart_at.items()):
            if now >= due:
                del one.restart_at[number]
                self.cluster.restart(self.cluster.peers[number])

    def _lose_the_leader(self, one: _Round) -> None:
        """Kill the leader when the first tasks are committed."""
        view = self.view(one.job)
        if view is None or sum(stage.done for stage in view.stages) < 2:
            return
        one.loss_is_due = False
        peer = self.cluster.by_id(view.leader)
        if peer is None or not peer.serves:
            return
        self.cluster.kill(peer, "so that somebody takes over")
        one.hurt.add(peer.number)
        one.restart_at[peer.number] = time.monotonic() + NOTICED_S

    # ---- claims ----------------------------------------------------------------------------------------

    def _tidy(self, one: _Round) -> None:
        """Undo what the round did, and wait until the ring is whole."""
        # A disk that fails goes on failing until something else is armed: what never comes.
        self._write_armed(f"publish.mark=slow@{1 << 30}")
        if one.resume_at:
            time.sleep(max(0.0, one.resume_at - time.monotonic()))
            self._look_for_proof(one)
        for peer in self.cluster.peers:
            if peer.state is PeerState.DOWN:
                self.cluster.restart(peer)
        self.cluster.await_ready([p for p in self.cluster.peers if p.state is PeerState.STARTING])
        if self.settled_after_s(SETTLE_LIMIT_S) < 0:
            one.outcome.wrong.append(f"the peers do not agree after {SETTLE_LIMIT_S:g} s that all are alive")

    def _check(self, one: _Round) -> None:
        wrong = one.outcome.wrong
        if not one.outcome.who:
            wrong.append("the failpoint never fired")
        wrong += self.mistakes(self._output(one), self._report(one))
        left = self._awaited(lambda: list(self._left_behind(one)), FIRE_LIMIT_S)
        if left:
            wrong.append(f"left behind: {', '.join(left[:6])}")

    def _left_behind(self, one: _Round) -> Iterator[str]:
        """What lies about that nobody needs any more."""
        for peer in self.cluster.peers:
            for path in peer.data.rglob("*"):
                where = f"peer {peer.number}: {path.relative_to(peer.data)}"
                is_work = path.parent.name == "jobs" and path.name == one.job
                is_output = path.suffix == ".seg" and path.parent.name == one.job
                is_kept = path.name.partition(".")[0] in ("-1", "1")  # the spec, and the parts
                # One that was down when the job ended keeps what it has until the job's time is over.
                is_excused = is_kept or peer.number in one.hurt
                if path.suffix == ".tmp" or is_work or (is_output and not is_excused):
                    yield where
        for path in self.cluster.temporary().iterdir():
            yield f"temporary {path.name}"

    def _awaited(self, look: Callable[[], list[str]], limit_s: float) -> list[str]:
        """Look again until nothing is found; return what is found at last."""
        deadline = time.monotonic() + limit_s
        while (found := look()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _end(self, one: _Round) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._armed.unlink()
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGKILL)
            one.process.wait()
        if one.process.stdout is not None:
            one.process.stdout.close()
        for number in range(one.commands):
            shutil.rmtree(self.directory / f"out-{number + 1}", ignore_errors=True)

    # ---- clients ---------------------------------------------------------------------------------------

    def _attach(self, one: _Round) -> subprocess.Popen[bytes]:
        one.commands += 1
        return self.attach(one.job, self._output(one), self._report(one))

    def _output(self, one: _Round) -> Path:
        return self.directory / f"out-{one.commands}"

    def _report(self, one: _Round) -> Path:
        return self.directory / f"report-{one.commands}.json"

    def _state_of(self, one: _Round) -> str:
        view = self.view(one.job) if one.job else None
        if view is None:
            return f"job {one.job[:12] or 'not submitted'}, nobody knows more"
        done = ", ".join(f"{stage.name} {stage.done}/{stage.total}" for stage in view.stages)
        return f"job {one.job[:12]} {view.state}: {done}"


def run_failpoints(
    rounds: Sequence[tuple[str, str]],
    directory: Path,
    *,
    swarms: int,
    peers: int,
    replicas: int,
    seed: int,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Run combinations on several swarms side by side.

    Args:
        rounds: (name, action) of each.
        directory: for everything; made, and removed at the end.
        tell: called with each outcome as it is known, from one thread at a time.

    Returns:
        All outcomes, in no particular order.

    Raises:
        PeerWouldNotStart: a swarm did not come up.
    """
    waiting = list(reversed(rounds))
    outcomes: list[Outcome] = []
    failures: list[BaseException] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        try:
            with Rounds(directory / f"{number}", peers=peers, replicas=replicas, seed=seed + number) as swarm:
                while not failures:
                    with lock:
                        if not waiting:
                            return
                        name, action = waiting.pop()
                    outcome = swarm.run(name, action)
                    with lock:
                        outcomes.append(outcome)
                        tell(outcome)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(swarms)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt as error:
        failures.append(error)
        for thread in threads:
            thread.join()
    shutil.rmtree(directory, ignore_errors=True)
    if failures:
        raise failures[0]
    return outcomes
