"""How a call of Qiskit's goes to a worker: what is heavy crosses once.

- A **backend** among the arguments, or in the object whose method is called, is serialised once and sent to each worker
  at most once (a simulator with a noise model takes seconds and megabytes).  It is known again by its identity, as long
  as what can be seen of it is as it was (`Outline`); after a change it is serialised and sent anew.
- The **object** whose method is called is serialised at each call, which is cheap without its backends.  If it is large
  all the same, its bytes cross once for each worker as long as they stay the same, which their digest tells.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import pickle
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from qiskit.primitives import BasePrimitiveJob
from qiskit.providers import Backend

from jobrunner import primitive_job
from jobrunner.errors import JobError, SerializationError
from jobrunner.qiskit.outline import Outline, outline
from jobrunner.qiskit.running import Template, backend_at, run_function, run_method
from jobrunner.qiskit.seeding import GENERATORS
from jobrunner.serialization import Call, CallPickler, call_name, dump_call, unserializable
from jobrunner.sharing import Shared, share

__all__ = ["carry_call", "carry_object", "forget"]

#: A template from this size on crosses once for each worker; a smaller one travels with each job, which costs less.
_LARGE_BYTES = 1 << 14

#: How many large templates are held ready.
_MOST_TEMPLATES = 8

#: The packages whose objects may be used by one job after another in a worker.
_PACKAGES = frozenset(
    {
        "qiskit",
        "qiskit_aer",
        "qiskit_algorithms",
        "qiskit_ibm_runtime",
        "qiskit_machine_learning",
        "qiskit_optimization",
    }
)


class _Carried:
    """What has crossed, or may: backends by identity, large templates by digest."""

    def __init__(self) -> None:
        self.renew_lock()
        # By the backend's id: (a reference to it, its outline, its handle).
        self.backends: dict[int, tuple[weakref.ref[Any], Outline, Shared[Any]]] = {}
        self.templates: OrderedDict[bytes, Shared[bytes]] = OrderedDict()

    def renew_lock(self) -> None:
        """In a fork: a thread that is not there may have had it."""
        self.lock = threading.RLock()

    def backend(self, backend: Any) -> Shared[Any]:
        """The handle of a backend, which is serialised if it is new or has changed."""
        seen = outline(backend)
        with self.lock:
            known = self.backends.get(id(backend))
            if known is not None and known[0]() is backend and known[1].value == seen.value:
                return known[2]
            handle = _share_backend(backend)
            # To serialise it may have filled what it keeps ready for itself.
            seen = outline(backend)
            self.backends[id(backend)] = (weakref.ref(backend, self._dropper(id(backend))), seen, handle)
            return handle

    def _dropper(self, key: int) -> Callable[[object], None]:
        def drop(reference: object) -> None:
            # In the midst of anything: takes no lock.  Another backend may have the id by now.
            known = self.backends.get(key)
            if known is not None and known[0] is reference:
                self.backends.pop(key, None)

        return drop

    def template(self, data: bytes, digest: bytes) -> Shared[bytes]:
        """The handle of a large template."""
        with self.lock:
            handle = self.templates.get(digest)
            if handle is None:
                handle = self.templates[digest] = share(data)
            self.templates.move_to_end(digest)
            while len(self.templates) > _MOST_TEMPLATES:
                self.templates.popitem(last=False)
            return handle


_carried = _Carried()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_carried.renew_lock)


def forget() -> None:
    """Let go of everything that is held ready to cross."""
    with _carried.lock:
        _carried.backends.clear()
        _carried.templates.clear()


def _share_backend(backend: Any) -> Shared[Any]:
    try:
        return share(backend)
    except SerializationError as error:
        raise _no_backend(backend, error) from error


class _BackendNotSentError(SerializationError):
    """A backend can't be pickled."""


def _no_backend(backend: Any, error: SerializationError) -> SerializationError:
    why = str(error.__cause__ or error).rstrip(". ")
    return _BackendNotSentError(
        f"the backend {_backend_name(backend)!r} (a {type(backend).__qualname__}) can't be sent to a worker: {why}. "
        "Pass a factory instead, a function that makes the primitive in the worker, to ParallelSampler or "
        "ParallelEstimator"
    )


def _backend_name(backend: Any) -> str:
    try:
        name = backend.name() if callable(backend.name) else backend.name
    except Exception:
        name = None
    return str(name or type(backend).__qualname__)


class _UnfinishedJobError(JobError, SerializationError):
    """To pickle a job would be to wait for it; a `JobError`, so that nobody tries its parts one by one."""


def _check_finished(obj: Any) -> None:
    """Make sure that `obj` is no job which would be waited for when it is pickled.

    Raises:
        SerializationError: it is one.
    """
    kind: Any = type(obj)
    if not _is_job(kind):
        return
    # One of Qiskit's own is not asked for its status: up to now, one that has not begun is then ERROR for good.
    final = (obj._future is None or obj._future.done()) if hasattr(obj, "_future") else obj.in_final_state()
    if not final:
        raise _UnfinishedJobError(
            f"the job {obj.job_id()}, a {type(obj).__qualname__} within what was to be sent, is not final yet, and to "
            "send it would be to wait for it"
        )


@functools.lru_cache(maxsize=1024)
def _is_job(kind: Any) -> bool:
    return issubclass(kind, (BasePrimitiveJob, primitive_job.PrimitiveJob))


class _TemplatePickler(CallPickler):
    """Pickles an object, with numbers in the places of its backends; notes whether it draws random numbers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.backends: list[Any] = []
        self.draws = False

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Backend):
            for index, known in enumerate(self.backends):
                if known is obj:
                    return backend_at, (index,)
            self.backends.append(obj)
            return backend_at, (len(self.backends) - 1,)
        _check_finished(obj)
        if isinstance(obj, GENERATORS):
            self.draws = True
        return super().reducer_override(obj)


def carry_object(obj: Any, *, kept: bool = True, shared: bool = True) -> tuple[Template, bool]:
    """An object as a template whose parts are handles where they are large.

    Args:
        obj: any object that can be pickled.
        kept: whether a worker may keep it for the jobs that follow, if its class is one of Qiskit's packages.
        shared: whether the executor has shared objects; else all travels with each job.

    Returns:
        The template, and whether it draws random numbers of its own.

    Raises:
        SerializationError: a backend in it can't be pickled.
        Exception: what the pickler raised.
    """
    with io.BytesIO() as file:
        pickler = _TemplatePickler(file)
        pickler.dump(obj)
        data = file.getvalue()
    if not shared:
        return Template(data, tuple(pickler.backends), None), pickler.draws
    backends = tuple(map(_carried.backend, pickler.backends))
    key = None
    body: Any = data
    if len(data) >= _LARGE_BYTES or kept:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if len(data) >= _LARGE_BYTES:
            body = _carried.template(data, digest)
        if kept and not pickler.draws and type(obj).__module__.partition(".")[0] in _PACKAGES:
            key = digest + b"".join(backend.number.to_bytes(8, "big") for backend in backends)
    return Template(body, backends, key), pickler.draws


def carry_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, accelerated: bool, shared: bool
) -> Call:
    """Serialise a call, so that what is heavy crosses once.

    Args:
        function: what the job calls.
        args: its positional arguments.
        kwargs: its keyword arguments.
        accelerated: whether Qiskit's jobs are to be replaced in the worker.
        shared: whether the executor has shared objects.

    Raises:
        SerializationError: a part can't be pickled; the message names it.
        JobError: a job of ours among the arguments was never submitted.
    """
    owner = getattr(function, "__self__", None)
    by_object = (
        shared
        and isinstance(function, types.MethodType)
        and not isinstance(owner, (type, types.ModuleType))
        and getattr(type(owner), function.__name__, None) is function.__func__
    )
    substitute = _substitute if shared else _let_through
    try:
        if by_object:
            template, _ = carry_object(owner)
            call = dump_call(run_method, (template, function.__name__, accelerated, args, kwargs), {}, substitute)
        else:
            call = dump_call(run_function, (function, accelerated, args, kwargs), {}, substitute)
    except (JobError, _BackendNotSentError):
        raise
    except Exception as error:
        why = error.__cause__ or error
        if isinstance(why, _BackendNotSentError):
            raise why from why.__cause__
        raise unserializable(function, args, kwargs, why) from error
    return dataclasses.replace(call, name=call_name(function))


def _substitute(obj: Any) -> Shared[Any] | None:
    """What crosses in the place of `obj`; None: itself."""
    if isinstance(obj, Backend):
        return _carried.backend(obj)
    _let_through(obj)
    return None


def _let_through(obj: Any) -> None:
    """Likewise, where nothing is shared."""
    # Our own jobs are waited for by the executor.
    if not isinstance(obj, primitive_job.PrimitiveJob):
        _check_finished(obj)
