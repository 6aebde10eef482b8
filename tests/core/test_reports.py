"""What a report tells: of a job that ended well, of one that did not, and of those that died."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobrunner import InlineExecutor, JobReport, JobStatus, LocalExecutor, PrimitiveJob, WorkerDiedError
from jobrunner import memory as memory_module
from jobrunner.executors.post_mortem import Death, clean_stack, was_out_of_memory
from tests.core import oddities
from tests.core.gates import Gate, arrive, meet

MakeLocal = Callable[..., LocalExecutor]
_MIB = 1 << 20


def take(megabytes: int) -> int:
    return len(b"x" * (megabytes * _MIB))


def burn(seconds: float) -> None:
    """Use so much CPU time, however long that takes."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def in_child(code: str) -> int:
    import subprocess

    return subprocess.run([sys.executable, "-c", code], check=True).returncode


_BUSY = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_a_report_has_every_field_and_is_json(make_local: MakeLocal) -> None:
    before = time.time()
    executor = make_local(1, capture_output=True)
    job = executor.submit(burn, 0.1)
    job.result()
    report = job.report()
    told = json.loads(json.dumps(report.as_dict()))
    assert set(told) >= {
        *("job_id", "name", "status", "backend", "host", "pid", "attempts", "submitted_at", "started_at"),
        *("finished_at", "queue_s", "run_s", "cpu_s", "serialize_s", "peak_rss_bytes", "argument_bytes"),
        *("result_bytes", "threads", "exit_code", "exit_signal", "cause", "oom_likely", "stack", "stdout_tail"),
        "stderr_tail",
    }
    assert told["job_id"] == job.job_id
    assert (told["status"], told["backend"], told["name"], told["threads"]) == ("DONE", "local", "burn", 1)
    assert before <= told["submitted_at"] <= told["started_at"] <= told["finished_at"] <= time.time()
    assert told["run_s"] >= 0.1
    assert told["cpu_s"] >= 0.09
    assert told["queue_s"] >= 0
    assert told["serialize_s"] > 0
    assert told["argument_bytes"] > 0
    assert told["result_bytes"] > 0
    assert told["peak_rss_bytes"] > _MIB
    assert (told["exit_code"], told["exit_signal"], told["cause"], told["stack"]) == (None, None, None, None)
    assert (told["stdout_tail"], told["stderr_tail"]) == ("", "")


def test_before_the_end_what_is_not_known_yet_is_none(make_local: MakeLocal, gate: Gate) -> None:
    job = make_local(1).submit(meet, gate.path)
    gate.await_arrival()
    report = job.report()
    assert report.status is JobStatus.RUNNING
    assert (report.cpu_s, report.peak_rss_bytes, report.finished_at, report.stack) == (None, None, None, None)
    gate.release()
    job.result()


def test_cpu_time_and_peak_memory_are_the_jobs_own_on_a_worker_that_has_run_others(make_local: MakeLocal) -> None:
    executor = make_local(1)
    large, small = executor.submit(take, 300), executor.submit(burn, 0.01)
    large.result(), small.result()
    assert small.report().pid == large.report().pid
    assert (large.report().peak_rss_bytes or 0) > 300 * _MIB
    assert (small.report().peak_rss_bytes or 0) < 100 * _MIB
    busy, idle = executor.submit(burn, 0.3), executor.submit(time.sleep, 0.05)
    busy.result(), idle.result()
    assert (busy.report().cpu_s or 0) > 0.1
    assert (idle.report().cpu_s or 0) < 0.05


def test_cpu_time_is_that_of_children_too(make_local: MakeLocal) -> None:
    executor = make_local(1)
    busy, idle = executor.submit(in_child, _BUSY), executor.submit(pow, 2, 3)
    busy.result(), idle.result()
    assert (busy.report().cpu_s or 0) >= 0.2
    assert (idle.report().cpu_s or 0) < 0.1


def test_of_a_worker_that_died_cpu_time_and_peak_memory_are_known(make_local: MakeLocal) -> None:
    # Between fork and exec a worker has its caller's memory, which the kernel counts in its peak.
    size = memory_module.peak_bytes(os.getpid()) + 400 * _MIB

    def die(gate: str = "") -> None:
        kept = b"x" * size
        burn(0.2)
        os._exit(len(kept) % 7 + 1)

    executor = make_local(1)
    executor.submit(burn, 0.3).result()
    job = executor.submit(die)
    job.exception()
    report = job.report()
    assert (report.cpu_s or 0) > 0.1
    assert (report.peak_rss_bytes or 0) > size
    assert report.finished_at is not None
    assert report.run_s is not None


def test_of_a_job_that_was_ended_cpu_time_and_peak_memory_are_known(make_local: MakeLocal, gate: Gate) -> None:
    def stay(gate: str) -> None:
        import subprocess

        kept = b"x" * (200 * _MIB)
        child = subprocess.Popen([sys.executable, "-c", "import os\nos.write(1, b'.')\nwhile True: pass"], stdout=-1)
        assert child.stdout is not None
        child.stdout.read(1)
        burn(0.1)
        arrive(gate)
        while kept:
            pass

    job = make_local(1).submit(stay, gate.path)
    gate.await_arrival()
    assert job.cancel()
    report = job.report()
    assert report.status is JobStatus.CANCELLED
    assert (report.cpu_s or 0) > 0.1
    assert (report.peak_rss_bytes or 0) > 200 * _MIB
    assert report.cause == "it was cancelled"
    assert "in stay" in (report.stack or "")


@pytest.mark.parametrize(("function", "cause"), [
    (lambda: 1 / 0, "it raised ZeroDivisionError: division by zero"),
    (lambda: exec("raise KeyError"), "it raised KeyError"),
    (lambda: exec("raise ValueError('one\\ntwo')"), "it raised ValueError: one"),
    (oddities.Unpicklable, "it raised SerializationError: "),
])  # fmt: skip
def test_the_cause_of_a_job_that_raised_names_what_it_raised(
    make_local: MakeLocal, function: Callable[[], object], cause: str
) -> None:
    for executor in (make_local(1), InlineExecutor()):
        job = executor.submit(function)
        job.exception()
        assert (job.report().cause or "").startswith(cause)


# --- stacks ---


def crash() -> None:
    oddities.segfault()


@pytest.mark.parametrize(("end", "first"), [
    (crash, "Fatal Python error: Segmentation fault"), (os.abort, "Fatal Python error: Aborted"),
])  # fmt: skip
def test_a_crash_tells_where_it_happened(make_local: MakeLocal, end: Callable[[], None], first: str) -> None:
    job = make_local(1).submit(end)
    error = job.exception()
    assert isinstance(error, WorkerDiedError)
    stack = job.report().stack
    assert stack is not None
    assert stack.startswith(first)
    if end is crash:
        assert "in crash" in stack
    assert "jobrunner" not in stack.replace(str(Path(__file__).parents[2]), "")
    assert "loky" not in stack


@pytest.mark.parametrize("stop", ["cancel", "time_limit"])
def test_a_job_that_is_ended_tells_where_it_was(make_local: MakeLocal, gate: Gate, stop: str) -> None:
    def wait_here(gate: str) -> None:
        meet(gate)

    executor = make_local(1)
    job = executor.with_options(time_limit=0.5 if stop == "time_limit" else None).submit(wait_here, gate.path)
    gate.await_arrival()
    if stop == "cancel":
        assert job.cancel()
    else:
        job.exception()
    assert "in wait_here" in (job.report().stack or "")


def test_a_stopped_worker_and_one_in_c_code_tell_where_they_are(make_local: MakeLocal) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    executor = make_local(1, time_limit=0.5)
    for function, where in ((stop, "in stop"), (oddities.hold_interpreter_lock, "in hold_interpreter_lock")):
        job = executor.submit(function)
        job.exception()
        assert where in (job.report().stack or "")


def test_an_exit_tells_where_it_was_asked_for(make_local: MakeLocal) -> None:
    def leave() -> None:
        sys.exit("nothing to do")

    job = make_local(1).submit(leave)
    job.exception()
    assert "in leave" in (job.report().stack or "")
    assert "nothing to do" in (job.report().stack or "")


def test_where_a_process_had_no_chance_to_write_it_there_is_no_stack(make_local: MakeLocal) -> None:
    executor = make_local(1)
    for end in (lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)):
        job = executor.submit(end)
        job.exception()
        assert job.report().stack is None


def test_a_job_that_fills_the_stacks_file_spoils_its_own_only(make_local: MakeLocal) -> None:
    def fill() -> None:
        for number in range(3, 200):
            try:
                if "jobrunner-stack" in os.readlink(f"/proc/self/fd/{number}"):
                    while os.write(number, b"x" * 4096):
                        pass
            except OSError:
                continue

    executor = make_local(1)
    executor.submit(fill).result()
    assert executor.submit(pow, 2, 3).result() == 8
    job = executor.submit(os._exit, 3)
    job.exception()
    assert len(job.report().stack or "") <= 1 << 16


def test_frames_of_ours_are_cut_from_each_threads_stack() -> None:
    text = (
        "Thread 0x2 (most recent call first):\n"
        '  File "/a/threads.py", line 1 in work\n'
        "\n"
        "Current thread 0x1 (most recent call first):\n"
        '  File "/a/model.py", line 7 in step\n'
        '  File "/s/jobrunner/worker/serve.py", line 1 in _call\n'
        '  File "/s/loky/process_executor.py", line 1 in worker\n'
        "\n"
        "Extension modules: numpy (total: 1)\n"
    )
    assert clean_stack(text) == (
        'Thread 0x2 (most recent call first):\n  File "/a/threads.py", line 1 in work\n\n'
        'Current thread 0x1 (most recent call first):\n  File "/a/model.py", line 7 in step'
    )
    assert clean_stack("") is None


# --- out of memory ---


def _death(*, exit_signal: int | None, oom_kills: int | None, peak_bytes: int = 0) -> Death:
    return Death(
        pid=1,
        exit_code=None,
        exit_signal=exit_signal,
        cpu_s=0.0,
        peak_bytes=peak_bytes,
        rest_bytes=0,
        stack=None,
        oom_kills=oom_kills,
        distrusted=False,
    )


@pytest.mark.parametrize(("death", "likely"), [
    (_death(exit_signal=9, oom_kills=1), True), (_death(exit_signal=9, oom_kills=0, peak_bytes=1 << 60), False),
    (_death(exit_signal=9, oom_kills=None, peak_bytes=1 << 60), True), (_death(exit_signal=9, oom_kills=None), False),
    (_death(exit_signal=11, oom_kills=1), False), (_death(exit_signal=None, oom_kills=1), False),
])  # fmt: skip
def test_out_of_memory_is_told_as_likely_by_count_signal_and_peak(death: Death, likely: bool) -> None:
    assert was_out_of_memory(death) is likely


def test_a_kill_from_outside_is_not_called_out_of_memory(make_local: MakeLocal) -> None:
    job = make_local(1).submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert isinstance(job.exception(), WorkerDiedError)
    assert job.report().oom_likely is False
    assert job.report().exit_signal == 9


def test_kills_are_counted_where_the_control_group_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_group_directories", lambda: [tmp_path])
    for name, text in (
        ("memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("memory.oom_control", "oom_kill_disable 0\noom_kill 2\n"),
    ):
        (tmp_path / name).write_text(text)
        assert memory_module.oom_kills() == 2
        (tmp_path / name).unlink()


def test_limits_of_control_groups_are_found_up_to_the_top(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("4:memory:/outer/inner\n3:cpu:/\n")
    inner = tmp_path / "groups" / "memory" / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "memory.limit_in_bytes").write_text("1000\n")
    (inner / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    directories = memory_module._group_directories(str(tmp_path / "groups"), str(tmp_path / "membership"))
    assert directories == [inner, inner.parent, inner.parent.parent]
    assert min(memory_module._group_limits(directories)) == 1000
    (tmp_path / "membership").write_text("0::/outer\n")
    (tmp_path / "groups" / "outer").mkdir()
    (tmp_path / "groups" / "outer" / "memory.max").write_text("max\n")
    directories = memory_module._group_directories(str(tmp_path / "groups"), str(tmp_path / "membership"))
    assert memory_module._group_limits(directories) == []


def test_the_kernel_takes_a_worker_before_its_caller(make_local: MakeLocal) -> None:
    def score() -> int:
        return int(Path("/proc/self/oom_score_adj").read_text())

    assert make_local(1).submit(score).result() > score()


def test_what_systems_without_proc_tell_is_told_by_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    known = memory_module.resident_bytes([os.getpid()])
    monkeypatch.setattr(memory_module, "_USE_PROC", False)
    assert 0.5 * known < memory_module.resident_bytes([os.getpid()]) < 2 * known
    assert 0 < memory_module.proportional_bytes([os.getpid()]) < 2 * known
    assert memory_module.resident_bytes([1 << 22]) == memory_module.proportional_bytes([1 << 22]) == 0
    assert memory_module.peak_bytes(os.getpid()) == 0


# --- elsewhere ---


def test_an_inline_job_and_a_job_never_submitted_have_reports_too() -> None:
    job = PrimitiveJob(pow, 2, 3)
    assert json.dumps(job.report().as_dict())
    assert job.output() is None
    job.submit(InlineExecutor())
    assert json.dumps(job.report().as_dict())
    assert job.output() is None


def test_a_report_is_frozen() -> None:
    with pytest.raises(AttributeError):
        JobReport(job_id="1", status=JobStatus.DONE).job_id = "2"  # type: ignore[misc]


def test_c_code_that_crashes_in_a_thread_is_told(make_local: MakeLocal) -> None:
    def crash_in_thread() -> None:
        import threading

        thread = threading.Thread(target=ctypes.string_at, args=(0,))
        thread.start()
        thread.join()

    job = make_local(1).submit(crash_in_thread)
    assert isinstance(job.exception(), WorkerDiedError)
    assert "in crash_in_thread" in (job.report().stack or "")
