"""In- and out-degree of every node of a directed graph.

ringreduce run degrees edges.txt -o degrees

The input has an edge a line, `from` and `to` divided by white space; lines that begin with # are comments.
An edge that is there twice counts twice.
"""

from collections.abc import Iterable, Iterator

from mapreduce import Job

Degrees = tuple[int, int]  # edges that come in, edges that go out


def edge_of(line: str) -> tuple[str, str] | None:
    """Return the two ends of the edge on this line, None for a comment or an empty line."""
    if line.startswith("#") or not line.strip():
        return None
    source, target = line.split()
    return source, target


def mapper(line: str) -> Iterator[tuple[str, Degrees]]:
    edge = edge_of(line)
    if edge is not None:
        source, target = edge
        yield source, (0, 1)
        yield target, (1, 0)


def reducer(node: str, degrees: Iterable[Degrees]) -> Iterator[tuple[str, Degrees]]:
    incoming = outgoing = 0
    for more_incoming, more_outgoing in degrees:
        incoming += more_incoming
        outgoing += more_outgoing
    yield node, (incoming, outgoing)


job = Job(mapper=mapper, combiner=reducer, reducer=reducer, name="degrees")

if __name__ == "__main__":
    job.main()
