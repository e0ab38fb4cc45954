"""Pages, bytes and media types of a web crawl, by host and by status.

ringreduce run crawl_summary crawl.warc.gz -o summary

Reads WARC files (ISO 28500; the drafts before 1.0 are alike), plain or compressed.  A page is one HTTP
response; its bytes are those of its body as it was sent, without header lines.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from http.client import HTTPMessage, parse_headers
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from mapreduce import Job, reader, task

Record = tuple[HTTPMessage, bytes]
Key = tuple[str, str | int]
Summary = dict[str, Any]


@reader
def warc(file: BinaryIO) -> Iterator[Record]:
    """Yield the header and the content of each record."""
    while version := file.readline():
        if not version.strip():
            continue  # two empty lines stand between records
        if not version.startswith(b"WARC/"):
            raise ValueError(f"no WARC record begins with {version[:40]!r}")
        header = parse_headers(file)
        length = int(header["Content-Length"])
        content = file.read(length)
        if len(content) < length:
            raise ValueError(f"the file ends {length - len(content)} bytes before its last record does")
        yield header, content


def mapper(record: Record) -> Iterator[tuple[Key, Summary]]:
    header, content = record
    if header["WARC-Type"] != "response" or not header["Content-Type"].startswith("application/http"):
        return  # a request, a note of the crawler, an answer of the name service
    response = BytesIO(content)
    status_line = response.readline().split()
    if len(status_line) < 2 or not status_line[1].isdigit():
        task.counters["responses without a status"] += 1
        return
    media_type = parse_headers(response).get("Content-Type", "none").partition(";")[0].strip().lower()
    page = {"pages": 1, "bytes": len(response.read()), "media_types": {media_type: 1}}
    # Some crawlers write the address in angle brackets.
    yield ("host", urlsplit(header["WARC-Target-URI"].strip("<>")).hostname or ""), page
    yield ("status", int(status_line[1])), page


def reducer(key: Key, summaries: Iterable[Summary]) -> Iterator[tuple[Key, Summary]]:
    pages = size_bytes = 0
    media_types: Counter[str] = Counter()
    for summary in summaries:
        pages += summary["pages"]
        size_bytes += summary["bytes"]
        media_types.update(summary["media_types"])
    yield key, {"pages": pages, "bytes": size_bytes, "media_types": dict(sorted(media_types.items()))}


job = Job(mapper=mapper, combiner=reducer, reducer=reducer, reader=warc, name="crawl_summary")

if __name__ == "__main__":
    job.main()
