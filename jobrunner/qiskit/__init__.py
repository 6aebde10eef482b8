"""Qiskit's jobs in processes: a drop-in for its job classes, and primitives that run in parallel.

Needs Qiskit 1.3 or later (extra ``qiskit``).

>>> from qiskit import QuantumCircuit
>>> from qiskit.primitives import StatevectorSampler
>>> import jobrunner.qiskit
>>> bell = QuantumCircuit(2)
>>> _ = bell.h(0), bell.cx(0, 1), bell.measure_all()
>>> with jobrunner.qiskit.accelerate():
...     job = StatevectorSampler(seed=7).run([bell], shots=100)
...     sorted(job.result()[0].data.meas.get_counts())
['00', '11']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobrunner.lazy import lazy_names
from jobrunner.qiskit.versions import check_qiskit

check_qiskit()

if TYPE_CHECKING:
    from jobrunner.qiskit.acceleration import accelerate as accelerate
    from jobrunner.qiskit.acceleration import disable as disable
    from jobrunner.qiskit.acceleration import enable as enable
    from jobrunner.qiskit.errors import FellBackToThreadWarning as FellBackToThreadWarning
    from jobrunner.qiskit.errors import JobCancelledError as JobCancelledError
    from jobrunner.qiskit.errors import JobError as JobError
    from jobrunner.qiskit.errors import JobTimeoutError as JobTimeoutError
    from jobrunner.qiskit.errors import MemoryLimitExceeded as MemoryLimitExceeded
    from jobrunner.qiskit.errors import PubError as PubError
    from jobrunner.qiskit.errors import SerializationError as SerializationError
    from jobrunner.qiskit.errors import TimeLimitExceeded as TimeLimitExceeded
    from jobrunner.qiskit.errors import WorkerDiedError as WorkerDiedError
    from jobrunner.qiskit.jobs import AlgorithmJob as AlgorithmJob
    from jobrunner.qiskit.jobs import PrimitiveJob as PrimitiveJob
    from jobrunner.qiskit.parallel import ParallelEstimator as ParallelEstimator
    from jobrunner.qiskit.parallel import ParallelSampler as ParallelSampler
    from jobrunner.qiskit.parallel_job import ParallelJob as ParallelJob
    from jobrunner.qiskit.versions import UnknownVersionWarning as UnknownVersionWarning

#: Where each public name lives; it is imported from there when it is first asked for (PEP 562).
_HOME = {
    "AlgorithmJob": "jobs",
    "FellBackToThreadWarning": "errors",
    "JobCancelledError": "errors",
    "JobError": "errors",
    "JobTimeoutError": "errors",
    "MemoryLimitExceeded": "errors",
    "ParallelEstimator": "parallel",
    "ParallelJob": "parallel_job",
    "ParallelSampler": "parallel",
    "PrimitiveJob": "jobs",
    "PubError": "errors",
    "SerializationError": "errors",
    "TimeLimitExceeded": "errors",
    "UnknownVersionWarning": "versions",
    "WorkerDiedError": "errors",
    "accelerate": "acceleration",
    "disable": "acceleration",
    "enable": "acceleration",
}

__all__ = sorted(_HOME)  # noqa: PLE0605

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
