"""The traps that executors of processes fall into, each one seen in an experiment: see ARCHITECTURE.md."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.process_table import await_death
from tests.core.scripts import Script

Run = Callable[..., Script]

_HEAD = """
import os, signal, sys, threading
from jobrunner import LocalExecutor, PrimitiveJob

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def stay():
    say(os.getpid())
    while True:
        signal.pause()
"""


# --- where the caller runs ---


@pytest.mark.parametrize("name", ["queue", "pickle", "socket", "logging", "jobrunner_settings", "selectors"])
def test_a_users_module_named_like_a_standard_one_does_not_break_the_workers(
    script: Run, tmp_path: Path, name: str
) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / f"{name}.py").write_text("raise RuntimeError('the user\\'s own module was imported')\n")
    caller = script(
        # The script's own directory is another: the working directory is what `python -m` puts first.
        f"import os\nos.chdir({str(directory)!r})\n"
        + _HEAD
        + "with LocalExecutor(1, spare_workers=0) as executor:\n    print(executor.submit(abs, -5).result())\n"
    )
    assert caller.check().split() == ["5"]


def test_a_function_of_a_module_in_the_working_directory_can_be_run(script: Run) -> None:
    caller = script(
        "from pathlib import Path\nPath('mine.py').write_text('def f(x): return x + 1\\n')\n"
        + _HEAD
        + "import mine\nwith LocalExecutor(1) as executor: print(executor.submit(mine.f, 1).result())\n"
    )
    assert caller.check().split() == ["2"]


def test_a_script_needs_no_main_guard_and_runs_once(script: Run) -> None:
    output = script(
        _HEAD
        + """
print("once", flush=True)
offset = 10
class Point:
    def __init__(self, x): self.x = x
def shift(point): return Point(point.x + offset)
with LocalExecutor(2) as executor:
    print(executor.submit(shift, Point(1)).result().x, isinstance(executor.submit(shift, Point(1)).result(), Point))
    print(list(executor.map(lambda x: x + offset, range(3))))
"""
    ).check()
    assert output.splitlines() == ["once", "11 True", "[10, 11, 12]"]


@pytest.mark.parametrize("how", ["-c", "stdin", "-i"])
def test_functions_typed_at_a_prompt_can_be_run(script: Run, how: str) -> None:
    lines = [
        "from jobrunner import LocalExecutor",
        "executor = LocalExecutor(1)",
        "double = lambda x: 2 * x",
        "print(executor.submit(double, 21).result())",
        "double = lambda x: 3 * x",
        "print(executor.submit(double, 21).result())",
    ]
    if how == "-c":
        caller = script("", options=("-c", "\n".join(lines)))
    elif how == "stdin":
        caller = script("", stdin="\n".join(lines) + "\n")
    else:
        caller = script("", options=("-i", "-q", "-c", "\n".join(lines[:3])), stdin="\n".join(lines[3:]) + "\n")
    code, output, errors = caller.finish()
    assert code == 0, errors
    assert output.split() == ["42", "63"]
    caller.assert_nothing_left()


@pytest.mark.parametrize("stream", ["stdout", "stderr", "stdin"])
def test_a_caller_without_a_standard_stream_can_start_workers(script: Run, stream: str) -> None:
    output = script(
        _HEAD + f"sys.{stream} = None\nwith LocalExecutor(1) as executor: say(executor.submit(abs, -5).result())\n"
    ).check()
    assert output.split() == ["5"]


@pytest.mark.parametrize("fds", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_caller_with_closed_standard_descriptors_can_start_workers(
    script: Run, tmp_path: Path, fds: tuple[int, ...]
) -> None:
    path = tmp_path / "result"
    script(
        f"import os\nfor fd in {fds}: os.close(fd)\n"
        + _HEAD
        + "with LocalExecutor(1) as executor: result = executor.submit(abs, -5).result()\n"
        + f"open({str(path)!r}, 'w').write(str(result))\n"
    ).finish()
    assert path.read_text() == "5"


def test_a_daemonic_multiprocessing_child_can_use_an_executor(script: Run) -> None:
    output = script(
        _HEAD
        + """
import multiprocessing
def use():
    with LocalExecutor(1) as executor:
        say(executor.submit(abs, -5).result())
    say(multiprocessing.current_process().daemon)
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=use, daemon=True)
        child.start(); child.join()
        assert child.exitcode == 0
"""
    ).check()
    assert output.split() == ["5", "True"] * 2


def test_a_daemonic_child_that_is_terminated_leaves_nothing(script: Run) -> None:
    caller = script(
        _HEAD
        + """
import multiprocessing
def use(pipe):
    executor = LocalExecutor(1)
    executor.submit(stay)
    pipe.send("started")
    signal.pause()
if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=use, args=(theirs,), daemon=True)
    child.start()
    ours.recv()
"""
    )
    # loky's tracker of semaphores may say that the child, terminated, has left some.
    assert caller.finish()[0] == 0
    caller.assert_nothing_left()


def test_the_first_use_by_a_thread_that_ends(script: Run) -> None:
    output = script(
        _HEAD
        + """
executor = LocalExecutor(1)
made = []
thread = threading.Thread(target=lambda: made.append(executor.submit(os.getpid).result()))
thread.start(); thread.join()
print(executor.submit(os.getpid).result() == made[0])
"""
    ).check()
    assert output.split() == ["True"]


def test_signal_handlers_and_mask_of_the_caller_stay_its_own(script: Run) -> None:
    output = script(
        _HEAD
        + """
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
with LocalExecutor(1) as executor:
    executor.submit(abs, -1).result()
    inside = executor.submit(lambda: sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))).result()
print(before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)])
print(mask == signal.pthread_sigmask(signal.SIG_BLOCK, []), inside)
"""
    ).check()
    assert output.splitlines() == ["True", "True []"]


def test_a_caller_that_ignores_sigchld_or_waits_for_any_child_still_learns_of_deaths(script: Run) -> None:
    output = script(
        _HEAD
        + """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from jobrunner import WorkerDiedError
executor = LocalExecutor(1)
error = executor.submit(os._exit, 3).exception()
print(isinstance(error, WorkerDiedError), executor.submit(abs, -1).result())
"""
    ).finish(30)[1]
    assert output.split() == ["True", "1"]


# --- Ctrl-C ---


def test_ctrl_c_while_workers_start_kills_no_worker(script: Run) -> None:
    caller = script(
        _HEAD
        + """
caught = threading.Event()
signal.signal(signal.SIGINT, lambda *_: caught.set())
executor = LocalExecutor(2)
jobs = [executor.submit(abs, -number) for number in range(4)]
say("go")
# Python misses a signal that comes just as the main thread begins to wait, until that wait ends.
while not caught.wait(1):
    pass
say([job.result() for job in jobs], executor.stats()["restarts"])
"""
    )
    caller.line()
    caller.signal_group(signal.SIGINT)
    assert caller.line() == "[0, 1, 2, 3] 0"
    caller.check()


def test_ctrl_c_reaches_the_caller_only_and_the_jobs_go_on(script: Run) -> None:
    caller = script(
        _HEAD
        + """
executor = LocalExecutor(1)
job = executor.submit(stay)
try:
    job.result()
except KeyboardInterrupt:
    say("interrupted", job.running())
job.cancel()
say(job.status().name)
"""
    )
    (pid,) = caller.pids(1)
    caller.signal_group(signal.SIGINT)
    assert caller.line() == "interrupted True"
    assert caller.line() == "CANCELLED"
    caller.check()
    assert await_death(pid, 0)


def test_ctrl_c_in_a_with_block_ends_everything_at_once(script: Run) -> None:
    caller = script(
        _HEAD
        + "with LocalExecutor(2) as executor:\n    for job in [executor.submit(stay) for _ in range(4)]: job.result()\n"
    )
    caller.pids(2)
    caller.signal_group(signal.SIGINT)
    code, _, errors = caller.finish(30)
    assert code == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    caller.assert_nothing_left()


# --- fallbacks ---

_SUITE = """
from jobrunner import JobStatus, MemoryLimitExceeded, TimeLimitExceeded, WorkerDiedError
def child():
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import os, signal; os.write(1, b'%d\\\\n' % os.getpid()); signal.pause()"])
    stay()
with LocalExecutor(2, spare_workers=1) as executor:
    assert [job.result() for job in [executor.submit(abs, -n) for n in range(300)]] == list(range(300))
    assert list(executor.map(abs, range(100))) == list(range(100))
    job = executor.with_options(capture_output=True).submit(print, "told")
    assert (job.result(), job.output().stdout) == (None, "told\\n")
    limited = executor.with_options(memory_limit="150MB").submit(lambda: len(b"x" * 900_000_000) and stay())
    assert isinstance(limited.exception(), MemoryLimitExceeded), limited.exception()
    assert executor.submit(os.chdir, "/").result() is None
    assert executor.submit(os.getcwd).result() == os.getcwd()
    assert executor.submit(len, b"x" * 3_000_000).result() == 3_000_000
    error = executor.submit(os._exit, 3).exception()
    assert isinstance(error, WorkerDiedError), error
    assert error.exit_code == 3, error.exit_code
    error = executor.submit(lambda: os.kill(os.getpid(), 9)).exception()
    assert error.signal == 9, error
    assert isinstance(executor.with_options(time_limit=0.3).submit(signal.pause).exception(), TimeLimitExceeded)
    job = executor.submit(child)
    while not job.running(): pass
    assert job.cancel()
    assert job.status() is JobStatus.CANCELLED
    blocker = executor.submit(stay)
    tiny = [executor.submit(abs, -n) for n in range(50)]
    cancelled = [job.cancel() for job in tiny[::2]]
    blocker.cancel()
    assert all(job.cancelled() or job.result() >= 0 for job in tiny)
say("done")
"""


@pytest.mark.parametrize("missing", [
    ["os.pidfd_open"], ["os.eventfd"], ["os.memfd_create"], ["os.P_PIDFD"],
    ["signal.pidfd_send_signal", "os.pidfd_open"], ["os.pidfd_open", "os.eventfd", "os.memfd_create"],
    ["signal.SIGRTMAX"], ["os.sched_getaffinity", "signal.setitimer", "signal.pthread_sigmask"],
], ids=" ".join)  # fmt: skip
def test_the_executor_works_without_what_only_newer_systems_have(script: Run, missing: list[str]) -> None:
    removal = "".join(f"try: del {name}\nexcept AttributeError: pass\n" for name in missing)
    caller = script("import os, signal\n" + removal + _HEAD + _SUITE)
    code, output, errors = caller.finish(60)
    assert (code, output.split()[-1:]) == (0, ["done"]), output + errors
    caller.assert_nothing_left()


def test_where_output_can_not_be_led_through_pipes_workers_print_where_their_caller_does(script: Run) -> None:
    caller = script(
        "from jobrunner.executors import lane\nlane.CAN_REDIRECT = False\n"
        + _HEAD
        + "with LocalExecutor(2) as executor:\n    job = executor.submit(say, 'from', 'a', 'job')\n"
        "    assert job.result() is None and job.output() is None\n"
        "    assert executor.submit(os._exit, 3).exception().exit_code == 3\n"
    )
    assert caller.check().splitlines() == ["from a job"]


_POORER_WORKER = """
import os, signal, sys
for module in ("resource", "termios", "threadpoolctl"):
    sys.modules[module] = None
for module, names in (
    (signal, ["SIGRTMAX", "ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"]),
    (os, ["sched_getaffinity", "getpriority", "memfd_create"]),
):
    for name in names:
        delattr(module, name)
"""


def test_a_worker_works_without_what_only_some_systems_have(script: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_POORER_WORKER)
    suite = _SUITE.replace("spare_workers=1", f"spare_workers=1, env={{'PYTHONPATH': {str(tmp_path)!r}}}")
    assert suite != _SUITE
    caller = script(_HEAD + suite)
    code, output, errors = caller.finish(60)
    assert (code, output.split()[-1:]) == (0, ["done"]), output + errors
    caller.assert_nothing_left()


# --- hosts ---


def test_tests_of_a_user_run_under_xdist(script: Run, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        """
import os
import pytest
from jobrunner import LocalExecutor, PrimitiveJob

@pytest.mark.parametrize("number", range(6))
def test_mine(number):
    job = PrimitiveJob(lambda: number + 1)
    job.submit()
    assert job.result() == number + 1

def test_death():
    with LocalExecutor(1) as executor:
        assert executor.submit(os._exit, 3).exception() is not None
"""
    )
    options = ("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(tmp_path / "test_mine.py"))
    caller = script("", options=options, stdin="")
    code, output, errors = caller.finish(100)
    assert code == 0, output + errors
    assert "7 passed" in output
    caller.assert_nothing_left(5.0)


def test_the_traceback_of_a_scripts_function_shows_its_file_and_lines(script: Run) -> None:
    caller = script(
        """
import traceback
from jobrunner import LocalExecutor

def divide(x):
    return 1 / x  # the line

with LocalExecutor(1) as executor:
    try:
        executor.submit(divide, 0).result()
    except ZeroDivisionError:
        print(traceback.format_exc())
"""
    )
    output = caller.check()
    assert "return 1 / x  # the line" in output
    assert "script.py" in output.partition("The above exception")[0]


def test_a_notebook_runs_what_its_cells_define_now_and_its_end_leaves_nothing(script: Run) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    caller = script(
        '''
import nbformat, nbclient
cells = ["""
import os
from jobrunner import LocalExecutor, PrimitiveJob
executor = LocalExecutor(2)
def f(x): return x + 1
job = PrimitiveJob(f, 1); job.submit(executor); print(job.result())
""", """
def f(x): return x + 100
job = PrimitiveJob(f, 1); job.submit(executor); print(job.result())
job = PrimitiveJob(f, 2); job.submit(executor); print(await job)
""", """
import signal
running = executor.submit(signal.pause)
while not running.running(): pass
print("running")
"""]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
client.execute()
for cell in notebook.cells:
    print("".join(output.get("text", "") for output in cell.outputs), end="")
'''
    )
    code, output, errors = caller.finish(100)
    assert output.split() == ["2", "101", "102", "running"], output + errors
    assert code == 0
    caller.assert_nothing_left(5.0)
