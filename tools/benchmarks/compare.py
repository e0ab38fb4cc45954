"""Everybody answers the same questions on the same machine in the same hour, and the answers must agree.

*Rounds.*  Within a round the sides take turns, and each round begins with another, so that a noisy minute
does not fall on one of them.

*Answers* are compared after every run, untimed, with the first that was given: as a set of lines, in order,
or nearly, see `questions.Answers`.  A side that gives another answer ends the benchmark; another engine that
fails, or is not done within the limit, is left out of the question, and said so.

⚙ This module runs processes and writes files.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tools.bench_measure import CommandFailed, TookTooLong
from tools.bench_output import Answer, digest
from tools.benchmarks.questions import QUESTIONS, Answers, Question
from tools.benchmarks.results import Recovery, Results
from tools.benchmarks.sides import Side
from tools.benchmarks.strikes import Strike

# Sums of the same floats in different orders differ in their last digits, and rounds add to that.
NEARLY = 1e-9
# A kill comes when so much of the job's usual time is over.
KILL_AT = 0.5
NOTE_CHARS = 100


class AnswersDiffer(Exception):
    """Two sides gave different answers to the same question."""


Numbers = dict[str, float]


class Agreement:
    """Holds each answer to a question against the first.

    Args:
        question: what was asked.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._first: tuple[str, Answer | Numbers] | None = None

    def hold(self, side: str, out: Path, *, packed: bool) -> None:
        """Take another answer.

        Args:
            side: whose.
            out: the directory with its parts.
            packed: records are the keys of msgpack pairs, where order counts.

        Raises:
            AnswersDiffer: it is not what the first said.
        """
        answer: Answer | Numbers
        match self._question.answers:
            case Answers.NEARLY:
                answer = numbers(out)
            case Answers.ORDERED:
                answer = digest(out, ordered=True, packed=packed)
            case Answers.LINES:
                answer = digest(out, ordered=False)
        if self._first is None:
            self._first = side, answer
            return
        first_side, first = self._first
        if isinstance(answer, dict) and isinstance(first, dict):
            difference = difference_of(first, answer)
        else:
            difference = "" if answer == first else f"{answer}, not {first}"
        if difference:
            raise AnswersDiffer(f"{self._question.title}: {side} and {first_side} differ: {difference}")


def numbers(out: Path) -> Numbers:
    """Return the numbers in an output of keys, tabs and numbers."""
    found: Numbers = {}
    for part in sorted(out.glob("part-*")):
        with part.open(encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition("\t")
                found[key] = float(json.loads(value))
    return found


def difference_of(first: Numbers, other: Numbers) -> str:
    """Return how two answers of numbers differ, "" where they nearly agree."""
    if first.keys() != other.keys():
        key = min(first.keys() ^ other.keys())
        return f"{len(other)} keys, not {len(first)}; {key!r} is in one of them only"
    for key, value in first.items():
        if not math.isclose(value, other[key], rel_tol=NEARLY):
            return f"{key!r} has {other[key]!r}, not {value!r}"
    return ""


def compare(
    name: str,
    inputs: Sequence[Path],
    sides: Sequence[Side],
    rounds: int,
    out: Path,
    results: Results,
    say: Callable[[str], None],
    *,
    kill: bool = False,
) -> None:
    """Ask one question of all sides, some rounds.

    Args:
        name: of the question.
        inputs: its files, all in one directory.
        sides: who is asked; those that know no answer are passed over.
        rounds: how often each.
        out: a directory that does not exist, for one answer at a time.
        results: takes the runs.
        say: takes a line for each run.
        kill: after the rounds, kill each side's worker in the middle of a job, and then its coordinator.

    Raises:
        CommandFailed: a side of ours did not end well.
        AnswersDiffer: they do not agree.
    """
    question = QUESTIONS[name]
    able = [side for side in sides if question.asked not in side.cannot]
    agreement = Agreement(question)
    for number in range(rounds):
        for side in turned(able, number):
            try:
                run = side.answer(question, inputs, out)
                agreement.hold(side.name, out, packed=side.packs_records)
            except CommandFailed as error:
                if not side.is_foreign:
                    raise
                able.remove(side)
                results.left_out.append(f"{side.name} is left out of {question.title}: {last_words(error)}")
                say(results.left_out[-1])
                continue
            finally:
                shutil.rmtree(out, ignore_errors=True)
            results.add(name, side.name, run)
            say(f"{name} {side.name}: {run.job_s:.2f} s, {run.cpu_s:.2f} s of processor time")
    for side in able if kill else ():
        for victim in side.victims:
            undisturbed_s = median(run.job_s for run in results.runs[name][side.name])
            recovery = struck(name, side, inputs, out, agreement, victim, undisturbed_s)
            results.recoveries.append(recovery)
            say(f"{name} {side.name}, {victim} killed: {recovery.wall_s:.2f} s {recovery.note}")


def turned(sides: Sequence[Side], number: int) -> list[Side]:
    """Return the sides in the order of a round: each round begins with another one."""
    place = number % len(sides) if sides else 0
    return [*sides[place:], *sides[:place]]


def struck(
    name: str,
    side: Side,
    inputs: Sequence[Path],
    out: Path,
    agreement: Agreement,
    victim: str,
    undisturbed_s: float,
) -> Recovery:
    """Ask once more and kill a process in the middle.

    Args:
        name: of the question.
        side: who is asked.
        inputs, out: see `compare`.
        agreement: what the others said.
        victim: one of the side's.
        undisturbed_s: what the job takes otherwise.

    Raises:
        CommandFailed: the side did not end well, though nothing was killed.
        AnswersDiffer: an answer came, but a wrong one.
    """
    strike = Strike(victim=victim, after_s=KILL_AT * undisturbed_s)
    survived, note = True, ""
    try:
        run = side.answer(QUESTIONS[name], inputs, out, strike)
        wall_s = run.job_s
        agreement.hold(side.name, out, packed=side.packs_records)
    except CommandFailed as error:
        if not strike.struck:
            raise  # it failed by itself
        wall_s = time.monotonic() - strike.began_s
        survived, note = False, last_words(error)
    finally:
        strike.clear_up()
        shutil.rmtree(out, ignore_errors=True)
    if not strike.struck:
        note = "not killed: the job was over"
    return Recovery(
        question=name,
        side=side.name,
        victim=victim,
        undisturbed_s=undisturbed_s,
        wall_s=wall_s,
        survived=survived,
        note=note,
    )


def last_words(error: CommandFailed) -> str:
    """Return the last line that a command printed, or how it ended where it printed nothing."""
    if isinstance(error, TookTooLong):
        told = str(error)
        return told[told.rfind("not done") :]
    ended, _, printed = str(error).partition(":\n")
    said = printed.strip().rpartition("\n")[2]
    return (said or "it " + ended[ended.rfind("ended with") :])[:NOTE_CHARS]
