"""What runs in a worker: the call of a job of Qiskit's, on an object that may have come before.

An object whose method a job calls (a sampler, a gradient) travels as a *template*: its pickle, in which the backends
stand for themselves only by a number.  Where nothing in it draws random numbers of its own, and its class is one of
Qiskit's packages, the worker keeps the object for the jobs that follow, so that the caches that it fills are of use to
them; else each job has one of its own.
"""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from qiskit.primitives.containers import DataBin

from jobrunner.role import is_worker

__all__ = ["Template", "backend_at", "rebuild", "run_function", "run_method"]

#: How many objects a process keeps for further jobs.
_MOST_KEPT = 8


def _reduce_data_bin(data: Any) -> tuple[Any, ...]:
    return _make_data_bin, (data.shape, dict(data.items()))


def _make_data_bin(shape: tuple[int, ...], fields: dict[str, Any]) -> Any:
    return DataBin(shape=shape, **fields)


# Up to Qiskit 1.4 one is pickled by its attributes, and then refuses to have them set.
copyreg.pickle(DataBin, _reduce_data_bin)  # type: ignore[arg-type,unused-ignore]


class Template(NamedTuple):
    """An object on its way to a worker.

    Attributes:
        data: its pickle; bytes, however they travelled.
        backends: the backends that stand for the numbers in it.
        key: tells it from others; None where it may not be kept.
    """

    data: bytes
    backends: tuple[Any, ...]
    key: bytes | None


class _Loading(threading.local):
    """The backends of the template that this thread is loading."""

    backends: Sequence[Any] = ()


_loading = _Loading()
_kept: OrderedDict[bytes, Any] = OrderedDict()
_keeping = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A thread that is not in the fork may have it.
    os.register_at_fork(after_in_child=lambda: globals().update(_keeping=threading.Lock()))


def backend_at(index: int) -> Any:
    """The backend of that number in the template that this thread is loading."""
    return _loading.backends[index]


def rebuild(template: Template) -> Any:
    """The object of a template: the one that was kept, or a new one."""
    data, backends, key = template
    if key is not None:
        with _keeping:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
    outer, _loading.backends = _loading.backends, backends
    try:
        found = pickle.loads(data)  # noqa: S301 (our caller's, over a private channel)
    finally:
        _loading.backends = outer
    if key is not None:
        with _keeping:
            _kept[key] = found
            while len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
    return found


def run_function(function: Callable[..., Any], accelerated: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function in a worker, with Qiskit's jobs replaced there too if they are in the caller."""
    with _accelerated(accelerated):
        return function(*args, **kwargs)


def run_method(
    template: Template, method: str, accelerated: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a method of the object of a template, likewise."""
    with _accelerated(accelerated):
        return getattr(rebuild(template), method)(*args, **kwargs)


def _accelerated(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    # In a process that is the caller's own, it would hold for all that runs there.
    if not wanted or not is_worker():
        return contextlib.nullcontext()
    from jobrunner.qiskit.acceleration import accelerate

    return accelerate()
