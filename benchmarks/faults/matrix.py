"""The faults: what each job does, and what is expected of it.

A fault is an entry here; its function stands in `jobs`, `objects` or `state`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults import jobs, objects, settings, state
from benchmarks.faults.expected import Expected

__all__ = ["FAULTS", "Fault"]

_SUCCEEDS = Expected(result="done")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One way for a job to go wrong.

    name: what it is called on the command line.
    group: what it belongs to.
    title: what happens, in a line.
    job: what the faulty job runs.
    arguments: makes its arguments, in the calling process.
    expected: what it may come to.
    needs_end: it doesn't end by itself: it is given a time limit, or is cancelled.
    hogs: it is given a memory limit, where there are such.
    options: further options for jobrunner.
    looks: for a job that changes state: what jobs before and after it see of that.
    seen: whether what was seen before and after means that the change has come through.
    prepare: makes trouble for the calling process before the pool starts.
    while_submitting: makes trouble for it while the faulty job and B are submitted.
    """

    name: str
    group: str
    title: str
    job: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]] = tuple
    expected: Expected = _SUCCEEDS
    needs_end: bool = False
    hogs: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    looks: Callable[[], Any] | None = None
    seen: Callable[[Any, Any], bool] = lambda before, after: before != after
    prepare: Callable[[Path], None] = settings.nothing
    while_submitting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    @property
    def extra_s(self) -> float:
        """Seconds that its cell may take beyond others: a machine may be slow to find a lot of memory."""
        return 20.0 if self.hogs else 0.0


def _with(*values: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: values


def _dies(*, exit_code: int | None = None, by: int | None = None) -> Expected:
    return Expected(errors=("WorkerDiedError",), exit_code=exit_code, signal=by)


def _raises(*names: str) -> Expected:
    return Expected(errors=names)


_SERIALIZATION = _raises("SerializationError")
# A job that takes the worker's own descriptors away may fail, as long as only it does.
_MAY_DIE = Expected(result="done", errors=("WorkerDiedError",))


def _death() -> list[Fault]:
    def fault(name: str, title: str, job: Callable[..., Any], expected: Expected, *arguments: Any) -> Fault:
        return Fault(name=name, group="death", title=title, job=job, expected=expected, arguments=_with(*arguments))

    kill = jobs.send_signal
    return [
        fault("segfault", "reads address 0", jobs.segfault, _dies(by=signal.SIGSEGV)),
        fault("abort", "calls os.abort()", os.abort, _dies(by=signal.SIGABRT)),
        fault("os-exit", "calls os._exit(3)", os._exit, _dies(exit_code=3), 3),
        fault("sys-exit", "calls sys.exit(3)", sys.exit, _dies(exit_code=3), 3),
        fault("sigkill", "sends itself SIGKILL", kill, _dies(by=signal.SIGKILL), signal.SIGKILL),
        fault("sigterm", "sends itself SIGTERM", kill, _dies(by=signal.SIGTERM), signal.SIGTERM),
        dataclasses.replace(
            fault("sigstop", "stops itself by SIGSTOP", kill, _raises("TimeLimitExceeded"), signal.SIGSTOP),
            needs_end=True,
        ),
        fault(
            "stack-overflow",
            "recurses in C code until the stack ends",
            jobs.overflow_stack,
            _raises("WorkerDiedError", "RecursionError"),
        ),
    ]


def _errors() -> list[Fault]:
    def fault(name: str, title: str, job: Callable[..., Any], expected: Expected, *arguments: Any) -> Fault:
        return Fault(name=name, group="errors", title=title, job=job, expected=expected, arguments=_with(*arguments))

    def raising(name: str, kind: type[BaseException]) -> Fault:
        return fault(name, f"raises {kind.__name__}", jobs.raise_error, _raises(kind.__name__), kind)

    return [
        raising("keyboard-interrupt", KeyboardInterrupt),
        raising("generator-exit", GeneratorExit),
        raising("stop-iteration", StopIteration),
        fault(
            "base-exception",
            "raises a BaseException of its own",
            jobs.raise_error,
            _raises("OddError"),
            objects.OddError,
        ),
        fault("unpicklable-error", "raises what can't be pickled", objects.raise_unpicklable, _SERIALIZATION),
        fault("unloadable-error", "raises what can't be unpickled", objects.raise_needs_two, _SERIALIZATION),
        fault(
            "unprintable-error", "raises what can't be printed", objects.raise_unprintable, _raises("UnprintableError")
        ),
        fault("huge-error", "raises an exception of 50 MB", objects.raise_huge, _raises("HugeError")),
        fault("recursion", "recurses until Python stops it", jobs.recurse, _raises("RecursionError")),
    ]


def _serialization() -> list[Fault]:
    def fault(name: str, title: str, job: Callable[..., Any], **fields: Any) -> Fault:
        fields.setdefault("expected", _SERIALIZATION)
        return Fault(name=name, group="serialization", title=title, job=job, **fields)

    def taking(name: str, title: str, make: Callable[[], Any], **fields: Any) -> Fault:
        return fault(name, title, jobs.ignore, arguments=lambda: (make(),), **fields)

    return [
        taking("unpicklable-argument", "an argument that can't be pickled", threading.Lock),
        taking("unloadable-argument", "an argument that raises when unpickled", objects.fails_to_load),
        taking(
            "argument-exits",
            "an argument that calls os._exit(3) when unpickled",
            objects.exits_when_loaded,
            expected=_dies(exit_code=3),
        ),
        taking(
            "argument-hangs",
            "an argument that hangs when unpickled",
            objects.hangs_when_loaded,
            expected=_raises("TimeLimitExceeded"),
            needs_end=True,
        ),
        fault("unpicklable-result", "a result that can't be pickled", objects.make_generator),
        fault("unloadable-result", "a result that raises when unpickled", objects.make_unloadable),
        fault("nested-result", "a result nested too deep for the pickler", objects.make_nested_list),
    ]


def _descriptors() -> list[Fault]:
    def fault(name: str, title: str, job: Callable[..., Any], **fields: Any) -> Fault:
        return Fault(name=name, group="descriptors", title=title, job=job, **fields)

    return [
        fault("close-all", "closes every descriptor from 3 on", jobs.close_all, expected=_MAY_DIE),
        fault("close-standard", "closes descriptors 0, 1 and 2", jobs.close_standard),
        fault("write-garbage", "writes into every descriptor", jobs.write_garbage, expected=_MAY_DIE),
        fault(
            "use-up-descriptors",
            "opens files until none is left",
            jobs.use_up_descriptors,
            looks=jobs.can_open,
            prepare=settings.few_descriptors,
        ),
        fault("flood-stdout", "50 MB of lines on stdout", jobs.flood, arguments=_with(1, True)),
        fault("flood-stderr", "50 MB of lines on stderr", jobs.flood, arguments=_with(2, True)),
        fault("flood-stdout-line", "a line of 50 MB on stdout", jobs.flood, arguments=_with(1, False)),
        fault("flood-stderr-line", "a line of 50 MB on stderr", jobs.flood, arguments=_with(2, False)),
    ]


def _processes() -> list[Fault]:
    def fault(name: str, title: str, job: Callable[..., Any], *arguments: Any) -> Fault:
        return Fault(name=name, group="processes", title=title, job=job, arguments=_with(*arguments))

    return [
        fault("fork-exits", "forks a child, which leaves at once", jobs.fork_and_exit),
        fault("fork-returns", "forks a child, which returns from the job too", jobs.fork_and_return),
        fault("fork-stays", "forks a child, which stays", jobs.fork_and_stay),
        fault("child-left", "leaves a program running", jobs.leave_child),
        fault("daemon-left", "leaves a program in a session of its own", jobs.leave_daemon),
        fault("thread-left", "leaves a thread that never ends", jobs.leave_thread, False),
        fault("daemon-thread-left", "leaves a daemon thread", jobs.leave_thread, True),
    ]


def _hangs() -> list[Fault]:
    def fault(name: str, title: str, job: Callable[..., Any], **options: Any) -> Fault:
        return Fault(
            name=name,
            group="hangs",
            title=title,
            job=job,
            expected=_raises("TimeLimitExceeded"),
            needs_end=True,
            options=options,
        )

    return [
        fault("sleep", "sleeps", jobs.sleep_for_ever),
        fault("swallow", "catches every exception, and goes on", jobs.swallow_everything, grace=0.3),
        fault("ignore-signals", "ignores SIGTERM, SIGINT, SIGHUP, SIGQUIT", jobs.ignore_signals, grace=0.3),
        fault("regex", "matches a catastrophic regular expression", jobs.match_for_ever),
        fault("gil", "sleeps in C code with the GIL held", jobs.hold_interpreter_lock, grace=0.3),
        fault("deadlock", "waits for a lock that it holds", jobs.deadlock),
    ]


def _memory() -> list[Fault]:
    expected = Expected(errors=("MemoryLimitExceeded",), returned="no limit")

    def fault(name: str, title: str, job: Callable[..., Any]) -> Fault:
        return Fault(name=name, group="memory", title=title, job=job, expected=expected, hogs=True)

    return [
        fault("memory-hog", "takes 1 GB; the limit is 300 MB", jobs.hog),
        fault("child-hogs", "starts children that take 800 MB", jobs.hog_by_children),
    ]


def _state() -> list[Fault]:
    def fault(name: str, title: str, changes: Callable[..., Any], looks: Callable[[], Any], **fields: Any) -> Fault:
        return Fault(name=name, group="state", title=title, job=changes, looks=looks, **fields)

    def seeded(before: Any, after: Any) -> bool:
        return state.seeded(after)

    return [
        fault("directory", "changes the working directory", state.change_directory, state.see_directory),
        fault("lost-directory", "goes to a directory that is removed", state.lose_directory, state.see_directory),
        fault("environment", "changes environment variables", state.change_environment, state.see_environment),
        fault("signal-handler", "ignores SIGTERM", state.ignore_sigterm, state.see_sigterm),
        fault("alarm", "leaves a SIGALRM pending", state.set_alarm, state.see_alarm),
        fault("signal-mask", "blocks signals", state.block_signals, state.see_blocked),
        fault("warnings", "turns warnings into errors", state.change_warnings, state.see_warnings),
        fault("stdout-replaced", "replaces sys.stdout", state.replace_stdout, state.see_stdout),
        fault("stdout-closed", "closes sys.stdout", state.close_stdout, state.see_stdout),
        fault("stdout-redirected", "lets descriptor 1 be a file", state.redirect_stdout, state.see_stdout),
        fault("umask", "changes the umask", state.change_umask, state.see_umask),
        fault("file-limit", "lowers RLIMIT_NOFILE", state.limit_files, state.see_file_limit),
        fault("memory-rlimit", "lowers RLIMIT_AS", state.limit_memory, state.see_memory_limit),
        fault("module-path", "changes sys.path", state.change_path, state.see_path),
        fault(
            "recursion-limit", "changes the recursion limit", state.change_recursion_limit, state.see_recursion_limit
        ),
        fault("seed", "seeds Python's random numbers", state.seed_random, state.draw_random, seen=seeded),
        fault(
            "numpy-seed",
            "seeds NumPy's random numbers",
            state.seed_numpy,
            state.draw_numpy,
            seen=seeded,
            prepare=settings.needs_numpy,
        ),
        fault("blas-threads", "changes the number of BLAS threads", state.change_blas_threads, state.see_blas_threads),
    ]


def _caller() -> list[Fault]:
    def fault(name: str, title: str, **fields: Any) -> Fault:
        return Fault(name=name, group="caller", title=title, job=jobs.succeed, **fields)

    return [
        fault("tmp-gone", "has no temporary directory any more", prepare=settings.no_temporary_directory),
        fault("tmp-full", "has a full temporary directory", prepare=settings.full_temporary_directory),
        fault(
            "no-descriptors",
            "has no free descriptors during submits",
            prepare=settings.few_descriptors,
            while_submitting=settings.no_descriptors,
        ),
    ]


#: All of them by name, in the order in which they are shown.
FAULTS: dict[str, Fault] = {
    fault.name: fault
    for group in (
        _death,
        _errors,
        _serialization,
        _descriptors,
        _processes,
        _hangs,
        _memory,
        _state,
        _caller,
    )
    for fault in group()
}
