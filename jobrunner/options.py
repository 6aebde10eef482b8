"""Options of executors and of their jobs, checked once, when they are given."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from jobrunner.memory import format_bytes, machine_memory, parse_bytes

__all__ = ["JobOptions", "PoolOptions", "check_bytes", "check_count", "check_seconds", "default_max_workers"]

#: The part of the machine's memory that jobs with limits may take up together, unless an option says otherwise.
_BUDGET_SHARE = 0.9


#: The longest duration that any option may have: some thirty years, with which every system's clocks can deal.
_LONGEST_S = 1e9


def check_seconds(name: str, value: float | None, *, zero: bool = False) -> float | None:
    """Return `value` as a float of seconds, or None for None; refuse what is no duration.

    Args:
        name: the option's name, for the error.
        value: seconds, or None.
        zero: whether 0 is allowed.

    Raises:
        TypeError: `value` is not a number.
        ValueError: `value` is negative, longer than the system's clocks can wait, or zero where that is not allowed.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds <= _LONGEST_S or (seconds == 0 and not zero):  # NaN neither
        least = "at least 0" if zero else "above 0"
        raise ValueError(f"{name} must be {least} and at most {_LONGEST_S:g} seconds, not {value!r}")
    return seconds


def check_count(name: str, value: int, *, least: int = 1, most: int | None = None) -> int:
    """Return `value` as an int of at least `least`, and at most `most`, which the machine has (None: any number).

    Raises:
        TypeError: `value` is not a whole number.
        ValueError: `value` is out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    count = int(value.__index__())
    if most is not None and count > most:
        raise ValueError(f"{name} must be at least {least} and at most {most} (what this machine has), not {count}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, not {count}")
    return count


def check_bytes(name: str, value: int | str | None, *, bounded: bool = True) -> int | None:
    """Return an amount of memory as a whole number of bytes, or None for None.

    Args:
        name: the option's name, for the error.
        value: bytes, or text such as ``"2GiB"`` or ``"500MB"``.
        bounded: whether it may not be more than the machine (or its control group) has.

    Raises:
        TypeError: `value` is neither a number nor text.
        ValueError: it is no amount, not above 0, or more than there is.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not (isinstance(value, str) or hasattr(value, "__float__")):
        raise TypeError(f"{name} must be a number of bytes, or text such as '2GiB', not {value!r}")
    most = machine_memory() if bounded else math.inf
    allowed = f"{name} must be above 0 bytes"
    if bounded:
        allowed += f" and at most {most} ({format_bytes(most)}, what this machine has)"
    try:
        count = float(parse_bytes(value) if isinstance(value, str) else value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{allowed}: {error}") from None
    if not 0 < count <= most:  # NaN neither
        raise ValueError(f"{allowed}, not {value!r}")
    return int(count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of one job; they come from the executor that it is submitted to.

    Attributes:
        time_limit: seconds that the job may take, from when a worker takes it up.
        memory_limit: bytes, or text such as ``"2GiB"``: memory that the job's processes may use.
        retries: further attempts after the worker died, and after the exception types in `retry_on`.
        retry_on: exception types that are retried as well.
        threads: BLAS/OpenMP threads that the job may use, and cores that it takes up.
        grace: seconds between a polite interrupt and the end of the job's processes; 0: ended at once.
        capture_output: whether the job's stdout and stderr go to its report instead of the caller's.
        priority: larger first.
        name: a name for reports; default the function's qualified name.
        relay_logs: whether the job's warnings and log records reach the caller's `warnings` and `logging`.
    """

    #: Whether the job can't have more than this machine has.
    of_this_machine: ClassVar[bool] = True

    time_limit: float | None = None
    memory_limit: int | str | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    threads: int = 1
    grace: float = 0.0
    capture_output: bool = False
    priority: float = 0
    name: str | None = None
    relay_logs: bool = True

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "memory_limit", check_bytes("memory_limit", self.memory_limit, bounded=self.of_this_machine))
        put(self, "time_limit", check_seconds("time_limit", self.time_limit))
        put(self, "grace", check_seconds("grace", self.grace, zero=True) or 0.0)
        put(self, "retries", check_count("retries", self.retries, least=0))
        put(
            self, "threads", check_count("threads", self.threads, most=os.cpu_count() if self.of_this_machine else None)
        )
        is_number = isinstance(self.priority, (int, float)) and not isinstance(self.priority, bool)
        if not is_number or math.isnan(self.priority):
            raise TypeError(f"priority must be a number, not {self.priority!r}")
        if not isinstance(self.retry_on, (type, Iterable)):
            raise TypeError(f"retry_on must name exception types, not {self.retry_on!r}")
        retry_on = (self.retry_on,) if isinstance(self.retry_on, type) else tuple(self.retry_on)
        for kind in retry_on:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"retry_on must name exception types, not {kind!r}")
        put(self, "retry_on", retry_on)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be text, not {self.name!r}")
        for switch in ("capture_output", "relay_logs"):
            if not isinstance(getattr(self, switch), bool):
                raise TypeError(f"{switch} must be True or False, not {getattr(self, switch)!r}")

    @property
    def memory_bytes(self) -> int:
        """The memory limit in bytes; 0 where there is none."""
        limit = self.memory_limit
        assert not isinstance(limit, str)
        return limit or 0

    def replace(self, **changes: Any) -> JobOptions:
        """These options with `changes`.

        Raises:
            TypeError: a change names no option of a job; the message lists them.
        """
        names = [field.name for field in dataclasses.fields(self)]
        unknown = sorted(set(changes) - set(names))
        if unknown:
            raise TypeError(f"no such job option: {', '.join(unknown)} (job options are {', '.join(names)})")
        return dataclasses.replace(self, **changes)

    def non_default(self) -> dict[str, Any]:
        """The options that differ from the defaults, as plain data."""
        return _non_default(self)


class UnboundedJobOptions(JobOptions):
    """Options of a job that may need more than this machine has: it runs elsewhere, or it is not said yet where."""

    of_this_machine = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """Options of a pool of workers; see `LocalExecutor` for their meaning."""

    max_workers: int | None = None
    idle_timeout: float | None = 60.0
    max_jobs_per_worker: int | None = None
    max_pending: int | None = None
    spare_workers: int = 1
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    env: Mapping[str, str] | None = None
    preload: tuple[str, ...] = ()
    memory_budget: int | str | None = None
    max_worker_growth: int | str | None = 2**30

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("max_workers", "max_jobs_per_worker", "max_pending"):
            if getattr(self, name) is not None:
                put(self, name, check_count(name, getattr(self, name)))
        put(self, "memory_budget", check_bytes("memory_budget", self.memory_budget))
        put(self, "max_worker_growth", check_bytes("max_worker_growth", self.max_worker_growth, bounded=False))
        put(self, "spare_workers", check_count("spare_workers", self.spare_workers, least=0))
        put(self, "idle_timeout", check_seconds("idle_timeout", self.idle_timeout, zero=True))
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError(f"initializer must be callable, not {self.initializer!r}")
        if not isinstance(self.initargs, Iterable):
            raise TypeError(f"initargs must be a sequence of arguments, not {self.initargs!r}")
        put(self, "initargs", tuple(self.initargs))
        if self.env is not None:
            for key, value in self.env.items():
                if not isinstance(key, str) or not isinstance(value, str):
                    raise TypeError(f"env must map variable names to text, not {key!r} to {value!r}")
                if not key or "=" in key or "\0" in key + value:
                    raise ValueError(f"env can't hold {key!r}: {value!r} (an empty name, a '=' in it, or a NUL)")
            put(self, "env", MappingProxyType(dict(self.env)))
        if isinstance(self.preload, str):
            raise TypeError(f"preload must be a sequence of module names, not the text {self.preload!r}")
        put(self, "preload", tuple(self.preload))
        for module in self.preload:
            if not isinstance(module, str):
                raise TypeError(f"preload must name modules, not {module!r}")

    @property
    def budget_bytes(self) -> int:
        """What the limits of the jobs that run at a time may add up to, in bytes."""
        budget = self.memory_budget
        assert not isinstance(budget, str)
        return budget or int(_BUDGET_SHARE * machine_memory())

    @property
    def growth_bytes(self) -> int | None:
        """By how much a worker's resting memory may grow before it is replaced; None: by any amount."""
        growth = self.max_worker_growth
        assert not isinstance(growth, str)
        return growth

    def non_default(self) -> dict[str, Any]:
        """The options that differ from the defaults, as plain data."""
        return _non_default(self)


def _non_default(options: JobOptions | PoolOptions) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        # Arguments of the initializer may be anything, and of any size: they are nobody else's business.
        if value != field.default and field.name != "initargs":
            told[field.name] = _plain(value)
    return told


def _plain(value: Any) -> Any:
    """An option's value as plain data, which pickles: callables and types by name."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return getattr(value, "__qualname__", value)


def default_max_workers(threads: int = 1) -> int:
    """The CPUs that this process may use (affinity and cgroup quota respected), divided by `threads`; at least 1."""
    from loky import cpu_count

    return max(1, int(cpu_count()) // threads)
