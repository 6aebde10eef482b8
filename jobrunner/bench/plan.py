"""What is to be measured: which functions, at which points, each with the task that a worker is given."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch import (
    Points,
    Target,
    as_points,
    canonical_json,
    check_parameters,
    did_you_mean,
    identify,
    load_target,
    sweep,
)
from jobrunner.bench.settings import Settings
from jobrunner.bench.timing import Task
from jobrunner.errors import SpecError

__all__ = ["Implementation", "Plan", "SeriesPlan", "make_plan"]

#: Parameters' values are written out in names up to this length, longer ones by their beginning and a digest.
_VALUE_MOST = 40

#: More series than this are taken for a mistake: each takes seconds.
_SERIES_MOST = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Implementation:
    """A function that is timed.

    Attributes:
        name: its name in the benchmark, such as ``"module:function"``; no two have the same.
        target: the function, as it was found.
        code: what identifies its code.
    """

    name: str
    target: Target
    code: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeriesPlan:
    """An implementation at a point.

    Attributes:
        name: both, as text.
        implementation: the implementation's name.
        parameters: the point.
        task: what a worker is to time; its loops are not known yet.
    """

    name: str
    implementation: str
    parameters: Mapping[str, Any]
    task: Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A benchmark that is to be measured.

    Attributes:
        name: its name.
        implementations: the functions, the first the one that others are compared with.
        setup: what gives them their arguments.
        parameters: names of the parameters, in order.
        series: each implementation at each point.
        settings: how it is measured.
    """

    name: str
    implementations: tuple[Implementation, ...]
    setup: Implementation | None
    parameters: tuple[str, ...]
    series: tuple[SeriesPlan, ...]
    settings: Settings

    def identity(self) -> dict[str, Any]:
        """What makes it the same benchmark as one that was begun before, as `json.dumps` takes it."""
        return {
            "series": [series.name for series in self.series],
            "functions": {each.name: _code(each) for each in self.implementations},
            "setup": None if self.setup is None else {self.setup.name: _code(self.setup)},
            "settings": self.settings.as_dict(),
        }


def _code(implementation: Implementation) -> list[Any]:
    return [implementation.code["function_digest"], implementation.code["file_digest"], implementation.code["python"]]


def make_plan(
    functions: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]],
    points: Points | Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | None,
    fixed: Mapping[str, Any],
    *,
    setup: str | Callable[..., Any] | None,
    name: str | None,
    settings: Settings,
) -> Plan:
    """Find the functions, and check that they can be called with the parameters.

    Args:
        functions: what is timed: names ``module:function``, or functions; a mapping gives them names.
        points: the points, or for each parameter its values; None: one point without parameters.
        fixed: parameters that are the same at all points.
        setup: the function that gives the arguments.
        name: the benchmark's name; default the functions'.
        settings: how it is measured.

    Raises:
        SpecError: there is no such function, or it does not take the parameters.
        TypeError: something else stands where a function is expected.
    """
    implementations = _implementations(functions)
    starter = None if setup is None else _implementation(setup, set())
    whole = _points(points)
    if fixed:
        whole = whole * sweep(**{key: [value] for key, value in fixed.items()})
    if len(whole) * len(implementations) > _SERIES_MOST:
        raise SpecError(
            f"{len(implementations)} functions at {len(whole):,} points are {len(whole) * len(implementations):,} "
            f"series, above the bound of {_SERIES_MOST:,}",
            key="-p",
        )
    series: list[SeriesPlan] = []
    for parameters in whole:
        for each in implementations:
            for_setup, for_function = _share_out(parameters, each.target, starter.target if starter else None)
            task = Task(
                token=str(len(series)),
                function=each.target.function,
                setup=starter.target.function if starter else None,
                setup_arguments=for_setup,
                arguments=for_function,
                values=settings.values,
                warmup=settings.warmup,
                value_s=settings.value_s,
                gc=settings.gc,
            )
            series.append(
                SeriesPlan(
                    name=_series_name(each.name, parameters),
                    implementation=each.name,
                    parameters=parameters,
                    task=task,
                )
            )
    if name == "":
        raise SpecError("expected a text, found nothing", key="--name")
    return Plan(
        name=name or _default_name(implementations),
        implementations=tuple(implementations),
        setup=starter,
        parameters=whole.names,
        series=tuple(series),
        settings=settings,
    )


def _points(points: Points | Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | None) -> Points:
    if points is None:
        return Points()
    if isinstance(points, Points):
        found = points
    elif isinstance(points, Mapping):
        found = sweep(**points) if points else Points()
    else:
        found = as_points(points)
    if not len(found):
        raise SpecError("there are no points to run at", key="points")
    found.digest()  # refuses values that have no JSON form: they could not be told from others later
    return found


def _implementations(
    functions: Sequence[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]],
) -> list[Implementation]:
    if isinstance(functions, Mapping):
        for name in functions:
            if not isinstance(name, str) or not name:
                raise TypeError(f"the name of a function must be text, not {name!r}")
        named = [_implementation(function, set(), name) for name, function in functions.items()]
    else:
        taken: set[str] = set()
        named = [_implementation(function, taken) for function in functions]
    if not named:
        raise SpecError("expected a function to time, such as module:function", key="target")
    return named


def _implementation(function: str | Callable[..., Any], taken: set[str], name: str | None = None) -> Implementation:
    if isinstance(function, str):
        target = load_target(function)
        place, _, attribute = function.rpartition(":")
        found = f"{Path(place).stem if place.endswith('.py') else place}:{attribute}"
    elif callable(function):
        target = Target(text=_name_of(function), function=function)
        found = target.text
    else:
        raise TypeError(f"expected a function or its name such as 'module:function', found {function!r}")
    if inspect.iscoroutinefunction(target.function) or inspect.isgeneratorfunction(inspect.unwrap(target.function)):
        raise SpecError(
            f"calling {target.name}() only makes a coroutine or generator, and runs nothing of it: name a function "
            "that runs it to its end",
            key="target",
        )
    name = name or found
    number = 2
    unique = name
    while unique in taken:  # a function against itself
        unique, number = f"{name}#{number}", number + 1
    taken.add(unique)
    return Implementation(name=unique, target=target, code=identify(target.function).as_dict())


def _name_of(function: Callable[..., Any]) -> str:
    named = inspect.unwrap(function)
    module = str(getattr(named, "__module__", None) or type(named).__module__)
    if module == "__main__":
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or "__main__").stem
    return f"{module}:{getattr(named, '__qualname__', type(named).__qualname__)}"


def _default_name(implementations: Sequence[Implementation]) -> str:
    first = implementations[0].name
    rest = [each.name.rpartition(":")[2] for each in implementations[1:]]
    name = "+".join([first, *rest])
    return name if len(name) <= 2 * _VALUE_MOST else f"{first}+{len(rest)}"


def _series_name(implementation: str, parameters: Mapping[str, Any]) -> str:
    return " ".join([implementation, *(f"{key}={_shown(value)}" for key, value in parameters.items())])


def _shown(value: Any) -> str:
    text = canonical_json(value)
    if len(text) <= _VALUE_MOST:
        return text
    return f"{text[:_VALUE_MOST]}…{hashlib.sha256(text.encode()).hexdigest()[:8]}"


# --- which parameter goes where ---------------------------------------------------------------------------------------


def _share_out(
    parameters: Mapping[str, Any], target: Target, setup: Target | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that go to the setup, and those that go to the function.

    Raises:
        SpecError: neither takes one of them, or one that is required is missing.
    """
    if setup is None:
        check_parameters(target, parameters)
        _check_filled(target, parameters)
        return {}, dict(parameters)
    for_setup = {key: value for key, value in parameters.items() if _takes(setup, key)}
    for_function = {key: value for key, value in parameters.items() if key not in for_setup}
    check_parameters(setup, for_setup)
    _check_filled(setup, for_setup)
    for key in for_function:
        if not _takes(target, key):
            known = [*_names(setup), *_names(target)]
            raise SpecError(
                f"neither {setup.name}() nor {target.name}() has such a parameter{did_you_mean(key, known)}", key=key
            )
    return for_setup, for_function


def _parameters(target: Target) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(target.function).parameters.values())
    except (TypeError, ValueError):  # some written in C do not tell
        return None


def _names(target: Target) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in _parameters(target) or () if each.kind in kinds]


def _takes(target: Target, name: str) -> bool:
    known = _parameters(target)
    return known is None or name in _names(target) or any(each.kind is each.VAR_KEYWORD for each in known)


def _check_filled(target: Target, given: Mapping[str, Any]) -> None:
    """Refuse a function that requires a seed or a generator: a batch draws one for each point, a benchmark doesn't."""
    for each in _parameters(target) or ():
        if each.name in ("seed", "rng") and each.default is each.empty and each.name not in given:
            how = "--fixed seed=1" if each.name == "seed" else "a --setup that makes one"
            raise SpecError(
                f"{target.name}() requires this parameter, and a benchmark draws none: every sample is to do the same "
                f"work; give it by {how}",
                key=each.name,
            )
