"""`PartJob`: what the caller has of one part of a parallel run.

Where the process of a part ends under it, or its result can't be sent back, one of its PUBs may be to blame, and
nothing tells which.  Then each of them is run again as a job of its own, so that only that one fails.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from jobrunner.errors import ClusterLostError, JobRunnerError, SerializationError, TimeLimitExceeded, WorkerDiedError
from jobrunner.qiskit.errors import as_qiskits
from jobrunner.qiskit.part_run import Outcome
from jobrunner.report import JobReport
from jobrunner.serialization import load_exception

__all__ = ["PartJob"]


class PartJob:
    """The job of a part, and those of its PUBs where they are run again.

    Args:
        future: of the part's job; its result is that of `run_part` or `run_carried`.
        pieces: how many pieces of PUBs the part has.
        again: submits that of them which has this number as a job of its own, and gives its future; None: they are
            never run again.
    """

    def __init__(self, future: Any, pieces: int, again: Callable[[int], Any] | None = None) -> None:
        self._future = future
        self._pieces = pieces
        # None as soon as they are run again, or it is clear that they won't be.
        self._again = again
        self._singles: Sequence[Any] = ()
        # Held while they are submitted.
        self._lock = threading.Lock()
        if again is not None:
            # At once, and not only when somebody asks: the executor may be shut down by then.
            # By a weak reference: else this and the future would hold one another, and the result's memory with them.
            run_again = weakref.WeakMethod(self._run_again)

            def on_done(_: object) -> None:
                method = run_again()
                if method is not None:
                    method()

            future.add_done_callback(on_done)

    def done(self) -> bool:
        """Whether all is final; never blocks."""
        if not self._future.done() or (self._again is not None and _took_others_along(self._future)):
            return False
        return all(single.done() for single in self._singles)

    def begun(self) -> bool:
        """Whether it has begun to run."""
        return bool(self._future.done() or self._future.running())

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return any(future.cancelled() for future in (self._future, *self._singles))

    def cancel(self) -> bool:
        """Cancel it; whether that is done now."""
        with self._lock:
            self._again = None
        futures = self._singles or (self._future,)
        told = [(future.cancel(), future) for future in reversed(futures)]
        return any(cancelled for cancelled, _ in told) and all(one or future.done() for one, future in told)

    def wait(self, timeout: float | None) -> bool:
        """Whether all is final within so many seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        if not _await_final(self._future, timeout):
            return False
        self._run_again()
        return all(
            _await_final(single, None if until is None else max(0.0, until - time.monotonic()))
            for single in self._singles
        )

    def outcomes(self) -> list[Outcome]:
        """What came of each piece; all is final."""
        if self._singles:
            return [outcome for single in self._singles for outcome in _outcomes_of(single, 1)]
        return _outcomes_of(self._future, self._pieces)

    def metadata(self) -> dict[str, Any]:
        """That of the whole result; all has gone well."""
        return (self._singles or (self._future,))[0].result()[1]  # type: ignore[no-any-return]

    def reports(self) -> list[JobReport]:
        """The reports of its jobs, as far as they ran in processes; never blocks."""
        return [future.report() for future in (self._future, *self._singles) if hasattr(future, "report")]

    def _run_again(self) -> None:
        """Have each piece run by itself if that is called for, and wasn't done yet; the part's own job is final."""
        with self._lock:
            if self._again is None:
                return
            singles: list[Any] = []
            try:
                if _took_others_along(self._future):
                    singles.extend(map(self._again, range(self._pieces)))
                self._singles = singles
            except Exception:  # the executor takes no more jobs: what became of the part stands for each
                for single in singles:
                    single.cancel()
            self._again = None


def _took_others_along(future: Any) -> bool:
    """Whether a final job failed in a way for which one of several PUBs may be to blame."""
    error = None if future.cancelled() else future.exception()
    return isinstance(error, (SerializationError, TimeLimitExceeded, WorkerDiedError)) and not isinstance(
        error, ClusterLostError
    )


def _await_final(future: Any, timeout: float | None) -> bool:
    """Whether a future is final within so many seconds."""
    try:
        future.exception(timeout)
    except concurrent.futures.CancelledError:
        return True
    except (TimeoutError, concurrent.futures.TimeoutError):
        return bool(future.done())
    return True


def _outcomes_of(future: Any, pieces: int) -> list[Outcome]:
    try:
        outcomes = future.result()[0]
    except (Exception, concurrent.futures.CancelledError) as error:
        outcomes = [(False, error)] * pieces
    return [(ok, value if ok else _error_of(value)) for ok, value in outcomes]


def _error_of(failure: bytes | BaseException) -> BaseException:
    """The error of a piece, which comes as bytes from a worker."""
    error = load_exception(failure) if isinstance(failure, bytes) else failure
    return as_qiskits(error) if isinstance(error, JobRunnerError) else error
