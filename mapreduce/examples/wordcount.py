"""How often every word occurs, without regard to case.

ringreduce run wordcount books/ -o counts
"""

from collections.abc import Iterable, Iterator

from mapreduce import Job


def mapper(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word.lower(), 1


def reducer(word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
    yield word, sum(counts)


# Adding up may be done early and often, so the reducer serves as the combiner too.
job = Job(mapper=mapper, combiner=reducer, reducer=reducer, name="wordcount")

if __name__ == "__main__":
    job.main()
