"""What user code has printed: bounded for each job, and in the number of jobs."""

from __future__ import annotations

from p2p.job_logs import MAX_LOGS, JobLogs
from p2p.job_questions import MAX_LOG_BYTES


def test_a_job_that_prints_for_ever_keeps_the_end_of_it() -> None:
    logs = JobLogs()
    for number in range(3):
        logs.add("job", str(number) * (MAX_LOG_BYTES // 2 - 1))
    kept = logs.text("job").split("\n")
    assert [line[0] for line in kept] == ["1", "2"]


def test_of_too_many_jobs_the_one_that_was_silent_for_longest_goes() -> None:
    logs = JobLogs()
    for number in range(MAX_LOGS):
        logs.add(f"job {number}", "a")
    logs.add("job 0", "b")
    logs.add("another", "a")
    assert logs.text("job 0") == "a\nb"
    assert logs.text("job 1") == ""
    assert logs.text("another") == "a"
