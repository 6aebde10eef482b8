"""jobrunner: a process-pool job runner for CPU-bound primitives.

>>> import jobrunner
>>> job = jobrunner.PrimitiveJob(pow, 2, 10)
>>> job.submit(jobrunner.InlineExecutor())
>>> job.result()
1024
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobrunner.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jobrunner.algorithm_job import AlgorithmJob as AlgorithmJob
    from jobrunner.backend import Backend as Backend
    from jobrunner.backend import Capabilities as Capabilities
    from jobrunner.batch import Batch as Batch
    from jobrunner.batch import sweep as sweep
    from jobrunner.batch import zip_points as zip_points
    from jobrunner.bench.result import BenchmarkResult as BenchmarkResult
    from jobrunner.bench.run import benchmark as benchmark
    from jobrunner.cluster.dask import DaskExecutor as DaskExecutor
    from jobrunner.cluster.ray import RayExecutor as RayExecutor
    from jobrunner.errors import ClusterLostError as ClusterLostError
    from jobrunner.errors import ExecutorShutdownError as ExecutorShutdownError
    from jobrunner.errors import JobCancelledError as JobCancelledError
    from jobrunner.errors import JobError as JobError
    from jobrunner.errors import JobRunnerError as JobRunnerError
    from jobrunner.errors import JobTimeoutError as JobTimeoutError
    from jobrunner.errors import MemoryLimitExceeded as MemoryLimitExceeded
    from jobrunner.errors import SerializationError as SerializationError
    from jobrunner.errors import SpecError as SpecError
    from jobrunner.errors import StoreError as StoreError
    from jobrunner.errors import TimeLimitExceeded as TimeLimitExceeded
    from jobrunner.errors import WorkerDiedError as WorkerDiedError
    from jobrunner.executors.default import get_executor as get_executor
    from jobrunner.executors.default import set_executor as set_executor
    from jobrunner.executors.default import use_executor as use_executor
    from jobrunner.executors.future import JobFuture as JobFuture
    from jobrunner.executors.inline import InlineExecutor as InlineExecutor
    from jobrunner.executors.local import LocalExecutor as LocalExecutor
    from jobrunner.joblib import register_joblib as register_joblib
    from jobrunner.primitive_job import BasePrimitiveJob as BasePrimitiveJob
    from jobrunner.primitive_job import PrimitiveJob as PrimitiveJob
    from jobrunner.report import JobReport as JobReport
    from jobrunner.sharing import Shared as Shared
    from jobrunner.sharing import share as share
    from jobrunner.status import JOB_FINAL_STATES as JOB_FINAL_STATES
    from jobrunner.status import JobStatus as JobStatus
    from jobrunner.waiting import as_completed as as_completed
    from jobrunner.waiting import gather as gather
    from jobrunner.waiting import wait as wait

#: Where each public name lives; it is imported from there when it is first asked for (PEP 562).
_HOME = {
    "AlgorithmJob": "algorithm_job",
    "Backend": "backend",
    "BasePrimitiveJob": "primitive_job",
    "Batch": "batch",
    "BenchmarkResult": "bench.result",
    "Capabilities": "backend",
    "ClusterLostError": "errors",
    "DaskExecutor": "cluster.dask",
    "ExecutorShutdownError": "errors",
    "InlineExecutor": "executors.inline",
    "JOB_FINAL_STATES": "status",
    "JobCancelledError": "errors",
    "JobError": "errors",
    "JobFuture": "executors.future",
    "JobReport": "report",
    "JobRunnerError": "errors",
    "JobStatus": "status",
    "JobTimeoutError": "errors",
    "LocalExecutor": "executors.local",
    "MemoryLimitExceeded": "errors",
    "PrimitiveJob": "primitive_job",
    "RayExecutor": "cluster.ray",
    "SerializationError": "errors",
    "Shared": "sharing",
    "SpecError": "errors",
    "StoreError": "errors",
    "TimeLimitExceeded": "errors",
    "WorkerDiedError": "errors",
    "as_completed": "waiting",
    "benchmark": "bench.run",
    "gather": "waiting",
    "get_executor": "executors.default",
    "register_joblib": "joblib",
    "set_executor": "executors.default",
    "share": "sharing",
    "sweep": "batch",
    "use_executor": "executors.default",
    "wait": "waiting",
    "zip_points": "batch",
}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
