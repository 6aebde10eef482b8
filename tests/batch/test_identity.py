"""A resume notices another function, and tells other code, packages and revisions."""

from __future__ import annotations

import functools
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobrunner.batch.identity import CodeIdentity, identify
from jobrunner.batch.target import load_target

SOURCE = """\
def other(x):
    return x

def simulate(x, steps=10):
    return x * steps
"""


@pytest.fixture(autouse=True)
def forget_modules() -> Any:
    known, path = set(sys.modules), [*sys.path]
    yield
    for name in set(sys.modules) - known:
        if name == "model" or name.startswith("_jobrunner_target"):
            del sys.modules[name]
    sys.path[:] = path


def identity(directory: Path, source: str, name: str = "simulate") -> CodeIdentity:
    """As a process of its own would find it."""
    import linecache

    (directory / "model.py").write_text(source)
    sys.modules.pop("model", None)
    linecache.clearcache()
    module = types.ModuleType("model")
    module.__file__ = str(directory / "model.py")
    sys.modules["model"] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return identify(getattr(module, name))


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        (SOURCE, False),
        (SOURCE.replace("x * steps", "x  *  steps  # the same"), False),
        ("\n\n\n" + SOURCE, False),
        (SOURCE.replace("x * steps", "x + steps"), True),
        (SOURCE.replace("steps=10", "steps=20"), True),
        (SOURCE.replace("return x\n", "return -x\n"), False),
    ],
    ids=["same", "layout", "moved", "body", "default", "another function"],
)
def test_the_functions_source_counts_without_comments_and_layout(tmp_path: Path, now: str, differs: bool) -> None:
    before = identity(tmp_path, SOURCE).as_dict()
    found = identity(tmp_path, now)
    assert found.changes(before) == (["the source of simulate() has changed"] if differs else [])
    other_code = now != SOURCE and not differs
    assert found.warnings(before) == (["other code in model.py has changed"] if other_code else [])


def test_another_function_is_told_with_both_names(tmp_path: Path) -> None:
    before = identity(tmp_path, SOURCE).as_dict()
    found = identity(tmp_path, SOURCE, "other")
    assert found.changes(before) == ["the function is other(), and was simulate()"]


def test_a_function_without_source_is_known_by_its_code() -> None:
    def made(body: str) -> CodeIdentity:
        names: dict[str, Any] = {}
        exec(f"def f(x):\n    {body}", names)
        return identify(names["f"])

    assert made("return x + 1").function_digest == made("return x + 1").function_digest
    assert made("return x + 1").function_digest != made("return x + 2").function_digest
    assert made("return [i for i in (1,)]").function_digest != made("return [i for i in (2,)]").function_digest


@pytest.mark.parametrize("function", [len, functools.partial(int, base=2), type("C", (), {"__call__": int})(), int])
def test_whatever_can_be_called_has_an_identity(function: Any) -> None:
    found = identify(function)
    assert found.changes(found.as_dict()) == []
    assert found.warnings(found.as_dict()) == []


def test_versions_and_revisions_are_told_where_both_are_known() -> None:
    now = CodeIdentity(
        module="m",
        qualname="f",
        function_digest="1",
        file="/m.py",
        file_digest="2",
        python="3.12.1",
        packages={"numpy": "2.0", "scipy": "1.0", "new": "1"},
        git_revision="b" * 40,
    )
    before = {**now.as_dict(), "python": "3.11.0", "packages": {"numpy": "1.26", "scipy": "1.0", "old": "1"}}
    before["git_revision"] = "a" * 40
    assert now.changes(before) == []
    assert now.warnings(before) == [
        "Python is 3.12.1, and was 3.11.0",
        "numpy is 2.0, and was 1.26",
        "the git revision is bbbbbbbbbb, and was aaaaaaaaaa",
    ]
    assert now.warnings({**now.as_dict(), "git_revision": None}) == []


def test_the_revision_is_that_of_the_files_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        options = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        ran = subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return ran.stdout.strip()

    try:
        git("init", "-q")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git")
    (tmp_path / "model.py").write_text(SOURCE)
    target = load_target("model.py:simulate", directory=tmp_path)
    assert identify(target.function).git_revision is None  # no commit yet
    git("add", "model.py")
    git("commit", "-q", "-m", "first")
    assert identify(target.function).git_revision == git("rev-parse", "HEAD")


def test_a_packages_version_is_among_the_identity() -> None:
    import psutil

    assert identify(test_a_packages_version_is_among_the_identity).packages["psutil"] == psutil.__version__


class _Scaled:
    def __init__(self, by: object) -> None:
        self.by = by

    def __call__(self, x: int) -> object:
        return x, self.by

    def scaled(self, x: int) -> object:
        return self.by


def _closed_over(by: object) -> Callable[[int], object]:
    def scaled(x: int) -> object:
        return (x, by) if x else scaled(1)

    return scaled


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda by: functools.partial(pow, exp=by), id="partial of a built-in function"),
        pytest.param(lambda by: functools.partial(_Scaled, by=by), id="partial"),
        pytest.param(_Scaled, id="instance"),
        pytest.param(lambda by: _Scaled(by).scaled, id="method"),
        pytest.param(_closed_over, id="closure"),
    ],
)
@pytest.mark.parametrize("values", [(3, 30), ("a", "b"), (np.arange(3), np.arange(4))], ids=["int", "str", "array"])
def test_what_a_callable_was_made_with_is_part_of_it(
    make: Callable[[object], Callable[..., object]], values: tuple[object, object]
) -> None:
    one, again, other = make(values[0]), make(values[0]), make(values[1])
    assert identify(one).changes(identify(again).as_dict()) == []
    assert len(identify(one).changes(identify(other).as_dict())) == 1


def _plainly_decorated(function: Callable[[int], int]) -> Callable[[int], int]:
    def wrapper(x: int) -> int:
        return function(x)

    return wrapper


class _Kept:
    def __init__(self, function: Callable[[int], int]) -> None:
        self.function = function

    def __call__(self, x: int) -> int:
        return self.function(x)


@pytest.mark.parametrize("decorate", [_plainly_decorated, _Kept, lambda function: functools.partial(pow, mod=function)])
def test_what_a_decorated_function_does_is_part_of_it(decorate: Callable[..., Callable[..., object]]) -> None:
    def more(x: int) -> int:
        return x + 1

    def much_more(x: int) -> int:
        return x + 1000

    one, other = decorate(more), decorate(much_more)
    assert len(identify(one).changes(identify(other).as_dict())) == 1


def test_what_a_class_inherits_from_its_own_package_is_part_of_it(tmp_path: Path) -> None:
    source = "class Base:\n    def __init__(self, x):\n        self.x = x * 1\n\nclass Result(Base):\n    pass\n"
    digests = set()
    for number, text in enumerate([source, source, source.replace("* 1", "* 1000")]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / f"inherited_{number}.py").write_text(text)
        target = load_target(f"inherited_{number}.py:Result", directory=directory)
        digests.add(identify(target.function).function_digest)
    assert len(digests) == 2


def test_a_module_whose_version_can_not_be_had_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no version today")

    monkeypatch.setitem(sys.modules, "odd_module", Odd("odd_module"))
    assert "odd_module" not in identify(forget_modules).packages
