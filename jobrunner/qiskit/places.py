"""Where a job runs, and what can be seen of it without running it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any

from qiskit.primitives import BaseEstimatorV2, BasePrimitiveJob, BaseSamplerV2
from qiskit.providers import Backend

from jobrunner.primitive_job import PrimitiveJob
from jobrunner.qiskit.cost import MIN_SECONDS, estimated_seconds
from jobrunner.qiskit.seeding import GENERATORS
from jobrunner.qiskit.settings import Settings

__all__ = ["Place", "find_backend", "place_of"]

#: How deep the objects that an object uses are looked at: a gradient has a fidelity, which has a sampler.
_DEPTH = 3


class Place(enum.Enum):
    """Where a job runs."""

    PROCESS = "a worker of the executor"
    THREAD = "a thread of this process"


def place_of(function: Callable[..., Any] | None, args: tuple[Any, ...], mine: Settings | None) -> Place:
    """Where a job should run that is told nothing else.

    In a thread of this process run:

    - a run of one of Qiskit's primitives that is too short to be worth a journey (`cost.estimated_seconds`);
    - a job whose work is spread over workers anyway, by a parallel primitive that its object uses: in a worker, that
      one could only work in line;
    - a job that has one among its arguments which is of a parallel run, or not jobrunner's: to send such a one would be
      to wait for it;
    - a job of an object, other than a primitive, that has a random generator of its own, as SPSA's gradients do: in a
      worker, it would draw the same again for each job;
    - a job whose object has a callback of the caller's, of ``SamplingVQE`` or for the transpiler: in a worker, what it
      does would be lost.
    """
    if any(isinstance(value, BasePrimitiveJob) and not isinstance(value, PrimitiveJob) for value in args):
        return Place.THREAD
    owner = getattr(function, "__self__", None)
    if owner is None or isinstance(owner, type):
        return Place.PROCESS
    if _reports_to_caller(owner) or _draws_for_itself(owner) or any(_is_parallel(used) for used in _used_by(owner)):
        return Place.THREAD
    least = MIN_SECONDS if mine is None else mine.min_seconds
    if least:
        seconds = estimated_seconds(function, args)
        if seconds is not None and seconds < least:
            return Place.THREAD
    return Place.PROCESS


def find_backend(function: Callable[..., Any] | None, args: tuple[Any, ...]) -> Any | None:
    """The backend that a job's circuits run on; None where none is to be seen."""
    owner = getattr(function, "__self__", None)
    for start in (owner, *args):
        if isinstance(start, Backend):
            return start
        # A job among the arguments: that of the primitive whose result is worked on.
        start = getattr(getattr(start, "_function", None), "__self__", start)
        for used in _used_by(start):
            found = vars(used).get("_backend", vars(used).get("backend"))
            if isinstance(found, Backend):
                return found
    return None


def _used_by(owner: Any) -> Iterator[Any]:
    """An object, and those that it uses as samplers, estimators, fidelities or gradients."""
    level = [owner] if hasattr(owner, "__dict__") else []
    for _ in range(_DEPTH):
        yield from level
        level = [
            value
            for one in level
            for name, value in vars(one).items()
            if name.lstrip("_") in _USED_NAMES and hasattr(value, "__dict__")
        ]


_USED_NAMES = frozenset({"sampler", "estimator", "fidelity", "gradient", "qgt", "primitive"})


def _is_parallel(obj: Any) -> bool:
    return bool(getattr(type(obj), "spreads_over_workers", False))


def _draws_for_itself(owner: Any) -> bool:
    if isinstance(owner, (BaseSamplerV2, BaseEstimatorV2)):
        return False
    return any(isinstance(value, GENERATORS) for value in getattr(owner, "__dict__", {}).values())


def _reports_to_caller(owner: Any) -> bool:
    """Whether an object calls back what the user, or an algorithm, has given it for that."""
    own = getattr(owner, "__dict__", {})
    if type(owner).__name__ == "_DiagonalEstimator" and own.get("callback") is not None:
        return True
    options = own.get("_transpiler_options")
    return isinstance(options, dict) and options.get("callback") is not None
