"""No job poisons the next: what a job changes of its process is put back before another runs there."""

from __future__ import annotations

import contextvars
import ctypes
import faulthandler
import gc
import io
import logging
import logging.config
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import LocalExecutor
from tests.core.gates import use_cpu
from tests.core.oddities import hold_interpreter_lock
from tests.core.scripts import Script

numpy = pytest.importorskip("numpy")


def state() -> dict[str, Any]:
    """What a job finds around it."""
    status = Path("/proc/self/status").read_text().splitlines()
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    umask = os.umask(0)
    os.umask(umask)
    return {
        "pid": os.getpid(),
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "time zone": time.strftime("%Z", time.localtime(0)),
        "umask": umask,
        "masks": [line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt"))],
        "handlers": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "timers": [
            signal.getitimer(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
        ],
        "wakeup": wakeup,
        "limits": [resource.getrlimit(number) for number in range(resource.RLIM_NLIMITS)]
        if hasattr(resource, "RLIM_NLIMITS")
        else [resource.getrlimit(number) for number in range(16)],
        "affinity": os.sched_getaffinity(0),
        "filters": list(map(str, warnings.filters)),
        "streams": [
            (type(stream), stream.encoding, stream.errors, stream.line_buffering, stream.fileno(), stream.closed)
            for stream in (sys.stdin, sys.stdout, sys.stderr)
            if isinstance(stream, io.TextIOWrapper)
        ],
        "descriptors": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "blocking": [os.get_blocking(number) for number in range(3)],
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
        "tracing": [str(sys.gettrace()), str(sys.getprofile())],
        "collecting": [gc.isenabled(), gc.get_threshold()],
        "arguments": list(sys.argv),
        "time-out": socket.getdefaulttimeout(),
        "tracemalloc": tracemalloc.is_tracing(),
        "context": _VARIABLE.get(),
        "environment of children": sorted(subprocess.run(["env"], capture_output=True, check=True).stdout.splitlines()),
        "loggers": [logging.getLogger("tests.core.surroundings").disabled, logging._warnings_showwarning],  # type: ignore[attr-defined]
        "threads traced": [str(threading.gettrace()), str(threading.getprofile())],
        "record factory": str(logging.getLogRecordFactory()),
        "levels": [handler.level for handler in logging.getLogger().handlers],
        "finders": list(map(str, sys.meta_path)),
        "interval": sys.getswitchinterval(),
        "logging": [str(logging.getLogger().handlers), logging.getLogger().level, logging.root.manager.disable],
        "crashes told": faulthandler.is_enabled(),
    }


def _redirect(number: int) -> None:
    fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(fd, number)
    os.close(fd)


def _set_environment() -> None:
    os.environ.clear()
    os.environ.update(JOBRUNNER_POISON="1", TZ="Asia/Tokyo")
    time.tzset()


def _raise_soon() -> None:
    def handler(number: int, frame: object) -> None:
        raise OSError("an alarm that is too late")

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-6)


def _close(stream: str) -> None:
    getattr(sys, stream).close()


def _set_stream() -> None:
    sys.stdout = sys.stderr = None


_VARIABLE = contextvars.ContextVar("variable", default="unset")
_KEPT_FILES: list[Any] = []


def _mute(handler: logging.Handler) -> None:
    handler.setLevel(99)


def _set_variable() -> None:
    _VARIABLE.set("poison")


def _open_in_place() -> None:
    open(1, "w").close()
    _KEPT_FILES.append(open(os.devnull, "w"))  # noqa: SIM115 (it is to stay open)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


_CHANGES: dict[str, Callable[[], object]] = {
    "chdir": lambda: os.chdir("/"),
    "fchdir": lambda: os.fchdir(os.open("/", os.O_RDONLY)),
    "environment": _set_environment,
    "umask": lambda: os.umask(0o777),
    "SIGTERM ignored": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "SIGINT ignored": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "SIGSEGV handled": lambda: signal.signal(signal.SIGSEGV, print),
    "alarm": lambda: signal.alarm(100),
    "alarm with a handler that raises": _raise_soon,
    "CPU time timers": lambda: [signal.setitimer(t, 100) for t in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
    "mask": _block_signals,
    "wakeup": lambda: signal.set_wakeup_fd(os.open(os.devnull, os.O_RDWR | os.O_NONBLOCK), warn_on_full_buffer=False),
    "faulthandler": faulthandler.disable,
    "file limit": lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    ),
    "memory limit": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 33, resource.RLIM_INFINITY)),
    "core limit": lambda: resource.prlimit(0, resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])),
    "affinity": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "filters": lambda: warnings.simplefilter("error"),
    "sys.path": lambda: sys.path.clear(),
    "stdout closed": lambda: _close("stdout"),
    "stderr closed": lambda: _close("stderr"),
    "stdin closed": lambda: _close("stdin"),
    "stdout detached": lambda: getattr(sys.stdout, "detach")(),  # noqa: B009 (not every text stream has it)
    "streams replaced": _set_stream,
    "descriptor 1 closed": lambda: os.close(1),
    "descriptors closed": lambda: os.closerange(0, 3),
    "descriptor 1 redirected": lambda: _redirect(1),
    "descriptor 2 redirected": lambda: _redirect(2),
    "descriptor 1 not blocking": lambda: os.set_blocking(1, False),
    "recursion limit": lambda: sys.setrecursionlimit(200),
    "threads traced": lambda: (threading.settrace(print), threading.setprofile(print)),  # type: ignore[func-returns-value]
    "record factory": lambda: logging.setLogRecordFactory(lambda *_, **__: 1 / 0),  # type: ignore[arg-type]
    "relay muted": lambda: list(map(_mute, logging.getLogger().handlers)),
    "sys.meta_path": lambda: sys.meta_path.clear(),
    "trace": lambda: sys.settrace(lambda *_: None),
    "profile": lambda: sys.setprofile(lambda *_: None),
    "gc": gc.disable,
    "gc thresholds": lambda: gc.set_threshold(0),
    "sys.argv": lambda: sys.argv.append("more"),
    "socket time-out": lambda: socket.setdefaulttimeout(0.001),
    "tracemalloc": tracemalloc.start,
    "context variable": _set_variable,
    "putenv": lambda: os.putenv("JOBRUNNER_POISON", "1"),
    "unsetenv": lambda: os.unsetenv("PATH"),
    "loggers configured": lambda: logging.config.dictConfig({"version": 1}),
    "warnings captured": lambda: logging.captureWarnings(True),
    "a file over descriptor 1": lambda: open(1, "w").close(),
    "a file in the place of descriptor 1": _open_in_place,
    "switch interval": lambda: sys.setswitchinterval(1.0),
    "logging set up": lambda: logging.basicConfig(level=logging.DEBUG, force=True),
    "logging disabled": lambda: logging.disable(logging.CRITICAL),
}


@pytest.fixture
def one_worker(make_local: Callable[..., LocalExecutor]) -> LocalExecutor:
    return make_local(1)


@pytest.mark.parametrize("change", _CHANGES)
def test_what_a_job_changes_is_put_back_in_the_same_worker(one_worker: LocalExecutor, change: str) -> None:
    before = one_worker.submit(state).result()
    one_worker.submit(_CHANGES[change]).exception()
    assert one_worker.submit(state).result() == before


def test_all_jobs_of_a_worker_that_loads_numpy_see_the_same_environment(script: Callable[..., Script]) -> None:
    caller = script(
        "import os\nfrom jobrunner import LocalExecutor\n"
        "def look():\n    import numpy\n    return sorted(os.environ.items())\n"
        "with LocalExecutor(1) as executor:\n    seen = [executor.submit(look).result() for _ in range(4)]\n"
        "assert seen == seen[:1] * 4, [set(one) ^ set(seen[0]) for one in seen]\n"
    )
    caller.check()


def test_handlers_of_crashes_are_put_back_where_python_has_had_faulthandler_from_its_start(
    make_local: Callable[..., LocalExecutor],
) -> None:
    worker = make_local(1, env={"PYTHONFAULTHANDLER": "1"})
    before = worker.submit(state).result()
    worker.submit(signal.signal, signal.SIGSEGV, signal.SIG_IGN).exception()
    assert worker.submit(state).result() == before


@pytest.mark.parametrize(("function", "arguments"), [
    (os.chdir, ("/",)), (os.umask, (0,)), (os.close, (1,)), (os.dup2, (0, 1)), (os.closerange, (0, 3)),
    (signal.alarm, (100,)), (signal.setitimer, (signal.ITIMER_REAL, 100)), (signal.signal, (signal.SIGTERM, 1)),
    (signal.pthread_sigmask, (signal.SIG_BLOCK, [signal.SIGTERM])), (sys.setrecursionlimit, (300,)),
    (resource.setrlimit, (resource.RLIMIT_FSIZE, (1 << 30, -1))), (faulthandler.disable, ()),
    (os.sched_setaffinity, (0, [0])),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_functions_of_the_standard_library_are_put_back_as_jobs_of_their_own(
    one_worker: LocalExecutor, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    before = one_worker.submit(state).result()
    one_worker.submit(function, *arguments).result()
    assert one_worker.submit(state).result() == before


def test_a_directory_that_is_gone_is_left(one_worker: LocalExecutor, tmp_path: Path) -> None:
    def go_and_remove() -> None:
        os.mkdir(tmp_path / "gone")
        os.chdir(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone")

    before = one_worker.submit(os.getcwd).result()
    one_worker.submit(go_and_remove).result()
    assert one_worker.submit(os.getcwd).result() == before


def test_what_code_in_c_sets_is_put_back_too(one_worker: LocalExecutor) -> None:
    def meddle() -> None:
        use_cpu(0.002)  # what takes less is looked at only where Python's own functions were called
        libc = ctypes.CDLL(None)
        libc.umask(0)
        libc.chdir(b"/")
        libc.signal(int(signal.SIGTERM), 1)
        libc.signal(int(signal.SIGSEGV), 1)

    before = one_worker.submit(state).result()
    one_worker.submit(meddle).result()
    assert one_worker.submit(state).result() == before


def _be_idle() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _nice() -> None:
    os.nice(1)


def _become_nobody() -> None:
    os.setuid(65534)


def _lower_hard_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setuid(65534) if os.getuid() == 0 else None


def _use_up_descriptors() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for _ in range(soft):
        try:
            os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return


def _few_descriptors() -> None:  # an initializer
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize("change", [_nice, _be_idle, _use_up_descriptors, _become_nobody, _lower_hard_limit])
def test_a_worker_in_which_something_can_not_be_put_back_is_replaced(
    make_local: Callable[..., LocalExecutor], change: Callable[[], object]
) -> None:
    if change in (_become_nobody, _lower_hard_limit) and os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    executor = make_local(1, initializer=_few_descriptors)
    names = ["directory", "umask", "masks", "limits", "affinity", "path", "blocking"]
    before = executor.submit(state).result()
    executor.submit(change).result()
    after = executor.submit(state).result()
    assert after["pid"] != before["pid"]
    assert [after[name] for name in names] == [before[name] for name in names]
    assert executor.stats()["failed"] == 0
    assert executor.stats()["restarts"] == 1


def _see_and_poison(number: int) -> tuple[Any, ...]:
    seen = (
        os.getcwd(),
        os.environ.get("JOBRUNNER_POISON"),
        list(sys.path),
        list(map(str, warnings.filters)),
        os.umask(0),
    )
    drawn = random.random()
    os.umask(seen[-1])
    if number % 2 == 0:
        os.chdir("/")
        random.seed(7)
        numpy.random.seed(7)
        os.environ["JOBRUNNER_POISON"] = "1"
        sys.path.insert(0, "/poison")
        warnings.simplefilter("error")
        os.umask(0o777)
    return seen, drawn


@pytest.mark.parametrize("chunksize", [None, 1, 50])
def test_items_of_a_map_do_not_poison_each_other_either(
    make_local: Callable[..., LocalExecutor], chunksize: int | None
) -> None:
    results = list(make_local(1).map(_see_and_poison, range(100), chunksize=chunksize))
    assert all(seen == results[0][0] for seen, _ in results)
    assert len({drawn for _, drawn in results}) == len(results)


def test_functions_that_a_preloaded_module_has_taken_by_name_are_watched_too(
    make_local: Callable[..., LocalExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "taken.py").write_text(
        "from random import random, seed\nfrom os import chdir, getcwd\n"
        "def poison(): seed(5); chdir('/')\ndef look(): return random(), getcwd()\n"
    )

    def poison() -> None:
        import taken  # type: ignore[import-not-found]

        taken.poison()

    def look() -> Any:
        import taken

        return taken.look()

    executor = make_local(1, preload=["taken"])
    seen = []
    for _ in range(3):
        executor.submit(poison).result()
        seen.append(executor.submit(look).result())
    assert len({drawn for drawn, _ in seen}) == 3
    assert {directory for _, directory in seen} == {os.getcwd()}


# --- random numbers ---


def _draw() -> tuple[float, float]:
    return random.random(), float(numpy.random.random())


def _seed_and_draw() -> tuple[float, float]:
    random.seed(1)
    numpy.random.seed(1)
    return _draw()


def _set_states() -> None:
    random.setstate(random.Random(1).getstate())
    numpy.random.set_state(numpy.random.RandomState(1).get_state())


def _replace_generator() -> None:
    numpy.random.set_state(numpy.random.RandomState(1).get_state())
    if hasattr(numpy.random, "set_bit_generator"):
        numpy.random.set_bit_generator(numpy.random.MT19937(1))


@pytest.mark.parametrize("seed", [_seed_and_draw, _set_states, _replace_generator])
def test_a_jobs_seed_does_not_reach_the_next(
    make_local: Callable[..., LocalExecutor], seed: Callable[[], object]
) -> None:
    executor = make_local(1)
    drawn: list[float] = []
    for _ in range(3):
        executor.submit(seed).result()
        drawn += executor.submit(_draw).result()
    fixed = executor.submit(_seed_and_draw).result()
    assert len({*drawn, *fixed}) == len(drawn) + 2


def test_seeding_works_within_a_job_and_is_never_rewound(make_local: Callable[..., LocalExecutor]) -> None:
    executor = make_local(2)
    assert len({executor.submit(_seed_and_draw).result() for _ in range(4)}) == 1
    drawn = [value for job in [executor.submit(_draw) for _ in range(40)] for value in job.result()]
    assert len(set(drawn)) == len(drawn)


def test_functions_taken_from_the_random_modules_draw_from_the_workers_generators(
    make_local: Callable[..., LocalExecutor],
) -> None:
    # As in a script with `from random import random`: the global generator's methods travel with the function.
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "from random import random, seed\nfrom numpy.random import rand\n"
        "def draw(): return random(), float(rand())\n"
        "def seed_and_draw(): seed(1); return draw()\n",
        namespace,
    )
    executor = make_local(2)
    drawn = [value for job in [executor.submit(namespace["draw"]) for _ in range(20)] for value in job.result()]
    assert len(set(drawn)) == len(drawn)
    one = make_local(1)
    seeded = {one.submit(namespace["seed_and_draw"]).result()[0] for _ in range(3)}
    assert len(seeded) == 1
    assert one.submit(namespace["draw"]).result()[0] not in seeded
    assert random.random() not in drawn


def test_a_watchdog_of_pythons_own_ends_with_the_job(make_local: Callable[..., LocalExecutor]) -> None:
    executor = make_local(1)
    executor.submit(faulthandler.dump_traceback_later, 0.2, exit=True).result()
    assert executor.submit(use_cpu, 0.5).result() == 0.5


# --- threads ---


def _blas_threads() -> list[int]:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    return [library["num_threads"] for library in threadpoolctl.threadpool_info()]


def _use_many_threads() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    for library in threadpoolctl.ThreadpoolController().lib_controllers:
        library.set_num_threads(2)


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_uses_the_threads_of_the_job_whatever_the_one_before_has_set(
    make_local: Callable[..., LocalExecutor], threads: int
) -> None:
    pytest.importorskip("threadpoolctl")
    executor = make_local(1, threads=threads)
    before = executor.submit(_blas_threads)
    assert set(before.result()) == {threads}
    assert before.report().threads == threads
    executor.submit(_use_many_threads).result()
    assert set(executor.submit(_blas_threads).result()) == {threads}


def test_a_number_of_threads_that_the_user_sets_by_variable_stands(make_local: Callable[..., LocalExecutor]) -> None:
    pytest.importorskip("threadpoolctl")
    executor = make_local(1, env={"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"})
    assert set(executor.submit(_blas_threads).result()) == {2}
    assert set(executor.submit(_blas_threads).result()) == {2}


# --- growth ---


_KEPT: list[bytes] = []


def _keep(megabytes: int) -> int:
    _KEPT.append(b"x" * (megabytes << 20))
    return os.getpid()


def test_a_worker_that_has_grown_is_replaced_quietly(
    make_local: Callable[..., LocalExecutor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobrunner")
    executor = make_local(1, max_worker_growth="50MiB")
    pids = [executor.submit(_keep, 30).result() for _ in range(6)]
    # Beyond its first job each grows by 30 MiB a job: the second job more is one too many.
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3]
    assert executor.stats()["recycled"] >= 1
    assert executor.stats()["failed"] == 0
    assert "its memory at rest has grown by 60" in caplog.text
    assert all(record.levelno < logging.WARNING for record in caplog.records)


def test_memory_that_a_job_has_freed_is_no_growth(make_local: Callable[..., LocalExecutor]) -> None:
    executor = make_local(1, max_worker_growth="50MiB")
    assert len({executor.submit(lambda: len(b"x" * (200 << 20)) and os.getpid()).result() for _ in range(4)}) == 1
    assert executor.stats()["recycled"] == 0


def test_a_job_that_holds_the_interpreter_lock_can_be_told_where(make_local: Callable[..., LocalExecutor]) -> None:
    job = make_local(1, time_limit=0.5).submit(hold_interpreter_lock)
    assert job.exception() is not None
    assert "in hold_interpreter_lock" in (job.report().stack or "")
