"""`ParallelJob`: the job of a run that is spread over workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from qiskit.primitives import BasePrimitiveJob
from qiskit.primitives.containers import PrimitiveResult
from qiskit.providers.jobstatus import JobStatus

from jobrunner.job_ids import new_job_id
from jobrunner.options import check_seconds
from jobrunner.qiskit.cutting import Cut, Part, join
from jobrunner.qiskit.errors import JobCancelledError, JobTimeoutError, pub_error
from jobrunner.qiskit.part_job import PartJob
from jobrunner.qiskit.part_run import Outcome
from jobrunner.report import JobReport

__all__ = ["ParallelJob"]

_FINAL = (JobStatus.DONE, JobStatus.CANCELLED, JobStatus.ERROR)


class ParallelJob(BasePrimitiveJob[PrimitiveResult[Any], JobStatus]):
    """A run of `ParallelSampler` or `ParallelEstimator`.

    Made by their `run`.  Has the methods of Qiskit's jobs, and those below.
    """

    def __init__(self, pubs: Sequence[Any], parts: Sequence[Part], jobs: Sequence[PartJob]) -> None:
        super().__init__(new_job_id())
        self._pubs = pubs
        self._parts = parts
        self._jobs = jobs
        # Held while the two below are made, so that all who ask get the same.
        self._making = threading.RLock()
        self._outcomes: list[Any] | None = None
        self._result: Any = None

    def status(self) -> JobStatus:
        """The run's status; never blocks.

        RUNNING from the start of the first part to the end of the last; then CANCELLED if any part was, ERROR if any
        failed, else DONE.
        """
        if not all(job.done() for job in self._jobs):
            return JobStatus.RUNNING if any(job.begun() for job in self._jobs) else JobStatus.QUEUED
        if any(job.cancelled() for job in self._jobs):
            return JobStatus.CANCELLED
        failed = any(isinstance(one, BaseException) for one in self._await_outcomes(0))
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
        told = [(job.cancel(), job) for job in reversed(self._jobs)]
        return any(cancelled for cancelled, _ in told) and all(one or job.done() for one, job in told)

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
        outcomes = self._await_outcomes(timeout)
        if any(job.cancelled() for job in self._jobs):
            raise JobCancelledError(f"job {self._job_id} was cancelled", job_id=self._job_id)
        failures = {index: one for index, one in enumerate(outcomes) if isinstance(one, BaseException)}
        if failures:
            raise pub_error(failures, tuple(outcomes))
        with self._making:
            if self._result is None:
                self._result = PrimitiveResult(outcomes, metadata=self._jobs[0].metadata())
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
        return [report for job in self._jobs for report in job.reports()]

    def _await_outcomes(self, timeout: float | None) -> list[Any]:
        limit = check_seconds("timeout", timeout, zero=True)
        if self._outcomes is None:
            until = None if limit is None else time.monotonic() + limit
            for job in self._jobs:
                left = None if until is None else max(0.0, until - time.monotonic())
                if not job.wait(left):
                    raise JobTimeoutError(
                        f"job {self._job_id} is not final after {limit:g} s; it goes on, and can be waited for again",
                        job_id=self._job_id,
                    )
        with self._making:
            if self._outcomes is None:
                self._outcomes = self._gather()
            return self._outcomes

    def _gather(self) -> list[Any]:
        """What each PUB came to, from what its pieces did."""
        found: list[list[tuple[Cut, Outcome]]] = [[] for _ in self._pubs]
        for part, job in zip(self._parts, self._jobs, strict=True):
            for piece, outcome in zip(part.pieces, job.outcomes(), strict=True):
                found[piece.pub].append((piece.cut, outcome))
        together = []
        for pub, pieces in zip(self._pubs, found, strict=True):
            errors = [value for _, (ok, value) in pieces if not ok]
            together.append(errors[0] if errors else _joined(pub, pieces))
        return together

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the finished run, waiting for it; that of a failed one raises its error."""
        self.result()
        return _rebuild, (self._job_id, self.metadata, self._result)

    def __repr__(self) -> str:
        if self._result is not None:
            return f"<ParallelJob {self._job_id} {self.status().name}: {len(self._result)} PUBs>"
        return f"<ParallelJob {self._job_id} {self.status().name}: {len(self._pubs)} PUBs in {len(self._parts)} parts>"


def _joined(pub: Any, pieces: Sequence[tuple[Cut, Outcome]]) -> Any:
    """The result of a PUB whose pieces went well; the error where they can't be put together."""
    try:
        return join(pub, [one for one, _ in pieces], [value for _, (_, value) in pieces])
    except Exception as error:
        return error


def _rebuild(job_id: str, metadata: Mapping[str, Any], result: Any) -> ParallelJob:
    job = ParallelJob((), (), ())
    job._job_id, job.metadata, job._result, job._outcomes = job_id, dict(metadata), result, list(result)
    return job
