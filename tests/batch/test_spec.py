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
"""


def spec_file(directory: Path, text: str) -> Path:
    path = directory / "spec.toml"
    path.write_text(text)
    return path


def test_a_whole_spec(tmp_path: Path) -> None:
    spec = load_spec(spec_file(tmp_path, WHOLE))
    assert (spec.target, spec.name, spec.seed) == ("ising.py:simulate", "first", 7)
    assert spec.directory == tmp_path.resolve()
    assert spec.options == {"time_limit": 60, "retries": 1, "threads": 2}
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


BATCH = '[batch]\ntarget = "a:b"\n'


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "target: is required"),
        ("[batch]\nname = 'x'\n", 1, "target: is required"),
        ("[batch\n", 1, "no valid TOML"),
        (BATCH + "x = \n", 3, "no valid TOML"),
        (BATCH + "target = 'c:d'\n", 3, "no valid TOML"),
        (BATCH + "[sweep]\nsize = [1,\n", None, "no valid TOML"),
        (BATCH + "nam = 'x'\n", 3, "nam: unknown.*did you mean 'name'"),
        (BATCH + "\n[swep]\nsize = [1]\n", 4, "swep: unknown.*did you mean 'sweep'"),
        (BATCH + "[options]\nretires = 1\n", 4, "retires: unknown.*did you mean 'retries'"),
        (BATCH + "[options]\nretries = -1\n", 4, "retries must be at least 0"),
        (BATCH + "[options]\nretries = 'x'\n", 4, "retries must be a whole number"),
        (BATCH + "[options]\ntime_limit = 0\n", 4, "time_limit must be above 0"),
        (BATCH + "[options]\nmemory_limit = '1 lot'\n", 4, "memory_limit: memory_limit must be above 0 bytes"),
        (BATCH + "[options]\ncapture_output = true\n", 4, "capture_output: is not supported in this version"),
        (BATCH + "store = 'x.db'\n", 3, "store: is not supported in this version"),
        (BATCH + "replicates = 3\n", 3, "replicates: is not supported in this version"),
        ("[batch]\ntarget = 3\n", 2, "target: expected text"),
        (BATCH + "name = ''\n", 3, "name: expected text"),
        (BATCH + "seed = 1.5\n", 3, "seed: expected a whole number"),
        (BATCH + "seed = true\n", 3, "seed: expected a whole number"),
        (BATCH + "[sweep]\n", 3, "sweep: is empty"),
        ("sweep = 3\n" + BATCH, 1, r"sweep: expected a table \[sweep\]"),
        (BATCH + "[sweep]\nsize = []\n", 4, "size: no values"),
        (BATCH + "[sweep]\nsize = '1:2:0'\n", 4, "size: '1:2:0': the step is 0"),
        (BATCH + "[sweep]\nsize = [1, nan]\n", 4, "size: expected finite"),
        (BATCH + "[sweep]\nsize = [1, 1]\n", None, "size=1 stands twice"),
        (BATCH + "[sweep]\nwhen = [1979-05-27]\n", 4, "when: expected numbers"),
        (BATCH + "[fixed]\nwhen = 1979-05-27\n", 4, "when: expected numbers"),
        (BATCH + "[fixed]\nx = inf\n", 4, "x: expected finite"),
        (BATCH + "[sweep]\nsize = [1]\n[fixed]\nsize = 2\n", 6, "size: the parameter is given twice"),
        (BATCH + "[[zip]]\na = [1, 2]\nb = [1]\n", None, "a has 2, b has 1"),
        (BATCH + "[zip]\na = [1, 2]\n", 3, r"zip: expected \[\[zip\]\]"),
        (BATCH + "[sweep]\n'a b' = [1]\n", 4, "a b: expected a parameter's name"),
        (BATCH + "[sweep]\na = '1:10000'\nb = '1:10000'\n", None, "100,000,000 points"),
        ("batch.target = 'a:b'\nbatch.nam = 'x'\n", 2, "nam: unknown"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str, line: int | None, reason: str
) -> None:
    path = spec_file(tmp_path, text)
    with pytest.raises(SpecError, match=reason) as caught:
        load_spec(path)
    assert caught.value.file == str(path)
    if line is not None:
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
    assert (located.file, located.line) == (str(spec.path), 9)
    assert str(located) == f"{spec.path}:9: mode: no such parameter"
    elsewhere = SpecError("x", file="other.py", line=1)
    assert spec.located(elsewhere) is elsewhere
