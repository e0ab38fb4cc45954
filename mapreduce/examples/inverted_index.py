"""For every word the sorted list of the documents it stands in.

ringreduce run inverted_index books/ -o index

The mapper takes a few MiB of a document at a time: a word that occurs there a thousand times is written
once.  A long document still comes in many pieces, in many tasks even, so the reducer makes its list from
a set.
"""

from collections.abc import Iterable, Iterator

from mapreduce import Job, batch, task


@batch("text")
def mapper(text: str) -> Iterator[tuple[str, str]]:
    document = task.input_path
    for word in set(text.split()):
        yield word, document


def combiner(word: str, documents: Iterable[str]) -> Iterator[tuple[str, str]]:
    for document in sorted(set(documents)):
        yield word, document


def reducer(word: str, documents: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    yield word, sorted(set(documents))


job = Job(mapper=mapper, combiner=combiner, reducer=reducer, name="inverted_index")

if __name__ == "__main__":
    job.main()
