"""`AlgorithmJob`: a `PrimitiveJob` that knows its backend and can be waited for by polling."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any, TypeVar

from jobrunner.backend import Backend
from jobrunner.errors import JobError, JobTimeoutError
from jobrunner.options import check_seconds
from jobrunner.primitive_job import PrimitiveJob
from jobrunner.status import JOB_FINAL_STATES, JobStatus

__all__ = ["AlgorithmJob"]

ResultT = TypeVar("ResultT")

_FINAL = frozenset(state.name for state in JOB_FINAL_STATES)


class AlgorithmJob(PrimitiveJob[ResultT]):
    """A `PrimitiveJob` with the further methods of Qiskit's ``JobV1``.

    Attributes:
        version: of the job interface, 1.

    Example:
        >>> from jobrunner import InlineExecutor
        >>> job = AlgorithmJob(sum, [1, 2, 3])
        >>> job.submit(InlineExecutor())
        >>> job.wait_for_final_state()
        >>> job.backend().name, job.result()
        ('inline', 6)
    """

    version = 1

    def backend(self) -> Backend:
        """Where the job was submitted to.

        Raises:
            JobError: the job was not submitted.
        """
        if self._submitted_to is None:
            raise JobError("the job has no backend: it was not submitted", job_id=self.job_id())
        return self._submitted_to

    def wait_for_final_state(
        self,
        timeout: float | None = None,
        wait: float = 5,
        callback: Callable[[str, JobStatus, AlgorithmJob[ResultT]], Any] | None = None,
    ) -> None:
        """Wait until the job is final, querying its status now and then.

        Returns as soon as the job is final, and never raises the job's own error.

        Args:
            timeout: seconds after which to give up; None: never.
            wait: seconds between two queries.
            callback: called as ``callback(job_id, status, job)`` after each query that is not final.

        Raises:
            JobError: the job was not submitted.
            JobTimeoutError: `timeout` passed; the job goes on.
            ValueError: `wait` is not above 0, or `timeout` is negative.
        """
        interval = check_seconds("wait", wait)
        if interval is None:
            raise ValueError("wait must be a number of seconds, not None")
        limit = check_seconds("timeout", timeout, zero=True)
        future = self.dependency()
        began = time.monotonic()
        # By name: the statuses of a subclass may be Qiskit's.
        while (status := self.status()).name not in _FINAL:
            left = None if limit is None else limit - (time.monotonic() - began)
            if left is not None and left <= 0:
                raise JobTimeoutError(f"Timeout while waiting for job {self.job_id()}.", job_id=self.job_id())
            if callback is not None:
                callback(self.job_id(), status, self)
            concurrent.futures.wait([future], timeout=interval if left is None else min(interval, left))
