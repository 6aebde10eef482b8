"""What ``jobrunner run`` is asked to do, checked as far as that goes without running anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch import (
    DEFAULT_STORE,
    Batch,
    Points,
    Spec,
    load_spec,
    load_target,
    read_points,
)
from jobrunner.cli.parameters import parse_parameters
from jobrunner.errors import SpecError

__all__ = ["Plan", "Request", "make_plan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says.  What it does not say is None, and left to the spec or the store.

    Attributes:
        what: a spec file (``*.toml``), a target, or None: the batch that the store has.
        parameters: texts ``key=values``, in the grammar of `jobrunner.batch.values`.
        points_file: a file of points, which the parameters are multiplied with.
        zipped: pair the lists of values instead of taking their product; a single value goes with each pair.
        name: the batch's name.
        store: the store's file.
        seed: the batch's seed.
        replicates: how often each point is run.
        workers: how many jobs run at a time.
        engine: where they run, one of `ENGINES`.
        address: of that cluster.
        uploads: files that jobs import on its nodes.
        options: the other options, as `Batch` takes them; None stands for what is not said.
    """

    what: str | None
    parameters: Sequence[str] = ()
    points_file: str | None = None
    zipped: bool = False
    name: str | None = None
    store: str | None = None
    seed: int | None = None
    replicates: int | None = None
    workers: int | None = None
    engine: str | None = None
    address: str | None = None
    uploads: Sequence[str] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One batch, ready to run.

    Attributes:
        batch: the batch.
        workers: how many jobs run at a time; None: as many as fit.
        engine: where they run, one of `ENGINES`.
        address: of that cluster; None: as the engine finds it by itself.
        uploads: files that jobs import on its nodes.
    """

    batch: Batch
    workers: int | None
    engine: str
    address: str | None
    uploads: tuple[str, ...]


def make_plan(request: Request) -> Plan:
    """Read the description of a batch, import its function, and check the points against it.

    Raises:
        SpecError: something in it is wrong.
        StoreError: the batch is to come from a store that can't be used.
        TypeError, ValueError: an option is out of range.
    """
    given = {key: value for key, value in request.options.items() if value is not None}
    for option, text in (("--name", request.name), ("--store", request.store)):
        if text == "":
            raise SpecError("expected a text, found nothing", key=option)
    if request.what is None:
        return _plan_stored(request, given)
    if Path(request.what).suffix.lower() == ".toml":
        return _plan_spec(request, request.what, given)
    if ":" not in request.what:
        raise SpecError(f"expected SPEC.toml, module:function or path/to/file.py:function, found {request.what!r}")
    target = load_target(request.what)
    points = _points(request)
    try:
        batch = Batch(
            request.what,
            points,
            name=request.name or target.name,
            store=request.store or DEFAULT_STORE,
            seed=request.seed,
            replicates=request.replicates or 1,
            **given,
        )
    except SpecError as error:
        if request.points_file is None or error.file is not None or error.key not in points.names:
            raise
        raise SpecError(str(error).removeprefix(f"{error.key}: "), file=request.points_file, key=error.key) from error
    return _plan(request, batch)


def _plan_spec(request: Request, file: str, given: Mapping[str, Any]) -> Plan:
    if request.parameters or request.zipped or request.points_file:
        raise SpecError("a spec file describes all its parameters: edit it, or name a target with -p", file=file)
    spec = load_spec(file, engine=request.engine)
    try:
        batch = Batch(
            spec.target,
            spec.points,
            directory=spec.directory,
            name=request.name or spec.name,
            store=request.store or spec.store or DEFAULT_STORE,
            seed=spec.seed if request.seed is None else request.seed,
            replicates=request.replicates or spec.replicates,
            fixed=spec.fixed,
            **{**spec.options, **_policy(spec.policy), **given},
        )
    except SpecError as error:
        raise spec.located(error) from error
    return _plan(request, batch, spec)


def _plan(request: Request, batch: Batch, spec: Spec | None = None) -> Plan:
    """The plan for a batch; the command line's words come before the spec's."""
    engine, address, uploads = request.engine, request.address, tuple(request.uploads)
    if spec is not None and engine in (None, spec.engine):
        engine, address = spec.engine, address or spec.address
        uploads += tuple(map(str, spec.upload))
    return Plan(
        batch=batch,
        workers=request.workers or (None if spec is None else spec.workers),
        engine=engine or "local",
        address=address,
        uploads=uploads,
    )


def _policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    most = 1 if policy.get("stop_on_error") else policy.get("max_failures")
    return {} if most is None else {"max_failures": most}


def _plan_stored(request: Request, given: Mapping[str, Any]) -> Plan:
    for said, option in (
        (request.parameters, "-p"),
        (request.zipped, "--zip"),
        (request.points_file, "--points"),
        (request.replicates, "--replicates"),
        (request.seed is not None, "--seed"),
    ):
        if said:
            raise SpecError("without SPEC.toml or a target, the batch is run as the store has it", key=option)
    if request.store is None and request.name is None and not Path(DEFAULT_STORE).exists():
        raise SpecError(
            f"expected SPEC.toml or a target to run, or a store to go on with (there is no {DEFAULT_STORE} here)"
        )
    batch = Batch.stored(request.store or DEFAULT_STORE, request.name, **given)
    return _plan(request, batch)


def _points(request: Request) -> Points:
    points = parse_parameters(request.parameters, request.zipped)
    return points if request.points_file is None else read_points(request.points_file) * points
