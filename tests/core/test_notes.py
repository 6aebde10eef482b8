"""Warnings and log records of a job reach the caller's `warnings` and `logging`, marked with the job's id."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import JobStatus, LocalExecutor
from jobrunner.executors.notes import pass_on
from tests.core.gates import Gate, meet
from tests.core.scripts import Script

MakeLocal = Callable[..., LocalExecutor]


class OddWarning(UserWarning):
    """A warning whose class takes other arguments than text."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def warn(text: str = "mind the gap", category: type[Warning] = UserWarning) -> str:
    warnings.warn(text, category, stacklevel=1)
    return "warned"


def log(name: str = "my.model", level: int = logging.WARNING) -> str:
    logging.getLogger(name).log(level, "step %d of %s", 3, "ten", extra={"step": 3, "object": object()})
    return "logged"


@pytest.fixture
def make_local(make_local: MakeLocal) -> MakeLocal:
    """Makes LocalExecutors whose workers show warnings, whatever `python -W` says of them."""
    return functools.partial(make_local, initializer=warnings.simplefilter, initargs=("default",))


# --- warnings ---


def test_a_jobs_warning_is_one_of_the_callers(make_local: MakeLocal) -> None:
    executor = make_local(1)
    with pytest.warns(UserWarning) as caught:
        job = executor.submit(warn)
        assert job.result() == "warned"
    (warning,) = caught
    assert "mind the gap" in str(warning.message)
    assert job.job_id in str(warning.message)
    assert warning.message.job_id == job.job_id  # type: ignore[union-attr]
    assert warning.filename == __file__
    assert warning.lineno > 30


def test_each_job_warns_though_the_worker_has_shown_it_before(make_local: MakeLocal) -> None:
    executor = make_local(1)
    with pytest.warns(UserWarning) as caught:
        jobs = [executor.submit(warn) for _ in range(5)]
        for job in jobs:
            job.result()
    assert [warning.message.job_id for warning in caught] == [job.job_id for job in jobs]  # type: ignore[union-attr]


def test_within_a_job_a_warning_is_shown_once_as_ever(make_local: MakeLocal) -> None:
    def warn_often() -> None:
        for _ in range(100):
            warn()

    with pytest.warns(UserWarning) as caught:
        make_local(1).submit(warn_often).result()
    assert len(caught) == 1


@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning, FutureWarning, OddWarning])
def test_a_warnings_class_is_the_callers_where_that_knows_it(make_local: MakeLocal, category: type[Warning]) -> None:
    def show() -> None:
        warnings.warn(OddWarning(1, 2) if category is OddWarning else category("mind"), stacklevel=1)

    with pytest.warns() as caught:
        make_local(1).submit(show).result()
    assert [warning.category for warning in caught] == [UserWarning if category is OddWarning else category]


def test_the_callers_filters_decide(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    executor = make_local(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        executor.submit(warn).result()
    assert not caught
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "jobrunner"):
        warnings.simplefilter("error")
        assert executor.submit(warn).result() == "warned"
    assert "UserWarning: mind the gap" in caplog.text


# --- log records ---


def test_a_jobs_log_record_is_one_of_the_callers(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    job = make_local(1).submit(log)
    assert job.result() == "logged"
    (record,) = [record for record in caplog.records if record.name == "my.model"]
    assert record.getMessage().startswith("step 3 of ten")
    assert job.job_id in record.getMessage()
    assert record.job_id == job.job_id  # type: ignore[attr-defined]
    assert (record.levelname, record.funcName, record.filename, record.module) == (
        "WARNING",
        "log",
        "test_notes.py",
        "test_notes",
    )
    assert record.process == job.report().pid
    assert record.step == 3  # type: ignore[attr-defined]
    assert not hasattr(record, "object")


def test_a_logged_exception_keeps_its_traceback(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        try:
            raise ValueError("seven")
        except ValueError:
            logging.getLogger("my.model").exception("it failed", stack_info=True)

    make_local(1).submit(fail).result()
    assert "ValueError: seven" in caplog.text
    assert "in fail" in caplog.text


def test_what_the_caller_does_not_want_is_not_sent(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        executor = make_local(1)
        assert executor.submit(log, "quiet", logging.INFO).result() == "logged"
    assert not [record for record in caplog.records if record.name == "quiet"]


def test_what_the_caller_has_asked_for_is_sent(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "loud"):
        make_local(1).submit(log, "loud.part", logging.DEBUG).result()
    assert [record.name for record in caplog.records if record.name == "loud.part"] == ["loud.part"]


def test_records_come_in_order_and_before_the_job_is_final(
    make_local: MakeLocal, caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    def count(gate: str) -> None:
        for number in range(300):
            logging.getLogger("count").warning("%d", number)
        meet(gate)

    executor = make_local(2)
    job = executor.submit(count, gate.path)
    gate.await_arrival()
    gate.release()
    job.result()
    told = [record.getMessage().split()[0] for record in caplog.records if record.name == "count"]
    assert told == [str(number) for number in range(300)]


def test_threads_of_a_job_may_log_at_once(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    def shout(name: int) -> None:
        for number in range(200):
            logging.getLogger("shout").warning("%d.%d %s", name, number, "x" * 500)

    def shout_together() -> int:
        threads = [threading.Thread(target=shout, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(threads)

    executor = make_local(1)
    assert executor.submit(shout_together).result() == 4
    assert len([record for record in caplog.records if record.name == "shout"]) == 800
    assert executor.submit(pow, 2, 3).result() == 8


def test_a_flood_of_records_is_cut_and_told(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    def flood() -> None:
        logger = logging.getLogger("flood")
        for number in range(12_000):
            logger.warning("%d", number)

    executor = make_local(1)
    executor.submit(flood).result()
    assert len([record for record in caplog.records if record.name == "flood"]) == 10_000
    assert "2000 more of its messages were left out" in caplog.text


def test_a_logging_callback_that_blocks_or_fails_does_not_hold_the_job_up(
    make_local: MakeLocal, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()

    class Blocks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            let_go.wait(60)
            raise OSError("nowhere to write to")

    handler = Blocks()
    logging.getLogger("blocked").addHandler(handler)
    try:
        assert make_local(1).submit(log, "blocked").result(timeout=30) == "logged"
    finally:
        let_go.set()
        logging.getLogger("blocked").removeHandler(handler)


# --- switched off, and at the edges ---


def test_it_can_be_switched_off(
    make_local: MakeLocal, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = make_local(1)
    quiet = executor.with_options(relay_logs=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet.submit(warn).result()
        quiet.submit(log).result()
    assert not caught
    assert not caplog.records
    told = capfd.readouterr().err  # as in any program that has not set up logging
    assert "UserWarning: mind the gap" in told
    assert "step 3 of ten" in told
    executor.submit(log).result()
    assert "step 3 of ten" in caplog.text


def test_a_job_that_sets_up_logging_for_itself_can_with_it_switched_off(
    make_local: MakeLocal, capfd: pytest.CaptureFixture[str]
) -> None:
    def set_up() -> None:
        logging.basicConfig(level=logging.INFO, format="MINE %(message)s", stream=sys.stderr)
        logging.getLogger("mine").info("hello")

    executor = make_local(1, relay_logs=False)
    for _ in range(2):
        executor.submit(set_up).result()
    # What a job of another test has printed may have ended within a line, which is ended first.
    assert capfd.readouterr().err.removeprefix("\n") == "MINE hello\n" * 2


def test_a_job_may_log_to_a_file_of_its_own(
    make_local: MakeLocal, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def set_up(file: Path) -> None:
        logging.basicConfig(filename=file, level=logging.DEBUG, format="%(message)s")
        logging.getLogger("mine").debug("to the file")
        logging.getLogger("mine").warning("to both")

    executor = make_local(1)
    executor.submit(set_up, tmp_path / "job.log").result()
    assert (tmp_path / "job.log").read_text() == "to the file\nto both\n"
    assert "to both" in caplog.text
    executor.submit(log).result()
    assert "step 3" not in (tmp_path / "job.log").read_text()
    assert "step 3" in caplog.text


def test_the_level_of_the_callers_root_logger_counts_from_the_next_job_on(
    make_local: MakeLocal, caplog: pytest.LogCaptureFixture
) -> None:
    executor = make_local(1)
    with caplog.at_level(logging.WARNING):
        executor.submit(log, "late", logging.INFO).result()
        assert not caplog.records
    with caplog.at_level(logging.INFO):
        executor.submit(log, "late", logging.INFO).result()
    assert [record.name for record in caplog.records if record.name == "late"] == ["late"]


def test_a_fork_of_a_job_logs_where_any_program_does(
    make_local: MakeLocal, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            logging.getLogger("forked").warning("from the child")
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    assert make_local(1).submit(fork).result() == 0
    assert capfd.readouterr().err == "from the child\n"
    assert "from the child" not in caplog.text


def test_a_job_that_is_interrupted_while_it_logs_is_ended_like_any_other(make_local: MakeLocal, gate: Gate) -> None:
    def log_for_ever(gate: str) -> None:
        logger = logging.getLogger("my.endless")
        meet(gate)
        while True:
            logger.error("x" * 1000)

    executor = make_local(1)
    for _ in range(3):
        job = executor.with_options(grace=30).submit(log_for_ever, gate.path)
        gate.await_arrival()
        gate.release()
        assert job.cancel()
        assert job.status() is JobStatus.CANCELLED
    assert executor.submit(pow, 2, 3).result() == 8


def test_a_signal_handler_may_log_while_the_job_logs(make_local: MakeLocal, caplog: pytest.LogCaptureFixture) -> None:
    def log_from_both_sides() -> int:
        told = 0

        def handler(number: int, frame: object) -> None:
            nonlocal told
            told += 1
            logging.getLogger("handler").warning("x" * 2000)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while told < 50:
            logging.getLogger("main").warning("y" * 5000)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return told

    job = make_local(1).submit(log_from_both_sides)
    told = job.result(timeout=60)
    assert len([record for record in caplog.records if record.name == "handler"]) == told


def test_records_at_the_exit_of_the_caller_are_passed_on(script: Callable[..., Script]) -> None:
    caller = script(
        "import logging\nfrom jobrunner import LocalExecutor\n"
        "logging.basicConfig(format='%(name)s %(message).7s %(job_id).0s')\n"
        "def log(n):\n    import logging\n    logging.getLogger('my').warning('step %d!', n)\n"
        "executor = LocalExecutor(2)\n"
        "for number in range(5):\n    executor.submit(log, number)\n"
    )
    code, _, errors = caller.finish()
    assert code == 0
    assert sorted(errors.split("\n")[:-1]) == [f"my step {number}! " for number in range(5)]


@pytest.mark.parametrize("note", [
    {"warning": "w", "classes": [["nowhere.to.be.found", "W"], ["builtins", "int"]], "path": "f.py", "line": 1},
    {"log": "my.short", "level": 30, "text": "t"},
])  # fmt: skip
def test_notes_with_little_in_them_are_passed_on(note: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pass_on(json.dumps(note).encode(), "42", 7)
    told = [str(warning.message) for warning in caught] + [record.getMessage() for record in caplog.records]
    assert told in (["w (job 42)"], ["t (job 42)"])
