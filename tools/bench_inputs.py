"""The benchmark's inputs: the same bytes for the same size and seed, made once and kept.

TEXT is any folder of books, copied again and again until it is large enough.  Mere copies would have the
vocabulary of one: a word count's memory would stop growing after the first copy, which no real text does.
So in every copy the books come in another order, their lines are shuffled, and in some lines one word
gets a rare ending; 256 MB of English books come out at about 45 million words, a million of them
distinct.  Without books, Python's own standard library serves.

SORT has records of 100 bytes that begin with 10 random bytes, as in Jim Gray's sort benchmark.  The
rest is a row number and filler, so that records compress as real ones do.

LOGS has lines in the combined format.  URLs and clients follow Zipf's law; their numbers grow with the
size.

TABLES are two without headings, customers and orders, of which every hundredth is of a customer nobody knows.
Customers make up two fifths of the bytes, so that neither table fits where only a small one would.

GRAPH has an edge a line, from and to.  Whom edges point at follows Zipf's law; one node in ten points at
nobody.

LINES are ten, of whatever size.

⚙ This module reads and writes files.
"""

from __future__ import annotations

import json
import random
import shutil
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate, islice, repeat
from multiprocessing import get_context
from pathlib import Path

FORMAT = 1  # of what the generators write: raise it when they change, and old files are made anew
TEXT_DOCUMENTS = 32
RECORD_BYTES = 100
KEY_BYTES = 10
BYTES_PER_URL = 4_000
BYTES_PER_CLIENT = 1_000
CUSTOMERS_SHARE = 0.4
ORDERS_PER_STRANGER = 100
BYTES_PER_NODE = 160
NODES_PER_DANGLING = 10
# One line in so many gets a word that is not in the books, from so many endings.
LINES_PER_NEW_WORD = 3
ENDINGS = 5_000
# The standard library is this large or larger; more of it would only take longer to read.
MAX_FALLBACK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What to make.

    Attributes:
        kind: "text", "sort", "logs", "tables", "graph" or "lines".
        size_bytes: how much, to within one record.
        seed: of everything random in it.
        books: the folder that text is made of; "" for Python's standard library.  Unused otherwise.
    """

    kind: str
    size_bytes: int
    seed: int = 1
    books: str = ""


def make(spec: InputSpec, cache: Path) -> list[Path]:
    """Return the files of an input, made now if they are not in the cache.

    Args:
        spec: what to make.
        cache: a directory; made if need be.

    Raises:
        ValueError: the folder of books has no text, or there is no such kind.
    """
    folder = cache / f"{spec.kind}-{spec.size_bytes}-{spec.seed}"
    manifest = folder / "manifest.json"
    wanted = {"format": FORMAT, **asdict(spec)}
    if not manifest.is_file() or json.loads(manifest.read_text())["spec"] != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = random.Random(spec.seed)
        match spec.kind:
            case "text":
                names = _write_text(folder, spec, rng)
            case "sort":
                names = _write_one(folder / "records.dat", sort_records(spec.size_bytes, rng))
            case "logs":
                names = _write_one(folder / "access.log", log_lines(spec.size_bytes, rng))
            case "tables":
                names = _write_tables(folder, spec.size_bytes, rng)
            case "graph":
                names = _write_one(folder / "edges.txt", edge_lines(spec.size_bytes, rng))
            case "lines":
                names = _write_one(folder / "words.txt", repeat(b"a few words, and a few more\n", 10))
            case _:
                raise ValueError(
                    f"there is no input {spec.kind!r}: it is text, sort, logs, tables, graph or lines"
                )
        # The manifest comes last: a folder without one was left unfinished.
        manifest.write_text(json.dumps({"spec": wanted, "files": names}))
    return [folder / name for name in json.loads(manifest.read_text())["files"]]


def made_apart(spec: InputSpec, cache: Path) -> list[Path]:
    """Make an input in a process of its own; see `make`.

    The kernel counts what a process held before it became another program: a harness that has grown
    by making inputs would show in the peak memory of every side.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(make, spec, cache).result()


def _write_one(path: Path, chunks: Iterator[bytes]) -> list[str]:
    with path.open("wb") as file:
        file.writelines(chunks)
    return [path.name]


def _write_text(folder: Path, spec: InputSpec, rng: random.Random) -> list[str]:
    lines = text_lines(read_books(spec.books), rng)
    names = []
    for number in range(TEXT_DOCUMENTS):
        quota = spec.size_bytes * (number + 1) // TEXT_DOCUMENTS - spec.size_bytes * number // TEXT_DOCUMENTS
        names.append(f"document-{number:02}.txt")
        with (folder / names[-1]).open("wb") as file:
            while quota > 0:
                line = next(lines)
                quota -= file.write(line)
    return names


def read_books(folder: str) -> list[list[str]]:
    """Return the books of a folder, each as its lines without line ends; "" is the standard library.

    Raises:
        ValueError: there are no words in it.
    """
    if folder:
        paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    else:
        paths = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*/*.py"))
    books, size_bytes = [], 0
    for path in paths:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        size_bytes += len(text)
        books.append(text.split("\n"))
        if not folder and size_bytes > MAX_FALLBACK_BYTES:
            break
    if not any(line.strip() for book in books for line in book):
        raise ValueError(f"{folder or 'the standard library'} holds no text to make a larger one of")
    return books


def text_lines(books: list[list[str]], rng: random.Random) -> Iterator[bytes]:
    """Yield lines of text without end; see the head of this file."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    endings = ["".join(rng.choices(letters, k=rng.randint(2, 4))) for _ in range(ENDINGS)]
    books = [list(book) for book in books]
    while True:
        rng.shuffle(books)
        for book in books:
            rng.shuffle(book)
            changed = list(book)
            for place in rng.choices(range(len(book)), k=len(book) // LINES_PER_NEW_WORD):
                words = book[place].split(" ")
                chosen = rng.randrange(len(words))
                if words[chosen]:
                    words[chosen] += rng.choice(endings)
                    changed[place] = " ".join(words)
            for line in changed:
                yield line.encode() + b"\n"


def sort_records(size_bytes: int, rng: random.Random) -> Iterator[bytes]:
    """Yield records until there are so many bytes."""
    filler = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for row in range(-(-size_bytes // RECORD_BYTES)):
        letter = row * 7 % 26
        tail = filler[letter : letter + 1] * (RECORD_BYTES - KEY_BYTES - 32)
        yield rng.randbytes(KEY_BYTES) + b"%032x" % row + tail


def log_lines(size_bytes: int, rng: random.Random) -> Iterator[bytes]:
    """Yield log lines until there are so many bytes."""
    topics = [f"{''.join(rng.choices('aeioulmnrst', k=7))}" for _ in range(200)]
    urls = [
        f"/{rng.choice(topics)}/{rng.choice(topics)}/{n}.html"
        for n in range(size_bytes // BYTES_PER_URL + 20)
    ]
    clients = [
        ".".join(str(rng.randrange(1, 255)) for _ in range(4))
        for _ in range(size_bytes // BYTES_PER_CLIENT + 9)
    ]
    agents = [
        f"Mozilla/5.0 (X11; Linux x86_64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(60, 130)
    ]
    url_weights, client_weights = zipf(len(urls), 1.0), zipf(len(clients), 0.7)
    written, second = 0, 0
    while written < size_bytes:
        some = 1000
        for url, client, agent, size in zip(
            rng.choices(urls, cum_weights=url_weights, k=some),
            rng.choices(clients, cum_weights=client_weights, k=some),
            rng.choices(agents, k=some),
            rng.choices(range(200, 90_000), k=some),
            strict=True,
        ):
            second += 1
            day, clock = 1 + second // 86_400 % 28, second % 86_400
            status, sent = (304, "-") if size % 10 == 0 else (200, size)
            stamp = f"{day:02}/May/2025:{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02} +0000"
            line = (
                f'{client} - - [{stamp}] "GET {url} HTTP/1.1" {status} {sent} '
                f'"https://example.org{urls[size % 20]}" "{agent}"\n'
            ).encode()
            written += len(line)
            yield line
            if written >= size_bytes:
                return


def _write_tables(folder: Path, size_bytes: int, rng: random.Random) -> list[str]:
    with (folder / "customers.csv").open("wb") as file:
        customers = 0
        quota = int(size_bytes * CUSTOMERS_SHARE)
        while quota > 0:
            name, city = ("".join(rng.choices("aeioulmnrst", k=length)) for length in (14, 9))
            quota -= file.write(f"c{customers:09},{name},{city}\n".encode())
            customers += 1
    with (folder / "orders.csv").open("wb") as file:
        quota = size_bytes - int(size_bytes * CUSTOMERS_SHARE)
        orders = 0
        while quota > 0:
            stranger = orders % ORDERS_PER_STRANGER == 0
            customer = customers if stranger else rng.randrange(customers)
            cents, item = rng.randrange(100, 1_000_000), rng.randrange(100_000)
            quota -= file.write(f"o{orders:09},c{customer:09},{cents / 100:.2f},item-{item}\n".encode())
            orders += 1
    return ["customers.csv", "orders.csv"]


def edge_lines(size_bytes: int, rng: random.Random) -> Iterator[bytes]:
    """Yield edges until there are so many bytes."""
    nodes = size_bytes // BYTES_PER_NODE + 20
    weights = zipf(nodes, 0.8)
    written = 0
    while written < size_bytes:
        some = 1000
        for source, target in zip(
            rng.choices(range(nodes), k=some),
            rng.choices(range(nodes), cum_weights=weights, k=some),
            strict=True,
        ):
            if source % NODES_PER_DANGLING == 0:
                continue
            line = f"n{source}\tn{target}\n".encode()
            written += len(line)
            yield line
            if written >= size_bytes:
                return


def zipf(count: int, exponent: float) -> list[float]:
    """Return the cumulative weights of ranks 1 … count under Zipf's law."""
    return list(islice(accumulate(rank**-exponent for rank in range(1, count + 1)), count))
