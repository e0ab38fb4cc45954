"""Spark: dataframes where the guide uses them, an RDD for records without line ends, in local mode.

As the documentation advises: as many local threads as processors, few shuffle partitions for little data,
what is used again cached.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - so it is imported in all of Spark's own documentation

from tools.benchmarks.engines.forms import (
    CLIENT,
    DAMPING,
    PAGERANK_ROUNDS,
    SENT_SIZE,
    URL,
    WORKERS,
    Clock,
    Form,
    answer,
)

RECORD_BYTES = 100


def spark() -> Any:
    return (
        SparkSession.builder.master(f"local[{WORKERS}]")
        .appName("benchmark")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.shuffle.partitions", str(2 * WORKERS))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def paths_of(inputs: list[str]) -> list[str]:
    return [Path(path).absolute().as_uri() for path in inputs]


def write(frame: Any, out: Path) -> None:
    """Write a dataframe's columns as key, tab and value."""
    columns = (F.col(name).cast("string") for name in frame.columns)
    frame.select(F.concat_ws("\t", *columns)).write.text(out.absolute().as_uri())


def words_of(inputs: list[str], *more: Any) -> Any:
    # (?U): white space beyond ASCII, as Python's `split` has it.
    words = F.explode(F.split("value", r"(?U)\s+")).alias("word")
    return spark().read.text(paths_of(inputs)).select(words, *more).where("word != ''")


def wordcount(inputs: list[str], out: Path) -> None:
    write(words_of(inputs).groupBy("word").count(), out)


def inverted_index(inputs: list[str], out: Path) -> None:
    document = F.element_at(F.split(F.input_file_name(), "/"), -1).alias("document")
    index = words_of(inputs, document).groupBy("word").agg(F.sort_array(F.collect_set("document")).alias("d"))
    write(index.select("word", F.concat(F.lit('["'), F.array_join("d", '", "'), F.lit('"]'))), out)


def log_hits(inputs: list[str], out: Path) -> None:
    lines = spark().read.text(paths_of(inputs))
    size = F.expr("try_cast(size AS BIGINT)")
    hits = (
        lines.select(
            F.regexp_extract("value", URL, 1).alias("url"),
            F.regexp_extract("value", SENT_SIZE, 1).alias("size"),
        )
        .groupBy("url")
        .agg(F.count("*").alias("hits"), F.coalesce(F.sum(size), F.lit(0)).alias("size"))
    )
    write(hits.select("url", F.format_string("[%d, %d]", "hits", "size")), out)


def log_visitors(inputs: list[str], out: Path) -> None:
    lines = spark().read.text(paths_of(inputs))
    visits = lines.select(
        F.regexp_extract("value", URL, 1).alias("url"), F.regexp_extract("value", CLIENT, 1).alias("client")
    )
    write(visits.groupBy("url").agg(F.count_distinct("client")), out)


def join(inputs: list[str], out: Path) -> None:
    customers, orders = (
        spark().read.csv(path, schema=schema)
        for path, schema in zip(
            paths_of(inputs),
            (
                "customer string, name string, city string",
                "nr string, customer string, amount string, item string",
            ),
            strict=True,
        )
    )
    row = F.format_string('["%s", "%s", "%s", "%s"]', "name", "city", "amount", "item")
    write(orders.join(customers, "customer").select("nr", row), out)


def sort(inputs: list[str], out: Path) -> None:
    out.mkdir()
    folder = str(out.absolute())

    def write_part(number: int, pairs: Iterable[tuple[bytes, None]]) -> Iterator[int]:
        with open(os.path.join(folder, f"part-{number:05}"), "wb") as file:
            file.writelines(record for record, _ in pairs)
        yield number

    records = spark().sparkContext.binaryRecords(",".join(paths_of(inputs)), RECORD_BYTES)
    pairs = records.map(lambda record: (bytes(record), None))
    pairs.sortByKey(numPartitions=2 * WORKERS).mapPartitionsWithIndex(write_part).collect()


def pagerank(inputs: list[str], out: Path) -> None:
    session = spark()
    edges = session.read.csv(paths_of(inputs), sep="\t", schema="source string, target string").distinct()
    degrees = edges.groupBy("source").agg(F.count("*").alias("degree"))
    links = edges.join(degrees, "source").cache()
    nodes = links.select(F.col("source").alias("node")).union(links.select("target")).distinct()
    linked = links.select(F.col("source").alias("node"), F.lit(True).alias("linked")).distinct()
    nodes = nodes.join(linked, "node", "left").cache()
    count = nodes.count()
    ranks = nodes.withColumn("rank", F.lit(1 / count))
    for _ in range(PAGERANK_ROUNDS):
        dangling = ranks.where("linked IS NULL").agg(F.coalesce(F.sum("rank"), F.lit(0.0))).first()[0]
        for_all = (1 - DAMPING + DAMPING * dangling) / count
        received = (
            links.join(ranks, links["source"] == ranks["node"])
            .groupBy("target")
            .agg(F.sum(F.col("rank") / F.col("degree")).alias("given"))
        )
        ranks = (
            nodes.join(received, nodes["node"] == received["target"], "left")
            .select(
                "node", "linked", (F.lit(for_all) + DAMPING * F.coalesce("given", F.lit(0.0))).alias("rank")
            )
            .cache()
        )
    write(ranks.select("node", "rank"), out)


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
    session = spark()
    clock.ready()
    answer(FORMS, clock)
    session.stop()
