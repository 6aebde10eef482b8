"""Calls, results and exceptions as bytes, and back.

::

    caller                                              worker
    dump_call(fn, args, kwargs) ──▶ Call.payload ─────▶ load_call ──▶ fn(*args, **kwargs)
                                                                            │
    load_result / load_exception ◀── Outcome bytes ◀─── dump_result / dump_exception

Job handles among the arguments are not pickled with the call: `dump_call` notes them as dependencies, and `load_call`
puts in their places the finished handles that arrive beside the call.

Whatever the pickler says, the caller gets a `SerializationError` that names the part that failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import pickle
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from copyreg import dispatch_table
from functools import partial
from typing import Any, Protocol

import cloudpickle

from jobrunner.errors import JobError, SerializationError
from jobrunner.parcel import APART_BYTES, Parcel, apart
from jobrunner.unbuffered import unbuffered

__all__ = [
    "Call",
    "CallPickler",
    "Dependency",
    "RemoteTraceback",
    "call_name",
    "collect_dependency",
    "collect_shared",
    "dump_call",
    "dump_exception",
    "dump_handle",
    "dump_piece",
    "dump_result",
    "dump_result_apart",
    "dump_shared",
    "handle_is_carried",
    "load_call",
    "load_exception",
    "load_piece",
    "load_result",
    "resolve_dependency",
    "resolve_shared",
    "unserializable",
]

PROTOCOL = 5

# The opcode by which protocols 4 and up name a class or function.  Bytes without it hold built-in values only: they
# can be rebuilt anywhere, run no user code while they are, and never fail.
_STACK_GLOBAL = b"\x93"

_FUNCTION_TYPES = frozenset({types.FunctionType, types.BuiltinFunctionType})
_PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINER_TYPES = frozenset({list, tuple, dict, set, frozenset})


class Dependency(Protocol):
    """What a job handle offers to those who serialise a call that it is an argument of."""

    def dependency(self) -> Any:
        """The future of the job, which is waited for."""


class _Context(threading.local):
    """What the pickling or unpickling under way on this thread needs to know.

    collected: the handles met while a call is dumped; None when none is (handles then pickle by themselves).
    carried: whether a finished handle is being pickled to travel beside a call.
    resolved: the finished handles that the call being loaded may ask for, by index.
    shared: the shared objects met while a call is dumped.
    find_shared: finds the shared objects that the call being loaded asks for, by number.
    """

    collected: list[Any] | None = None
    carried: bool = False
    resolved: Sequence[Any] = ()
    shared: dict[int, Any]
    find_shared: Callable[[int], Any] | None = None


_context = _Context()


@dataclasses.dataclass(slots=True)
class Call:
    """A function with its arguments, serialised.

    payload: pickle of ``(function, args, kwargs)``.
    dependencies: the job handles among the arguments, in the order of their indices.
    name: the function's qualified name, for people.
    serialize_s: seconds that it took.
    buffers: the large buffers among the arguments, which `payload` asks for: the caller's own memory, to be copied
        before it returns from submitting.
    shared: the shared objects among the arguments.
    """

    payload: bytes
    dependencies: tuple[Any, ...]
    name: str
    serialize_s: float
    buffers: tuple[memoryview, ...] = ()
    shared: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        """The size of all, in bytes."""
        return len(self.payload) + sum(buffer.nbytes for buffer in self.buffers)


def call_name(function: object) -> str:
    """The name of a callable, for people."""
    for source in (function, getattr(function, "func", None), type(function)):
        name = getattr(source, "__qualname__", None)
        if isinstance(name, str):
            return name
    return "call"


def dump_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    substitute: Callable[[Any], Any] | None = None,
) -> Call:
    """Serialise a call now, so that later changes of an argument change nothing.

    Args:
        function: any callable; one of ``__main__``, a lambda or a closure travels by value.
        args: positional arguments.
        kwargs: keyword arguments.
        substitute: asked for each object that is met, but for those of built-in types: the handle of a shared object
            that is to arrive in its place, or None.

    Returns:
        The call, with the job handles met among the arguments as its dependencies.

    Raises:
        SerializationError: a part can't be pickled; the message names it.

    Example:
        >>> call = dump_call(pow, (2, 10), {})
        >>> load_call(call.payload)[0](2, 10)
        1024
    """
    began = time.perf_counter()
    if not kwargs and type(function) in _FUNCTION_TYPES and _PLAIN_TYPES.issuperset(map(type, args)):
        plain = _dump_plainly(function, args)
        if plain is not None:
            return Call(plain, (), call_name(function), time.perf_counter() - began)
    outer, _context.collected = _context.collected, []
    outer_shared, _context.shared = getattr(_context, "shared", {}), {}
    buffers = _Buffers()
    try:
        with io.BytesIO() as file:
            pickler = CallPickler(file, protocol=PROTOCOL, buffer_callback=buffers.take)
            pickler.substitute = substitute
            pickler.dump((function, args, kwargs))
            payload = file.getvalue()
        dependencies, shared = tuple(_context.collected), tuple(_context.shared.values())
    except JobError:
        raise  # a handle among the arguments was never submitted, which is no fault of the pickler's
    except Exception as error:
        raise unserializable(function, args, kwargs, error) from error
    finally:
        _context.collected, _context.shared = outer, outer_shared
    seconds = time.perf_counter() - began
    return Call(payload, dependencies, call_name(function), seconds, tuple(buffers.taken), shared)


class _Buffers:
    """Takes the large buffers out of a pickle; see `pickle.Pickler`, `buffer_callback`."""

    def __init__(self) -> None:
        self.taken: list[memoryview] = []

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer is to be in the pickle; else it is taken."""
        try:
            memory = buffer.raw()
        except BufferError:  # its bytes do not lie together
            return True
        if memory.nbytes < APART_BYTES:
            return True
        self.taken.append(memory)
        return False


class CallPickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles a call, without the state of the global random generators.

    A function that uses `random` as in ``from random import random`` has a method of Python's global generator among
    its globals.  Pickled by value, every job would draw the same numbers: in the worker it stands for the generator
    there.  NumPy's is treated alike.

    Attributes:
        substitute: see `dump_call`.
    """

    substitute: Callable[[Any], Any] | None = None

    def reducer_override(self, obj: Any) -> Any:
        """How an object is pickled, where that is not left to cloudpickle; called by the pickler for each."""
        if self.substitute is not None:
            handle = self.substitute(obj)
            if handle is not None:
                return handle.__reduce__()
        if isinstance(obj, types.CodeType):
            # Later cloudpickles leave out the file, and with it the lines that a traceback would show.
            build, parts = self.dispatch_table[types.CodeType](obj)
            return build, tuple(obj.co_filename if part == _NO_FILE else part for part in parts)
        if isinstance(obj, BaseException) and getattr(dispatch_table.get(type(obj)), "__module__", "")[:5] == "tblib":
            # Dask has exceptions pickled by tblib, which loses the code of a SystemExit, or an ImportError's name.
            return obj.__reduce_ex__(PROTOCOL)
        for module, path in _GENERATORS:
            loaded = sys.modules.get(module)
            if loaded is not None and obj is getattr(loaded, path, None):
                return _global_generator, (module, path)
        return super().reducer_override(obj)


#: What cloudpickle says in place of a function's file.
_NO_FILE = "<dynamic-code>"

#: Where the global generators stand.
_GENERATORS = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))


def _global_generator(module: str, path: str) -> Any:
    """This process's own global generator."""
    return getattr(importlib.import_module(module), path)


def _dump_plainly(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes | None:
    """The pickle of a call that holds nothing for which cloudpickle is needed, in a third of its time.

    Returns:
        None where cloudpickle would do otherwise: the function travels by value, or is not what its name says.
    """
    # A built-in method (`[].append`) takes its object along, which may be anything.
    is_method = not isinstance(getattr(function, "__self__", types), types.ModuleType)
    if is_method or function.__module__ == "__main__" or cloudpickle.list_registry_pickle_by_value():
        return None
    try:
        return pickle.dumps((function, args, {}), PROTOCOL)
    except Exception:
        return None


def unserializable(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException
) -> SerializationError:
    """The error for a call that could not be pickled, naming the first of its parts that can't.

    Args:
        function: what was to be called.
        args: with these arguments.
        kwargs: and these.
        error: what the pickler raised.
    """
    parts: list[tuple[str, object]] = [("the function", function)]
    parts += [(f"argument {index}", value) for index, value in enumerate(args)]
    parts += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    name, said = "the call", error
    for part, value in parts:
        try:
            cloudpickle.dumps(value, protocol=PROTOCOL)
        except Exception as part_error:
            name, said = f"{part} ({type(value).__qualname__})", part_error
            break
    return SerializationError(
        f"{name} of {call_name(function)!r} can't be sent to a worker: {_told(said)}. "
        "Pass what it is made from instead, and build it inside the function."
    )


def collect_dependency(handle: Any) -> int | None:
    """Note `handle` as a dependency of the call that this thread is dumping.

    Returns:
        The index by which `resolve_dependency` finds it in the worker, or None when no call is being dumped.
    """
    collected = _context.collected
    if collected is None:
        return None
    for index, known in enumerate(collected):
        if known is handle:
            return index
    collected.append(handle)
    return len(collected) - 1


def resolve_dependency(index: int) -> Any:
    """The finished handle that stands at `index` beside the call that this thread is loading."""
    return _context.resolved[index]


def collect_shared(number: int, shared: Any) -> bool:
    """Note that the call which this thread is dumping, if it is, needs a shared object; whether it is."""
    if _context.collected is None:
        return False
    _context.shared[number] = shared
    return True


def resolve_shared(number: int) -> Any:
    """The shared object of that number, for the call that this thread is loading."""
    if _context.find_shared is None:
        raise SerializationError("a shared object is only to be had among the arguments of a job")
    return _context.find_shared(number)


@contextlib.contextmanager
def _resolving(handles: Sequence[Any], find_shared: Callable[[int], Any] | None) -> Iterator[None]:
    outer, _context.resolved = _context.resolved, handles
    outer_find, _context.find_shared = _context.find_shared, find_shared
    try:
        yield
    finally:
        _context.resolved = outer
        _context.find_shared = outer_find


def dump_handle(handle: Dependency) -> bytes:
    """A final job handle as bytes, to travel beside the call that it is an argument of."""
    outer, _context.collected = _context.collected, None
    outer_carried, _context.carried = _context.carried, True
    try:
        return cloudpickle.dumps(handle, protocol=PROTOCOL)  # type: ignore[no-any-return]
    finally:
        _context.collected = outer
        _context.carried = outer_carried


def handle_is_carried() -> bool:
    """Whether this thread is pickling a finished handle to travel beside a call, rather than for the user."""
    return _context.carried


def load_call(
    payload: bytes | bytearray | memoryview,
    handles: Sequence[bytes] = (),
    buffers: Sequence[memoryview] = (),
    find_shared: Callable[[int], Any] | None = None,
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Rebuild a call in the process that runs it.

    Args:
        payload: `Call.payload`.
        handles: `dump_handle` of each dependency, in order.
        buffers: what `Call.buffers` held, in memory of this process.
        find_shared: finds the shared objects among the arguments, by number.

    Raises:
        SerializationError: it can't be rebuilt here, as when a module that it needs can't be imported.
    """
    try:
        if handles or buffers or find_shared is not None:
            with _resolving([pickle.loads(handle) for handle in handles], find_shared):  # noqa: S301 (our caller's)
                function, args, kwargs = pickle.loads(payload, buffers=apart(buffers))  # noqa: S301 (likewise)
        else:
            function, args, kwargs = pickle.loads(payload)  # noqa: S301 (likewise)
    except (SystemExit, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise SerializationError(
            f"the function or an argument can't be rebuilt in the worker: {_told(error)}. "
            "Check that the worker can import the modules that define them."
        ) from error
    return function, args, kwargs


def dump_result(value: object) -> bytes:
    """A job's result as bytes, known to be such that it can be rebuilt.

    Raises:
        SerializationError: it can't be pickled, or not be rebuilt from its pickle.
    """
    return _dump_result(value, None)


def dump_result_apart(value: object) -> bytes | Parcel:
    """The same, with its large buffers apart if there are any: the value's own memory.

    Raises:
        SerializationError: it can't be pickled, or not be rebuilt from its pickle.
    """
    buffers = _Buffers()
    data = _dump_result(value, buffers)
    return Parcel(data, buffers.taken) if buffers.taken else data


class _PlainPickler(pickle.Pickler):
    """Pickles values of built-in types that hold nothing else, and gives up at the first that is not."""

    def reducer_override(self, obj: Any) -> Any:
        raise _NotPlainError


class _NotPlainError(Exception):
    pass


def _dump_plain_container(value: object) -> bytes | None:
    """The pickle of built-in values in built-in containers, which is sure to be rebuilt; None where there is else."""
    with io.BytesIO() as file:
        try:
            _PlainPickler(file, protocol=PROTOCOL).dump(value)
        except Exception:
            return None
        return file.getvalue()


def _dump_result(value: object, buffers: _Buffers | None) -> bytes:
    if type(value) in _PLAIN_TYPES:
        return pickle.dumps(value, PROTOCOL)
    if type(value) in _CONTAINER_TYPES:
        plain = _dump_plain_container(value)
        if plain is not None:
            return plain
    taken: Sequence[memoryview] = () if buffers is None else buffers.taken
    try:
        with io.BytesIO() as file:
            take = None if buffers is None else buffers.take
            cloudpickle.CloudPickler(file, protocol=PROTOCOL, buffer_callback=take).dump(value)
            data = file.getvalue()
    except BaseException as error:
        raise _result_error(value, "pickled", error) from error
    # A class that pickles and doesn't unpickle is better met here than by whoever asks for the result later, when the
    # job has long been called DONE.
    if _STACK_GLOBAL in data and not _is_plain_array(value):
        try:
            # To rebuild it may change the buffers, which are the value's own.
            copies = [memoryview(bytes(one) if one.readonly else bytearray(one)) for one in taken]
            pickle.loads(data, buffers=apart(copies))  # noqa: S301 (bytes made in the lines above)
        except BaseException as error:
            raise _result_error(value, "rebuilt from its pickle", error) from error
    return data


def _result_error(value: object, verb: str, error: BaseException) -> SerializationError:
    return SerializationError(
        f"the result, a {type(value).__qualname__}, can't be {verb}: {_told(error)}. "
        "Return plain data, or objects that pickle."
    )


def _is_plain_array(value: object) -> bool:
    """Whether `value` is exactly a NumPy array or scalar without object fields, which NumPy rebuilds reliably."""
    kind = type(value)
    if kind.__module__ != "numpy":
        return False
    dtype = getattr(value, "dtype", None)
    return dtype is not None and not dtype.hasobject


def dump_piece(value: object) -> bytes | Parcel:
    """Numbers, bytes and parcels as one, the large buffers apart."""
    buffers = _Buffers()
    data = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.take)
    return Parcel(data, buffers.taken) if buffers.taken else data


def load_piece(data: bytes | Parcel) -> Any:
    """What `dump_piece` was given; none of the user's code runs."""
    return data.loads() if isinstance(data, Parcel) else pickle.loads(data)  # noqa: S301 (of our worker's own making)


def dump_shared(value: object) -> tuple[bytes, Sequence[memoryview]]:
    """An object that many jobs are to have: its pickle, and its large buffers, which are the object's own memory.

    Raises:
        SerializationError: it can't be pickled.
    """
    buffers = _Buffers()
    try:
        with io.BytesIO() as file:
            pickler = CallPickler(file, protocol=PROTOCOL, buffer_callback=buffers.take)
            pickler.substitute = unbuffered
            pickler.dump(value)
            return file.getvalue(), buffers.taken
    except Exception as error:
        raise SerializationError(
            f"the object, a {type(value).__qualname__}, can't be shared: {_told(error)}. "
            "Share what it is made from instead, and build it inside the function."
        ) from error


class RemoteTraceback(Exception):  # noqa: N818 (named like the standard library's)
    """The worker's traceback, as text; chained as the cause of the exception that arrives in the caller."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_exception(error: BaseException) -> bytes:
    """An exception and its traceback as bytes that can be rebuilt.

    One that can't cross is replaced by a `SerializationError` that tells its type, its text and its traceback.
    """
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        with io.BytesIO() as file:
            CallPickler(file, protocol=PROTOCOL).dump((error, text))
            data = file.getvalue()
        rebuilt = pickle.loads(data)[0]  # noqa: S301 (bytes made in the line above)
        if isinstance(rebuilt, type(error)) or type(rebuilt).__qualname__ == type(error).__qualname__:
            return data
        reason = f"it comes back as a {type(rebuilt).__qualname__}"
    except BaseException as failure:
        reason = f"{type(failure).__name__}: {failure}"
    substitute = SerializationError(
        f"the job raised {type(error).__qualname__}: {_safe_text(error)}; that exception can't be sent to the caller "
        f"({reason}). Its traceback is chained to this error."
    )
    return cloudpickle.dumps((substitute, text), protocol=PROTOCOL)  # type: ignore[no-any-return]


def _told(error: BaseException) -> str:
    """Type and text of an error, to stand within a sentence."""
    return f"{type(error).__name__}: {_safe_text(error)}".rstrip(".: ")


def _safe_text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "(its text can't be had)"


def load_result(data: bytes | bytearray | memoryview | Parcel) -> Any:
    """Rebuild a result in the caller.

    Raises:
        SerializationError: it can't be rebuilt here.
        Exception: what a signal handler raised meanwhile; the result can be asked for again.
    """
    loads: Callable[[], Any] = data.loads if isinstance(data, Parcel) else partial(pickle.loads, data)
    try:
        return loads()
    except Exception:
        # The pickle's own, or that of a signal handler, which Python runs at any point?
        try:
            loads()
        except Exception as again:
            error = again
        else:
            raise
        raise SerializationError(
            f"the result can't be rebuilt in the calling process: {_told(error)}. "
            "Check that the modules that define it can be imported here."
        ) from error


def load_exception(data: bytes | bytearray | memoryview) -> BaseException:
    """Rebuild an exception in the caller, with the worker's traceback chained as its cause; never raises."""
    try:
        error, text = pickle.loads(data)  # noqa: S301 (from our own worker, over a private channel)
        if not isinstance(error, BaseException):
            raise TypeError(f"expected an exception, found a {type(error).__qualname__}")
    except Exception as failure:
        unloadable = SerializationError(
            f"the job's exception can't be rebuilt in the calling process: {_told(failure)}. "
            "Check that the module that defines it can be imported here."
        )
        unloadable.__cause__ = failure
        return unloadable
    error.__cause__ = RemoteTraceback(text)
    return error
