"""What is to be timed: names, which parameter goes where, and what is refused before anything runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobrunner import SpecError
from jobrunner.bench.plan import Plan, make_plan
from jobrunner.bench.settings import Settings


def plain(size: int, mode: str = "fast") -> None: ...


def other(size: int, mode: str = "fast") -> None: ...


def bare() -> None: ...


async def running() -> None: ...


def yielding() -> Iterator[int]:
    yield 1


def seeded(size: int, seed: int) -> None: ...


def generated(rng: Any) -> None: ...


def numbers(size: int) -> tuple[list[int]]:
    return (list(range(size)),)


def ordered(items: Sequence[int], reverse: bool = False) -> list[int]:
    return sorted(items, reverse=reverse)


def planned(*functions: Any, points: Any = None, fixed: Any = None, setup: Any = None, name: str | None = None) -> Plan:
    return make_plan(list(functions), points, fixed or {}, setup=setup, name=name, settings=Settings())


def test_each_function_at_each_point_is_a_series() -> None:
    plan = planned(plain, other, points={"size": [1, 2]}, fixed={"mode": "slow"})
    assert [series.name.partition("test_plan:")[2] for series in plan.series] == [
        'plain size=1 mode="slow"',
        'other size=1 mode="slow"',
        'plain size=2 mode="slow"',
        'other size=2 mode="slow"',
    ]
    assert len({series.task.token for series in plan.series}) == 4
    assert plan.parameters == ("size", "mode")


def test_a_function_against_itself_has_two_names() -> None:
    assert [
        each.name
        for each in planned("math:sqrt", "math:sqrt", fixed={}, setup=numbers, points={"size": [1]}).implementations
    ] == ["math:sqrt", "math:sqrt#2"]


def test_names_given_in_a_mapping_are_kept() -> None:
    plan = make_plan({"a": plain, "b": plain}, {"size": [1]}, {}, setup=None, name=None, settings=Settings())
    assert [each.name for each in plan.implementations] == ["a", "b"]
    assert plan.name == "a+b"


def test_a_file_is_named_by_its_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_solver.py").write_text("def step(n):\n    return n\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    for text in ("some_solver.py:step", "some_solver:step", f"{tmp_path}/some_solver.py:step"):
        assert planned(text, points={"n": [1]}).series[0].name == "some_solver:step n=1"


def test_a_long_value_is_told_by_its_beginning_and_a_digest() -> None:
    one, two = planned(plain, points={"size": [list(range(100)), [*range(99), 7]]}).series
    assert one.name != two.name
    assert len(one.name) < 120


def test_parameters_that_the_setup_takes_go_there_and_the_others_to_the_function() -> None:
    (series,) = planned(ordered, points={"size": [3]}, fixed={"reverse": True}, setup=numbers).series
    assert series.task.setup_arguments == {"size": 3}
    assert series.task.arguments == {"reverse": True}


@pytest.mark.parametrize(
    ("functions", "about", "said"),
    [
        ([], {}, "expected a function to time"),
        ([bare], {"points": {"size": [1]}}, "size: bare() has no such parameter; it has none"),
        ([plain, bare], {"points": {"size": [1]}}, "size: bare() has no such parameter"),
        ([plain], {}, "size: plain() requires this parameter"),
        ([seeded], {"points": {"size": [1]}}, "seed: seeded() requires this parameter, and a benchmark draws none"),
        ([generated], {}, "a --setup that makes one"),
        ([ordered], {"points": {"size": [1], "revers": [True]}, "setup": numbers}, "neither numbers() nor ordered()"),
        ([ordered], {"setup": numbers}, "size: numbers() requires this parameter"),
        ([plain], {"points": {"size": [1]}, "fixed": {"size": 2}}, "size: the parameter is given twice"),
        ([plain], {"points": {"size": [math.nan]}}, "size"),
        ([plain], {"points": {"size": [object()]}}, "size: expected what has a JSON form"),
        ([plain], {"points": {"size": range(20_000)}}, "above the bound of 10,000"),
        ([plain], {"points": []}, "no points"),
        ([plain], {"points": {"size": [1]}, "name": ""}, "expected a text"),
        (["no_such_module:f"], {}, "no module named"),
        (["math:nothing"], {}, "has no 'nothing'"),
        ([running], {}, "only makes a coroutine or generator"),
        ([yielding], {}, "only makes a coroutine or generator"),
    ],
)
def test_what_can_not_be_timed_is_refused(functions: list[Any], about: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        planned(*functions, **about)
    assert said in str(caught.value)


def test_what_is_no_function_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="expected a function or its name"):
        planned(3)


def test_names_in_a_mapping_are_text() -> None:
    with pytest.raises(TypeError, match="the name of a function must be text, not 1"):
        make_plan({1: plain}, None, {}, setup=None, name=None, settings=Settings())  # type: ignore[dict-item]


def test_a_partial_and_a_builtin_have_names() -> None:
    plan = planned(functools.partial(plain, 3), math.sqrt, setup=numbers, points={"size": [1]})
    assert plan.implementations[1].name == "math:sqrt"
    assert "partial" in plan.implementations[0].name


def test_the_identity_changes_with_what_is_measured_and_how() -> None:
    def identity(**about: Any) -> Any:
        settings = Settings(**about.pop("settings", {}))
        points = about.pop("points", {"size": [1]})
        return make_plan([about.pop("f", plain)], points, {}, setup=None, name=None, settings=settings).identity()

    same = identity()
    assert same == identity()
    for about in ({"f": other}, {"points": {"size": [2]}}, {"settings": {"samples": 5}}, {"settings": {"gc": False}}):
        assert identity(**about) != same


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"samples": 3, "min_time": 1.0}, "samples and min_time exclude each other"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"min_time": 0}, "min_time must be above 0"),
        ({"target_rse": 1.5}, "target_rse must be above 0 and below 1"),
        ({"target_rse": math.nan}, "target_rse must be above 0 and below 1"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"widths": (0,)}, "workers must be at least 1"),
        ({"widths": (5000,)}, "workers must be at most 1024"),
        ({"threads": 10_000}, "threads must be at least 1 and at most"),
        ({"time_limit": -1}, "time_limit must be above 0"),
        ({"memory_limit": "much"}, "memory_limit"),
    ],
)
def test_settings_out_of_range_are_refused(about: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**about)


def test_widths_are_sorted_and_each_once() -> None:
    assert Settings(widths=(4, 1, 4, 2)).widths == (1, 2, 4)


@pytest.mark.parametrize("about", [{"widths": "12"}, {"widths": 3}, {"gc": 1}, {"samples": 2.5}])
def test_settings_of_another_type_are_refused(about: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Settings(**about)
