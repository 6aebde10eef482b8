"""`ParallelJob`: the job of a run that is spread over workers."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Mapping, Sequence
from typing import Any

from qiskit.primitives import BasePrimitiveJob
from qiskit.primitives.containers import PrimitiveResult
from qiskit.providers.jobstatus import JobStatus

from jobrunner.errors import JobRunnerError
from jobrunner.job_ids import new_job_id
from jobrunner.options import check_seconds
from jobrunner.qiskit.cutting import Part, join
from jobrunner.qiskit.errors import JobCancelledError, JobTimeoutError, as_qiskits, pub_error
from jobrunner.report import JobReport

__all__ = ["ParallelJob"]

_FINAL = (JobStatus.DONE, JobStatus.CANCELLED, JobStatus.ERROR)


class ParallelJob(BasePrimitiveJob[PrimitiveResult[Any], JobStatus]):
    """A run of `ParallelSampler` or `ParallelEstimator`.

    Made by their `run`.  Has the methods of Qiskit's jobs, and those below.
    """

    def __init__(self, pubs: Sequence[Any], parts: Sequence[Part], futures: Sequence[Any]) -> None:
        super().__init__(new_job_id())
        self._pubs = pubs
        self._parts = parts
        self._futures = futures
        self._outcomes: list[Any] | None = None
        self._result: Any = None

    def status(self) -> JobStatus:
        """The run's status; never blocks.

        RUNNING from the start of the first part to the end of the last; then CANCELLED if any part was, ERROR if any
        failed, else DONE.
        """
        futures = self._futures
        if not all(future.done() for future in futures):
            if any(future.done() or future.running() for future in futures):
                return JobStatus.RUNNING
            return JobStatus.QUEUED
        if any(future.cancelled() for future in futures):
            return JobStatus.CANCELLED
        if any(future.exception() is not None for future in futures):
            return JobStatus.ERROR
        failed = any(not ok for future in futures for ok, _ in future.result()[0])
        return JobStatus.ERROR if failed else JobStatus.DONE

    def done(self) -> bool:
        """Whether all has run well."""
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        """Whether the run is under way."""
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        """Whether the run is DONE, CANCELLED or ERROR."""
        return self.status() in _FINAL

    def cancel(self) -> bool:
        """Cancel the run: what waits never starts, and the processes of what runs are ended.

        Returns:
            True where the run is now cancelled; False where it is final, or runs in a thread.
        """
        # The last ones first: they are still waiting, and must not start when those before them end.
        told = [(future.cancel(), future) for future in reversed(self._futures)]
        return any(cancelled for cancelled, _ in told) and all(one or future.done() for one, future in told)

    def result(self, timeout: float | None = None) -> Any:
        """The result of the whole run, waiting for it.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Returns:
            A ``PrimitiveResult`` with one ``PubResult`` for each PUB, as the primitive itself would give it.

        Raises:
            PubError: a PUB failed; it is also of the class of that PUB's own error.  What the others came to is in
                `pub_results`.
            JobCancelledError: the run was cancelled.
            JobTimeoutError: `timeout` passed first; the run goes on.
        """
        if self._result is None:
            outcomes = self._await_outcomes(timeout)
            if any(future.cancelled() for future in self._futures):
                raise JobCancelledError(f"job {self._job_id} was cancelled", job_id=self._job_id)
            failures = {index: one for index, one in enumerate(outcomes) if isinstance(one, BaseException)}
            if failures:
                raise pub_error(failures, tuple(outcomes))
            metadata = [future.result()[1] for future in self._futures]
            self._result = PrimitiveResult(outcomes, metadata=metadata[0] if metadata else {})
        return self._result

    def pub_results(self, timeout: float | None = None) -> list[Any]:
        """What each PUB came to, in order, waiting for it: its ``PubResult``, or its exception.

        Args:
            timeout: seconds to wait; None: as long as it takes.

        Raises:
            JobTimeoutError: `timeout` passed first; the run goes on.
        """
        return list(self._await_outcomes(timeout))

    def reports(self) -> list[JobReport]:
        """The reports of the parts that ran in processes, in the order of the PUBs; never blocks."""
        return [future.report() for future in self._futures if hasattr(future, "report")]

    def _await_outcomes(self, timeout: float | None) -> list[Any]:
        limit = check_seconds("timeout", timeout, zero=True)
        if self._outcomes is None:
            until = None if limit is None else time.monotonic() + limit
            for future in self._futures:
                left = None if until is None else max(0.0, until - time.monotonic())
                if not _await_final(future, left):
                    raise JobTimeoutError(
                        f"job {self._job_id} is not final after {limit:g} s; it goes on, and can be waited for again",
                        job_id=self._job_id,
                    )
            self._outcomes = self._gather()
        return self._outcomes

    def _gather(self) -> list[Any]:
        """What each PUB came to, from what its pieces did."""
        found: list[list[tuple[Any, Any]]] = [[] for _ in self._pubs]
        for part, future in zip(self._parts, self._futures, strict=True):
            for piece, outcome in zip(part.pieces, _outcomes_of(part, future), strict=True):
                found[piece.pub].append((piece.cut, outcome))
        together = []
        for pub, pieces in zip(self._pubs, found, strict=True):
            errors = [value for _, (ok, value) in pieces if not ok]
            if errors:
                together.append(errors[0])
            else:
                together.append(join(pub, [one for one, _ in pieces], [value for _, (_, value) in pieces]))
        return together

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the finished run, waiting for it; that of a failed one raises its error."""
        self.result()
        return _rebuild, (self._job_id, self.metadata, self._result)

    def __repr__(self) -> str:
        if self._result is not None:
            return f"<ParallelJob {self._job_id} {self.status().name}: {len(self._result)} PUBs>"
        return f"<ParallelJob {self._job_id} {self.status().name}: {len(self._pubs)} PUBs in {len(self._parts)} parts>"


def _await_final(future: Any, timeout: float | None) -> bool:
    """Whether a future is final within so many seconds."""
    try:
        future.exception(timeout)
    except concurrent.futures.CancelledError:
        return True
    except (TimeoutError, concurrent.futures.TimeoutError):
        return bool(future.done())
    return True


def _outcomes_of(part: Part, future: Any) -> Sequence[tuple[bool, Any]]:
    try:
        return future.result()[0]  # type: ignore[no-any-return]
    except concurrent.futures.CancelledError as error:
        told: BaseException = as_qiskits(error) if isinstance(error, JobRunnerError) else error
    except Exception as error:
        told = as_qiskits(error) if isinstance(error, JobRunnerError) else error
    return [(False, told)] * len(part.pieces)


def _rebuild(job_id: str, metadata: Mapping[str, Any], result: Any) -> ParallelJob:
    job = ParallelJob((), (), ())
    job._job_id, job.metadata, job._result, job._outcomes = job_id, dict(metadata), result, list(result)
    return job
