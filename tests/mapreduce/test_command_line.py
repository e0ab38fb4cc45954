"""`ringreduce run` as a whole process: pipes, signals, scripts, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RINGREDUCE = [sys.executable, "-m", "p2p"]

COUNT = """
    from mapreduce import Job

    def mapper(line):
        for word in line.split():
            yield word, 1

    def reducer(word, counts):
        yield word, sum(counts)

    job = Job(mapper=mapper, reducer=reducer)

    if __name__ == "__main__":
        job.main()
"""

# It tells its pid through a pipe, so that a test knows when it runs, and then never ends by itself.
STUCK = """
    import os
    import time

    def mapper(line):
        with open("told", "w") as pipe:
            pipe.write(str(os.getpid()))
        while True:
            time.sleep(60)
        yield line, 1
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "in.txt").write_text("b a\na c\n")
    yield tmp_path
    left = [path for path in (tmp_path / "tmp").rglob("*") if not path.name.startswith("ringreduce-")]
    assert left == [], "temporary files were left behind"


def write(home: Path, text: str, name: str = "count.py") -> None:
    (home / name).write_text(textwrap.dedent(text), encoding="utf-8")


def environment(home: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RINGREDUCE_")}
    return {**clean, "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def call(home: Path, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd=home, env=environment(home), check=False
    )


def run(home: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return call(home, *RINGREDUCE, "run", *arguments, stdin=stdin)


def test_a_job_file_counts_a_text(home: Path) -> None:
    write(home, COUNT)
    done = run(home, "count.py", "in.txt")
    assert (done.returncode, done.stdout) == (0, "a\t2\nb\t1\nc\t1\n")
    assert done.stderr.startswith("count.py: 8 B in ")


def test_an_example_reads_standard_input(home: Path) -> None:
    done = run(home, "wordcount", "-", "--quiet", stdin="x Y x\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\t2\ny\t1\n", "")


def test_a_script_is_its_own_command(home: Path) -> None:
    write(home, COUNT)
    script = call(home, sys.executable, "count.py", "in.txt", "-q", "--out-format", "jsonl")
    command = run(home, "count.py", "in.txt", "-q", "--out-format", "jsonl")
    assert script.stdout == command.stdout != ""
    assert (script.returncode, script.stderr) == (0, "")


def test_a_script_explains_itself_without_a_job_argument(home: Path) -> None:
    write(home, COUNT)
    done = call(home, sys.executable, "count.py", "--help")
    assert done.returncode == 0
    assert "Usage: count.py [OPTIONS] INPUT" in done.stdout


def test_a_script_need_not_guard_its_main(home: Path) -> None:
    write(home, COUNT.replace('if __name__ == "__main__":', "if True:"))
    done = call(home, sys.executable, "count.py", "in.txt", "-q")
    assert (done.returncode, done.stdout) == (0, "a\t2\nb\t1\nc\t1\n")


def test_a_job_under_the_guard_runs_by_value(home: Path) -> None:
    guarded = COUNT.replace("    job = Job(mapper=mapper, reducer=reducer)\n", "").replace(
        "job.main()", "Job(mapper=lambda line: mapper(line.upper()), reducer=reducer).main()"
    )
    write(home, guarded)
    done = call(home, sys.executable, "count.py", "in.txt", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "A\t2\nB\t1\nC\t1\n", "")


def test_siblings_of_the_job_file_are_found_by_its_tasks(home: Path) -> None:
    (home / "jobs").mkdir()
    write(home, "def split(line):\n    return line.upper().split()\n", "jobs/ring_words.py")
    write(home, COUNT.replace("in line.split()", "in __import__('ring_words').split(line)"), "jobs/count.py")
    done = run(home, "jobs/count.py", "in.txt", "-q")
    assert (done.returncode, done.stdout) == (0, "A\t2\nB\t1\nC\t1\n")


def test_params_reach_user_code_with_their_types(home: Path) -> None:
    write(
        home,
        """
        from mapreduce import task
        params = {"times": 1}
        def mapper(line):
            yield line, task.params["times"] * 2
        """,
    )
    done = run(home, "count.py", "in.txt", "-q", "--param", "times=4")
    assert done.stdout == "b a\t8\na c\t8\n"


def test_prints_of_user_code_go_to_stderr(home: Path) -> None:
    write(home, "print('at import')\ndef mapper(line):\n    print('in a task')\n    yield line, 1\n")
    done = run(home, "count.py", "in.txt")
    assert done.stdout == "b a\t1\na c\t1\n"
    assert "at import\n" in done.stderr
    assert "in a task\n" in done.stderr


def test_a_reader_that_leaves_early_ends_the_job_quietly(home: Path) -> None:
    (home / "big.txt").write_text("".join(f"{n:09}\n" for n in range(100_000)))
    write(home, "def mapper(line):\n    yield line, 'x' * 20\n")
    with subprocess.Popen(
        [*RINGREDUCE, "run", "count.py", "big.txt", "-q", "--report", "report.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=environment(home),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"000000000\t")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
    assert '"state": "COMMITTED"' in (home / "report.json").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
@pytest.mark.parametrize("output", [(), ("-o", "out")], ids=["stdout", "directory"])
def test_an_interruption_ends_the_job_and_its_children(
    home: Path, number: signal.Signals, output: tuple[str, ...]
) -> None:
    write(home, STUCK)
    os.mkfifo(home / "told")
    with subprocess.Popen(
        [*RINGREDUCE, "run", "count.py", "in.txt", *output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment(home),
    ) as process:
        child_pid = int((home / "told").read_text())
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert not (home / "out").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(child_pid, 0)


def test_a_failing_mapper_shows_the_users_traceback_only(home: Path) -> None:
    write(home, "def half(x):\n    return 1 / x\n\ndef mapper(line):\n    yield line, half(0)\n")
    done = run(home, "count.py", "in.txt", "--report", "report.json", "-o", "out")
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "line 2, in half" in done.stderr
    assert "mapreduce/" not in done.stderr
    assert not (home / "report.json").exists()
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("def mapper(line:\n", ("in.txt",), "count.py, line 1: "),
        ("import no_such_thing\n", ("in.txt",), "count.py, line 1: there is no module 'no_such_thing'"),
        ("def mapper(): ...\n", ("in.txt",), "the mapper mapper (count.py"),
        ("x = 1\n", ("in.txt",), "count.py holds no job"),
        ("def mapper(line): ...\n", ("missing.txt",), "missing.txt"),
        ("def mapper(line): ...\n", ("*.none",), "*.none"),
        ("def mapper(line): ...\n", ("in.txt", "-o", "tmp/.."), "tmp/.."),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    home: Path, text: str, arguments: tuple[str, ...], said: str
) -> None:
    write(home, text)
    done = run(home, "count.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said.replace("(count.py", f"({home / 'count.py'}") in done.stderr
