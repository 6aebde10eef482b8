"""Ids of jobs: random UUIDs (version 4), made without a system call each.

``uuid.uuid4`` asks the kernel for each, and gives the interpreter lock away for that: with other threads at work it
takes hundreds of microseconds to come back.
"""

from __future__ import annotations

import os
import random
import uuid

__all__ = ["new_job_id"]


class _Ids:
    """Numbers of a generator that the system's entropy has seeded, in each process anew."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - an id is no secret
        if hasattr(os, "register_at_fork"):
            # A forked child would go on with the parent's numbers.
            os.register_at_fork(after_in_child=self._random.seed)

    def new(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


_IDS = _Ids()

#: A new id: UUID4 text.  May be called from any thread.
new_job_id = _IDS.new
