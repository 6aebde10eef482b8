"""How a worker's C library gives memory back.

By default, glibc returns the top of its heap to the kernel as soon as 128 KiB of it are free, and maps blocks beyond
that size apart.  Code that makes and drops arrays of some hundred kilobytes to some megabytes, as NumPy code does at
each step, then has every page of them faulted in anew, and zeroed by the kernel: a third of the time of a statevector
simulation of 16 qubits.  Workers keep up to 128 MiB instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["allocator_variables"]

#: Read by glibc when a process starts; others have no use for them.  The second can't be more than 32 MiB.
_VARIABLES = {"MALLOC_TRIM_THRESHOLD_": str(128 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


def allocator_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables to start a worker with; none where the user says something about it.

    Args:
        env: variables that the user gives to workers.
    """
    said = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in (*os.environ, *env))
    return {} if said else dict(_VARIABLES)
