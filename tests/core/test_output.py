"""What jobs print: captured, or on the caller's streams a whole line at a time; and before the job is final."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import JobStatus, LocalExecutor, PrimitiveJob
from jobrunner.executors.output import Capture, LaneOutput, OutputWriter, Spool
from jobrunner.executors.services import services
from jobrunner.handover import ProgressPage
from jobrunner.messages import UNKNOWN_END
from jobrunner.worker.standard_streams import StandardStreams
from tests.core.gates import Gate, arrive, meet
from tests.core.process_table import await_death
from tests.core.scripts import Script

MakeLocal = Callable[..., LocalExecutor]
Run = Callable[..., Script]


@pytest.fixture(autouse=True)
def fresh_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of another test may have left a line without an end."""
    monkeypatch.setattr(services(), "_writer", OutputWriter())


def say_everything() -> str:
    """Print in every way there is."""
    print("from print")
    sys.stdout.write("from write\n")
    sys.stdout.flush()
    os.write(1, b"from a descriptor\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    print("an error", file=sys.stderr)
    os.write(2, b"from descriptor 2\n")
    print("unfinished", end="")
    return "said"


# --- captured ---


def test_captured_output_is_that_of_all_that_the_job_runs(
    make_local: MakeLocal, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_local(1, capture_output=True).submit(say_everything)
    assert job.result() == "said"
    output = job.output()
    assert output is not None
    lines = output.stdout.splitlines()
    assert sorted(lines) == sorted(
        ["from print", "from write", "from a descriptor", "from C", "from a child", "unfinished"]
    )
    assert output.stderr == "an error\nfrom descriptor 2\n"
    report = job.report()
    assert report.stdout_head == report.stdout_tail == output.stdout
    assert report.stderr_head == report.stderr_tail == output.stderr
    assert capfd.readouterr() == ("", "")


def test_each_job_has_its_own_output_however_fast_they_come(make_local: MakeLocal) -> None:
    executor = make_local(2, capture_output=True)
    jobs = [executor.submit(print, f"job {number}\n" * (number % 5)) for number in range(300)]
    for number, job in enumerate(jobs):
        job.result()
        assert job.output() == (f"job {number}\n" * (number % 5) + "\n", "")


def test_what_is_captured_and_what_is_not_stay_apart(make_local: MakeLocal, capfd: pytest.CaptureFixture[str]) -> None:
    executor = make_local(1)
    capturing = executor.with_options(capture_output=True)
    jobs = [(capturing if number % 3 == 0 else executor).submit(print, number) for number in range(60)]
    for number, job in enumerate(jobs):
        job.result()
        assert job.output() == ((f"{number}\n", "") if number % 3 == 0 else None)
    assert capfd.readouterr().out.split() == [str(number) for number in range(60) if number % 3]


def _print_and_die(how: Callable[[], object]) -> None:
    print("last words", flush=True)
    how()


@pytest.mark.parametrize("end", [
    lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: ctypes.string_at(0), lambda: sys.exit(2),
    lambda: 1 / 0, time.sleep,
], ids=["_exit", "SIGKILL", "segfault", "sys.exit", "raises", "wrong use"])  # fmt: skip
def test_output_is_kept_when_the_job_does_not_end_well(make_local: MakeLocal, end: Callable[[], object]) -> None:
    job = make_local(1, capture_output=True).submit(_print_and_die, end)
    assert job.exception() is not None
    assert (job.report().stdout_tail or "").startswith("last words\n")


@pytest.mark.parametrize("how", ["cancel", "time_limit", "memory_limit"])
def test_output_is_kept_when_the_job_is_ended(make_local: MakeLocal, gate: Gate, how: str) -> None:
    def print_and_stay(gate: str, hog: bool) -> None:
        print("last words", flush=True)
        arrive(gate)
        kept = []
        while True:
            if hog:
                kept.append(b"x" * (8 << 20))
            else:
                signal.pause()

    executor = make_local(1, capture_output=True)
    limits: dict[str, Any] = {} if how == "cancel" else {how: 0.5 if how == "time_limit" else "150MiB"}
    job: PrimitiveJob[None] = PrimitiveJob(print_and_stay, gate.path, how == "memory_limit")
    job.submit(executor.with_options(**limits))
    gate.await_arrival()
    if how == "cancel":
        assert job.cancel()
    else:
        assert job.exception() is not None
    assert job.report().stdout_tail == "last words\n"
    assert job.output() == ("last words\n", "")


def test_a_running_jobs_output_so_far_is_told(make_local: MakeLocal, gate: Gate) -> None:
    def print_twice(gate: str) -> None:
        print("one", flush=True)
        meet(gate)
        print("two")

    executor = make_local(1, capture_output=True)
    job = executor.submit(print_twice, gate.path)
    gate.await_arrival()
    # The dispatcher reads it soon; there is no other event to wait for.
    while job.report().stdout_tail != "one\n":
        assert job.status() is JobStatus.RUNNING
    gate.release()
    job.result()
    assert job.report().stdout_tail == "one\ntwo\n"


def test_a_flood_is_kept_by_its_ends(make_local: MakeLocal) -> None:
    def flood() -> None:
        for number in range(2_000_000):
            print(f"line {number:>20}")

    job = make_local(1, capture_output=True).submit(flood)
    job.result(timeout=100)
    output = job.output()
    assert output is not None
    assert output.stdout.startswith(f"line {0:>20}\nline {1:>20}\n")
    assert output.stdout.endswith(f"line {1_999_999:>20}\n")
    assert "bytes left out]" in output.stdout
    assert len(output.stdout) < 20_000_000
    report = job.report()
    assert (report.stdout_head or "").startswith(f"line {0:>20}\n")
    assert (report.stdout_tail or "").endswith(f"line {1_999_999:>20}\n")
    assert len(report.stdout_head or "") <= 10_000 >= len(report.stdout_tail or "")


def test_of_a_job_that_is_tried_again_the_last_attempts_output_is_kept(make_local: MakeLocal, tmp_path: Path) -> None:
    def fail_first(file: Path) -> None:
        if file.exists():
            print("second")
            return
        file.touch()
        print("first", flush=True)
        os._exit(1)

    job = make_local(1, capture_output=True, retries=1).submit(fail_first, tmp_path / "file")
    job.result()
    assert job.output() == ("second\n", "")


def test_a_child_that_is_left_with_the_pipe_open_holds_nobody_up(make_local: MakeLocal, tmp_path: Path) -> None:
    def leave() -> None:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
        (tmp_path / "pid").write_text(str(child.pid))
        child.returncode = 0  # it is left on purpose, and not to be warned of
        print("left")

    executor = make_local(1, capture_output=True)
    job = executor.submit(leave)
    job.result(timeout=60)
    assert job.output() == ("left\n", "")
    assert await_death(int((tmp_path / "pid").read_text()))
    assert executor.submit(pow, 2, 3).result(timeout=60) == 8


def test_without_room_for_a_file_both_ends_are_kept_all_the_same() -> None:
    capture = Capture(Spool("/no/such/directory/here"))
    for number in range(10_000):
        capture.write(0, b"line %d\n" % number)
    whole = capture.output().stdout
    assert whole.startswith("line 0\n")
    assert whole.endswith("line 9999\n")
    assert "bytes left out" in whole


@pytest.mark.parametrize("sizes", [[0], [10], [5000], [4096, 1], [9000] * 3, [40_000] * 3, [1 << 20] * 20])
def test_what_is_kept_of_a_stream_is_put_together_rightly(sizes: list[int], tmp_path: Path) -> None:
    capture = Capture(Spool(str(tmp_path / "spool")))
    written = b""
    for number, size in enumerate(sizes):
        data = bytes([97 + number % 26]) * size
        capture.write(1, data)
        written += data
    whole = capture.output().stderr.encode()
    if len(written) <= 1 << 24:
        assert whole == written
    else:
        assert whole.startswith(written[: 1 << 24])
        assert whole.endswith(written[-8192:])
        left_out = len(written) - (1 << 24) - 8192
        assert f"\n[{left_out} bytes left out]\n".encode() in whole
    fields = capture.fields()
    assert fields["stderr_head"].encode() == written[:4096]
    assert fields["stderr_tail"].encode() == written[-8192:]


def test_captured_output_uses_up_no_descriptors_and_leaves_no_files(script: Run, tmp_path: Path) -> None:
    caller = script(
        "import gc, os, resource, tempfile\nfrom jobrunner import LocalExecutor\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with LocalExecutor(1, spare_workers=0, capture_output=True) as executor:\n"
        "    jobs = [executor.submit(print, 'x' * 50_000) for _ in range(400)]\n"
        "    assert all(len(job.output().stdout) == 50_001 for job in jobs if job.result() is None)\n"
        "    (spool,) = [name for name in os.listdir(tempfile.tempdir) if name.startswith('jobrunner-')]\n"
        "    mode = os.stat(os.path.join(tempfile.tempdir, spool)).st_mode\n"
        "    assert mode & 0o777 == 0o700, oct(mode)\n"
        "    del jobs[1:]; gc.collect()\n"
        "    assert len(os.listdir(os.path.join(tempfile.tempdir, spool))) == 1\n"
        "    if os.fork() == 0:\n        del jobs[:]; gc.collect(); os._exit(0)\n"
        "    os.wait()\n"
        "    assert len(jobs[0].output().stdout) == 50_001\n"
    )
    caller.check()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("jobrunner-")]


def test_captured_output_of_a_caller_that_is_killed_is_removed(script: Run, tmp_path: Path) -> None:
    caller = script(
        "import os, signal, tempfile\nfrom jobrunner import LocalExecutor\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "executor = LocalExecutor(1, capture_output=True)\n"
        "job = executor.submit(print, 'x' * 50_000); job.result()\n"
        "os.write(1, f'{len(os.listdir(tempfile.tempdir))}\\n'.encode()); signal.pause()\n"
    )
    assert int(caller.line()) >= 1
    caller.signal(signal.SIGKILL)
    caller.finish()
    caller.assert_nothing_left(5.0)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("jobrunner-")]


def test_bytes_that_are_no_text_are_told_as_such(make_local: MakeLocal) -> None:
    job = make_local(1, capture_output=True).submit(os.write, 1, b"\xff\xfe ok")
    job.result()
    assert job.output() == ("�� ok", "")


# --- on the caller's streams ---


def test_what_a_job_has_printed_stands_there_when_its_result_does(
    make_local: MakeLocal, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = make_local(2)
    for number in range(100):
        executor.submit(print, f"line {number}").result()
        assert capfd.readouterr().out == f"line {number}\n"


def test_lines_of_jobs_do_not_mix(make_local: MakeLocal, capfd: pytest.CaptureFixture[str]) -> None:
    def dribble(letter: str) -> None:
        for _ in range(50):
            for _ in range(20):
                os.write(1, letter.encode())
            os.write(1, b"\n")

    executor = make_local(3)
    for job in [executor.submit(dribble, letter) for letter in "abcdef"]:
        job.result()
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == sorted([letter * 20 for letter in "abcdef"] * 50)


def test_a_line_without_an_end_is_written_and_the_next_job_begins_a_new_one(
    make_local: MakeLocal, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = make_local(1)
    executor.submit(os.write, 1, b"one").result()
    assert capfd.readouterr().out == "one"
    executor.submit(os.write, 1, b"two\n").result()
    executor.submit(os.write, 1, b"three\n").result()
    assert capfd.readouterr().out == "\ntwo\nthree\n"


@pytest.mark.parametrize(("said", "written"), [(b"one\n", "one\nhalf\n"), (b"one", "one\nhalf\n"), (b"", "half\n")])
def test_a_line_that_a_job_has_begun_is_not_taken_for_the_one_befores(
    said: bytes, written: str, make_local: MakeLocal, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    def in_pieces(path: str) -> None:
        os.write(1, b"ha")
        meet(path)
        os.write(1, b"lf\n")

    executor = make_local(1)
    for _ in range(50):
        executor.submit(os.write, 1, b"\n").result()
    capfd.readouterr()
    first = executor.submit(lambda path, data: os.write(1, meet(path, data)), gate.path, said)
    second = executor.submit(in_pieces, gate.path)  # sent ahead
    gate.await_arrival()
    # The dispatcher does not look until the second has begun its line.
    with executor._holder.pool._lock:
        gate.release()
        gate.await_arrival()
    assert first.result() == len(said)
    gate.release()
    second.result()
    assert capfd.readouterr().out == written


def test_a_very_long_line_is_not_kept_back(make_local: MakeLocal, capfd: pytest.CaptureFixture[str]) -> None:
    make_local(1).submit(os.write, 1, b"x" * 50_000 + b"\n").result()
    assert capfd.readouterr().out == "x" * 50_000 + "\n"


def test_what_was_printed_before_the_exit_of_the_caller_is_written(script: Run) -> None:
    caller = script(
        "import os\nfrom jobrunner import LocalExecutor\nexecutor = LocalExecutor(2)\n"
        "for number in range(50):\n    executor.submit(print, 'line', number)\n"
    )
    assert sorted(caller.check().splitlines()) == sorted(f"line {number}" for number in range(50))


@pytest.mark.parametrize("captured", [True, False])
def test_what_is_left_of_a_job_prints_to_nobody(
    captured: bool, make_local: MakeLocal, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    def leave_one(path: str) -> None:
        meet(path)
        code = f"from tests.core.gates import meet; meet({path!r}); print('late', flush=True); meet({path!r})"
        subprocess.Popen([sys.executable, "-c", code])

    executor = make_local(1, capture_output=captured)
    job = executor.submit(leave_one, gate.path)
    gate.await_arrival()
    # The worker is not ended before what its job has left behind has printed.
    with executor._holder.pool._lock:
        gate.release()
        gate.await_arrival()
        gate.release()
        gate.await_arrival()
    job.result()
    executor.shutdown()
    assert capfd.readouterr().out == ""


def test_a_caller_whose_stdout_nobody_reads_any_more_goes_on(script: Run) -> None:
    caller = script(
        "import os\nfrom jobrunner import LocalExecutor\n"
        "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(writer)\nos.close(reader)\n"
        "with LocalExecutor(1) as executor:\n"
        "    for number in range(5):\n        executor.submit(print, 'x' * 100_000).result()\n"
        "os.write(2, b'done')\n"
    )
    assert caller.finish()[::2] == (0, "done")


def test_a_terminal_that_takes_nothing_holds_up_those_who_print_and_nobody_else(script: Run) -> None:
    caller = script(
        "import os\nfrom jobrunner import LocalExecutor\n"
        "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(writer)\n"
        "with LocalExecutor(2) as executor:\n"
        "    printing = executor.submit(os.system, 'yes 2>/dev/null | head -c 8000000')\n"
        "    assert sum(executor.submit(abs, 1).result() for _ in range(500)) == 500\n"
        "    assert not printing.done()\n"
        "    taken = 0\n"
        "    while taken < 8_000_000:\n        taken += len(os.read(reader, 1 << 20))\n"
        "    assert printing.result() == 0\n"
        "os.write(2, b'done')\n"
    )
    assert caller.finish()[::2] == (0, "done")


# --- the parts ---


def _words() -> memoryview:
    """Words of a progress page, up to those of output."""
    return memoryview(bytearray(8 * (ProgressPage.ERR_READ + 1))).cast("Q")


def test_the_writer_does_what_it_is_handed_in_order_and_tells_when_there_is_room() -> None:
    writer = OutputWriter()
    reader, fd = os.pipe()
    done: list[int] = []
    told: list[bool] = []
    size = 1 << 21
    writer.print(fd, b"x" * size, "someone")
    number = writer.put(lambda: done.append(1))
    writer.put(lambda: done.append(2))
    assert not writer.has_room(lambda: told.append(True))
    assert done == []
    while size:
        size -= len(os.read(reader, 1 << 16))
    writer.drain()
    assert done == [1, 2]
    assert writer.done > number
    assert told == [True]
    assert writer.has_room(lambda: None)
    for end in (reader, fd):
        os.close(end)


def test_what_can_not_be_written_is_dropped_and_a_call_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    writer = OutputWriter()
    reader, fd = os.pipe()
    os.close(reader)
    writer.print(fd, b"nobody reads this\n", "someone")
    writer.put(lambda: 1 / 0)
    writer.drain()
    os.close(fd)
    assert "ZeroDivisionError" in caplog.text


def test_a_lanes_output_closes_what_it_has_opened() -> None:
    before = os.listdir("/proc/self/fd")
    output = LaneOutput(OutputWriter(), _words())
    output.close_theirs()
    output.close()
    output.close()
    assert os.listdir("/proc/self/fd") == before


def test_that_nothing_is_printed_now_is_told_from_the_end() -> None:
    output = LaneOutput(OutputWriter(), _words())
    assert output.read(0) is None
    output.close_theirs()
    assert output.read(0) is False
    output.close()


def test_what_was_read_is_dealt_out_as_far_as_a_job_goes(tmp_path: Path) -> None:
    writer = OutputWriter()
    output = LaneOutput(writer, words := _words())
    spool = Spool(str(tmp_path / "spool"))
    captures = [Capture(spool) for _ in range(3)]
    os.write(output.theirs[0], b"onetwothree")
    os.write(output.theirs[1], b"oh")
    assert output.read(0)
    assert list(words[ProgressPage.OUT_READ :]) == [22, 0]
    output.drain(captures[0], (3, 0))
    output.drain(captures[1], (6, 2))
    # The worker could not tell how far it goes: all that there is.
    output.drain(captures[2], (UNKNOWN_END, UNKNOWN_END))
    assert not output.holds
    writer.drain()
    assert [capture.output().stdout for capture in captures] == ["one", "two", "three"]
    assert [capture.output().stderr for capture in captures] == ["", "oh", ""]
    assert list(words[ProgressPage.OUT_READ :]) == [22, 4]
    output.close_theirs()
    output.close()


@contextlib.contextmanager
def _printing() -> Iterator[tuple[StandardStreams, int, int]]:
    """A worker's streams, whose descriptors 1 and 2 are pipes; and where these are read."""
    out, err = os.pipe(), os.pipe()
    kept = [os.dup(number) for number in (1, 2)]
    os.dup2(out[1], 1)
    os.dup2(err[1], 2)
    streams = StandardStreams()
    try:
        streams.take()
        yield streams, out[0], err[0]
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        for end in (*out, *err, *streams._copies):
            os.close(end)


def test_a_worker_knows_how_much_was_printed_though_it_is_read_meanwhile(tmp_path: Path) -> None:
    words = _words()
    ends = []
    with _printing() as (streams, out, _), open(tmp_path / "file", "wb") as file:
        ends.append(streams.printed(words, lambda: True, replaced=False))
        os.write(1, b"four")
        os.write(2, b"six")
        ends.append(streams.printed(words, lambda: True, replaced=False))
        words[ProgressPage.OUT_READ] = 2 * len(os.read(out, 3))
        ends.append(streams.printed(words, lambda: True, replaced=False))
        # A job has put a file in the place of stdout, and closed stderr.
        os.dup2(file.fileno(), 1)
        os.close(2)
        with pytest.raises(OSError, match="Bad file descriptor"):
            streams.printed(words, lambda: True, replaced=False)
        os.write(1, b"in the file")
        ends.append(streams.printed(words, lambda: True, replaced=True))
    assert ends == [(0, 0), (4, 3), (4, 3), (4, 3)]


def test_a_worker_waits_for_a_caller_that_is_in_the_midst_of_reading_unless_it_is_gone() -> None:
    words = _words()
    looks: list[None] = []

    def not_yet() -> bool:
        looks.append(None)
        if len(looks) == 3:
            words[ProgressPage.ERR_READ] = 2 * len(os.read(err, 4))
        return False

    with _printing() as (streams, _, err):
        os.write(2, b"eight")
        words[ProgressPage.ERR_READ] = 1
        ends = [streams.printed(words, lambda: True, replaced=False), streams.printed(words, not_yet, replaced=False)]
    assert ends == [(0, UNKNOWN_END), (0, 5)]
