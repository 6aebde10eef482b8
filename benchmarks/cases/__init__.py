"""What is measured: one file a theme.

A case is a function that is given a peer and the scale, and answers with its figures; it runs in an interpreter of its
own (`benchmarks.sample`), which it may share with others of its sitting.
"""

from __future__ import annotations

from benchmarks.cases import calls, data, efficiency, ends, queues, starting
from benchmarks.cases.base import Case, Figure, Measured, Scale

__all__ = ["CASES", "FAMILIES", "Case", "Figure", "Measured", "Scale"]

#: All cases by name, in the order in which they are shown.
CASES: dict[str, Case] = {
    case.name: case
    for case in (*starting.CASES, *calls.CASES, *efficiency.CASES, *data.CASES, *ends.CASES, *queues.CASES)
}

#: Names for several cases.
FAMILIES: dict[str, tuple[str, ...]] = {"queue": tuple(case.name for case in queues.CASES)}
