"""Targets: finding the function that a text names, and checking parameters against it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from jobrunner import Batch, LocalExecutor, SpecError, sweep
from jobrunner.batch import Target, check_parameters, load_target


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test's modules and path entries are forgotten after it."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_module_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sim_here.py", "def double(x): return 2 * x")
    monkeypatch.chdir(tmp_path)
    target = load_target("sim_here:double")
    assert target.function(4) == 8
    assert target.name == "double"


def test_a_file_is_imported_under_its_name_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "a" / "helper_of_sim.py", "FACTOR = 3")
    write(tmp_path / "a" / "sim_by_file.py", "import helper_of_sim\ndef triple(x): return helper_of_sim.FACTOR * x")
    function = load_target("a/sim_by_file.py:triple", directory=tmp_path).function
    assert function(2) == 6
    assert pickle.loads(pickle.dumps(function)) is function
    assert load_target(f"{tmp_path}/a/sim_by_file.py:triple").function is function


def test_a_file_of_a_package_may_import_its_siblings(tmp_path: Path) -> None:
    write(tmp_path / "pkg_of_sim" / "__init__.py", "")
    write(tmp_path / "pkg_of_sim" / "helper.py", "FACTOR = 3")
    write(tmp_path / "pkg_of_sim" / "sim.py", "from .helper import FACTOR\ndef triple(x): return FACTOR * x")
    function = load_target("pkg_of_sim/sim.py:triple", directory=tmp_path).function
    assert function(2) == 6
    assert function.__module__ == "pkg_of_sim.sim"


@pytest.mark.parametrize("name", ["sim.v2.py", "random.py", "statistics.py", "pytest.py"])
def test_a_file_that_cannot_be_imported_by_name_travels_by_value(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "FACTOR = 3\ndef triple(x): return FACTOR * x")
    function = load_target(f"{name}:triple", directory=tmp_path).function
    code = "import sys, pickle; print(pickle.load(sys.stdin.buffer)(2))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=cloudpickle.dumps(function), capture_output=True, check=True
    )
    assert done.stdout.strip() == b"6"


def test_a_method_is_a_target(tmp_path: Path) -> None:
    write(tmp_path / "sim_class.py", "class Sim:\n    @staticmethod\n    def run(x): return x")
    assert load_target("sim_class.py:Sim.run", directory=tmp_path).function(5) == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sim_bad", "expected module:function or path/to/file.py:function, found 'sim_bad'"),
        (":f", "expected module:function"),
        ("sim_bad:", "expected module:function"),
        ("no module:f", "no module's name"),
        ("sim_ba:f", "no module named 'sim_ba'.*did you mean 'sim_bad'"),
        ("sim_bda.py:f", "there is no file.*did you mean 'sim_bad.py'"),
        ("sim_bad.py:simulat", "'sim_bad' has no 'simulat'; did you mean 'simulate'"),
        ("sim_bad:Sim.ru", "'Sim' has no 'ru'; did you mean 'run'"),
        ("sim_bad:NUMBER", "is int, which can't be called"),
        ("sim_needs:f", "sim_needs.py:2: target: importing sim_needs failed: ModuleNotFoundError: .*'no_such_thing'"),
        ("sim_fails.py:f", "sim_fails.py:2: target: importing .*sim_fails.py failed: ZeroDivisionError"),
        ("sim_syntax.py:f", "sim_syntax.py:2: target: importing .* failed: SyntaxError"),
        ("sim_exits.py:f", "importing .* failed: SystemExit: 7"),
        ("my-fails.py:f", "importing .* failed: KeyError"),
        ("no_package.sub:f", "no module named 'no_package'"),
    ],
)
def test_a_wrong_target_is_refused_with_the_reason_and_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    write(tmp_path / "sim_bad.py", "NUMBER = 1\ndef simulate(): ...\nclass Sim:\n    def run(self): ...")
    write(tmp_path / "sim_needs.py", "import os\nimport no_such_thing\ndef f(): ...")
    write(tmp_path / "sim_fails.py", "x = 0\ny = 1 / x\ndef f(): ...")
    write(tmp_path / "sim_syntax.py", "x = 0\ndef f(:\n")
    write(tmp_path / "sim_exits.py", "raise SystemExit(7)")
    write(tmp_path / "my-fails.py", "{}['x']")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=reason):
        load_target(text)


def function_with_everything(size: int, /, temperature: float, *, mode: str = "fast", seed: int) -> None: ...


def simple(size: int, temperature: float = 1.0, *, seed: int, rng: object) -> None: ...


def anything(size: int, **others: object) -> None: ...


def target(function: object) -> Target:
    assert callable(function)
    return Target(text="here", function=function)


def test_parameters_that_fit_pass() -> None:
    check_parameters(target(simple), ["size"])
    check_parameters(target(simple), ["size", "temperature", "seed"])
    check_parameters(target(anything), ["size", "colour"])
    check_parameters(target(max), ["whatever"])  # tells no signature


@pytest.mark.parametrize(
    ("function", "names", "key", "reason"),
    [
        (simple, [], "size", "requires this parameter"),
        (
            simple,
            ["size", "temprature"],
            "temprature",
            "it has size, temperature, seed, rng; did you mean 'temperature'",
        ),
        (function_with_everything, ["size", "temperature"], "size", "by position only"),
        (function_with_everything, ["temperature"], "size", "by position only"),
        (anything, ["colour"], "size", "requires this parameter"),
        (lambda: None, ["size"], "size", "it has none"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(
    function: object, names: list[str], key: str, reason: str
) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        check_parameters(target(function), names)
    assert caught.value.key == key


def test_a_required_parameter_that_some_points_lack_is_refused() -> None:
    target = load_target("fnmatch:fnmatch")
    check_parameters(target, ["name", "pat"], common=["name", "pat"])
    with pytest.raises(SpecError, match=r"pat: fnmatch\(\) requires this parameter, and some points lack it"):
        check_parameters(target, ["name", "pat"], common=["name"])


def test_a_worker_that_was_started_before_finds_the_file(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_late.py").write_text("FACTOR = 3\n")
    (tmp_path / "late_target.py").write_text(
        "def late(n):\n    from neighbour_of_late import FACTOR\n    return FACTOR * n\n"
    )
    with LocalExecutor(1) as executor:
        assert executor.submit(abs, -1).result() == 1
        batch = Batch("late_target.py:late", sweep(n=[1, 2]), name="late", store=tmp_path / "s.db", directory=tmp_path)
        summary = batch.run(executor)
    assert (summary.done, summary.failed) == (2, 0)
    assert [value for _, value in batch.results()] == [3, 6]


def test_a_class_is_a_target_and_arrives_as_itself() -> None:
    target = load_target("fractions:Fraction")
    assert target.sendable(numerator=1, denominator=7) == target.function(1, 7)
    assert pickle.loads(cloudpickle.dumps(target.sendable)) is target.function
