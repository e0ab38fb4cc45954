"""DuckDB: one SQL statement a question, copied into a file (documentation, "CSV Import", "COPY")."""

from __future__ import annotations

from pathlib import Path

import duckdb

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

# White space as Python's `split` has it; \s alone knows ASCII only.
WORDS = r"regexp_extract_all(line, '[^\s\pZ]+')"


def lines_of(inputs: list[str]) -> str:
    # A table of one column: neither this delimiter nor quotes are in any text.
    return f"""read_csv({inputs!r}, columns = {{'line': 'VARCHAR'}}, delim = '\x01', quote = '', escape = '',
        header = false, auto_detect = false, filename = true)"""


def copy(query: str, out: Path, connection: duckdb.DuckDBPyConnection | None = None) -> None:
    out.mkdir()
    (connection or duckdb).execute(
        f"""COPY ({query}) TO '{out / "part-00000"}'
        (FORMAT csv, DELIMITER '\t', HEADER false, QUOTE '', ESCAPE '')"""
    )


def wordcount(inputs: list[str], out: Path) -> None:
    copy(f"SELECT unnest({WORDS}) AS word, count(*) FROM {lines_of(inputs)} GROUP BY word", out)


def inverted_index(inputs: list[str], out: Path) -> None:
    words = f"SELECT DISTINCT unnest({WORDS}) AS word, filename FROM {lines_of(inputs)}"
    listed = "'[\"' || string_agg(filename, '\", \"' ORDER BY filename) || '\"]'"
    copy(f"SELECT word, {listed} FROM ({words}) GROUP BY word", out)


def log_hits(inputs: list[str], out: Path) -> None:
    columns = (
        f"regexp_extract(line, '{URL}', 1) AS url, "
        f"try_cast(regexp_extract(line, '{SENT_SIZE}', 1) AS BIGINT) AS size"
    )
    result = "'[' || count(*) || ', ' || coalesce(sum(size), 0) || ']'"
    copy(f"SELECT url, {result} FROM (SELECT {columns} FROM {lines_of(inputs)}) GROUP BY url", out)


def log_visitors(inputs: list[str], out: Path) -> None:
    columns = f"regexp_extract(line, '{URL}', 1) AS url, regexp_extract(line, '{CLIENT}', 1) AS client"
    copy(
        f"SELECT url, count(DISTINCT client) FROM (SELECT {columns} FROM {lines_of(inputs)}) GROUP BY url",
        out,
    )


def join(inputs: list[str], out: Path) -> None:
    customers, orders = (
        f"read_csv({path!r}, header = false, auto_detect = false, columns = {columns})"
        for path, columns in zip(
            inputs,
            (
                "{'customer': 'VARCHAR', 'name': 'VARCHAR', 'city': 'VARCHAR'}",
                "{'nr': 'VARCHAR', 'customer': 'VARCHAR', 'amount': 'VARCHAR', 'item': 'VARCHAR'}",
            ),
            strict=True,
        )
    )
    row = """'["' || name || '", "' || city || '", "' || amount || '", "' || item || '"]'"""
    copy(f"SELECT nr, {row} FROM {orders} JOIN {customers} USING (customer)", out)


def pagerank(inputs: list[str], out: Path) -> None:
    connection = duckdb.connect()
    columns = "{'source': 'VARCHAR', 'target': 'VARCHAR'}"
    connection.execute(
        f"""CREATE TABLE edges AS SELECT DISTINCT * FROM read_csv({inputs!r}, header = false,
            auto_detect = false, delim = '\t', columns = {columns});
        CREATE TABLE degrees AS SELECT source, count(*) AS degree FROM edges GROUP BY source;
        CREATE TABLE nodes AS SELECT source AS node FROM edges UNION SELECT target FROM edges;
        CREATE TABLE ranks AS SELECT node, 1 / (SELECT count(*) FROM nodes) AS rank FROM nodes"""
    )
    dangling = "(SELECT coalesce(sum(rank), 0) FROM ranks ANTI JOIN degrees ON node = source)"
    count = "(SELECT count(*) FROM nodes)"
    for _ in range(PAGERANK_ROUNDS):
        connection.execute(
            f"""CREATE OR REPLACE TABLE ranks AS
            WITH received AS (
                SELECT target, sum(rank / degree) AS rank
                FROM edges JOIN degrees USING (source) JOIN ranks ON node = source GROUP BY target
            )
            SELECT node, (1 - {DAMPING} + {DAMPING} * {dangling}) / {count}
                + {DAMPING} * coalesce(rank, 0) AS rank
            FROM nodes LEFT JOIN received ON node = target"""
        )
    copy("SELECT * FROM ranks", out, connection)


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
