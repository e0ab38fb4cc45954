"""Each example against an oracle of a few lines, on data made here and on real data where it is at hand.

Real data is a folder with books/, logs/, graph/ and crawl/: the one that RINGREDUCE_DATA names, else
../shared/data beside the repository.  Each kind of data is looked for by itself.
"""

from __future__ import annotations

import gzip
import importlib
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapreduce import Job
from mapreduce.examples import (
    EXAMPLES,
    crawl_summary,
    degrees,
    inverted_index,
    join,
    log_hits,
    log_visitors,
    pagerank,
    sort_records,
    top_words,
    total_sort,
    wordcount,
)

REPOSITORY = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("RINGREDUCE_DATA") or REPOSITORY.parent / "shared" / "data")


def found(kind: str) -> list[Path]:
    folder = REAL_DATA / kind
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def on_made_and_found(kind: str) -> pytest.MarkDecorator:
    """Run a test on files made by the fixture `made_<kind>`, and on the files found, if there are any."""
    return pytest.mark.parametrize("source", ["made", "found"] if found(kind) else ["made"])


def run(job: Job, inputs: Iterable[Path], **options: Any) -> list[tuple[Any, Any]]:
    return list(job.run([str(path) for path in inputs], **options))


def lines_of(paths: Iterable[Path]) -> list[str]:
    """All lines in the order of the paths, with universal line ends and without a byte order mark."""
    texts = [path.read_text(encoding="utf-8-sig") for path in paths]
    return [line for text in texts if text for line in text.removesuffix("\n").split("\n")]


# --- words ------------------------------------------------------------------------------------------


@pytest.fixture
def books(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    if request.getfixturevalue("source") == "found":
        return found("books")
    rng = random.Random(11)
    vocabulary = [chr(rng.randrange(97, 123)) * rng.randrange(1, 6) for _ in range(60)] + [
        "Ça",
        "ça",
        "Ω",
        "-",
    ]
    paths = []
    for number, (mark, end) in enumerate([("", "\n"), ("\ufeff", "\r\n"), ("", "\n"), ("", "\n")]):
        lines = [" ".join(rng.choices(vocabulary, k=rng.randrange(12))) for _ in range(300)]
        text = mark + end.join(lines) + (end if number % 2 else "")
        paths.append(tmp_path / f"book-{number}.txt")
        paths[-1].write_bytes(text.encode())
    return paths


@on_made_and_found("books")
def test_wordcount_counts_like_a_counter(books: list[Path], source: str) -> None:
    oracle = Counter(word.lower() for line in lines_of(books) for word in line.split())
    counts = run(wordcount.job, books)
    assert dict(counts) == oracle
    assert len(counts) == len(oracle)


@on_made_and_found("books")
def test_top_words_come_in_order_of_frequency_then_of_letters(books: list[Path], source: str) -> None:
    counts = Counter(word.lower() for line in lines_of(books) for word in line.split())
    ranking = sorted(counts.items(), key=lambda count: (-count[1], count[0]))
    assert run(top_words.job(), books) == ranking[:10]
    assert run(top_words.job(k=33), books) == ranking[:33]


def test_top_words_of_less_than_k_words_are_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("b a\na c\nc b\n")
    assert run(top_words.job(), [tmp_path / "few.txt"]) == [("a", 2), ("b", 2), ("c", 2)]


def test_less_than_one_top_word_is_refused() -> None:
    with pytest.raises(ValueError, match="k=-3 must be at least 1"):
        top_words.job(k=-3)


@on_made_and_found("books")
@pytest.mark.parametrize("split_size", [10_000, 32 << 20])
def test_inverted_index_names_each_document_once(books: list[Path], source: str, split_size: int) -> None:
    if source == "found":
        split_size *= 20
    oracle = defaultdict(list)
    for book in sorted(books):
        for word in set(book.read_text(encoding="utf-8-sig").split()):
            oracle[word].append(str(book))
    assert dict(run(inverted_index.job, books, split_bytes=split_size)) == oracle


@on_made_and_found("books")
@pytest.mark.parametrize("partitions", [1, 5])
def test_total_sort_is_what_sorted_gives(books: list[Path], source: str, partitions: int) -> None:
    assert run(total_sort.job, books, partitions=partitions) == [
        (line, None) for line in sorted(lines_of(books))
    ]


# --- records and tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 4])
def test_sort_records_sorts_by_the_first_ten_bytes_and_keeps_the_order_of_equals(
    tmp_path: Path, partitions: int
) -> None:
    rng = random.Random(5)
    keys = [rng.randbytes(10) for _ in range(500)]
    records = [rng.choice(keys) + number.to_bytes(8, "big") + rng.randbytes(82) for number in range(2000)]
    (tmp_path / "records.dat").write_bytes(b"".join(records))
    result = run(sort_records.job, [tmp_path / "records.dat"], partitions=partitions, split_bytes=30_000)
    assert [key + rest for key, rest in result] == sorted(records, key=lambda record: record[:10])


def test_join_puts_each_order_beside_its_customer(tmp_path: Path) -> None:
    customers, orders = tmp_path / "customers.csv", tmp_path / "orders.csv"
    customers.write_text('customer_id,name\nc1,"Ada, Countess"\nc2,Grace\nc3,Nobody\n')
    orders.write_text(
        "order_id,customer_id,item\n"
        + "".join(f"o{n},c{n % 2 + 1},item {n}\n" for n in range(40))
        + "o40,c9,?\n"
    )
    names = {"c1": "Ada, Countess", "c2": "Grace"}
    oracle = {
        f"o{n}": {
            "order_id": f"o{n}",
            "customer_id": f"c{n % 2 + 1}",
            "name": names[f"c{n % 2 + 1}"],
            "item": f"item {n}",
        }
        for n in range(40)
    }
    for inputs in ([customers, orders], [orders, customers]):
        result = join.job.run([str(path) for path in inputs], split_bytes=100)
        assert dict(result) == oracle
        assert result.counters["orders of unknown customers"] == 1


# --- web logs ---------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    if request.getfixturevalue("source") == "found":
        return found("logs")
    rng = random.Random(3)
    path = tmp_path / "access.log"
    with path.open("w") as log:
        for _ in range(2000):
            client = f"10.0.0.{rng.randrange(30)}"
            request_line = f"GET /page/{rng.randrange(25)}?q=%20 HTTP/1.1"
            size = rng.choice(["-", str(rng.randrange(9000))])
            log.write(
                f'{client} - - [17/May/2015:10:05:03 +0000] "{request_line}" 200 {size} '
                '"http://example.org/" "Agent (\\"quoted\\")"\n'
            )
    return [path]


def requests_in(logs: list[Path]) -> list[tuple[str, str, int]]:
    """(client, url, bytes) of every line, by another way than the example's."""
    requests = []
    for line in lines_of(logs):
        before, request, after = line.split('"')[:3]
        size = after.split()[1]
        requests.append((before.split()[0], request.split()[1], 0 if size == "-" else int(size)))
    return requests


@on_made_and_found("logs")
def test_log_hits_adds_up_hits_and_bytes_by_url(logs: list[Path], source: str) -> None:
    oracle: dict[str, tuple[int, int]] = {}
    for _, url, size in requests_in(logs):
        hits, size_bytes = oracle.get(url, (0, 0))
        oracle[url] = (hits + 1, size_bytes + size)
    assert {url: tuple(sums) for url, sums in run(log_hits.job, logs)} == oracle


@on_made_and_found("logs")
def test_log_visitors_counts_each_client_once_a_url(logs: list[Path], source: str) -> None:
    clients = defaultdict(set)
    for client, url, _ in requests_in(logs):
        clients[url].add(client)
    oracle = {url: len(visitors) for url, visitors in clients.items()}
    assert dict(run(log_visitors.job, logs, split_bytes=100_000)) == oracle


def test_lines_that_are_no_log_lines_are_counted_and_odd_requests_stand_for_themselves(
    tmp_path: Path,
) -> None:
    stamp = "[17/May/2015:10:05:03 +0000]"
    (tmp_path / "odd.log").write_text(
        f'h1 - - {stamp} "GET /a HTTP/1.1" 200 5\n'  # common format: no referrer, no agent
        f'h1 - J. [Doe] {stamp} "GET /a HTTP/1.1" 304 -\n'
        f'h2 - - {stamp} "GET /\\"b\\" HTTP/1.1" 404 7 "-" "-"\n'
        f'h3 - - {stamp} "-" 408 - "-" "-"\n'
        "half a li\n"
        "\n"
    )
    result = log_hits.job.run([str(tmp_path / "odd.log")])
    assert {url: tuple(sums) for url, sums in result} == {"/a": (2, 5), '/\\"b\\"': (1, 7), "-": (1, 0)}
    assert result.counters["lines left out"] == 2


# --- graphs -----------------------------------------------------------------------------------------


@pytest.fixture
def graph(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    if request.getfixturevalue("source") == "found":
        return found("graph")
    rng = random.Random(8)
    edges = [f"n{rng.randrange(40)}\tn{rng.randrange(70)}" for _ in range(400)]  # 30 nodes without links
    edges += ["n1\tn1", edges[0]]  # a node that links to itself, an edge that is there twice
    (tmp_path / "edges.txt").write_text("# from\tto\r\n" + "\r\n".join(edges) + "\r\n\r\n")
    return [tmp_path / "edges.txt"]


def edges_in(graph: list[Path]) -> list[tuple[str, str]]:
    pairs = [line.split() for line in lines_of(graph) if line and line[0] != "#"]
    return [(source, target) for source, target in pairs]


@on_made_and_found("graph")
def test_degrees_count_both_ends_of_every_edge(graph: list[Path], source: str) -> None:
    incoming = Counter(target for _, target in edges_in(graph))
    outgoing = Counter(source for source, _ in edges_in(graph))
    oracle = {node: (incoming[node], outgoing[node]) for node in incoming | outgoing}
    assert {node: tuple(both) for node, both in run(degrees.job, graph)} == oracle


def power_iteration(edges: list[tuple[str, str]], rounds: int, damping: float) -> dict[str, float]:
    links: dict[str, set[str]] = {node: set() for edge in edges for node in edge}
    for source, target in edges:
        links[source].add(target)
    ranks = dict.fromkeys(links, 1 / len(links))
    for _ in range(rounds):
        dangling = sum(ranks[node] for node in links if not links[node])
        following = dict.fromkeys(links, (1 - damping + damping * dangling) / len(links))
        for node, targets in links.items():
            for target in targets:
                following[target] += damping * ranks[node] / len(targets)
        ranks = following
    return ranks


@on_made_and_found("graph")
@pytest.mark.parametrize(("rounds", "damping"), [(1, 0.85), (7, 0.6)])
def test_pagerank_is_the_power_iteration_with_dangling_rank_given_to_all(
    graph: list[Path], source: str, rounds: int, damping: float
) -> None:
    ranks = dict(run(pagerank.job(rounds, damping), graph))
    assert ranks == pytest.approx(power_iteration(edges_in(graph), rounds, damping), rel=1e-9)
    assert sum(ranks.values()) == pytest.approx(1)


@pytest.mark.parametrize("source", ["made"])
def test_pagerank_is_the_same_to_the_last_bit_for_any_partitions_and_splits(
    graph: list[Path], source: str
) -> None:
    def job(partitions: int) -> Job:
        job = pagerank.job(3)
        steps = {name: replace(step, partitions=partitions) for name, step in job.steps.items()}
        return Job(steps=steps, params=job.params)

    ranks = [
        sorted(run(job(partitions), graph, split_bytes=split_size))
        for partitions, split_size in [(1, 32 << 20), (13, 500), (4, 1000), (pagerank.BLOCKS, 300)]
    ]
    assert ranks[0] == ranks[1] == ranks[2] == ranks[3]


def test_pagerank_of_a_graph_smaller_than_its_blocks_works(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a b\n")
    ranks = dict(run(pagerank.job(rounds=100), [tmp_path / "two.txt"]))
    assert ranks == pytest.approx({"a": 1 / 2.85, "b": 1.85 / 2.85})


def test_pagerank_refuses_to_go_no_round() -> None:
    with pytest.raises(ValueError, match="rounds=0"):
        pagerank.job(rounds=0)


# --- a crawl ----------------------------------------------------------------------------------------


def warc_record(version: str, kind: str, content: bytes, uri: str, media_type: str) -> bytes:
    head = f"WARC/{version}\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n\r\n"


def made_crawl(version: str) -> tuple[list[bytes], dict[Any, Any]]:
    """Records of a small crawl and the summary that belongs to it."""
    rng = random.Random(17)
    records, pages = [], []
    for number in range(60):
        host, status = rng.choice(["a.org", "b.org", "b.org:8080"]), rng.choice([200, 200, 404])
        media = rng.choice(["text/html; charset=UTF-8", "TEXT/HTML", "image/png", None])
        body = rng.randbytes(rng.randrange(3000)) + b"\r\n\r\nWARC/1.0\r\n"  # looks like a record, is none
        head = f"HTTP/1.1 {status} So\r\nX-Number: {number}\r\n"
        head += f"content-type: {media}\r\n" if media else ""
        uri = f"http://{host}/{number}"
        kinds = "application/http; msgtype=response", "application/http; msgtype=request"
        records.append(warc_record(version, "response", f"{head}\r\n".encode() + body, uri, kinds[0]))
        records.append(warc_record(version, "request", b"GET / HTTP/1.1\r\n\r\n", uri, kinds[1]))
        records.append(warc_record(version, "response", b"127.0.0.1", f"dns:{host}", "text/dns"))
        pages.append(
            (host.split(":")[0], status, media.split(";")[0].lower() if media else "none", len(body))
        )
    return records, summary_of(pages)


def summary_of(pages: Iterable[tuple[str, int, str, int]]) -> dict[Any, Any]:
    summary: dict[Any, Any] = {}
    for host, status, media, size in pages:
        for key in (("host", host), ("status", status)):
            row = summary.setdefault(key, {"pages": 0, "bytes": 0, "media_types": Counter()})
            row["pages"] += 1
            row["bytes"] += size
            row["media_types"][media] += 1
    return summary


@pytest.mark.parametrize("version", ["0.17", "1.0", "1.1"])
@pytest.mark.parametrize("packing", ["plain", "one gzip member", "a gzip member a record"])
def test_crawl_summary_reads_warc_of_any_version_and_packing(
    tmp_path: Path, version: str, packing: str
) -> None:
    records, oracle = made_crawl(version)
    if packing == "plain":
        path, content = tmp_path / "crawl.warc", b"".join(records)
    elif packing == "one gzip member":
        path, content = tmp_path / "crawl.warc.gz", gzip.compress(b"".join(records))
    else:
        path, content = tmp_path / "crawl.warc.gz", b"".join(map(gzip.compress, records))
    path.write_bytes(content)
    assert dict(run(crawl_summary.job, [path], split_bytes=4096)) == oracle


@pytest.fixture
def crawl(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    if request.getfixturevalue("source") == "found":
        return found("crawl")
    (tmp_path / "crawl.warc.gz").write_bytes(b"".join(map(gzip.compress, made_crawl("1.0")[0])))
    return [tmp_path / "crawl.warc.gz"]


def pages_in(data: bytes) -> Iterable[tuple[str, int, str, int]]:
    """(host, status, media type, bytes) of every page, by another way than the example's."""
    at = 0
    while at < len(data):
        head = data[at : data.index(b"\r\n\r\n", at)]
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        start, length = at + len(head) + 4, int(fields[b"Content-Length"])
        at = start + length + 4
        uri = fields.get(b"WARC-Target-URI", b"")
        if fields[b"WARC-Type"] == b"response" and uri.startswith(b"http"):
            http, _, body = data[start : start + length].partition(b"\r\n\r\n")
            lines = http.decode("latin-1").split("\r\n")
            media = [line.split(":", 1)[1] for line in lines if line.lower().startswith("content-type:")]
            named = media[0].split(";")[0].strip().lower() if media else "none"
            yield uri.split(b"/")[2].split(b":")[0].decode(), int(lines[0].split()[1]), named, len(body)


@on_made_and_found("crawl")
def test_crawl_summary_agrees_with_a_plain_parser(crawl: list[Path], source: str) -> None:
    contents = [gzip.decompress(path.read_bytes()) for path in crawl]
    oracle = summary_of(page for content in contents for page in pages_in(content))
    assert dict(run(crawl_summary.job, crawl)) == oracle


# --- the list ---------------------------------------------------------------------------------------


def test_every_example_is_listed_and_every_listed_example_has_a_job_and_its_command_line() -> None:
    folder = REPOSITORY / "mapreduce" / "examples"
    assert set(EXAMPLES) == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    for name in EXAMPLES:
        module = importlib.import_module(f"mapreduce.examples.{name}")
        assert isinstance(module.job, Job) or isinstance(module.job(), Job)
        assert f"\nringreduce run {name} " in (module.__doc__ or "")
