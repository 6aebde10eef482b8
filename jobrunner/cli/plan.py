"""What ``jobrunner run`` is asked to do, checked as far as that goes without running anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch import (
    Points,
    Seeding,
    Target,
    check_parameters,
    load_spec,
    load_target,
    parse_values,
    sweep,
    zip_points,
)
from jobrunner.batch.points import check_name
from jobrunner.errors import SpecError

__all__ = ["Plan", "make_plan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One batch, ready to run.

    Attributes:
        name: for titles.
        target: the function.
        points: what it is called with.
        seeding: the batch's seed, and what the function gets of it.
        options: options of the jobs, as `LocalExecutor` takes them.
    """

    name: str
    target: Target
    points: Points
    seeding: Seeding
    options: Mapping[str, Any]


def make_plan(
    what: str,
    parameters: Sequence[str],
    *,
    zipped: bool = False,
    seed: int | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Read the description of a batch, import its function, and check the points against it.

    Args:
        what: a spec file (``*.toml``), or a target with `parameters`.
        parameters: texts ``key=values``, in the grammar of `jobrunner.batch.values`.
        zipped: pair the lists of values instead of taking their product; a single value goes with each pair.
        seed: the batch's seed; it wins over the spec's.
        name: the batch's name; it wins over the spec's.
        options: options of the jobs; those that are not None win over the spec's.

    Raises:
        SpecError: something in it is wrong.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if Path(what).suffix.lower() == ".toml":
        if parameters or zipped:
            raise SpecError("a spec file describes all its parameters: edit it, or name a target with -p", file=what)
        spec = load_spec(what)
        try:
            target = load_target(spec.target, directory=spec.directory)
            check_parameters(target, spec.points.names)
        except SpecError as error:
            raise spec.located(error) from error
        return _plan(
            target, spec.points, spec.seed if seed is None else seed, name or spec.name, {**spec.options, **given}
        )
    if ":" not in what:
        raise SpecError(f"expected SPEC.toml, module:function or path/to/file.py:function, found {what!r}")
    target = load_target(what)
    points = _points(parameters, zipped)
    check_parameters(target, points.names)
    return _plan(target, points, seed, name or target.name, given)


def _plan(target: Target, points: Points, seed: int | None, name: str, options: Mapping[str, Any]) -> Plan:
    seeding = Seeding.of(target.function, points.names, seed)
    return Plan(name=name, target=target, points=points, seeding=seeding, options=options)


def _points(parameters: Sequence[str], zipped: bool) -> Points:
    values: dict[str, Sequence[Any]] = {}
    for text in parameters:
        key, equals, rest = text.partition("=")
        key = key.strip()
        if not equals:
            raise SpecError(f"expected key=values, found {text!r}", key="-p")
        check_name(key)
        if key in values:
            raise SpecError("the parameter is given twice", key=key)
        values[key] = parse_values(key, rest)
    if not zipped:
        return sweep(**values) if values else Points()
    lists = {key: each for key, each in values.items() if len(each) > 1}
    if not lists:
        raise SpecError("--zip pairs lists of values, and no parameter has more than one value")
    single = {key: each for key, each in values.items() if len(each) == 1}
    return zip_points(**lists) * (sweep(**single) if single else Points())
