"""Small parts by themselves: calls, frames, tokens, callback threads, process trees, statuses, errors, options."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import operator
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobrunner
from jobrunner import errors, processes
from jobrunner.backend import Backend, Capabilities
from jobrunner.executors.callbacks import CallbackThreads, on_callback_thread
from jobrunner.handover import EventTokenCounter, ProgressPage, TokenCounter, open_tokens
from jobrunner.messages import (
    FrameReader,
    Kind,
    Measures,
    ProtocolError,
    pack_call,
    pack_frame,
    pack_outcome,
    unpack_call,
    unpack_outcome,
)
from jobrunner.options import JobOptions, PoolOptions, check_count, check_seconds, default_max_workers
from jobrunner.processes import (
    ProcessId,
    end_descendants,
    end_processes,
    end_with_trackers,
    find_descendants,
    find_tagged,
    is_resource_tracker,
    open_pidfd,
    signal_name,
    wait_for_exit,
    wait_readable,
)
from jobrunner.report import JobReport
from jobrunner.serialization import (
    call_name,
    dump_call,
    dump_exception,
    dump_result,
    load_call,
    load_exception,
    load_result,
)
from jobrunner.status import JOB_FINAL_STATES, TRANSITIONS, JobStatus
from tests.core import oddities
from tests.core.gates import Gate
from tests.core.process_table import is_alive, parent_of

# --- serialization ---


def test_a_call_survives_the_way_there() -> None:
    call = dump_call(oddities.add, (1,), {"b": 2})
    function, args, kwargs = load_call(call.payload)
    assert function(*args, **kwargs) == 3
    assert call.name == "add"
    assert call.dependencies == ()
    assert call.serialize_s >= 0


@pytest.mark.parametrize(("function", "name"), [
    (oddities.add, "add"), (abs, "abs"), (str.upper, "str.upper"), (dict, "dict"), (lambda: 1, "<lambda>"),
], ids=["function", "builtin", "method", "class", "lambda"])  # fmt: skip
def test_a_call_is_named_after_its_function(function: Any, name: str) -> None:
    assert call_name(function).endswith(name)


def test_a_partial_is_named_after_what_it_calls() -> None:
    import functools

    assert call_name(functools.partial(oddities.add, 1)) == "add"


@pytest.mark.parametrize(("args", "kwargs", "part"), [
    ((oddities.Unpicklable(),), {}, "argument 0"), ((1, 2, oddities.Unpicklable()), {}, "argument 2"),
    ((), {"key": oddities.Unpicklable()}, "argument 'key'"),
], ids=["0", "2", "key"])  # fmt: skip
def test_the_error_names_the_part_that_failed_its_type_and_the_function(
    args: tuple[Any, ...], kwargs: dict[str, Any], part: str
) -> None:
    with pytest.raises(errors.SerializationError) as info:
        dump_call(oddities.add, args, kwargs)
    for word in (part, "Unpicklable", "add", "this can't be pickled"):
        assert word in str(info.value)
    assert isinstance(info.value.__cause__, RuntimeError)


def test_a_call_that_cannot_be_loaded_is_a_serialization_error_with_its_cause() -> None:
    call = dump_call(oddities.identity, (oddities.Unloadable(),), {})
    with pytest.raises(errors.SerializationError, match="this can't be loaded") as info:
        load_call(call.payload)
    assert isinstance(info.value.__cause__, RuntimeError)
    with pytest.raises(errors.SerializationError):
        load_call(b"no pickle")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    )
)
def test_any_plain_result_comes_back_equal(value: Any) -> None:
    assert load_result(dump_result(value)) == value


@pytest.mark.parametrize(
    "value",
    [oddities.Unpicklable(), oddities.Unloadable(), [oddities.Unloadable()]],
    ids=["unpicklable", "unloadable", "list of one"],
)
def test_a_result_that_would_not_come_back_is_refused_before_it_goes(value: Any) -> None:
    with pytest.raises(errors.SerializationError, match=f"the result, a {type(value).__name__}"):
        dump_result(value)


def test_an_exception_comes_back_with_its_traceback_as_cause() -> None:
    try:
        oddities.raise_chained()
    except ValueError as error:
        data = dump_exception(error)
    arrived = load_exception(data)
    assert type(arrived) is ValueError
    assert "raise_chained" in str(arrived.__cause__)
    assert "KeyError" in str(arrived.__cause__)


def test_loading_an_exception_never_raises() -> None:
    for data in (b"", b"nonsense", pickle.dumps((5, "text")), pickle.dumps(5)):
        assert isinstance(load_exception(data), errors.SerializationError)


def test_numpy_arrays_cross() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(10.0)
    assert (load_result(dump_result(array)) == array).all()
    assert (load_result(dump_result(numpy.array([1, "x", None], dtype=object))) == [1, "x", None]).all()


# --- messages ---

_frames = st.lists(
    st.tuples(
        st.sampled_from(list(Kind)), st.integers(0, (1 << 64) - 1), st.one_of(
            st.binary(max_size=300), st.integers(0, 200_000).map(bytes)
        ), st.integers(0, 255),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_frames, st.lists(st.integers(1, 70_000), min_size=1, max_size=20))
def test_frames_arrive_whole_and_in_order_however_they_are_split(frames: list[Any], sizes: list[int]) -> None:
    stream = b"".join(pack_frame(kind, seq, body, flags) for kind, seq, body, flags in frames)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        reader = FrameReader(theirs)
        arrived: list[Any] = []

        def take() -> None:
            while True:
                try:
                    arrived.extend(reader.read())
                except BlockingIOError:
                    return
                if reader.eof:
                    return

        position = 0
        for number in range(len(stream)):
            if position >= len(stream):
                break
            ours.sendall(stream[position : position + sizes[number % len(sizes)]])
            position += sizes[number % len(sizes)]
            take()
        ours.shutdown(socket.SHUT_WR)
        take()
        assert reader.eof
    assert [(kind, seq, bytes(body), flags) for kind, flags, seq, body in arrived] == [
        (int(kind), seq, body, flags) for kind, seq, body, flags in frames
    ]


@pytest.mark.parametrize("nonsense", [b"\xff" * 64, b"\x09" * 64, bytes(range(200))], ids=["ones", "nines", "bytes"])
def test_nonsense_on_a_channel_is_told_and_no_memory_is_taken_for_it(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(nonsense)
        with pytest.raises(ProtocolError):
            FrameReader(theirs).read()


@given(st.binary(max_size=50), st.lists(st.binary(max_size=50), max_size=4))
def test_a_calls_body_holds_its_handles_apart(payload: bytes, handles: list[bytes]) -> None:
    body, arrived = unpack_call(pack_call(payload, handles))
    assert (bytes(body), arrived) == (payload, handles)


@given(st.builds(Measures, *[st.integers(0, (1 << 64) - 1)] * 6), st.binary(max_size=50))
def test_an_outcome_holds_its_measures_apart(measures: Measures, data: bytes) -> None:
    assert unpack_outcome(pack_outcome(*measures, data)) == (measures, data)


# --- handover ---


def _portable_tokens() -> TokenCounter:
    giving, taking = socket.socketpair()
    taking.setblocking(False)
    return TokenCounter(giving, taking)


@pytest.fixture(params=["eventfd", "sockets"])
def tokens(request: pytest.FixtureRequest) -> Any:
    counter = open_tokens() if request.param == "eventfd" else _portable_tokens()
    assert isinstance(counter, EventTokenCounter) is (request.param == "eventfd")
    yield counter
    counter.close()


def test_a_token_is_taken_as_often_as_it_was_given(tokens: TokenCounter) -> None:
    assert not tokens.take()
    tokens.give(3)
    assert [tokens.take() for _ in range(4)] == [True, True, True, False]
    tokens.give(5)
    assert tokens.take()
    assert tokens.take_up_to(3) == 3
    assert tokens.take_up_to(3) == 1
    assert tokens.take_up_to(3) == 0


def test_each_token_goes_to_one_of_those_who_take(tokens: TokenCounter) -> None:
    count, takers = 2000, 4
    start = threading.Barrier(takers + 1)
    taken = [0] * takers
    given = threading.Event()

    def take(number: int) -> None:
        start.wait()
        while True:
            last_look = given.is_set()
            if tokens.take():
                taken[number] += 1
            elif last_look:
                return

    threads = [threading.Thread(target=take, args=(number,)) for number in range(takers)]
    for thread in threads:
        thread.start()
    start.wait()
    for _ in range(count // 10):
        tokens.give(10)
    given.set()
    for thread in threads:
        thread.join()
    assert sum(taken) == count


def test_what_is_handed_over_can_only_be_pickled_while_a_worker_is_spawned(tokens: TokenCounter) -> None:
    page = ProgressPage()
    for thing in (tokens, page):
        with pytest.raises(TypeError, match="spawned"):
            pickle.dumps(thing)
    page.close_descriptor()
    page.close_descriptor()
    assert list(page.words[:6]) == [0] * 6


# --- callback threads ---


def test_callbacks_are_begun_in_order() -> None:
    threads = CallbackThreads()
    seen: list[int] = []
    for number in range(500):
        threads.run(lambda number=number: seen.append(number))  # type: ignore[misc]
    threads.drain()
    assert seen == list(range(500))


def test_a_callback_that_blocks_does_not_hold_up_the_others() -> None:
    threads = CallbackThreads()
    blocked, over = threading.Event(), threading.Event()
    for _ in range(3):
        threads.run(blocked.wait)
    threads.run(over.set)
    over.wait()
    blocked.set()
    threads.drain()


def test_a_callback_may_wait_for_another_callback() -> None:
    threads = CallbackThreads()
    second, over = threading.Event(), threading.Event()

    def wait_and_tell() -> None:
        second.wait()
        over.set()

    threads.run(wait_and_tell)
    threads.run(second.set)
    over.wait()
    threads.drain()


def test_many_short_callbacks_need_few_threads() -> None:
    threads = CallbackThreads()
    seen: set[str] = set()
    for _ in range(1000):
        threads.run(lambda: seen.add(threading.current_thread().name + str(threading.get_ident())))
    threads.drain()
    assert len(seen) <= 5


def test_a_callback_thread_knows_that_it_is_one() -> None:
    threads = CallbackThreads()
    answer: concurrent.futures.Future[bool] = concurrent.futures.Future()
    threads.run(lambda: answer.set_result(on_callback_thread()))
    assert answer.result() is True
    assert on_callback_thread() is False


def test_a_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    threads = CallbackThreads()
    threads.run(lambda: oddities.raise_error(SystemExit("in a callback")))
    threads.drain()
    assert "in a callback" in caplog.text


# --- processes ---


def _spawn_tree(gate: Gate, tag: str = "") -> list[int]:
    """A process with two children, one of which has a child; the pids, the topmost first."""

    code = (
        "import os, sys; sys.path[:0] = sys.argv[2].split(os.pathsep)\n"
        "from tests.core.gates import arrive_and_stay as stay\ngate = sys.argv[1]\n"
        "if os.fork() == 0:\n    if os.fork() == 0: stay(gate)\n    stay(gate)\n"
        "if os.fork() == 0: stay(gate)\nstay(gate)"
    )
    top = subprocess.Popen(
        [sys.executable, "-c", code, gate.path, os.pathsep.join(sys.path)],
        env={**os.environ, "JOBRUNNER_LANE": tag},
        start_new_session=True,
    )
    _PROCESSES.append(top)
    pids = gate.await_arrival(4)
    return [top.pid, *(pid for pid in pids if pid != top.pid)]


_PROCESSES: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _reaped() -> Any:
    yield
    for process in _PROCESSES:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # those below it, too
        process.wait()
    _PROCESSES.clear()


def test_descendants_are_found_parents_first(gate: Gate) -> None:
    top, *below = _spawn_tree(gate)
    found = [process.pid for process in find_descendants(top)]
    assert set(found) == set(below)
    assert top not in found
    for pid in found:
        assert parent_of(pid) == top or found.index(parent_of(pid)) < found.index(pid)


def test_descendants_are_ended_and_the_process_itself_is_not(gate: Gate) -> None:
    top, *below = _spawn_tree(gate)
    assert end_descendants(top)
    assert [pid for pid in below if is_alive(pid)] == []
    assert is_alive(top)


def test_tagged_processes_are_found_by_tag_and_by_session(gate: Gate) -> None:
    pids = _spawn_tree(gate, "some-tag.7;")
    for tag, found in (("some-tag.7;", True), ("some-tag.", True), ("some-tag.71", False), ("ome-tag", False)):
        assert {process.pid for process in find_tagged(tag)} == (set(pids) if found else set()), tag
    assert {process.pid for process in find_tagged("no such tag", [pids[0]])} == set(pids)
    assert end_processes(lambda: find_tagged("some-tag.7;"), time.monotonic() + 10)
    assert [pid for pid in pids if is_alive(pid)] == []


def test_the_searching_process_is_never_found() -> None:
    assert os.getpid() not in [process.pid for process in find_tagged("", [os.getsid(0)])]


@pytest.mark.parametrize("proc", [True, False], ids=["proc", "psutil"])
def test_a_resource_tracker_is_known_and_ends_by_itself_once_the_others_are_dead(
    proc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its end of the pipe is at its end when the other process is dead, as with a real one.
    tracker = subprocess.Popen(
        [sys.executable, "-c", "def main(): input()\n'from any.resource_tracker import main;main()'\n"
         "try:\n    main()\nexcept EOFError:\n    raise SystemExit(7)"],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdout=tracker.stdin)
    assert tracker.stdin is not None
    tracker.stdin.close()
    found = {process.pid: process for process in find_descendants(os.getpid())}
    ours = [found[other.pid], found[tracker.pid]]
    if not proc:
        monkeypatch.setattr(processes, "_USE_PROC", False)
        monkeypatch.setattr(processes, "_entry", processes._proc_entry)  # start times are of the kernel's unit
    assert [is_resource_tracker(process) for process in ours] == [False, True]
    assert end_with_trackers(
        lambda: [process for process in ours if not wait_for_exit(process, 0.0)], time.monotonic() + 30
    )
    assert (other.wait(), tracker.wait()) == (-signal.SIGKILL, 7)


def test_ending_nothing_succeeds() -> None:
    assert end_processes(list, time.monotonic())


def test_a_pid_given_to_another_process_is_not_taken_for_the_first(gate: Gate) -> None:
    (top, *_) = _spawn_tree(gate)
    impostor = ProcessId(top, 1.0)  # another start time
    assert wait_for_exit(impostor, time.monotonic() + 10)  # the one meant is gone
    once = [[impostor], []]
    end_processes(lambda: once.pop(0) if once else [], time.monotonic() + 1)
    assert is_alive(top)


def test_waiting_for_a_process_that_lives_runs_out(gate: Gate) -> None:
    (top, *below) = _spawn_tree(gate)
    (process,) = [process for process in find_descendants(os.getpid()) if process.pid == top]
    assert not wait_for_exit(process, time.monotonic() + 0.01)
    os.kill(top, signal.SIGKILL)
    assert wait_for_exit(process, time.monotonic() + 10)
    for pid in below:
        os.kill(pid, signal.SIGKILL)


def test_readable_descriptors_are_told_from_others_above_1023_too() -> None:
    import resource

    reader, writer = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert not wait_readable(reader, 0)
        os.write(writer, b".")
        assert wait_readable(reader, None)
        if hard == resource.RLIM_INFINITY or hard > 1100:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
            high = os.dup2(reader, 1050)
            try:
                assert wait_readable(high, 0)
            finally:
                os.close(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(reader)
        os.close(writer)


def test_a_pidfd_of_no_process_is_none() -> None:
    assert open_pidfd(2**22 + 5) is None


def test_signals_are_named() -> None:
    assert signal_name(signal.SIGSEGV) == "SIGSEGV"
    assert signal_name(34) in ("signal 34", "SIGRTMIN")
    assert signal_name(250) == "signal 250"


# --- statuses ---


def test_statuses_have_qiskits_values() -> None:
    assert {status.name: status.value for status in JobStatus} == {
        "INITIALIZING": "job is being initialized",
        "QUEUED": "job is queued",
        "VALIDATING": "job is being validated",
        "RUNNING": "job is actively running",
        "CANCELLED": "job has been cancelled",
        "DONE": "job has successfully run",
        "ERROR": "job incurred error",
    }


def test_every_status_has_its_moves_and_final_ones_have_none_but_one() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert TRANSITIONS[JobStatus.CANCELLED] == TRANSITIONS[JobStatus.ERROR] == frozenset()
    assert TRANSITIONS[JobStatus.DONE] <= {JobStatus.ERROR}
    for status in set(JobStatus) - set(JOB_FINAL_STATES):
        assert {JobStatus.CANCELLED, JobStatus.ERROR} <= TRANSITIONS[status]
        assert JobStatus.INITIALIZING not in TRANSITIONS[status]


def test_a_job_that_is_watched_makes_legal_moves_only_and_none_back(executor: Any) -> None:
    order = [JobStatus.QUEUED, JobStatus.VALIDATING, JobStatus.RUNNING, JobStatus.DONE]
    for _ in range(200):
        jobs = [jobrunner.PrimitiveJob(oddities.add, number) for number in range(4)]
        for job in jobs:
            job.submit(executor)
        # Others follow on the same worker: what that does now says nothing of a job that it has done.
        watched = jobs[1]
        seen = [watched.status()]
        while seen[-1] not in JOB_FINAL_STATES:
            status = watched.status()
            if status is not seen[-1]:
                assert status in TRANSITIONS[seen[-1]], seen
                seen.append(status)
        assert [order.index(status) for status in seen] == sorted(order.index(status) for status in seen), seen
        jobrunner.wait(jobs)


# --- errors ---

_TREE = {
    "JobError": ("JobRunnerError",),
    "JobTimeoutError": ("JobError", TimeoutError, concurrent.futures.TimeoutError),
    "JobCancelledError": ("JobRunnerError", concurrent.futures.CancelledError),
    "SerializationError": ("JobRunnerError", pickle.PicklingError),
    "WorkerDiedError": ("JobRunnerError", concurrent.futures.BrokenExecutor),
    "MemoryLimitExceeded": ("WorkerDiedError", MemoryError),
    "TimeLimitExceeded": ("JobRunnerError",),
    "ExecutorShutdownError": ("JobRunnerError", RuntimeError),
    "SpecError": ("JobRunnerError",),
    "StoreError": ("JobRunnerError",),
}


@pytest.mark.parametrize("name", _TREE)
def test_the_tree_of_errors_is_the_contracts(name: str) -> None:
    error = getattr(errors, name)
    for base in _TREE[name]:
        assert issubclass(error, getattr(errors, base) if isinstance(base, str) else base)
    assert issubclass(error, errors.JobRunnerError)
    assert getattr(jobrunner, name) is error


def test_a_time_limit_is_no_timeout() -> None:
    assert not issubclass(errors.TimeLimitExceeded, (TimeoutError, concurrent.futures.TimeoutError))


@pytest.mark.parametrize("name", errors.__all__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_pickles_with_its_facts(name: str, protocol: int) -> None:
    report = JobReport(job_id="42", status=JobStatus.ERROR)
    facts = {"job_id": "42", "pid": 5, "exit_code": 3, "signal": 9, "limit": 1.5, "report": report}
    error = getattr(errors, name)("what happened", **facts)
    error.note = "mine"
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert str(twin) == str(error) == "what happened"
    assert twin.args == error.args
    assert {fact: getattr(twin, fact) for fact in facts} == facts
    assert twin.note == "mine"


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_its_facts_as_none_and_no_text_by_default(name: str) -> None:
    error = getattr(errors, name)()
    assert str(error) == ""
    for fact in ("job_id", "pid", "exit_code", "signal", "limit", "report"):
        assert getattr(error, fact) is None


def test_spec_and_store_errors_tell_the_place() -> None:
    spec = errors.SpecError("expected a number", file="a.toml", line=3, key="size")
    assert str(spec) == "a.toml:3: size: expected a number"
    assert (spec.file, spec.line, spec.key) == ("a.toml", 3, "size")
    twin = pickle.loads(pickle.dumps(spec))
    assert (str(twin), twin.file, twin.line, twin.key) == (str(spec), "a.toml", 3, "size")
    store = errors.StoreError("is locked", path="jobs.db")
    assert (str(store), store.path) == ("jobs.db: is locked", "jobs.db")


# --- options, report, backend ---


@pytest.mark.parametrize("value", [1, 0.5, 10**6])
def test_seconds_are_floats(value: float) -> None:
    assert check_seconds("t", value) == float(value)


def test_numpy_numbers_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert check_seconds("t", numpy.float32(0.5)) == 0.5
    assert check_count("n", numpy.int64(3)) == 3


def test_counts_above_their_least_are_taken() -> None:
    assert check_count("n", 0, least=0) == 0
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        check_count("n", 0)


def test_options_are_frozen_and_name_what_differs() -> None:
    options = JobOptions(time_limit=5, retry_on=ValueError)  # type: ignore[arg-type]
    assert options.retry_on == (ValueError,)
    assert set(options.non_default()) == {"time_limit", "retry_on"}
    assert options.non_default()["time_limit"] == 5.0
    assert set(options.replace(time_limit=None).non_default()) == {"retry_on"}
    with pytest.raises(AttributeError):
        options.retries = 3  # type: ignore[misc]
    assert PoolOptions().non_default() == {}


def test_the_users_env_is_copied() -> None:
    env = {"A": "1"}
    options = PoolOptions(env=env)
    env["A"] = "2"
    assert options.env == {"A": "1"}


def test_there_is_at_least_one_worker_by_default() -> None:
    assert default_max_workers(10_000) == 1


def test_a_report_is_json_able() -> None:
    report = JobReport(job_id="42", status=JobStatus.DONE, pid=5)
    data = json.loads(json.dumps(report.as_dict()))
    assert (data["job_id"], data["status"], data["pid"], data["stack"]) == ("42", "DONE", 5, None)
    with pytest.raises(AttributeError):
        report.pid = 6  # type: ignore[misc]


def test_a_backends_options_are_read_only_and_pickle() -> None:
    given_options: dict[str, Any] = {"a": 1}
    backend = Backend(name="x", options=given_options)
    given_options["a"] = 2
    assert backend.options["a"] == 1
    with pytest.raises(TypeError):
        backend.options["a"] = 3  # type: ignore[index]
    assert pickle.loads(pickle.dumps(backend)) == backend
    assert backend.capabilities == Capabilities()


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (operator.neg, (1,), -1),
        ([1].count, (1,), 1),
        (lambda x: x + 1, (1,), 2),
        (dict.fromkeys, ("ab",), {"a": None, "b": None}),
    ],
    ids=["by name", "a built-in method with its object", "by value", "a class method"],
)
def test_a_call_of_plain_values_arrives_whichever_way_it_is_pickled(
    function: Callable[..., Any], arguments: tuple[Any, ...], result: Any
) -> None:
    arrived, args, kwargs = load_call(dump_call(function, arguments, {}).payload)
    assert arrived(*args, **kwargs) == result
