"""The display of a run: a bar on a terminal, lines where asked for, nothing in a pipe; logs don't break it."""

from __future__ import annotations

import functools
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tqdm

from jobrunner import benchmark
from jobrunner.batch import Outcome, OutcomeStatus
from jobrunner.batch.progress import PLAIN, Progress, format_duration
from jobrunner.batch.work import Whole
from jobrunner.report import JobReport
from jobrunner.status import JobStatus

ROOT = Path(__file__).resolve().parents[2]


def outcome(status: OutcomeStatus = OutcomeStatus.DONE, run_s: float | None = 2.0) -> Outcome:
    report = JobReport(job_id="", status=JobStatus.DONE, run_s=run_s)
    return Outcome(index=0, parameters={}, status=status, report=report)


def activity(rate: float = 0.0) -> Mapping[str, Any]:
    return {"rate": rate, "rss_bytes": 3 * 2**20}


@pytest.fixture
def display() -> Iterator[Progress]:
    with Progress("ising", False) as shown:
        shown.begin(100, done=10, failed=2, workers=4)
        yield shown


def test_the_time_left_is_unknown_before_a_job_has_ended(display: Progress) -> None:
    assert display.left() == "-"
    display.show(activity())
    assert "12 of 100 ended, 2 failed, -/s, ETA -, 3 MiB" in display.line()


def test_the_time_left_comes_from_the_length_of_jobs_and_how_many_run_at_a_time(display: Progress) -> None:
    for _ in range(8):
        display.advance(outcome())
    assert display.left() == "40 s"  # 80 left, 2 s each, 4 at a time
    display.show(activity(rate=0.25))  # a rate so early says less
    assert display.left() == "40 s"


def test_of_tiny_jobs_the_rate_tells_the_time_left(display: Progress) -> None:
    for _ in range(8):
        display.advance(outcome(run_s=1e-5))
    display.show(activity(rate=4.0))
    assert display.left() == "20 s"


def test_what_is_tried_again_has_not_ended(display: Progress) -> None:
    display.advance(outcome(OutcomeStatus.RETRIED))
    display.advance(outcome(OutcomeStatus.FAILED))
    assert "13 of 100 ended, 3 failed" in display.line()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 00 h"),
        (10_000_000, "115 d 17 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("mode", ["fancy", 1.5, ""])
def test_another_mode_is_refused(mode: Any) -> None:
    with pytest.raises(ValueError, match="progress must be True, False, 'plain', None, a function"):
        Progress("x", mode)


async def awaited(ended: int, failed: int, total: int | None) -> None: ...


class Awaited:
    async def __call__(self, ended: int, failed: int, total: int | None) -> None: ...


@pytest.mark.parametrize("make", [Progress, lambda _, mode: benchmark(abs, progress=mode)])
@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (awaited, "not the coroutine function .*, for which nobody would wait"),
        (functools.partial(awaited), "not the coroutine function .*, for which nobody would wait"),
        (Awaited(), "not .*, whose __call__ is a coroutine function, for which nobody would wait"),
        (functools.partial(Awaited()), "not .*, whose __call__ is a coroutine function, for which nobody would wait"),
        (tqdm.trange, "not tqdm's trange, .*class"),
        (functools.partial(functools.partial(tqdm.trange), ncols=80), "not tqdm's trange, .*class"),
    ],
)
def test_what_could_not_be_told_is_refused_with_the_reason(make: Any, mode: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make("x", mode)


def test_plain_prints_a_line_an_interval_and_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr("jobrunner.batch.progress.time.monotonic", lambda: now[0])
    with Progress("ising", "plain") as shown:
        shown.begin(100, done=0, failed=0, workers=1)
        for _ in range(61):
            now[0] += 1
            shown.advance(outcome(run_s=1.0))
            shown.show(activity(rate=1.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "ising: 30 of 100 ended, 0 failed, 1.0/s, ETA 1 min 10 s, 3 MiB, running for 30 s",
        "ising: 60 of 100 ended, 0 failed, 1.0/s, ETA 40 s, 3 MiB, running for 1 min 00 s",
    ]


@pytest.mark.parametrize("mode", [None, False, True])
def test_a_pipe_gets_nothing(mode: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("ising", mode) as shown:
        shown.prepare(5, 10)
        shown.begin(2, done=0, failed=0, workers=1)
        shown.advance(outcome())
        shown.show(activity())
    assert "\x1b" not in capsys.readouterr().err


# --- on a terminal ---------------------------------------------------------------------------------------------------

WORK = """
import logging, sys, warnings

logging.basicConfig(format="LOG %(message)s")  # before the bar is there, as programs do

def f(x):
    logging.warning("job %d has begun", x)
    return x

def g(x):
    print("to stderr", file=sys.stderr)
    warnings.warn(f"careful {x}")
    return x
"""


def on_a_terminal(directory: Path, *arguments: str, prelude: str = "") -> tuple[int, str]:
    """What a terminal gets of a run, and its exit code."""
    ours, theirs = pty.openpty()
    (directory / "work.py").write_text(WORK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "30"}
    environment["PYTHONWARNINGS"] = "default"  # some of the jobs warn
    process = subprocess.Popen(
        [sys.executable, "-c", f"{prelude}\nfrom jobrunner.cli import main; main()", "run", *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(timeout=100), shown.decode()


def screen(text: str) -> list[str]:
    """The lines that stay on a terminal that obeys what the bar's escapes say."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b"):
            if part.endswith("A"):
                row = max(0, row - int(part[2:-1] or 1))
            elif part == "\x1b[2K":
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def test_log_records_of_jobs_stand_above_the_bar_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    code, shown = on_a_terminal(tmp_path, "work.py:f", "-p", "x=1:20", "--workers", "2")
    assert code == 0, shown
    assert "20/20" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    *logged, last = screen(shown)
    told = {line.partition(" (job ")[0] for line in logged}
    assert len(logged) == len(told)
    assert told == {f"LOG job {x} has begun" for x in range(1, 21)}
    assert last.startswith("f: 20 done, 0 failed in ")


def test_warnings_of_jobs_stand_above_the_bar_and_what_they_print_goes_to_the_store(tmp_path: Path) -> None:
    code, shown = on_a_terminal(tmp_path, "work.py:g", "-p", "x=1:5")
    assert code == 0, shown
    lines = screen(shown)
    assert sum("UserWarning: careful" in line for line in lines) == 5
    assert "to stderr" not in shown
    assert lines[-1].startswith("g: 5 done, 0 failed in ")


def test_none_and_plain_show_no_bar_on_a_terminal(tmp_path: Path) -> None:
    for mode in ("none", "plain"):
        code, shown = on_a_terminal(tmp_path, "work.py:g", "-p", "x=1", "--fresh", "--progress", mode)
        assert code == 0, shown
        assert "\x1b" not in shown


def test_plain_tells_a_run_that_lasts(tmp_path: Path) -> None:
    prelude = "import jobrunner.batch.progress as progress, jobrunner.batch.ledger as ledger\n"
    prelude += "progress._LINE_S = 0; ledger._BEAT_S = 0.01"
    code, shown = on_a_terminal(tmp_path, "work.py:f", "-p", "x=1:3", "--progress", "plain", prelude=prelude)
    assert code == 0, shown
    assert re.search(r"^f: \d of 3 ended, 0 failed, .*, ETA .*, .* [KMG]iB, running for \d+ s\r$", shown, re.MULTILINE)


def test_handlers_write_where_they_did_before_when_the_bar_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    stream = sys.stderr
    handler, other = logging.StreamHandler(stream), logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("tests.progress")
    logger.addHandler(handler)
    logger.addHandler(other)
    elsewhere = other.stream
    try:
        with Progress("ising", True) as shown:
            shown.begin(1, done=0, failed=0, workers=1)
            assert handler.stream is sys.stderr
            assert handler.stream is not stream
            assert other.stream is elsewhere
        assert handler.stream is stream
        assert sys.stderr is stream
    finally:
        logger.removeHandler(handler)
        logger.removeHandler(other)


def test_what_other_processes_have_done_counts() -> None:
    progress = Progress("shared", PLAIN)
    with progress:
        progress.begin(300, done=0, failed=0, workers=2)
        progress.advance(Outcome(index=0, parameters={}, status=OutcomeStatus.DONE))
        progress.advance(Outcome(index=1, parameters={}, status=OutcomeStatus.CANCELLED))
        assert "1 of 300 ended" in progress.line()
        progress.show({"rate": 4.0, "rss_bytes": 0}, Whole(done=149, failed=1, other_workers=2))
        assert "150 of 300 ended, 1 failed, 8.0/s" in progress.line()
