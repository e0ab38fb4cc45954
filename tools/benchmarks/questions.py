"""What is asked of every side: seven questions and a tiny one, each with its input and our job for it.

Counting, inverting, sorting and going through logs are the jobs of the MapReduce paper (Dean and Ghemawat,
OSDI 2004); a join of two tables and PageRank are what people came to do next.  Word count is asked in both
forms that we teach, one pair a word and a batch mapper; the others answer both alike.

PageRank goes through its input once a round, so it gets a part of the size that is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PAGERANK_ROUNDS = 5
DAMPING = 0.85
JOBS = "tools/bench_jobs.py"
STARTUP = "startup"


class Answers(Enum):
    """How two answers are compared."""

    LINES = "the same lines in any order"
    ORDERED = "the same bytes in the same order"
    NEARLY = "the same keys, each with nearly the same number"  # sums of floats in another order


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of the comparison.

    Attributes:
        title: for people.
        kind: of its input, see `tools.bench_inputs`.
        job: what `ringreduce run` and `submit` are given as JOB, from the repository's directory on.
        asked: the name that scripts and engines know the question by.
        options: what our command gets besides.
        answers: how answers are compared.
        share: of the size that is asked for.
    """

    title: str
    kind: str
    job: str
    asked: str
    options: tuple[str, ...] = ()
    answers: Answers = Answers.LINES
    share: float = 1.0


QUESTIONS = {
    STARTUP: Question(
        title="a job of ten lines", kind="lines", job=f"{JOBS}:wordcount", asked="wordcount", share=0.0
    ),
    "wordcount": Question(
        title="word count, a pair a word", kind="text", job=f"{JOBS}:wordcount", asked="wordcount"
    ),
    "wordcount-batch": Question(
        title="word count, batch mapper", kind="text", job=f"{JOBS}:wordcount_batch", asked="wordcount"
    ),
    "inverted-index": Question(
        title="inverted index", kind="text", job=f"{JOBS}:inverted_index", asked="inverted-index"
    ),
    "sort": Question(
        title="total sort",
        kind="sort",
        job=f"{JOBS}:sort",
        asked="sort",
        options=("--out-format", "msgpack"),
        answers=Answers.ORDERED,
    ),
    "log-hits": Question(title="log hits", kind="logs", job=f"{JOBS}:log_hits", asked="log-hits"),
    "log-visitors": Question(
        title="distinct users", kind="logs", job=f"{JOBS}:log_visitors", asked="log-visitors"
    ),
    "join": Question(title="join of two tables", kind="tables", job=f"{JOBS}:join", asked="join"),
    "pagerank": Question(
        title=f"PageRank, {PAGERANK_ROUNDS} rounds",
        kind="graph",
        job="pagerank",
        asked="pagerank",
        options=("--param", f"rounds={PAGERANK_ROUNDS}", "--param", f"damping={DAMPING}"),
        answers=Answers.NEARLY,
        share=1 / 8,
    ),
}
