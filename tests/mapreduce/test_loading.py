"""Job files are found, executed and carried to other processes; what is wrong with them is one line."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapreduce import Job
from mapreduce.errors import JobDefinitionError
from mapreduce.finding import examples, examples_text, load
from mapreduce.loading import JOB_MODULE, Code, is_loading, load_file, pack, replace_job, unpack

ROOT = Path(__file__).parents[2]

PLAIN = """
def mapper(line):
    for word in line.split():
        yield word, 1

def reducer(word, counts):
    yield word, sum(counts)
"""

UNPACK = """
import pickle, sys
from mapreduce.loading import Code, unpack
code = Code(**pickle.load(sys.stdin.buffer))
step = next(iter(unpack(code).steps.values()))
print(list(step.mapper("a b")))
"""


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    replace_job()


def write(directory: Path, text: str, name: str = "count.py") -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return str(path)


def refusal(argument: str, **params: str) -> str:
    with pytest.raises(JobDefinitionError) as caught:
        load(argument, params)
    message = str(caught.value)
    assert "\n" not in message
    return message


def mapped_in_a_new_process(code: Code, cwd: Path) -> str:
    import pickle

    child = subprocess.run(
        [sys.executable, "-c", UNPACK],
        input=pickle.dumps({"job": code.job, "file": code.file, "sys_path": (*code.sys_path, str(ROOT))}),
        capture_output=True,
        cwd=cwd,
        check=False,
    )
    assert child.returncode == 0, child.stderr.decode()
    return child.stdout.decode().strip()


# -- finding ------------------------------------------------------------------------------------------


def test_a_file_with_a_mapper_is_a_job(tmp_path: Path) -> None:
    job, code, params = load(write(tmp_path, PLAIN), {})
    assert next(iter(next(iter(job.steps.values())).mapper("a b"))) == ("a", 1)
    assert job.name == "count"
    assert code.file == str(tmp_path / "count.py")
    assert code.sys_path[0] == str(tmp_path)
    assert params == {}


def test_a_module_in_the_current_directory_is_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, PLAIN, "ringpack/counting.py")
    write(tmp_path, "", "ringpack/__init__.py")
    monkeypatch.chdir(tmp_path)
    job, code, _ = load("ringpack.counting", {})
    assert code.file is None
    assert code.sys_path[0] == str(tmp_path)
    assert next(iter(job.steps.values())).mapper.__module__ == "ringpack.counting"


def test_every_example_is_found_by_its_name() -> None:
    assert "wordcount" in examples()
    for name in examples():
        job, code, _ = load(name, {})
        assert isinstance(job, Job)
        assert code.file is None


def test_an_examples_name_may_be_written_with_dashes() -> None:
    assert load("inverted-index", {})[0].steps == load("inverted_index", {})[0].steps


def test_each_example_has_a_line_of_description() -> None:
    for line in examples_text().splitlines():
        name, _, description = line.strip().partition(" ")
        assert name in examples()
        assert description.strip()


def test_a_misspelt_example_gets_a_suggestion_and_the_list() -> None:
    message = refusal("wordcoutn")
    assert "did you mean 'wordcount'?" in message
    assert "pagerank" in message


def test_a_missing_file_gets_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path, PLAIN)
    assert "there is no file" in refusal(str(tmp_path / "cuont.py"))
    assert "did you mean 'count.py'?" in refusal(str(tmp_path / "cuont.py"))


def test_a_directory_is_no_job_but_a_file_in_it_may_be(tmp_path: Path) -> None:
    assert "is a directory, not a job" in refusal(str(tmp_path))
    write(tmp_path, PLAIN)
    assert refusal(str(tmp_path)).endswith("count.py")


def test_a_file_shadows_an_example_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, PLAIN, "wordcount")
    assert load("wordcount", {})[1].file == str(tmp_path / "wordcount")


# -- which object -------------------------------------------------------------------------------------


def test_the_attribute_job_comes_first(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        from mapreduce import Job
        def mapper(line): yield line, 1
        other = Job(mapper=mapper, name="other")
        job = Job(mapper=mapper, name="this")
        """,
    )
    assert load(file, {})[0].name == "this"
    assert load(f"{file}:other", {})[0].name == "other"
    assert "has no 'otter' (did you mean 'other'?)" in refusal(f"{file}:otter")


def test_several_jobs_are_named_and_one_must_be_chosen(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        from mapreduce import Job
        def mapper(line): yield line, 1
        first = Job(mapper=mapper)
        second = Job(mapper=mapper)
        """,
    )
    assert f"{file}:first or {file}:second" in refusal(file)


def test_one_job_under_two_names_is_one_job(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        from mapreduce import Job
        def mapper(line): yield line, 1
        first = Job(mapper=mapper, name="one")
        alias = first
        """,
    )
    assert load(file, {})[0].name == "one"


FUNCTION = """
    from mapreduce import Job
    def mapper(line): yield line, 1
    def job(rounds: int, damping=0.85) -> Job:
        assert isinstance(rounds, int)
        return Job(mapper=mapper, params={"rounds": rounds, "extra": "x"})
"""


def test_a_function_that_makes_a_job_takes_its_arguments_from_params(tmp_path: Path) -> None:
    file = write(tmp_path, FUNCTION)
    job, _, params = load(file, {"rounds": "3", "extra": "y"})
    assert job.params["rounds"] == 3
    assert params == {"rounds": 3, "extra": "y"}


def test_a_function_that_misses_an_argument_says_which(tmp_path: Path) -> None:
    assert "--param rounds=…" in refusal(write(tmp_path, FUNCTION))


def test_an_unknown_parameter_is_compared_with_the_functions_arguments(tmp_path: Path) -> None:
    assert "did you mean 'damping'?" in refusal(write(tmp_path, FUNCTION), rounds="1", dampin="2")


def test_a_function_that_makes_no_job_is_refused(tmp_path: Path) -> None:
    assert "returned int, not a Job" in refusal(write(tmp_path, "def job(): return 5"))


def test_a_plain_module_may_say_more_than_mapper_and_reducer(tmp_path: Path) -> None:
    more = PLAIN + "combiner = reducer\npartitions = 3\nparams = {'k': 1}\n"
    job, _, params = load(write(tmp_path, more), {"k": "2"})
    step = next(iter(job.steps.values()))
    assert step.combiner is step.reducer
    assert step.partitions == 3
    assert params == {"k": 2}


def test_a_file_without_a_mapper_says_what_to_define(tmp_path: Path) -> None:
    assert "holds no job: define mapper(record)" in refusal(write(tmp_path, "x = 1"))
    assert "has a reducer but no mapper" in refusal(write(tmp_path, "def reducer(k, v): ..."))


def test_a_mapper_of_the_wrong_arity_is_refused_before_any_work(tmp_path: Path) -> None:
    assert "must take 1 argument" in refusal(write(tmp_path, "def mapper(a, b): ...\ndef reducer(k, v): ..."))


# -- what can be wrong with a file --------------------------------------------------------------------


def test_a_syntax_error_has_file_line_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "x = 1\ndef mapper(line)\n    pass\n")
    assert refusal("count.py") == "count.py, line 2: expected ':': def mapper(line)"


def test_a_file_that_is_no_python_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("It was the best of times", encoding="utf-8")
    assert "is it a Python file?" in refusal(str(path))
    path.write_bytes(b"\x00\x01\x02")
    assert str(path) in refusal(str(path))


def test_a_missing_import_names_module_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "import helping\n")
    write(tmp_path, "\n\nimport no_such_thing.sub\n", "helping.py")
    assert refusal("count.py").startswith("helping.py, line 3: there is no module 'no_such_thing'")


def test_a_syntax_error_in_an_imported_module_is_placed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "import broken_helper\n")
    write(tmp_path, "def f(:\n", "broken_helper.py")
    message = refusal("count.py")
    assert message.startswith("broken_helper.py, line 1: ")
    assert "imported from count.py, line 1" in message


def test_an_exception_at_import_shows_the_users_frames_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "def half(x):\n    return 1 / x\nhalf(0)\n")
    with pytest.raises(JobDefinitionError) as caught:
        load("count.py", {})
    assert str(caught.value) == "count.py, line 2: ZeroDivisionError: division by zero"
    (note,) = caught.value.__notes__
    assert note.startswith("Traceback (most recent call last):")
    assert "half(0)" in note
    assert "loading.py" not in note
    assert "importlib" not in note


def test_a_file_that_exits_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "import sys\nsys.exit(3)\n"))
    assert "line 2: the job ends the program (SystemExit: 3)" in message
    assert '__name__ == "__main__"' in message


def test_a_wrong_job_definition_is_placed_in_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "from mapreduce import Job\njob = Job()\n")
    assert refusal("count.py").startswith("count.py, line 2: step 'main' has neither")


def test_a_relative_import_is_explained(tmp_path: Path) -> None:
    assert "run by its module name" in refusal(write(tmp_path, "from . import helper\n"))


def test_a_job_file_cannot_start_a_job_while_it_is_loaded(tmp_path: Path) -> None:
    text = PLAIN + "from mapreduce import Job\njob = Job(mapper=mapper, reducer=reducer)\n"
    assert isinstance(load(write(tmp_path, text + "job.main()\n"), {})[0], Job)
    starting = text + "from mapreduce.loading import pack\npack(job)\n"
    assert "is started while its file is being loaded" in refusal(write(tmp_path, starting))
    assert not is_loading()


# -- one process, one job -----------------------------------------------------------------------------


def test_the_main_guard_does_not_fire(tmp_path: Path) -> None:
    module = load_file(write(tmp_path, "name = __name__\nif name == '__main__':\n    raise SystemExit\n"))
    assert module.name == JOB_MODULE


def test_a_job_file_called_json_shadows_nothing(tmp_path: Path) -> None:
    load(write(tmp_path, PLAIN, "json.py"), {})
    assert sys.modules["json"] is json


def test_a_second_job_does_not_get_the_first_ones_helpers(tmp_path: Path) -> None:
    for number in (1, 2):
        directory = tmp_path / str(number)
        write(directory, f"value = {number}\n", "ring_helper.py")
        file = write(directory, PLAIN + "import ring_helper\nparams = {'n': ring_helper.value}\n")
        assert load(file, {})[0].params == {"n": number}
    assert sys.path.count(str(tmp_path / "1")) == 0


def test_the_module_path_is_as_before_when_the_job_is_gone(tmp_path: Path) -> None:
    before = list(sys.path)
    load(write(tmp_path, PLAIN), {})
    assert sys.path[0] == str(tmp_path)
    replace_job()
    assert sys.path == before
    assert JOB_MODULE not in sys.modules


# -- to another process -------------------------------------------------------------------------------


def test_a_job_file_is_carried_by_name_without_cloudpickle(tmp_path: Path) -> None:
    code = load(write(tmp_path, PLAIN), {})[1]
    assert JOB_MODULE.encode() in code.job
    assert b"cloudpickle" not in code.job
    assert mapped_in_a_new_process(code, tmp_path) == "[('a', 1), ('b', 1)]"


def test_a_jobs_siblings_are_found_in_the_other_process(tmp_path: Path) -> None:
    write(tmp_path, "def words(line):\n    return line.upper().split()\n", "siblings.py")
    file = write(
        tmp_path,
        """
        def mapper(line):
            from siblings import words
            for word in words(line): yield word, 1
        """,
    )
    (tmp_path / "elsewhere").mkdir()
    assert mapped_in_a_new_process(load(file, {})[1], tmp_path / "elsewhere") == "[('A', 1), ('B', 1)]"


@pytest.mark.parametrize(
    "mapper",
    [
        "job = Job(mapper=lambda line: [(w, FACTOR) for w in line.split()])",
        """
def make(factor):
    def mapper(line):
        return [(w, factor) for w in line.split()]
    return mapper
job = Job(mapper=make(FACTOR))
""",
    ],
    ids=["lambda", "closure"],
)
def test_lambdas_and_closures_of_a_job_file_are_carried_by_value(tmp_path: Path, mapper: str) -> None:
    file = write(tmp_path, f"from mapreduce import Job\nFACTOR = 7\n{mapper}\n")
    assert mapped_in_a_new_process(load(file, {})[1], tmp_path) == "[('a', 7), ('b', 7)]"


def test_functions_of_a_running_script_are_carried_by_value(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        f"""
        import pickle, sys
        sys.path.insert(0, {str(ROOT)!r})
        from mapreduce import Job
        from mapreduce.loading import pack
        FACTOR = 5
        def mapper(line):
            for word in line.split(): yield word, FACTOR
        code = pack(Job(mapper=mapper))
        pickle.dump((code.job, code.file, code.sys_path), sys.stdout.buffer)
        """,
    )
    import pickle

    output = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    job, file, sys_path = pickle.loads(output)
    assert file is None
    assert sys_path[0] == str(ROOT)
    assert str(tmp_path) in sys_path
    code = Code(job=job, file=file, sys_path=sys_path)
    assert mapped_in_a_new_process(code, tmp_path) == "[('a', 5), ('b', 5)]"


def test_what_cannot_travel_says_where_to_put_it(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        from mapreduce import Job
        import threading
        lock = threading.Lock()
        def mapper(line): yield line, 1
        job = Job(mapper=mapper, params={"lock": lock})
        """,
    )
    assert "open files, locks and connections belong into setup()" in refusal(file)


def test_a_packed_job_is_unpacked_as_it_was() -> None:
    job, code, _ = load("wordcount", {})
    assert unpack(code) == job
    assert pack(job).file is None


class Unwilling:
    """Something that refuses to be pickled in a way of its own, as locks of multiprocessing do."""

    def __reduce__(self) -> str:
        raise RuntimeError("to be shared through inheritance only")

    def __call__(self, line: str) -> list[tuple[str, int]]:
        return [(line, 1)]


def test_whatever_keeps_a_job_from_travelling_is_told_as_the_jobs_mistake() -> None:
    with pytest.raises(JobDefinitionError, match=r"cannot travel.*through inheritance only"):
        pack(Job(mapper=Unwilling()))
