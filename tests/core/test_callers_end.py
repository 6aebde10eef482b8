"""However the calling process ends, nothing that it started outlives it; normally, what was submitted is finished."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.core.process_table import await_death, await_none, describe, is_alive, parent_of
from tests.core.scripts import Script

Run = Callable[..., Script]

_HEAD = """
import ctypes, os, signal, sys, threading, time
from jobrunner import LocalExecutor, PrimitiveJob, get_executor

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def stay():
    say(os.getpid())
    while True:
        signal.pause()

def hold_lock():
    say(os.getpid())
    ctypes.PyDLL(None).sleep(600)

def with_children(then):
    for daemon in (False, True):
        if os.fork() == 0:
            if daemon:
                os.setsid()
                if os.fork():
                    os._exit(0)
            stay()
    then()

def later(value):
    return value
"""


# --- sudden ends ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda number: number.name)
@pytest.mark.parametrize("job", ["stay", "hold_lock"])
def test_a_caller_that_is_killed_leaves_nothing_alive(script: Run, number: int, job: str) -> None:
    caller = script(
        _HEAD
        + f"executor = LocalExecutor(2); [executor.submit(with_children, {job}) for _ in range(2)]; signal.pause()"
    )
    pids = caller.pids(6)
    assert all(is_alive(pid) for pid in pids)
    caller.signal(number)
    caller.assert_nothing_left()
    assert caller.finish()[0] == -number


def test_a_caller_that_is_killed_after_its_children_leaves_nothing_alive(script: Run) -> None:
    # As Ray ends its workers: what the jobs have started is below none of those that are killed.
    caller = script(_HEAD + "executor = LocalExecutor(1); executor.submit(with_children, stay); signal.pause()")
    caller.pids(3)
    caller.signal(signal.SIGSTOP)
    for pid in caller.live():
        if parent_of(pid) == caller.pid:
            os.kill(pid, signal.SIGKILL)
    caller.signal(signal.SIGKILL)
    caller.assert_nothing_left()


def test_a_caller_that_is_killed_leaves_nothing_though_a_fork_of_it_lives_on(script: Run) -> None:
    caller = script(
        _HEAD
        + """
executor = LocalExecutor(1)
executor.submit(with_children, hold_lock)
executor.with_options(name="queued").submit(stay)
fork = os.fork()
if fork == 0:
    stay()
say("fork", fork)
signal.pause()
"""
    )
    said = [caller.line() for _ in range(5)]
    (fork,) = (int(line.split()[1]) for line in said if line.startswith("fork"))
    caller.signal(signal.SIGKILL)
    others = lambda: [pid for pid in caller.live() if pid != fork]  # noqa: E731
    left = await_none(others, 2.0)
    # loky's resource tracker waits for all that hold its pipe, the fork included; it is no worker.
    left = [pid for pid in left if "resource_tracker" not in describe([pid])[0]]
    assert not left, describe(left)
    assert is_alive(fork)
    os.kill(fork, signal.SIGKILL)
    caller.finish()


@pytest.mark.parametrize("end", ["os._exit(3)", "os.abort()", "ctypes.string_at(0)"])
def test_a_caller_that_ends_without_cleaning_up_leaves_nothing_alive(script: Run, end: str) -> None:
    caller = script(
        _HEAD
        # What the job prints may be lost with the caller, which passes it on.
        + "executor = LocalExecutor(1); job = executor.submit(stay)\n"
        + f"while not job.running(): pass\nsay(job.report().pid)\n{end}\n"
    )
    caller.pids(1)
    assert caller.finish()[0] != 0
    caller.assert_nothing_left()


def test_a_caller_killed_while_its_workers_start_leaves_nothing_alive(script: Run) -> None:
    for _ in range(3):
        caller = script(
            _HEAD + "executor = LocalExecutor(2); [executor.submit(stay) for _ in range(2)]; say('go'); signal.pause()"
        )
        caller.line()
        caller.signal(signal.SIGKILL)
        caller.assert_nothing_left(5.0)


def test_workers_in_the_middle_of_tiny_jobs_are_gone_with_their_caller(script: Run) -> None:
    caller = script(
        _HEAD
        + """
executor = LocalExecutor(2)
executor.submit(later, 1).result()
say("go")
while True:
    [job.result() for job in [executor.submit(later, 1) for _ in range(100)]]
"""
    )
    caller.line()
    caller.signal(signal.SIGKILL)
    caller.assert_nothing_left()


# --- ends in order ---


def test_jobs_pending_at_a_normal_exit_are_finished_first(script: Run) -> None:
    output = script(
        _HEAD + "executor = LocalExecutor(1)\nfor number in range(5): executor.submit(say, number)\n"
    ).check()
    assert output.split() == ["0", "1", "2", "3", "4"]


def test_jobs_of_the_default_executor_are_finished_at_exit(script: Run) -> None:
    output = script(_HEAD + "jobs = [PrimitiveJob(say, n) for n in range(4)]\nfor job in jobs: job.submit()\n").check()
    assert sorted(output.split()) == ["0", "1", "2", "3"]


def test_jobs_that_wait_for_others_are_finished_at_exit(script: Run) -> None:
    output = script(
        _HEAD
        + """
executor = LocalExecutor(2)
first = PrimitiveJob(later, 20); first.submit(executor)
second = PrimitiveJob(lambda job: say(job.result() + 1), first); second.submit(executor)
"""
    ).check()
    assert output.split() == ["21"]


def test_callbacks_are_called_before_the_exit(script: Run) -> None:
    output = script(
        _HEAD + "job = PrimitiveJob(later, 5); job.add_done_callback(lambda job: say(job.result())); job.submit()\n"
    ).check()
    assert output.split() == ["5"]


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise ValueError('unhandled')", 1), ("sys.exit(4)", 4), ("sys.exit()", 0), ("raise KeyboardInterrupt", -2)],
)
def test_an_unhandled_exception_or_sys_exit_finishes_the_jobs_too(script: Run, end: str, code: int) -> None:
    caller = script(_HEAD + f"executor = LocalExecutor(1)\nexecutor.submit(say, 'finished')\n{end}\n")
    returned, output, _ = caller.finish()
    assert output.split() == ["finished"]
    assert returned == code
    caller.assert_nothing_left()


def test_an_exit_with_failed_and_cancelled_jobs_is_quiet(script: Run) -> None:
    script(
        _HEAD
        + """
executor = LocalExecutor(1)
executor.submit(os._exit, 3)
executor.submit(int, "x")
executor.submit(later, 1).cancel()
"""
    ).check()


def test_an_executor_that_was_never_used_lets_its_caller_exit(script: Run) -> None:
    script(_HEAD + "executor = LocalExecutor(2)\n").check()


def test_an_executor_shut_down_without_waiting_finishes_at_exit(script: Run) -> None:
    output = script(
        _HEAD
        + "executor = LocalExecutor(1)\nfor number in range(3): executor.submit(say, number)\n"
        + "executor.shutdown(wait=False)\n"
    ).check()
    assert output.split() == ["0", "1", "2"]


def test_an_executor_collected_with_jobs_pending_finishes_them(script: Run) -> None:
    output = script(
        _HEAD
        + """
import gc
def submit():
    executor = LocalExecutor(1)
    return [executor.submit(say, number) for number in range(3)]
jobs = submit()
gc.collect()
"""
    ).check()
    assert output.split() == ["0", "1", "2"]


def test_an_unfinished_map_does_not_keep_its_caller_from_leaving(script: Run) -> None:
    output = script(
        _HEAD
        + "executor = LocalExecutor(1)\nresults = executor.map(abs, range(10), buffersize=2)\nsay(next(results))\n"
    ).check(20)
    assert output.split() == ["0"]


def test_two_executors_and_lokys_own_exit_together(script: Run) -> None:
    output = script(
        _HEAD
        + """
import loky, concurrent.futures
theirs = loky.get_reusable_executor(max_workers=1)
one, other = LocalExecutor(1), LocalExecutor(1)
print(theirs.submit(abs, -1).result(), one.submit(abs, -2).result(), other.submit(abs, -3).result())
threads = concurrent.futures.ThreadPoolExecutor(1)
print(threads.submit(abs, -4).result(), flush=True)
"""
    ).check()
    assert output.split() == ["1", "2", "3", "4"]


def test_an_exit_while_another_thread_submits_does_not_hang(script: Run) -> None:
    code, _, errors = script(
        _HEAD
        + """
executor = LocalExecutor(1)
executor.submit(later, 1).result()
def submit():
    while True:
        try:
            executor.submit(later, 1)
        except RuntimeError:
            return
threading.Thread(target=submit, daemon=True).start()
"""
    ).finish(30)
    assert code == 0, errors


# --- forks ---


def test_a_fork_that_leaves_by_sys_exit_does_not_harm_the_parents_jobs(script: Run) -> None:
    output = script(
        _HEAD
        + """
executor = LocalExecutor(1, spare_workers=0)
pid = executor.submit(os.getpid).result()
fork = os.fork()
if fork == 0:
    sys.exit(0)
assert os.waitpid(fork, 0)[1] == 0
assert executor.submit(os.getpid).result() == pid
fork = os.fork()
if fork == 0:
    executor.shutdown()
    with executor: pass
    del executor
    sys.exit(0)
assert os.waitpid(fork, 0)[1] == 0
assert executor.submit(os.getpid).result() == pid
say("unharmed")
"""
    ).check()
    assert output.split() == ["unharmed"]


def test_a_fork_keeps_nothing_open_that_is_meant_for_a_worker_that_is_being_started(script: Run) -> None:
    # As subprocess does: it waits for the end of a pipe of which only the newcomer is to have the other side.
    script(
        _HEAD
        + """
from jobrunner.executors.services import services

spawner = services().spawner
begun, forking, over = threading.Event(), threading.Event(), threading.Event()
# The last that was registered is called first.
os.register_at_fork(before=forking.set)

def start():
    reading, writing = os.pipe()
    begun.set()
    forking.wait()
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    over.set()

spawner.run(start)
begun.wait()
fork = os.fork()
if fork == 0:
    stay()
assert over.wait(60)
os.kill(fork, signal.SIGKILL)
os.waitpid(fork, 0)
"""
    ).check()


def test_a_fork_may_leave_while_the_parents_jobs_run(script: Run) -> None:
    caller = script(
        _HEAD
        + """
executor = LocalExecutor(1)
job = executor.submit(stay)
while not job.running(): pass
fork = os.fork()
if fork == 0:
    sys.exit(0)
os.waitpid(fork, 0)
say("running", job.running())
job.cancel()
say(job.status().name)
"""
    )
    (pid,) = caller.pids(1)
    assert caller.line() == "running True"
    assert caller.line() == "CANCELLED"
    assert not is_alive(pid)
    caller.check()


def test_a_fork_makes_a_default_executor_of_its_own(script: Run) -> None:
    output = script(
        _HEAD
        + """
job = PrimitiveJob(os.getpid); job.submit(); outer = job.result()
executor = get_executor()
fork = os.fork()
if fork == 0:
    try:
        assert get_executor() is not executor
        again = PrimitiveJob(os.getpid); again.submit()
        assert again.result() != outer
        assert executor.submit(later, 5).result() == 5  # an inherited executor makes itself anew
        assert job.result() == outer
    except BaseException as error:
        say(repr(error)); os._exit(1)
    sys.exit(0)
say(os.waitpid(fork, 0)[1])
assert get_executor() is executor
say(executor.submit(later, 6).result())
"""
    ).check()
    assert output.split() == ["0", "6"]


def test_an_unfinished_job_of_the_parent_raises_in_a_fork_instead_of_waiting_for_ever(script: Run) -> None:
    output = script(
        _HEAD
        + """
from jobrunner import JobError
executor = LocalExecutor(1)
job = PrimitiveJob(stay); job.submit(executor)
while not job.running(): pass
fork = os.fork()
if fork == 0:
    for ask in (job.result, job.exception, job.cancel):
        try:
            ask()
        except JobError:
            pass
        else:
            os._exit(1)
    job.status(); job.report()
    os._exit(0)
say("exit", os.waitpid(fork, 0)[1])
job.cancel()
"""
    ).check()
    assert "exit 0" in output.splitlines()


def test_a_fork_in_the_midst_of_work_by_other_threads(script: Run) -> None:
    """The fork comes while locks are held by threads that the child doesn't have."""
    output = script(
        _HEAD
        + """
executor = LocalExecutor(2)
over = threading.Event()
def work():
    while not over.is_set():
        [job.result() for job in [executor.submit(later, 1) for _ in range(20)]]
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(10):
    fork = os.fork()
    if fork == 0:
        ok = executor.submit(later, 3).result() == 3
        executor.shutdown()
        sys.exit(0 if ok else 1)
    assert os.waitpid(fork, 0)[1] == 0
over.set()
for thread in threads: thread.join()
say("done")
"""
    ).check()
    assert output.split() == ["done"]


def test_a_worker_survives_the_death_of_a_forked_sibling_of_the_caller(script: Run) -> None:
    caller = script(
        _HEAD
        + """
executor = LocalExecutor(1)
job = executor.submit(stay)
fork = os.fork()
if fork == 0:
    signal.pause()
while not job.running(): pass
os.kill(fork, 9); os.waitpid(fork, 0)
say("running", job.running())
job.cancel()
"""
    )
    # One line is the job's, one its caller's; in which order they come depends.
    said = [caller.line(), caller.line()]
    said.remove("running True")
    caller.check()
    assert await_death(int(said[0]), 0)
