"""Running one serialised call: bytes in, bytes out.

The same code runs a call in a lane's worker, in the calling process and inside a foreign executor, so that results,
exceptions and what can't cross mean the same everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jobrunner.parcel import Parcel
from jobrunner.serialization import dump_exception, dump_result, load_call

__all__ = ["Outcome", "Times", "drop_own_frames", "execute", "exit_code"]


_LONGEST_WORDS = 300


class Times(NamedTuple):
    """When a call went through its stages, as `time.monotonic_ns` of the machine that ran it; 0 where it did not."""

    taken_ns: int
    started_ns: int
    finished_ns: int


class Outcome(NamedTuple):
    """What a call came to.

    ok: whether the function returned.
    data: the pickled result (a `Parcel` where it has large buffers that may stand apart), or the pickled exception
        with its traceback.
    told: the exception in a few words; empty where there is none.
    times: when it went through its stages.
    """

    ok: bool
    data: bytes | Parcel
    times: Times
    told: str = ""


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def execute(
    payload: bytes | bytearray | memoryview,
    handles: Sequence[bytes] = (),
    buffers: Sequence[memoryview] = (),
    *,
    find_shared: Callable[[int], Any] | None = None,
    dump: Callable[[object], bytes | Parcel] = dump_result,
    on_start: Callable[[], None] = lambda: None,
    call: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] = _call,
) -> Outcome:
    """Load a call, run it, and pickle what it came to.

    Args:
        payload: `Call.payload`.
        handles: the pickled handles that the call depends on.
        buffers: the large buffers among its arguments.
        find_shared: finds the shared objects among its arguments, by number.
        dump: pickles the result.
        on_start: told when the call is loaded and its function is about to start.
        call: what calls the function, where something must be done around it.

    Raises:
        SystemExit: the function asked its process to end.  Everything else that it raises is in the outcome.
    """
    taken_ns = time.monotonic_ns()
    started_ns = 0
    try:
        function, args, kwargs = load_call(payload, handles, buffers, find_shared)
        # The arguments alone hold them now.
        buffers = ()
        on_start()
        started_ns = time.monotonic_ns()
        value = call(function, args, kwargs)
        finished_ns = time.monotonic_ns()
        # What a job held is freed before its result is announced, not when the next job comes.
        del function, args, kwargs
        data = dump(value)
        del value
    except SystemExit:
        raise
    except BaseException as error:
        drop_own_frames(error)
        times = Times(taken_ns, started_ns, time.monotonic_ns())
        return Outcome(False, dump_exception(error), times, _in_words(error))
    return Outcome(True, data, Times(taken_ns, started_ns, finished_ns))


def _in_words(error: BaseException) -> str:
    """An exception's type and the first line of what it says."""
    try:
        said = str(error).strip().partition("\n")[0][:_LONGEST_WORDS]
    except Exception:  # its own code, which may do anything
        said = ""
    return f"{type(error).__qualname__}: {said}" if said else type(error).__qualname__


def exit_code(error: SystemExit) -> int:
    """The exit code that a function asked for which was not run in a process of its own, and so did not end it.

    As of a process, of which it is one byte: -1 is 255.
    """
    return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)


def drop_own_frames(error: BaseException) -> None:
    """Let the traceback begin in the user's function: ours above it tell nobody anything."""
    traceback = error.__traceback__
    while (
        traceback is not None
        and traceback.tb_next is not None
        and str(traceback.tb_frame.f_globals.get("__name__")).startswith("jobrunner.")
    ):
        traceback = traceback.tb_next
    error.__traceback__ = traceback
