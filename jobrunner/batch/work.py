"""What passes between a run and the place that its points come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.errors import JobRunnerError

__all__ = ["Beat", "Claimed", "Fault", "Revoked", "Whole", "Work"]


@dataclasses.dataclass(frozen=True)
class Work:
    """One point that this run has taken up.

    Attributes:
        id: what it is known by where it comes from.
        place: its place in the batch, from 0.
        parameters: what the function is called with.
        replicate: which repetition of the point, from 0.
        seed: what its random numbers come from; None if the function takes none.
    """

    id: int
    place: int
    parameters: Mapping[str, Any]
    replicate: int
    seed: int | None


@dataclasses.dataclass(frozen=True)
class Claimed:
    """Points that were asked for; none: there are no more."""

    works: Sequence[Work]


@dataclasses.dataclass(frozen=True)
class Revoked:
    """Somebody else has asked to have these points cancelled, or the whole run stopped."""

    ids: frozenset[int]
    stop: bool


@dataclasses.dataclass(frozen=True)
class Whole:
    """How a batch stands that other processes run, too.

    Attributes:
        done: points that are done, whoever ran them.
        failed: points that have failed.
        other_workers: how many jobs the other processes run at a time.
    """

    done: int
    failed: int
    other_workers: int


@dataclasses.dataclass(frozen=True)
class Beat:
    """A second has passed.

    Attributes:
        whole: how the batch stands, where others have written since the last time that this was told; else None.
    """

    whole: Whole | None = None


@dataclasses.dataclass(frozen=True)
class Fault:
    """Nothing more can be taken up or recorded."""

    error: JobRunnerError
