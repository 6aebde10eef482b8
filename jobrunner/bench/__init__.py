"""Benchmark runs: how long functions take, how that grows, how it scales, and whether it has changed.

::

    plan.py  what is timed ──▶ measure.py ──a job a sample──▶ timing.py, in a worker of its own, pinned to a core
                                   │    ▲                                       (cores.py)
                                   ▼    │ what is there already
                               journal.py  SQLite, as it comes
                                   │
                                   ▼
                result.py ── intervals.py  checks.py  growth.py  amdahl.py ── compare.py ◀── baseline.py
                                   │
                                   ▼
                     document.py  pyperf_file.py  csv_file.py  plots/

Example:
    >>> from jobrunner.bench import benchmark
    >>> result = benchmark("json:dumps", points={"obj": [[1, 2, 3]]}, samples=2)
    >>> [series.name for series in result.series]
    ['json:dumps obj=[1,2,3]']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobrunner.lazy import lazy_names

if TYPE_CHECKING:
    from jobrunner.bench.result import BenchmarkResult as BenchmarkResult
    from jobrunner.bench.run import benchmark as benchmark

#: A worker imports `jobrunner.bench.timing`, and with it this; what only the caller needs is imported when asked for.
_HOME = {
    "BenchmarkResult": "result",
    "benchmark": "run",
}

__all__ = sorted(_HOME)  # noqa: PLE0605

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
