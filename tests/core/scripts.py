"""Programs of a user's, run in processes of their own: how a caller ends can be tested from outside only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from tests.core.process_table import await_none, describe, live_with_variable

ROOT = Path(__file__).resolve().parents[2]
_MARK = "JOBRUNNER_TEST_RUN"


class Script:
    """A running program; everything that it starts can be told by a mark in its environment.

    Args:
        directory: its working directory, where it is written to.
        source: the program.
        arguments: its command line, after ``sys.argv[0]``.
        options: options of the interpreter.
        env: further environment variables.
        stdin: text for its standard input, instead of a file, if it is to be read as from a prompt.
    """

    def __init__(
        self,
        directory: Path,
        source: str,
        *arguments: object,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> None:
        path = directory / "script.py"
        path.write_text(source)
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, *options, *([str(path)] if stdin is None else []), *map(str, arguments)],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                # A script that forks is warned that it has threads, our own, by Python 3.12 and later.
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
                **(env or {}),
                _MARK: self.mark,
            },
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A test run in the background has SIGINT ignored, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        if stdin is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(stdin)
            self.process.stdin.close()
            self.process.stdin = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line of its output, waiting for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the script has ended: {self.process.communicate()[1]}")
        return line.rstrip("\n")

    def pids(self, count: int) -> list[int]:
        """As many pids as it prints, one a line."""
        return [int(self.line()) for _ in range(count)]

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does."""
        os.killpg(self.pid, number)

    def finish(self, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """Wait for its end, and that of all that hold its output: exit code, output, errors."""
        try:
            output, errors = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            left = describe(self.live())
            self.kill_all()
            output, errors = self.process.communicate()
            raise AssertionError(f"the script did not end; alive: {left}; it wrote: {output}{errors}") from None
        return self.process.returncode, output, errors

    def check(self, timeout_s: float = 60.0) -> str:
        """Wait for its end, which must be a good one: nothing to complain about, and nothing left; its output."""
        code, output, errors = self.finish(timeout_s)
        assert (code, errors) == (0, ""), f"exit code {code}; output: {output}; errors: {errors}"
        self.assert_nothing_left()
        return output

    def live(self) -> list[int]:
        """The live processes that it, or what it started, has started."""
        return live_with_variable(_MARK, self.mark)

    def assert_nothing_left(self, timeout_s: float = 2.0) -> None:
        """Nothing of it is alive, at the latest after so long."""
        left = await_none(self.live, timeout_s)
        assert not left, f"alive: {describe(left)}"

    def kill_all(self) -> None:
        """Kill what is left of it; for the end of a test."""
        if self.process.poll() is None:
            self.process.kill()
        for pid in self.live():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
