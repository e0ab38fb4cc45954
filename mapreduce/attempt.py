"""One attempt of a task: user code between a reader and a writer.

⚙ This module opens files and reads the clock; it runs in child processes only.

The hot path has no Python between a record and the dict that groups its pairs but the user's own
generator: batches, records and pairs are chained by itertools, so a pair costs one C `next`, one dict
look-up and one append.  What that seems to give up, knowing which record failed, is read afterwards from
how much is left of the iterator over the batch.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice, repeat, starmap
from operator import itemgetter
from typing import Any, BinaryIO

from mapreduce.batches import Batch, ListBatch
from mapreduce.columns import pack_column, short_repr
from mapreduce.context import task as context
from mapreduce.errors import BadKey, BadValue, InputError, JobDefinitionError, TooManyBadRecords
from mapreduce.failpoints import failpoint
from mapreduce.job import Job, Step, TotalOrder, batch_kind, identity
from mapreduce.merging import fan_in_for, gather, gather_sorted, merge_runs
from mapreduce.orders import (
    MapOrder,
    Order,
    ReduceOrder,
    SampleOrder,
    StepSetup,
    TaskDone,
    TaskProgress,
    task_kind,
    task_name,
)
from mapreduce.partitioner import Splitter, split_by_borders, split_by_function, split_by_hash
from mapreduce.plan import Split
from mapreduce.records import Pair, normal_key
from mapreduce.run_files import memory_needed
from mapreduce.runs import RunWriter, read_blocks
from mapreduce.shuffle import MapOutput
from mapreduce.task_files import PartFile, SharedRuns, TaskFiles, file_lock, resident_bytes, stay_one
from mapreduce.user_results import checked_counters, is_pair, items_of, iterable_results, value_order_of
from mapreduce.value_order import FailedAtKey

# Small enough that a batch's lines are still in the cache when they are mapped.
BATCH_BYTES = 256 << 10
# A batch mapper repays its overhead over more records.
LARGE_BATCH_BYTES = 8 << 20
PROGRESS_INTERVAL_S = 0.2
CHUNK_PAIRS = 4096
MAX_SAMPLE_BYTES = 512 << 10

_DictItems: Any = type({}.items())
_PLAIN_KEYS = frozenset({str, bytes, int, bool, type(None)})


class Attempt:
    """Runs one order of a step in this process.

    Args:
        job: with the user's functions.
        setup: what the step's tasks share.
        order: the task.
        shared: where small outputs of map tasks go.
        tell: takes signs of life.
        ask_lock: gives the named locks of a step that `asks_for_locks`.
    """

    def __init__(
        self,
        job: Job,
        setup: StepSetup,
        order: Order,
        shared: SharedRuns,
        tell: Callable[[TaskProgress], None],
        ask_lock: Callable[[str], AbstractContextManager[int]] | None = None,
    ) -> None:
        self._step: Step = job.steps[setup.step]
        self._setup = setup
        self._order = order
        self._shared = shared
        self._tell = tell
        self._ask_lock = ask_lock
        self._name = f"{task_name(task_kind(order), order.task)}.{order.attempt}"
        self._files = TaskFiles(setup.work_dir, f"{setup.step}.{self._name}")
        self._done = TaskDone(task=order.task, attempt=order.attempt)
        self._batch: Batch | None = None
        self._inside: Iterator[Any] | None = None
        self._keys: list[Any] = []
        self._bytes_read = 0
        self._told_at = time.monotonic()

    def run(self) -> TaskDone:
        """Run user code over the task's input and write its output.

        Raises:
            JobError: the input, a key or a value is not what it must be.
            BaseException: whatever user code raises; `position` then says where.
        """
        try:
            return self._run()
        except FailedAtKey as failed:
            self._batch, self._keys, self._inside = None, [failed.key], iter(())
            failure = failed.failure
        raise failure  # out here, so that it keeps its own cause and context

    def _run(self) -> TaskDone:
        started = time.process_time()
        self._enter_context()
        try:
            if self._step.setup is not None:
                self._step.setup()
            match self._order:
                case MapOrder():
                    self._map(self._order)
                case ReduceOrder():
                    self._reduce(self._order)
                case SampleOrder():
                    self._sample(self._order)
            self._forget_position()
            if self._step.teardown is not None:
                self._step.teardown()
        finally:
            self._files.close()
        self._done.counters = checked_counters(context.counters)
        self._done.cpu_s = time.process_time() - started
        return self._done

    def position(self) -> str:
        """Say which record or key user code had last, as well as can be known."""
        if self._batch is not None and self._inside is not None:
            left = getattr(self._inside, "__length_hint__", lambda: 0)()
            index = len(self._batch.records) - left - 1
            return self._batch.locate(max(0, index))
        if self._batch is not None:
            return f"the batch that begins at {self._batch.locate(0)}"
        if self._keys and self._inside is not None:
            left = getattr(self._inside, "__length_hint__", lambda: 0)()
            return f"key {short_repr(self._keys[max(0, len(self._keys) - left - 1)])}"
        if isinstance(self._order, (MapOrder, SampleOrder)):
            return _describe(self._order.split)
        return ""

    # -- map -------------------------------------------------------------------------------------------

    def _map(self, order: MapOrder) -> None:
        failpoint("attempt.map")
        if self._step.map_only:
            self._write_part(self._output(chain.from_iterable(self._streams(order.split))), order.out_path)
            return
        output = MapOutput(
            partitions=self._setup.partitions,
            splitter=self._splitter(),
            grouped=not (self._step.reducer is identity and self._step.combiner is None)
            or bool(self._step.sort_values),
            combine=self._combine if self._step.combiner is not None else None,
            value_order=value_order_of(self._step),
            files=self._files,
            label=f"{self._setup.step}/{self._name}",
            # Where the system tells what is really used, the estimate only has to be roughly right.
            spill_bytes=self._setup.memory_bytes // (2 if resident_bytes() else 4),
            memory_is_short=lambda: resident_bytes() > self._setup.memory_bytes * 6 // 10,
            fan_in=fan_in_for(self._setup.memory_bytes // 3),
        )
        for pairs in self._streams(order.split):
            if isinstance(pairs, _DictItems):
                mapping: Mapping[Any, Any] = pairs.mapping
                output.add_items(list(mapping), list(mapping.values()))
            else:
                output.add(iter(pairs), self._check_pair)
        stay_one()
        self._batch = self._inside = None
        if output.is_small:
            path, file = self._shared.path, self._shared.file
            before = file.tell()
            ranges = output.finish(file, path)
            file.flush()
            self._done.bytes_out = file.tell() - before
        else:
            path = os.path.join(self._setup.work_dir, f"{self._setup.step}.{self._name}.run")
            head_bytes = self._setup.head_bytes
            with open(path, "wb") as file:
                file.write(bytes(head_bytes))
                ranges = output.finish(file, path)
                self._done.bytes_out = file.tell() - head_bytes
        self._done.path = path
        self._done.spilled_bytes = output.spilled_bytes
        self._done.ranges = [(index, run) for index, run in enumerate(ranges) if run is not None]

    def _streams(self, split: Split) -> Iterator[Iterable[Pair]]:
        """Map the records of a split; gives one stream of all pairs, or one a batch of a batch mapper.

        A dict's items come as they are: its keys need not be compared with each other again.
        """
        mapper = self._step.mapper
        batches = self._batches(split)
        if mapper is None or mapper is identity:
            return iter((chain.from_iterable(batch.records for batch in batches),))
        call = iterable_results(mapper)
        kind = batch_kind(mapper)
        if kind == "split":
            # Not called before its pairs are asked for: what it returns may have taken all of the input.
            return (items_of(call(records)) for records in (chain.from_iterable(self._entered(batches)),))
        if kind is not None:
            return (items_of(call(_batch_argument(batch, kind))) for batch in batches)
        spread = bool(self._step.after) or getattr(self._step.reader, "gives_pairs", False)
        if self._step.skip_limit:
            return iter((chain.from_iterable(self._mapped_leniently(batches, call, spread)),))
        return iter((chain.from_iterable(chain.from_iterable(self._mapped(batches, call, spread))),))

    def _entered(self, batches: Iterator[Batch]) -> Iterator[Iterator[Any]]:
        for batch in batches:
            inside = iter(batch.records)
            self._inside = inside
            yield inside

    def _mapped(
        self, batches: Iterator[Batch], call: Callable[..., Iterable[Pair]], spread: bool
    ) -> Iterator[Iterator[Iterable[Pair]]]:
        for batch in batches:
            inside = iter(batch.records)
            self._inside = inside
            yield starmap(call, inside) if spread else map(call, inside)

    def _mapped_leniently(
        self, batches: Iterator[Batch], call: Callable[..., Iterable[Pair]], spread: bool
    ) -> Iterator[list[Pair]]:
        """Map record by record, leaving out those that cannot be read or mapped, pairs and all."""
        for batch in batches:
            for index, record in enumerate(batch.each()):
                try:
                    if isinstance(record, InputError):
                        raise record
                    pairs = list(call(*record) if spread else call(record))
                    for key, _ in pairs:
                        normal_key(key)
                except MemoryError:
                    raise  # which records a machine has memory for is not a matter of the records
                except Exception as error:
                    self._done.bad_records += 1
                    if self._done.bad_records > self._step.skip_limit:
                        raise TooManyBadRecords(
                            f"more than {self._step.skip_limit} bad records; the last at "
                            f"{batch.locate(index)}: {type(error).__name__}: {error}"
                        ) from error
                else:
                    yield pairs

    def _batches(self, split: Split) -> Iterator[Batch]:
        kind = batch_kind(self._step.mapper or identity)
        size = BATCH_BYTES if kind in (None, "split") else LARGE_BATCH_BYTES
        source: Iterator[Batch]
        if self._step.after:
            source = _run_batches(split)
        else:
            from mapreduce.readers import Text

            source = (self._step.reader or Text()).batches(split, size)
        for batch in source:
            stay_one()
            self._batch = batch
            self._inside = None
            yield batch
            self._bytes_read += batch.size_bytes
            self._tell_progress()
        self._batch = self._inside = None

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_INTERVAL_S:
            self._told_at = now
            order = self._order
            self._tell(TaskProgress(task=order.task, attempt=order.attempt, bytes_read=self._bytes_read))

    def _check_pair(self, pair: Any) -> None:
        if not is_pair(pair):
            raise JobDefinitionError(
                f"the mapper gave {short_repr(pair)} (a {type(pair).__name__}); "
                "it must yield pairs, (key, value)"
            )

    def _combine(self, keys: list[Any], columns: Sequence[Iterable[Any]]) -> list[list[Pair]]:
        assert self._step.combiner is not None
        call = iterable_results(self._step.combiner)
        mapping = self._batch, self._inside  # a round may end in the middle of a batch
        self._batch, self._keys, self._inside = None, keys, iter(keys)
        given = list(map(list, map(call, self._inside, map(iter, columns))))
        self._batch, self._inside = mapping
        return given

    def _splitter(self) -> Splitter:
        if self._setup.borders is not None:
            return split_by_borders(self._setup.borders, self._setup.partitions)
        partitioner = self._step.partitioner
        if partitioner is None or isinstance(partitioner, TotalOrder):
            return split_by_hash(self._setup.partitions)
        return split_by_function(partitioner, self._setup.partitions)

    def _sample(self, order: SampleOrder) -> None:
        keys: list[Any] = []
        pairs = chain.from_iterable(self._streams(order.split))
        for pair in islice(pairs, order.keys):
            self._check_pair(pair)
            keys.append(normal_key(pair[0]))
        self._done.sample = packed = pack_column(keys)
        while len(packed[1]) > MAX_SAMPLE_BYTES and len(keys) > 1:
            # Long keys: every second one of them says nearly as much, in a report of a size that can be sent.
            keys = keys[::2]
            self._done.sample = packed = pack_column(keys)
        # The same records are mapped, and counted, again.
        context.counters.clear()
        self._done.bad_records = 0

    # -- reduce ----------------------------------------------------------------------------------------

    def _reduce(self, order: ReduceOrder) -> None:
        failpoint("attempt.reduce")
        fits = memory_needed(order.runs) < self._setup.memory_bytes // 3
        value_order = value_order_of(self._step)
        sorts_only = self._step.reducer is identity and value_order is None
        pairs: Iterator[Pair]
        if fits and sorts_only:
            pairs = zip(*gather_sorted(order.runs, self._files), strict=True)
            self._done.records_in = sum(run.values for run in order.runs)
        elif fits:
            keys, columns = gather(order.runs, self._files, value_order)
            self._done.records_in = len(keys)
            pairs = self._reduced(keys, columns)
        else:
            fan_in = fan_in_for(self._setup.memory_bytes // 3)
            pairs = self._reduced_stream(merge_runs(order.runs, self._files, value_order, fan_in))
        self._write_part(self._output(pairs), order.out_path)

    def _reduced(self, keys: list[Any], columns: list[list[Any]]) -> Iterator[Pair]:
        reducer = self._step.reducer
        assert reducer is not None
        if reducer is identity:
            return chain.from_iterable(map(zip, map(repeat, keys), columns))
        self._keys = keys
        self._inside = iter(keys)
        call = iterable_results(reducer)
        return chain.from_iterable(map(call, self._inside, map(iter, columns)))

    def _reduced_stream(self, groups: Iterator[tuple[Any, Iterable[Any]]]) -> Iterator[Pair]:
        assert self._step.reducer is not None
        call = iterable_results(self._step.reducer)
        for key, values in groups:
            self._keys, self._inside = [key], iter(())
            self._done.records_in += 1
            yield from call(key, iter(values))

    # -- output ----------------------------------------------------------------------------------------

    def _output(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """Check what user code gives as a step's output, a chunk at a time."""
        return chain.from_iterable(self._checked(pairs))

    def _checked(self, pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
        role = "mapper" if isinstance(self._order, MapOrder) else "reducer"
        while chunk := list(islice(pairs, CHUNK_PAIRS)):
            if self._step.reducer is identity:  # the pairs are ours
                self._done.records_out += len(chunk)
                yield chunk
                continue
            # The chunk's last record or key is not where a mistake in it was made.
            mapping, self._batch = self._batch, None
            keys, self._keys = self._keys, []
            plain = set(map(type, chunk)) == {tuple} and set(map(len, chunk)) == {2}
            if not (plain or all(map(is_pair, chunk))):
                wrong = next(pair for pair in chunk if not is_pair(pair))
                raise JobDefinitionError(
                    f"the {role} gave {short_repr(wrong)} (a {type(wrong).__name__}); "
                    "it must yield pairs, (key, value)"
                )
            if not set(map(type, map(itemgetter(0), chunk))) <= _PLAIN_KEYS:
                chunk = [(normal_key(key), value) for key, value in chunk]
            self._done.records_out += len(chunk)
            yield chunk
            self._batch, self._keys = mapping, keys

    def _write_part(self, pairs: Iterator[Pair], out_path: str) -> None:
        """Write a part under its attempt's name; the engine's rename makes it visible."""
        with PartFile(out_path, self._setup.head_bytes) as file:
            stay_one()
            try:
                self._write(pairs, file)
            except BadValue:
                self._forget_position()  # it names its key; what was read last is another one
                raise
            self._done.bytes_out = file.tell() - self._setup.head_bytes
            self._done.digest = file.digest
        failpoint("attempt.written")
        self._done.path = out_path

    def _write(self, pairs: Iterator[Pair], file: BinaryIO) -> None:
        if self._setup.out_format is None:
            writer = RunWriter(file, f"{self._setup.step}/{self._name}")
            writer.write_stream(pairs)
            length = writer.finish()
            self._done.cuts = _cuts(writer.block_offsets, length, self._setup.split_bytes)
        else:
            from mapreduce.outputs import write_part

            write_part(self._setup.out_format, file, pairs)

    def _forget_position(self) -> None:
        self._batch = self._inside = None
        self._keys = []

    # -- what user code sees ---------------------------------------------------------------------------

    def _enter_context(self) -> None:
        order, setup = self._order, self._setup
        context.counters = Counter()
        context.params = dict(setup.params)
        context.input_path = order.split.name if not isinstance(order, ReduceOrder) else ""
        context.step = setup.step
        context.task_id = task_name(task_kind(order), order.task)
        context.attempt = order.number or order.attempt
        context._side_files = setup.side_files
        ask = self._ask_lock if setup.asks_for_locks else None
        context._lock = ask or (lambda name: file_lock(setup.work_dir, name))
        context._status = lambda text: self._tell(
            TaskProgress(
                task=order.task, attempt=order.attempt, bytes_read=self._bytes_read, status=str(text)
            )
        )

    def yield_line(self) -> str:
        """Find the line of user code that yielded a bad key, by mapping the record once more."""
        mapper = self._step.mapper
        if mapper is None or self._batch is None or self._inside is None or batch_kind(mapper):
            return ""
        left = getattr(self._inside, "__length_hint__", lambda: 0)()
        record = self._batch.records[len(self._batch.records) - left - 1]
        pairs = mapper(*record) if self._step.after else mapper(record)
        for pair in pairs or ():
            try:
                hash(pair[0])
                normal_key(pair[0])
            except (BadKey, TypeError):
                frame = getattr(pairs, "gi_frame", None)
                if frame is not None:
                    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"
                code = getattr(mapper, "__code__", None)
                return f"{code.co_filename}, line {code.co_firstlineno}" if code else ""
        return ""


def _batch_argument(batch: Batch, kind: str) -> Any:
    match kind:
        case "text":
            return batch.text
        case "bytes":
            return batch.raw
        case _:
            return batch.records


def _run_batches(split: Split) -> Iterator[Batch]:
    """Read another step's pairs, a block at a time."""
    with open(split.path, "rb") as file:
        before = split.start
        for keys, _, values in read_blocks(file, split.start, split.end - split.start, whole=False):

            def locate(index: int, keys: list[Any] = keys) -> str:
                return f"{split.name}, key {short_repr(keys[index])}"

            size_bytes, before = file.tell() - before, file.tell()
            yield ListBatch(split.name, size_bytes, list(zip(keys, values, strict=True)), locate)


def _cuts(block_offsets: list[int], length: int, split_bytes: int) -> list[int]:
    """Return where the splits of a part begin, on block borders, and where the last one ends."""
    cuts: list[int] = []
    for offset in block_offsets:
        if not cuts or offset - cuts[-1] >= split_bytes:
            cuts.append(offset)
    return [*cuts, length] if cuts else []


def _describe(split: Split) -> str:
    return split.name if split.end < 0 else f"{split.name}, bytes {split.start:,} to {split.end:,}"
