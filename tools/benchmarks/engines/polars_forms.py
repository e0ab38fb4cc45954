"""Polars: lazy queries on the streaming engine, sunk into a file (user guide, "Lazy API", "Streaming")."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tools.benchmarks.engines.forms import (
    CLIENT,
    DAMPING,
    PAGERANK_ROUNDS,
    SENT_SIZE,
    URL,
    Clock,
    Form,
    answer,
)


def lines_of(inputs: list[str]) -> pl.LazyFrame:
    # A table of one column is how the guide reads lines; this separator is in no text.
    return pl.scan_csv(
        inputs,
        has_header=False,
        separator="\x01",
        quote_char=None,
        schema={"line": pl.String},
        include_file_paths="document",
    )


def sink(frame: pl.LazyFrame, out: Path) -> None:
    out.mkdir()
    frame.sink_csv(out / "part-00000", include_header=False, separator="\t", quote_style="never")


def words_of(inputs: list[str]) -> pl.LazyFrame:
    words = pl.col("line").str.extract_all(r"\S+").alias("word")
    return lines_of(inputs).select(words, "document").explode("word").drop_nulls("word")


def wordcount(inputs: list[str], out: Path) -> None:
    sink(words_of(inputs).group_by("word").len(), out)


def inverted_index(inputs: list[str], out: Path) -> None:
    documents = pl.col("document").sort()
    index = words_of(inputs).unique().group_by("word").agg(documents)
    sink(index.select("word", pl.format('["{}"]', pl.col("document").list.join('", "'))), out)


def log_hits(inputs: list[str], out: Path) -> None:
    url = pl.col("line").str.extract(URL).alias("url")
    size = pl.col("line").str.extract(SENT_SIZE).cast(pl.Int64, strict=False).alias("size")
    hits = lines_of(inputs).select(url, size).group_by("url").agg(pl.len(), pl.col("size").sum())
    sink(hits.select("url", pl.format("[{}, {}]", "len", "size")), out)


def log_visitors(inputs: list[str], out: Path) -> None:
    url = pl.col("line").str.extract(URL).alias("url")
    client = pl.col("line").str.extract(CLIENT).alias("client")
    sink(lines_of(inputs).select(url, client).group_by("url").agg(pl.col("client").n_unique()), out)


def join(inputs: list[str], out: Path) -> None:
    customers, orders = (
        pl.scan_csv(path, has_header=False, schema=dict.fromkeys(names, pl.String))
        for path, names in zip(
            inputs,
            (("customer", "name", "city"), ("order", "customer", "amount", "item")),
            strict=True,
        )
    )
    joined = orders.join(customers, on="customer")
    row = pl.format('["{}", "{}", "{}", "{}"]', "name", "city", "amount", "item")
    sink(joined.select("order", row), out)


def pagerank(inputs: list[str], out: Path) -> None:
    schema = {"source": pl.String, "target": pl.String}
    edges = pl.scan_csv(inputs, has_header=False, separator="\t", schema=schema).unique().collect()
    nodes = pl.concat([edges["source"], edges["target"]]).unique().rename("node").to_frame()
    degrees = edges.group_by("source").len("degree")
    links = edges.join(degrees, on="source")
    ranks = nodes.with_columns(rank=pl.lit(1 / len(nodes)))
    for _ in range(PAGERANK_ROUNDS):
        linked = ranks.join(degrees, left_on="node", right_on="source", how="semi")["rank"].sum()
        for_all = (1 - DAMPING + DAMPING * (ranks["rank"].sum() - linked)) / len(nodes)
        received = (
            links.lazy()
            .join(ranks.lazy(), left_on="source", right_on="node")
            .group_by("target")
            .agg((pl.col("rank") / pl.col("degree")).sum())
        )
        ranks = (
            nodes.lazy()
            .join(received, left_on="node", right_on="target", how="left")
            .select("node", rank=for_all + DAMPING * pl.col("rank").fill_null(0))
            .collect(engine="streaming")
        )
    sink(ranks.lazy(), out)


FORMS: dict[str, Form] = {
    "wordcount": wordcount,
    "inverted-index": inverted_index,
    "log-hits": log_hits,
    "log-visitors": log_visitors,
    "join": join,
    "pagerank": pagerank,
}

if __name__ == "__main__":
    answer(FORMS, Clock())
