"""From a job and its inputs to the spec that travels to a swarm.

⚙ Reads side files; readers may look into inputs to find where they can be entered.

Splits and samples are planned here, by whoever sees the inputs, exactly as `mapreduce.local` plans them: the
tasks of a job, and so its output, follow from job and input alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mapreduce.bundling import Bundle
from mapreduce.columns import pack_column
from mapreduce.errors import BadValue, InputError, JobDefinitionError, UsageError
from mapreduce.inputs import Source, plan_splits
from mapreduce.job import UNNAMED, Job, Step, TotalOrder
from mapreduce.plan import (
    DEFAULT_SPLIT_BYTES,
    SAMPLE_SPLIT_BYTES,
    SAMPLE_SPLITS,
    Split,
    execution_order,
)
from mapreduce.readers import Text
from mapreduce.spec import (
    MAX_PARTITIONS,
    MAX_SIDE_BYTES,
    MAX_TASKS,
    InputSplit,
    JobCode,
    JobPlan,
    JobSpec,
    PackedColumn,
    StepPlan,
)

__all__ = ["spec_of"]


def spec_of(
    job: Job,
    packed: Bundle,
    sources: Sequence[Source],
    *,
    name: str = "",
    partitions: int | None = None,
    split_bytes: int = DEFAULT_SPLIT_BYTES,
    params: Mapping[str, Any] | None = None,
    out_format: str = "",
    replicas: int = 2,
    strict_replicas: bool = False,
    priority: int = 0,
    ttl_s: float = 3600.0,
) -> JobSpec:
    """Return the spec of a job.

    Args:
        job: what to run.
        packed: the job with its source files, see `mapreduce.bundling.bundle`.
        sources: the input files, by paths that every peer can open, see `mapreduce.inputs.expand`.
        name: what people are shown, if the job has no name of its own.
        partitions: number of reduce tasks of every step that does not say; default: follows from the input.
        split_bytes: about how much input a map task reads.
        params: values for `task.params`, laid over the job's defaults.
        out_format: "text", "jsonl" or "msgpack"; "" for runs, which a client iterates over.
        replicas, strict_replicas, priority, ttl_s: as in `mapreduce.spec.JobPlan`.

    Raises:
        UsageError: the options make no job, or one that is too large for a swarm.
    """
    if not sources:
        raise InputError("a job needs at least one input")
    if partitions is not None and not 1 <= partitions <= MAX_PARTITIONS:
        raise UsageError(f"{partitions} partitions: on a swarm choose 1 to {MAX_PARTITIONS:,}")
    order = execution_order(job.steps)
    try:
        plan = JobPlan(
            name=name if name and job.name == UNNAMED else job.name,
            steps=tuple(
                [_step(name, job.steps[name], order, sources, partitions, split_bytes) for name in order]
            ),
            replicas=replicas,
            strict_replicas=strict_replicas,
            split_bytes=split_bytes,
            out_format=out_format,
            max_attempts=job.max_attempts,
            task_timeout_s=job.task_timeout_s,
            priority=priority,
            ttl_s=ttl_s,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    values = {**job.params, **(params or {})}
    return JobSpec(
        plan=plan,
        code=JobCode(
            job=packed.job, files=packed.files, file=packed.file, digest=packed.digest, root=packed.root
        ),
        param_names=tuple(values),
        params=_packed_values(values),
        side_files=_side_files(job),
    )


def _step(
    name: str,
    step: Step,
    order: Sequence[str],
    sources: Sequence[Source],
    partitions: int | None,
    split_bytes: int,
) -> StepPlan:
    splits: list[Split] = []
    samples: list[Split] = []
    sample_keys = step.partitioner.sample if isinstance(step.partitioner, TotalOrder) else 0
    if not step.after:
        reader = step.reader or Text()
        splits = plan_splits(sources, reader, split_bytes)
        if len(splits) > MAX_TASKS:
            raise UsageError(
                f"step {name!r} would have {len(splits):,} map tasks, on a swarm {MAX_TASKS:,} at the most: "
                "choose larger splits (--split-size)"
            )
        if sample_keys:
            fine = plan_splits(sources, reader, SAMPLE_SPLIT_BYTES)
            count = min(len(fine), SAMPLE_SPLITS)
            samples = [fine[index * len(fine) // count] for index in range(count)]
    return StepPlan(
        name=name,
        after=tuple([order.index(before) for before in step.after]),
        map_only=step.map_only,
        partitions=0 if step.map_only else step.partitions or partitions or 0,
        sample_keys=sample_keys,
        skip_limit=step.skip_limit,
        splits=tuple(map(InputSplit.of, splits)),
        samples=tuple(map(InputSplit.of, samples)),
    )


def _packed_values(values: Mapping[str, Any]) -> PackedColumn:
    for name, value in values.items():
        try:
            pack_column([value])
        except BadValue as error:
            raise JobDefinitionError(f"parameter {name!r} cannot travel to other machines: {error}") from None
    form, data = pack_column(list(values.values()))
    return PackedColumn(form=form, data=data)


def _side_files(job: Job) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    left = MAX_SIDE_BYTES
    for name, path in job.side_files.items():
        if not os.path.isfile(path):
            raise InputError(f"side file {name}: no such file: {path}")
        with open(path, "rb") as file:
            found[name] = file.read(left + 1)
        left -= len(found[name])
        if left < 0:
            raise UsageError(
                f"side files of more than {MAX_SIDE_BYTES >> 20} MiB are too much to send along: "
                "put them where all peers see them and read them in setup"
            )
    return found
