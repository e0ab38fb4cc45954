"""What a job is: steps of plain functions, checked when they are put together.

A step is  read -> map -> (combine) -> shuffle -> reduce.  A job is a graph of steps without cycles that
ends in one step; most jobs have one.  `Job` and `Step` are immutable values: `then` gives a new job.

Checks happen where a mistake is made, not where it would hurt: the graph and the arity of every function
are checked when the job is built, so a wrong job never starts a process.

Order is part of the contract.  A step's reducer sees its keys in key order and each key's values in
(map task, sequence) order; this is what makes any two runs comparable byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mapreduce.errors import JobDefinitionError

if TYPE_CHECKING:
    from pathlib import Path

    from mapreduce.inputs import Reader
    from mapreduce.local import Result

Pair = tuple[Any, Any]
# A batch mapper may return a dict and mean its items.
Mapper = Callable[..., Iterable[Pair] | Mapping[Any, Any] | None]
Reducer = Callable[[Any, Iterable[Any]], Iterable[Pair] | None]
Partitioner = Callable[[Any, int], int]
Hook = Callable[[], Any]
F = TypeVar("F", bound=Callable[..., Any])

UNNAMED = "job"
BATCH_KINDS = ("records", "split", "text", "bytes")
_STEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@overload
def batch(mapper: F) -> F: ...
@overload
def batch(mapper: str) -> Callable[[F], F]: ...
def batch(mapper: F | str) -> F | Callable[[F], F]:
    """Mark a mapper that takes many records at a time.

    `@batch` gets a list of records, `@batch("text")` one string of whole lines, `@batch("bytes")` the
    undecoded bytes of whole records; each may return or yield any number of pairs.  Such a batch is a few
    MiB of one split, never a whole split, so a batch mapper has bounded memory too.

    `@batch("split")` is called once for each split, with an iterator over its records, which are read while
    it is used.  What it gathers (in a dict, say) it gathers over a whole split, so it gives fewer pairs; what
    it holds is its own affair.

    Raises:
        JobDefinitionError: the kind of batch is none of the four.
    """
    if isinstance(mapper, str):
        kind = mapper
        if kind not in BATCH_KINDS:
            raise JobDefinitionError(
                f"@batch({kind!r}): the kind of batch is one of {', '.join(BATCH_KINDS)}"
            )

        def mark(function: F) -> F:
            function.__batch__ = kind  # type: ignore[attr-defined]
            return function

        return mark
    mapper.__batch__ = "records"  # type: ignore[attr-defined]
    return mapper


def batch_kind(mapper: Mapper) -> str | None:
    """Return "records", "split", "text" or "bytes" for a mapper marked with `batch`, else None."""
    return getattr(mapper, "__batch__", None)


def identity(key: Any, values: Any) -> Iterable[Pair]:
    """Pass pairs on unchanged: as a mapper of a later step (key, value), or as a reducer (key, values).

    The executor recognises this very function and takes a path without per-record calls, so the body
    serves callers that use it as a plain function on a reducer's arguments.
    """
    return ((key, value) for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalOrder:
    """A partitioner that makes all parts, one after the other, one sorted sequence.

    Before the step's map stage, `sample` keys from evenly spread places of the input are mapped and
    sorted; their quantiles become the borders between parts (the sampling partitioner of TeraSort,
    O'Malley 2008).  Borders depend on job and input alone.

    Attributes:
        sample: how many keys to look at, about; more gives evener parts.
    """

    sample: int = 20_000

    def __post_init__(self) -> None:
        if not _is_number(self.sample) or self.sample < 1:
            raise JobDefinitionError(
                f"TotalOrder(sample={self.sample!r}): expected a whole number, at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One map-shuffle-reduce step.

    Attributes:
        mapper: `mapper(record)` in a step that reads the job's inputs, `mapper(key, value)` in one that
            reads another step's pairs or a reader of pairs; yields (key, value) pairs.  None in a later
            step passes pairs on.
        reducer: `reducer(key, values)`, yields pairs; None makes the step map-only, without a shuffle.
        combiner: like a reducer, applied to a map task's own output any number of times, keys that have a
            single value left out; it keeps the key.
        partitioner: `partitioner(key, partitions) -> int`, or a `TotalOrder`; default: hash of the key.
        partitions: number of reduce tasks; default: follows from the size of the input.
        sort_values: True sorts each key's values; a function `value -> sort key` sorts by that.
        setup, teardown: called without arguments at the start and the end of every task.
        reader: how files become records; only for a step that reads the job's inputs
            (default: lines of text).
        on_bad_record: "fail", or "skip:N" to count and leave out up to N records of the whole step.
        after: names of the steps whose output this step reads; empty: the job's inputs.
    """

    mapper: Mapper | None = None
    reducer: Reducer | None = None
    combiner: Reducer | None = None
    partitioner: Partitioner | TotalOrder | None = None
    partitions: int | None = None
    sort_values: bool | Callable[[Any], Any] = False
    setup: Hook | None = None
    teardown: Hook | None = None
    reader: Reader | None = None
    on_bad_record: str = "fail"
    after: tuple[str, ...] = ()

    @property
    def skip_limit(self) -> int:
        """How many bad records may be left out; 0 when any is an error."""
        return 0 if self.on_bad_record == "fail" else int(self.on_bad_record.removeprefix("skip:"))

    @property
    def map_only(self) -> bool:
        """True when the mapper's pairs are the step's output, without shuffle or reduce."""
        return self.reducer is None


@dataclass(frozen=True, slots=True, init=False)
class Job:
    """A MapReduce job: one step given by its functions, or a graph of named steps.

    Args:
        mapper, reducer, combiner, partitioner, partitions, sort_values, setup, teardown, reader,
            on_bad_record: the one step's, see `Step`.
        steps: instead of the above: {name: Step}; exactly one step is read by no other and is the end.
        name: names the job (and its step) in messages.
        params: defaults of the parameters that user code finds in `task.params`.
        side_files: files that travel with the job: {name: path}, or paths known by their last component, or
            one path.
        max_attempts: how often a task is tried before the job fails.
        task_timeout_s: an attempt that runs longer is ended and counts as failed; None for no limit.

    Raises:
        JobDefinitionError: the steps make no job; the message says why.
    """

    steps: Mapping[str, Step]
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    side_files: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int = 3
    task_timeout_s: float | None = None

    def __init__(
        self,
        mapper: Mapper | None = None,
        reducer: Reducer | None = None,
        *,
        combiner: Reducer | None = None,
        partitioner: Partitioner | TotalOrder | None = None,
        partitions: int | None = None,
        sort_values: bool | Callable[[Any], Any] = False,
        setup: Hook | None = None,
        teardown: Hook | None = None,
        reader: Reader | None = None,
        on_bad_record: str = "fail",
        steps: Mapping[str, Step] | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        side_files: Mapping[str, str] | Sequence[str] | str = (),
        max_attempts: int = 3,
        task_timeout_s: float | None = None,
    ) -> None:
        only = Step(
            mapper=mapper,
            reducer=reducer,
            combiner=combiner,
            partitioner=partitioner,
            partitions=partitions,
            sort_values=sort_values,
            setup=setup,
            teardown=teardown,
            reader=reader,
            on_bad_record=on_bad_record,
        )
        if isinstance(side_files, str):
            side_files = (side_files,)
        for what, given in (("steps", steps), ("params", params)):
            if given is not None and not isinstance(given, Mapping):
                raise JobDefinitionError(f"{what}={given!r}: expected a dict")
        if steps is None:
            steps = {name or "main": only}
        elif only != Step():
            raise JobDefinitionError("a job has either functions of its own or steps=, not both")
        if not isinstance(side_files, Mapping):
            paths = list(map(str, side_files))
            side_files = {path.rsplit("/", 1)[-1]: path for path in paths}
            if len(side_files) < len(set(paths)):
                raise JobDefinitionError(
                    f"side_files={paths!r}: two have one name; give names, as in {{'old': …, 'new': …}}"
                )
        if not _is_number(max_attempts) or max_attempts < 1:
            raise JobDefinitionError(f"max_attempts={max_attempts!r}: expected a whole number, at least 1")
        if task_timeout_s is not None and not (
            isinstance(task_timeout_s, int | float) and task_timeout_s > 0
        ):
            raise JobDefinitionError(f"task_timeout_s={task_timeout_s!r}: expected seconds, above 0, or None")
        put = object.__setattr__
        put(self, "steps", dict(steps))
        put(self, "name", name or UNNAMED)
        put(self, "params", dict(params or {}))
        put(self, "side_files", {key: str(path) for key, path in side_files.items()})
        put(self, "max_attempts", max_attempts)
        put(self, "task_timeout_s", task_timeout_s)
        for step_name, step in self.steps.items():
            _check_step(step_name, step)
        from mapreduce.plan import check_graph

        check_graph(self.steps)

    @property
    def last_step(self) -> str:
        """The name of the step whose output is the job's."""
        read = {name for step in self.steps.values() for name in step.after}
        return next(name for name in self.steps if name not in read)

    def check_inputs(self) -> None:
        """Check that the steps which read the job's inputs take what their readers give.

        A job that is meant to stand behind another may have a mapper of (key, value) where this one reads
        lines; so this is checked when a job is run, before anything else is done.

        Raises:
            JobDefinitionError: a mapper is missing, or takes another number of arguments.
        """
        for name, step in self.steps.items():
            _check_mapper(f"step {name!r}", step, pairs=bool(_reads_pairs(step)))

    def then(self, other: Job) -> Job:
        """Return a job in which `other` reads this job's output.

        The mapper of `other` takes (key, value).  With `reader=Pairs()` the same job can also read the files
        that this one has written.  Steps of `other` whose names are taken get a number behind them; its
        parameters and side files are added to this job's.

        Raises:
            JobDefinitionError: both jobs give one parameter or side file different values, or `other` cannot
                read pairs.
        """
        if not isinstance(other, Job):
            raise JobDefinitionError(f"then({other!r}): expected a Job")
        renamed: dict[str, str] = {}
        taken = set(self.steps)
        for name in other.steps:
            fresh, number = name, 2
            while fresh in taken:
                fresh, number = f"{name}-{number}", number + 1
            taken.add(fresh)
            renamed[name] = fresh
        steps = dict(self.steps)
        for name, step in other.steps.items():
            after = tuple(renamed[before] for before in step.after)
            if not after:
                if _reads_pairs(step) is False:
                    raise JobDefinitionError(
                        f"step {name!r} reads single records, so it cannot follow another job; leave its "
                        "reader out, or give it reader=Pairs(), and a mapper of (key, value)"
                    )
                step = replace(step, reader=None)
                after = (self.last_step,)
            steps[renamed[name]] = replace(step, after=after)
        return Job(
            steps=steps,
            name=self.name,
            params=_united("parameter", self.params, other.params),
            side_files=_united("side file", self.side_files, other.side_files),
            max_attempts=self.max_attempts,
            task_timeout_s=self.task_timeout_s,
        )

    def run(self, inputs: str | Path | Sequence[str | Path] = (), **options: Any) -> Result:
        """Run the job on this machine's cores; see `mapreduce.local.run` for the options.

        Returns:
            An iterable of (key, value) in part and key order, with `.counters` and `.report()`.

        Raises:
            JobError: what went wrong, in one line.
            TypeError: the inputs, or an option, are not of the type that they are to have.
        """
        from mapreduce.inputs import paths_of
        from mapreduce.local import run

        return run(self, paths_of(inputs), **options)

    def main(self) -> None:
        """Be a job file's command line: `python count.py INPUT…` is `ringreduce run count.py INPUT…`."""
        from mapreduce.command import run_as_script

        run_as_script(self)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _united(what: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    for key in ours:
        if key in theirs and ours[key] != theirs[key]:
            raise JobDefinitionError(f"both jobs set {what} {key!r}: {ours[key]!r} and {theirs[key]!r}")
    return {**ours, **theirs}


def _check_step(name: str, step: Step) -> None:
    if not isinstance(name, str) or not _STEP_NAME.fullmatch(name):
        raise JobDefinitionError(
            f"step name {name!r}: letters, digits, '_', '-' and '.', at most 64, a letter or digit first"
        )
    where = f"step {name!r}"
    if not isinstance(step, Step):
        raise JobDefinitionError(f"{where}: expected a Step, got {type(step).__name__}")
    if step.mapper is None and step.reducer is None:
        raise JobDefinitionError(f"{where} has neither a mapper nor a reducer")
    for role in ("mapper", "reducer", "combiner", "partitioner", "sort_values", "setup", "teardown"):
        function = getattr(step, role)
        if not (function is None or isinstance(function, (bool, TotalOrder)) or callable(function)):
            raise JobDefinitionError(f"{where}: the {role} is {function!r}, not a function")
    if not isinstance(step.after, tuple | list) or not all(isinstance(before, str) for before in step.after):
        raise JobDefinitionError(f"{where}: after={step.after!r}; write the names of steps as a tuple")
    if step.reader is not None and (isinstance(step.reader, type) or not hasattr(step.reader, "batches")):
        raise JobDefinitionError(
            f"{where}: the reader is {step.reader!r}; it must be a reader such as Text(), or a function "
            "marked with @reader"
        )
    if step.map_only and (step.combiner or step.partitioner or step.sort_values or step.partitions):
        raise JobDefinitionError(
            f"{where} has no reducer, so nothing is shuffled: combiner, partitioner, partitions and "
            "sort_values have no effect; add reducer=identity to shuffle without reducing"
        )
    if step.partitions is not None and not (_is_number(step.partitions) and 1 <= step.partitions <= 100_000):
        raise JobDefinitionError(
            f"{where}: partitions={step.partitions!r} is not a whole number between 1 and 100,000"
        )
    if step.on_bad_record != "fail" and not re.fullmatch(r"skip:\d{1,12}", str(step.on_bad_record)):
        raise JobDefinitionError(
            f"{where}: on_bad_record={step.on_bad_record!r} is neither 'fail' nor 'skip:N'"
        )
    if step.after and step.reader is not None:
        raise JobDefinitionError(f"{where} reads step {step.after[0]!r}, so it takes no reader")
    _check_mapper(where, step, pairs=_reads_pairs(step))
    for role, count, shape in (
        ("reducer", 2, "(key, values)"),
        ("combiner", 2, "(key, values)"),
        ("partitioner", 2, "(key, partitions)"),
        ("sort_values", 1, "(value)"),
        ("setup", 0, "()"),
        ("teardown", 0, "()"),
    ):
        function = getattr(step, role)
        if not (function is None or isinstance(function, (bool, TotalOrder))):
            _check_arity(where, role, function, count, shape)


def _reads_pairs(step: Step) -> bool | None:
    """True if the step reads (key, value) pairs, False if not, None if that depends on where it stands."""
    if step.after or getattr(step.reader, "gives_pairs", False):
        return True
    return None if step.reader is None else False


def _check_mapper(where: str, step: Step, *, pairs: bool | None) -> None:
    if pairs is None:
        # By itself the job reads lines; behind another (`then`) it reads that one's pairs.
        try:
            _check_mapper(where, step, pairs=False)
        except JobDefinitionError as error:
            try:
                _check_mapper(where, step, pairs=True)
            except JobDefinitionError:
                raise error from None
        return
    if step.mapper is None or step.mapper is identity:
        if not pairs:
            mapper = "without a mapper it" if step.mapper is None else "identity"
            raise JobDefinitionError(
                f"{where}: {mapper} passes pairs on, but its reader gives single records; write a mapper "
                "that makes (key, value) of a record, or read pairs with reader=Pairs()"
            )
        return
    if kind := batch_kind(step.mapper):
        fed = ("records",) if pairs else getattr(step.reader, "batch_kinds", BATCH_KINDS)
        if kind not in fed and kind != "split":  # whatever has records has an iterator over them
            raise JobDefinitionError(
                f"{where}: what it reads cannot be had as {kind}; use @batch for a list of records"
            )
        if step.skip_limit and not step.after:
            raise JobDefinitionError(
                f"{where}: a @batch mapper gets many records at a time, so bad ones cannot be left out one "
                "by one; write a mapper of single records, or a reader with errors="
            )
        _check_arity(where, "batch mapper", step.mapper, 1, "(records)")
    elif pairs:
        _check_arity(where, "mapper", step.mapper, 2, "(key, value)")
    else:
        _check_arity(where, "mapper", step.mapper, 1, "(record)")


def _check_arity(where: str, role: str, function: Callable[..., Any], count: int, shape: str) -> None:
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", repr(function))
    # Plain functions answer without inspect, whose import would cost a small job a tenth of its time.
    if code is not None and not hasattr(function, "__wrapped__") and not hasattr(function, "__self__"):
        accepts = code.co_argcount
        required = accepts - len(function.__defaults__ or ())
        keyword_only = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
        fits = required <= count and (accepts >= count or bool(code.co_flags & 0x04)) and keyword_only == 0
    else:
        import inspect

        try:
            inspect.signature(function).bind(*[None] * count)
            fits = True
        except TypeError:
            fits = False
        except ValueError:  # a builtin without a signature: its call will tell
            fits = True
    if not fits:
        place = f" ({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""
        raise JobDefinitionError(
            f"{where}: the {role} {name}{place} cannot be called as {name}{shape}: "
            f"it must take {count} argument{'s' if count != 1 else ''}"
        )
