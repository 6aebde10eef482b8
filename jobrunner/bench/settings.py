"""How a benchmark is measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jobrunner.options import JobOptions, check_count, check_seconds

__all__ = ["SAMPLES_MOST", "Settings"]

#: The most samples of a series whose end is not told by their number.
SAMPLES_MOST = 1000

#: Samples of each series where nothing else is said.
_SAMPLES = 20

#: Rounds of a scaling run where no number of samples is said: a round takes as long as many samples.
_SCALING_ROUNDS = 10

#: More workers than this are taken for a mistake.
_WIDTH_MOST = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a benchmark is measured.  Of `samples`, `min_time` and `target_rse` one is given at most.

    Attributes:
        samples: how many samples of each series; 20 where no other rule is given.
        min_time: seconds for which each series is to be timed, over all its samples.
        target_rse: relative standard error of the median that is to be reached, such as 0.01.
        warmup: values before those of a sample that do not count.
        values: timed values of a sample; one only where a call takes a second or more.
        value_s: the least seconds of a value.
        widths: numbers of workers for the scaling run; empty: none.
        threads: BLAS/OpenMP threads, and cores, of a sample.
        gc: whether the garbage collector stays on while a function is timed.
        time_limit: seconds that a sample may take; None: any.
        memory_limit: bytes that its processes may use; None: any.

    Raises:
        TypeError, ValueError: one of them is not what it must be.
    """

    samples: int | None = None
    min_time: float | None = None
    target_rse: float | None = None
    warmup: int = 1
    values: int = 3
    value_s: float = 0.1
    widths: tuple[int, ...] = ()
    threads: int = 1
    gc: bool = True
    time_limit: float | None = None
    memory_limit: int | str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        rules = [name for name in ("samples", "min_time", "target_rse") if getattr(self, name) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} exclude each other: each says when to stop")
        if self.samples is not None:
            put(self, "samples", check_count("samples", self.samples))
        put(self, "min_time", check_seconds("min_time", self.min_time))
        if self.target_rse is not None and not (
            isinstance(self.target_rse, (int, float)) and math.isfinite(self.target_rse) and 0 < self.target_rse < 1
        ):
            raise ValueError(f"target_rse must be above 0 and below 1 (0.01 is 1 %), not {self.target_rse!r}")
        put(self, "warmup", check_count("warmup", self.warmup, least=0))
        if not isinstance(self.widths, Sequence) or isinstance(self.widths, str):
            raise TypeError(f"workers must be numbers of workers, not {self.widths!r}")
        widths = sorted({check_count("workers", width) for width in self.widths})
        if widths and widths[-1] > _WIDTH_MOST:
            raise ValueError(f"workers must be at most {_WIDTH_MOST}, not {widths[-1]}")
        put(self, "widths", tuple(widths))
        # Checked, and the limit as bytes.
        options = JobOptions(threads=self.threads, time_limit=self.time_limit, memory_limit=self.memory_limit)
        put(self, "threads", options.threads)
        put(self, "time_limit", options.time_limit)
        put(self, "memory_limit", options.memory_limit)
        if not isinstance(self.gc, bool):
            raise TypeError(f"gc must be True or False, not {self.gc!r}")

    @property
    def sample_count(self) -> int | None:
        """How many samples each series has; None where another rule says when to stop."""
        return self.samples or (_SAMPLES if self.min_time is None and self.target_rse is None else None)

    @property
    def scaling_rounds(self) -> int:
        """How often a batch is run at each width."""
        return self.samples or _SCALING_ROUNDS

    def as_dict(self) -> dict[str, Any]:
        """The settings, as `json.dumps` takes them."""
        return {**vars(self), "widths": list(self.widths)}
