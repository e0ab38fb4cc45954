"""All lines in order: each part is sorted, and everything in a part comes before everything in the next.

ringreduce run total_sort books/ -o sorted

`TotalOrder` looks at a sample of the input and draws the borders between parts so that they come out about
equally large.  The reducer `identity` passes each line on as often as it occurs.
"""

from collections.abc import Iterator

from mapreduce import Job, TotalOrder, identity


def mapper(line: str) -> Iterator[tuple[str, None]]:
    yield line, None


job = Job(mapper=mapper, reducer=identity, partitioner=TotalOrder(), name="total_sort")

if __name__ == "__main__":
    job.main()
