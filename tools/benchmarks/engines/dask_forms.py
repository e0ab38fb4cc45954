"""Dask: bags for words, dataframes for tables, on a local cluster with a process a processor.

As the documentation teaches: `frequencies` counts the items of a bag; a group-by on a bag is to be avoided
for `foldby` or for a dataframe; blocks of tens of megabytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client, LocalCluster

from tools.benchmarks.engines.forms import DAMPING, PAGERANK_ROUNDS, WORKERS, Clock, Form, answer

BLOCK_BYTES = 32 << 20
RECORD_BYTES = 100


def write(frame: Any, out: Path) -> None:
    """Write a dataframe's columns as key, tab and value."""
    out.mkdir(exist_ok=True)
    frame.to_csv(str(out / "part-*"), sep="\t", header=False, index=False, quoting=3, quotechar="\x01")


def wordcount(inputs: list[str], out: Path) -> None:
    counts = db.read_text(inputs, blocksize=BLOCK_BYTES).str.split().flatten().frequencies()
    counts.map(lambda pair: f"{pair[0]}\t{pair[1]}").to_textfiles(str(out / "part-*"))


def inverted_index(inputs: list[str], out: Path) -> None:
    def words_of(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return list({(word, os.path.basename(path)) for line, path in pairs for word in line.split()})

    words = db.read_text(inputs, blocksize=BLOCK_BYTES, include_path=True).map_partitions(words_of)
    index = words.foldby(
        lambda pair: pair[0],
        lambda found, pair: {*found, pair[1]},
        frozenset(),
        lambda one, other: {*one, *other},
        frozenset(),
    )
    index.map(line_of).to_textfiles(str(out / "part-*"))


def line_of(pair: tuple[str, set[str]]) -> str:
    documents = '", "'.join(sorted(pair[1]))
    return f'{pair[0]}\t["{documents}"]'


def log_lines(inputs: list[str]) -> Any:
    # The combined log format is a table with blanks between its columns.
    frame = dd.read_csv(
        inputs,
        sep=" ",
        header=None,
        usecols=[0, 5, 7],
        names=["client", "request", "size"],
        na_values="-",
        dtype={"client": "string", "request": "string", "size": "float64"},
        blocksize=BLOCK_BYTES,
    )
    return frame.assign(url=frame["request"].str.split(" ", n=2, expand=False).str[1])


def log_hits(inputs: list[str], out: Path) -> None:
    hits = log_lines(inputs).groupby("url").agg({"request": "size", "size": "sum"}).reset_index()
    pairs = "[" + hits["request"].astype(str) + ", " + hits["size"].astype("int64").astype(str) + "]"
    write(hits.assign(pairs=pairs)[["url", "pairs"]], out)


def log_visitors(inputs: list[str], out: Path) -> None:
    write(log_lines(inputs).groupby("url")["client"].nunique().reset_index(), out)


def join(inputs: list[str], out: Path) -> None:
    customers, orders = (
        dd.read_csv(path, header=None, names=names, dtype="string", blocksize=BLOCK_BYTES)
        for path, names in zip(
            inputs, (["customer", "name", "city"], ["order", "customer", "amount", "item"]), strict=True
        )
    )
    rows = orders.merge(customers, on="customer")
    told = (
        '["' + rows["name"] + '", "' + rows["city"] + '", "' + rows["amount"] + '", "' + rows["item"] + '"]'
    )
    write(rows.assign(row=told)[["order", "row"]], out)


def records_from(piece: tuple[str, int, int]) -> pd.DataFrame:
    path, start, end = piece
    with open(path, "rb") as file:
        file.seek(start)
        # Each byte as the character of its number: columns of text sort as the bytes would.
        data = file.read(end - start).decode("latin-1")
    return pd.DataFrame(
        {"record": [data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)]}
    )


def write_records(frame: pd.DataFrame, number: int, out: str) -> int:
    with open(os.path.join(out, f"part-{number:05}"), "wb") as file:
        file.write("".join(frame["record"]).encode("latin-1"))
    return len(frame)


def sort(inputs: list[str], out: Path) -> None:
    out.mkdir()
    step = BLOCK_BYTES // RECORD_BYTES * RECORD_BYTES
    pieces = [
        (os.path.abspath(path), start, min(start + step, os.path.getsize(path)))
        for path in inputs
        for start in range(0, os.path.getsize(path), step)
    ]
    records = dd.from_map(records_from, pieces).sort_values("record")
    task = dask.delayed(write_records)
    dask.compute([task(part, number, str(out)) for number, part in enumerate(records.to_delayed())])


def pagerank(inputs: list[str], out: Path) -> None:
    edges = dd.read_csv(
        inputs, sep="\t", header=None, names=["source", "target"], dtype="string", blocksize=BLOCK_BYTES
    )
    edges = edges.drop_duplicates().persist()
    degrees = edges.groupby("source").size().rename("degree").reset_index()
    links = edges.merge(degrees, on="source").persist()
    nodes = (
        dd.concat([edges["source"], edges["target"]]).drop_duplicates().rename("node").to_frame().persist()
    )
    count = len(nodes)
    linked = degrees.rename(columns={"source": "node"})[["node"]].assign(linked=True).persist()
    nodes = nodes.merge(linked, on="node", how="left").persist()
    ranks = nodes.assign(rank=1 / count).persist()
    for _ in range(PAGERANK_ROUNDS):
        dangling = ranks["rank"].where(ranks["linked"].isna(), 0.0).sum().compute()
        for_all = (1 - DAMPING + DAMPING * dangling) / count
        given = links.merge(ranks[["node", "rank"]], left_on="source", right_on="node")
        given = given.assign(given=given["rank"] / given["degree"])
        received = given.groupby("target")["given"].sum().reset_index().rename(columns={"target": "node"})
        ranks = nodes.merge(received, on="node", how="left")
        ranks = ranks.assign(rank=for_all + DAMPING * ranks["given"].fillna(0.0)).persist()
    write(ranks[["node", "rank"]], out)


FORMS: dict[str, Form] = {
    "wordcount": wordcount,
    "inverted-index": inverted_index,
    "sort": sort,
    "log-hits": log_hits,
    "log-visitors": log_visitors,
    "join": join,
    "pagerank": pagerank,
}

if __name__ == "__main__":
    clock = Clock()
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        clock.ready()
        answer(FORMS, clock)
