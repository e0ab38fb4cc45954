"""A record's key and value: encoded, decoded, hashed to a partition; whole columns, as tasks do it."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from mapreduce.columns import pack_column, unpack_column
from mapreduce.records import Partitions

PARTITIONS = 8


def test_encode_a_column_of_words(benchmark: BenchmarkFixture, words: list[str]) -> None:
    form, data = benchmark(pack_column, words)
    assert unpack_column(form, data) == words


def test_decode_a_column_of_words(benchmark: BenchmarkFixture, words: list[str]) -> None:
    assert benchmark(unpack_column, *pack_column(words)) == words


def test_encode_a_column_of_tuples(benchmark: BenchmarkFixture, words: list[str]) -> None:
    pairs = [(word, number) for number, word in enumerate(words)]
    form, data = benchmark(pack_column, pairs)
    assert unpack_column(form, data) == pairs


def test_decode_a_column_of_tuples(benchmark: BenchmarkFixture, words: list[str]) -> None:
    pairs = [(word, number) for number, word in enumerate(words)]
    assert benchmark(unpack_column, *pack_column(pairs)) == pairs


def test_hash_words_to_partitions(benchmark: BenchmarkFixture, words: list[str]) -> None:
    found = benchmark(Partitions(PARTITIONS).of, words)
    assert set(found) == set(range(PARTITIONS))
