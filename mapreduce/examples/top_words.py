"""The k most frequent words, most frequent first; equally frequent words by their letters.

ringreduce run top_words books/ --param k=20

The first step is the word count.  In the second, every map task keeps its own k best (the combiner), so
that the only reduce task chooses among k words a task, however many words there are.
"""

from collections.abc import Iterable, Iterator
from heapq import nsmallest

from mapreduce import Job, Step, task
from mapreduce.examples.wordcount import job as wordcount

Count = tuple[str, int]


def under_one_key(word: str, count: int) -> Iterator[tuple[None, Count]]:
    yield None, (word, count)


def most_frequent(counts: Iterable[Count]) -> list[Count]:
    return nsmallest(int(task.params["k"]), counts, key=lambda count: (-count[1], count[0]))


def keep_best(_: None, counts: Iterable[Count]) -> Iterator[tuple[None, Count]]:
    for word, count in most_frequent(counts):
        yield None, (word, count)


def in_order(_: None, counts: Iterable[Count]) -> Iterator[Count]:
    yield from most_frequent(counts)


def job(k: int = 10) -> Job:
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    top = Step(
        mapper=under_one_key,
        combiner=keep_best,
        reducer=in_order,
        partitions=1,
        after=(wordcount.last_step,),
    )
    return Job(steps={**wordcount.steps, "top": top}, name="top_words", params={"k": k})


if __name__ == "__main__":
    job().main()
