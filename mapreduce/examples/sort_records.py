"""Records of 100 bytes, sorted by the 10 bytes they begin with: the records of the sort benchmarks.

ringreduce run sort_records records.dat -o sorted --out-format msgpack

Records with equal keys stay in the order of the input.  The records are the ones of Jim Gray's sort benchmark
(sortbenchmark.org), which TeraSort sorts too.
"""

from collections.abc import Iterator

from mapreduce import FixedLength, Job, TotalOrder, identity

RECORD_BYTES = 100
KEY_BYTES = 10


def mapper(record: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield record[:KEY_BYTES], record[KEY_BYTES:]


job = Job(
    mapper=mapper,
    reducer=identity,
    partitioner=TotalOrder(),
    reader=FixedLength(RECORD_BYTES),
    name="sort_records",
)

if __name__ == "__main__":
    job.main()
