"""Spec files: what they mean, and where each mistake stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobrunner import SpecError
from jobrunner.batch import load_spec

WHOLE = """\
[batch]
target = "ising.py:simulate"
name = "first"
seed = 7
replicates = 5
store = "out/first.db"

[sweep]
size = [16, 32]
temperature = "1.5:3.5:0.1"
mode = "fast"

[[zip]]
a = [1, 2]
b = ["x", "1:2"]

[fixed]
sweeps = 1000
cell = [1, 2]

[options]
time_limit = 60
retries = 1
threads = 2
grace = 0.5
max_failures = 10
stop_on_error = false
workers = 4
"""


def spec_file(directory: Path, text: str) -> Path:
    path = directory / "spec.toml"
    path.write_text(text)
    return path


def test_a_whole_spec(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, WHOLE))
    assert (spec.target, spec.name, spec.seed) == ("ising.py:simulate", "first", 7)
    assert spec.directory == tmp_path.resolve()
    assert spec.options == {"time_limit": 60, "retries": 1, "threads": 2, "grace": 0.5}
    assert spec.policy == {"max_failures": 10, "stop_on_error": False}
    assert (spec.workers, spec.replicates, spec.store) == (4, 5, tmp_path.resolve() / "out" / "first.db")
    assert spec.fixed == {"sweeps": 1000, "cell": [1, 2]}
    assert len(spec.points) == 2 * 21 * 1 * 2
    assert spec.points[1] == {
        "size": 16,
        "temperature": 1.5,
        "mode": "fast",
        "a": 2,
        "b": "1:2",
        "sweeps": 1000,
        "cell": [1, 2],
    }
    assert spec.points[-1]["temperature"] == 3.5


def test_the_least_spec_is_one_point_named_after_the_file(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, '[batch]\ntarget = "a:b"\n'))
    assert (spec.name, spec.seed, list(spec.points), spec.options) == ("spec", None, [{}], {})
    assert (spec.replicates, spec.fixed, spec.store, spec.policy, spec.workers) == (1, {}, None, {}, None)


BATCH = '[batch]\ntarget = "a:b"\n'


def test_a_batch_for_a_cluster_may_ask_for_more_than_this_machine_has(tmp_path: Path) -> None:
    more = "memory_limit = '900TB'\nthreads = 100000\n"
    place = "engine = 'dask'\naddress = 'tcp://h:1'\nupload = ['model.py']\n"
    spec = load_spec(spec_file(tmp_path, BATCH + "[options]\n" + place + more))
    assert (spec.engine, spec.address, spec.upload) == ("dask", "tcp://h:1", (tmp_path.resolve() / "model.py",))
    assert spec.options == {"memory_limit": "900TB", "threads": 100000}
    unsaid = spec_file(tmp_path, BATCH + "[options]\n" + more)
    assert load_spec(unsaid, engine="ray").options == spec.options
    with pytest.raises(SpecError, match="what this machine has"):
        load_spec(unsaid)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "target: is required"),
        ("[batch]\nname = 'x'\n", 1, "target: is required"),
        ("[batch\n", 1, "no valid TOML"),
        (BATCH + "x = \n", 3, "no valid TOML"),
        (BATCH + "target = 'c:d'\n", 3, "no valid TOML"),
        (BATCH + "[sweep]\nsize = [1,\n", 5, "no valid TOML"),
        (BATCH + "nam = 'x'\n", 3, "nam: unknown.*did you mean 'name'"),
        (BATCH + "\n[swep]\nsize = [1]\n", 4, "swep: unknown.*did you mean 'sweep'"),
        (BATCH + "[options]\nretires = 1\n", 4, "retires: unknown.*did you mean 'retries'"),
        (BATCH + "[options]\nretries = -1\n", 4, "retries must be at least 0"),
        (BATCH + "[options]\nretries = 'x'\n", 4, "retries must be a whole number"),
        (BATCH + "[options]\ntime_limit = 0\n", 4, "time_limit must be above 0"),
        (BATCH + "[options]\nmemory_limit = '1 lot'\n", 4, "memory_limit: memory_limit must be above 0 bytes"),
        (BATCH + "[options]\nthreads = 1000000\n", 4, "threads must be at least 1"),
        (BATCH + "[options]\ngrace = -1\n", 4, "grace must be at least 0"),
        (BATCH + "[options]\nmax_failures = 0\n", 4, "max_failures must be at least 1"),
        (BATCH + "[options]\nmax_failures = 1.5\n", 4, "max_failures must be a whole number"),
        (BATCH + "[options]\nmax_failure = 1\n", 4, "max_failure: unknown.*did you mean 'max_failures'"),
        (BATCH + "[options]\nstop_on_error = 1\n", 4, "stop_on_error: expected true or false, found 1"),
        (BATCH + "[options]\nworkers = 0\n", 4, "workers must be at least 1"),
        (BATCH + "[options]\nworkers = true\n", 4, "workers must be a whole number"),
        (BATCH + "[options]\ncapture_output = true\n", 4, "capture_output: unknown"),
        (BATCH + "[options]\nengine = 'slurm'\n", 4, "engine: expected one of local, dask, ray, found 'slurm'"),
        (BATCH + "[options]\nengine = 3\n", 4, "engine: expected one of local, dask, ray, found 3"),
        (BATCH + "[options]\naddress = 'tcp://h:1'\n", 4, "address: is for a cluster: name it with engine ="),
        (BATCH + "[options]\nengine = 'local'\nupload = ['x.py']\n", 5, "upload: is for a cluster"),
        (BATCH + "[options]\nengine = 'dask'\naddress = 3\n", 5, "address: expected text, found 3"),
        (BATCH + "[options]\nengine = 'dask'\nupload = 'x.py'\n", 5, "upload: expected a list of files, found 'x.py'"),
        (BATCH + "[options]\nengine = 'dask'\nupload = ['']\n", 5, "upload: expected a list of files"),
        (BATCH + "[options]\nengine = 'dask'\nthreads = 0\n", 5, "threads must be at least 1, not 0"),
        (BATCH + "[options]\nmemory_limit = '900TB'\n", 4, r"what this machine has\), not '900TB'"),
        (BATCH + "engine = 'dask'\n", 3, "engine: unknown"),
        (BATCH + "store = 3\n", 3, "store: expected text"),
        (BATCH + "store = ''\n", 3, "store: expected text"),
        (BATCH + 'store = "a\\u0000b"\n', 3, "store: expected text"),
        (BATCH + "replicates = 0\n", 3, "replicates: expected a whole number of at least 1, found 0"),
        (BATCH + "replicates = 2.0\n", 3, "replicates: expected a whole number"),
        (BATCH + "replicates = true\n", 3, "replicates: expected a whole number"),
        (BATCH + "replicate = 2\n", 3, "replicate: unknown.*did you mean 'replicates'"),
        (BATCH + "points = [1]\n", 3, "points: expected text"),
        (BATCH + "points = 'none.csv'\n", 3, "points: .*none.csv: can't be read: No such file"),
        (BATCH + "points = 'points.txt'\n", 3, "points: .*points.txt: expected a file of points"),
        ("[batch]\ntarget = 3\n", 2, "target: expected text"),
        (BATCH + "name = ''\n", 3, "name: expected text"),
        (BATCH + "seed = 1.5\n", 3, "seed: expected a whole number"),
        (BATCH + "seed = true\n", 3, "seed: expected a whole number"),
        (BATCH + "[sweep]\n", 3, "sweep: is empty"),
        ("sweep = 3\n" + BATCH, 1, r"sweep: expected a table \[sweep\]"),
        (BATCH + "[sweep]\nsize = []\n", 4, "size: no values"),
        (BATCH + "[sweep]\nsize = '1:2:0'\n", 4, "size: '1:2:0': the step is 0"),
        (BATCH + "[sweep]\nsize = [1, nan]\n", 4, "size: expected finite"),
        (BATCH + "[sweep]\nsize = '1:'\n", 4, "size: '1:': the stop is missing, so the range never ends"),
        (BATCH + "[sweep]\nsize = '3:1'\n", 4, "size: '3:1': .*the range is empty"),
        (BATCH + "[sweep]\nsize = '1:nan'\n", 4, "size: '1:nan': .*no finite number"),
        (BATCH + "[sweep]\nmode = ['a']\nsize = [1, 1]\n", 5, "size=1 stands twice: .*say replicates=N"),
        (BATCH + "[sweep]\nwhen = [1979-05-27]\n", 4, "when: expected numbers"),
        (BATCH + "[fixed]\nwhen = 1979-05-27\n", 4, "when: expected numbers"),
        (BATCH + "[fixed]\nx = inf\n", 4, "x: expected finite"),
        (BATCH + "[sweep]\nsize = [1]\n[fixed]\nsize = 2\n", 6, "size: the parameter is given twice"),
        (BATCH + "[[zip]]\na = [1, 2]\nb = [1]\n", 4, "a has 2, b has 1"),
        (BATCH + "[[zip]]\na = [1, 2]\n[[zip]]\nb = [1, 2]\nc = [1]\n", 6, "b has 2, c has 1"),
        (BATCH + "[[zip]]\na = [1, 2]\n[[zip]]\nb = [1]\na = [3]\n", 7, r"a: the parameter is given twice \(line 4\)"),
        (BATCH + "[zip]\na = [1, 2]\n", 3, r"zip: expected \[\[zip\]\]"),
        (BATCH + "[sweep]\n'a b' = [1]\n", 4, "a b: expected a parameter's name"),
        (BATCH + "[sweep]\na = '1:10000'\nb = '1:10000'\n", 5, "100,000,000 points"),
        ("batch.target = 'a:b'\nbatch.nam = 'x'\n", 2, "nam: unknown"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    path = spec_file(tmp_path, text)
    with pytest.raises(SpecError, match=reason) as caught:
        load_spec(path)
    assert caught.value.file == str(path)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        load_spec(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# \xe9\xff\n")
    with pytest.raises(SpecError, match="UTF-8"):
        load_spec(path)


def test_an_error_about_a_parameter_is_located_at_its_line(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, WHOLE))
    located = spec.located(SpecError("no such parameter", key="mode"))
    assert (located.file, located.line) == (str(spec.path), 11)
    assert str(located) == f"{spec.path}:11: mode: no such parameter"
    elsewhere = SpecError("x", file="other.py", line=1)
    assert spec.located(elsewhere) is elsewhere


def test_points_of_a_file_are_multiplied_with_the_other_parameters(tmp_path: Path) -> None:
    (tmp_path / "points.jsonl").write_text('{"size": 16}\n{"size": 32, "mode": "fast"}\n')
    text = BATCH + 'points = "points.jsonl"\n[sweep]\nfield = [0.0, 0.5]\n[fixed]\nsweeps = 10\nseeds = "1:2"\n'
    spec = load_spec(spec_file(tmp_path, text))
    assert list(spec.points) == [
        {"size": 16, "field": 0.0, "sweeps": 10, "seeds": "1:2"},
        {"size": 16, "field": 0.5, "sweeps": 10, "seeds": "1:2"},
        {"size": 32, "mode": "fast", "field": 0.0, "sweeps": 10, "seeds": "1:2"},
        {"size": 32, "mode": "fast", "field": 0.5, "sweeps": 10, "seeds": "1:2"},
    ]
    assert spec.points.common == ("size", "field", "sweeps", "seeds")
    assert spec.located(SpecError("no such parameter", key="mode")).line == 3


def test_a_parameter_of_the_file_and_the_spec_is_refused(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("size\n16\n")
    path = spec_file(tmp_path, BATCH + 'points = "points.csv"\n[fixed]\nsize = 3\n')
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value) == f"{path}:5: size: the parameter is given twice (line 3)"


def test_a_mistake_in_the_file_of_points_is_told_with_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("size\n16\nnan\n")
    with pytest.raises(SpecError, match="expected a finite number") as caught:
        load_spec(spec_file(tmp_path, BATCH + 'points = "points.csv"\n'))
    assert (caught.value.file, caught.value.line) == (str(tmp_path.resolve() / "points.csv"), 3)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (f"[batch]\ntarget = 'math:sqrt'\n[sweep]\nx = [{'9' * 5000}]\n", 4, "has a number that is too long"),
        (f"[sweep]\nx = {'[' * 5000}{']' * 5000}\n", None, "nested too deeply"),
        (
            "[batch]\ntarget = 'math:sqrt'\n[sweep]\nx = [1]\n[options]\nmax_failures = 2\nstop_on_error = true\n",
            7,
            "stop_on_error: is max_failures = 1: give one of the two",
        ),
    ],
    ids=["digits", "depth", "both policies"],
)
def test_what_cannot_be_read_or_meant_is_an_error_with_its_place(
    tmp_path: Path, text: str, line: int | None, reason: str
) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(text)
    with pytest.raises(SpecError, match=reason) as caught:
        load_spec(file)
    assert (caught.value.file, caught.value.line) == (str(file), line)
