"""How many threads BLAS and OpenMP libraries use in a worker.

A worker starts with the variables that they read when they are loaded.  A job may change the number afterwards; where
threadpoolctl is installed it is put back after the job.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

__all__ = ["ThreadLimits"]

# Modules without which there is no such library to look for.
_USERS = frozenset({"numpy", "scipy", "torch", "numba", "mkl", "sklearn", "numexpr", "jax", "qiskit_aer"})
# A variable that threadpoolctl sets for others when it is imported: one job would see it, and those after it not.
_SET_BY_IMPORT = "KMP_DUPLICATE_LIB_OK"


class ThreadLimits:
    """Keeps the number of threads of the libraries that are loaded.

    Args:
        threads: how many; 0: as many as each is found with.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # The libraries found, with the number that each is to have; looked for again when modules were loaded.
        self._libraries: list[tuple[Any, int]] = []
        self._modules = 0

    def take(self) -> None:
        """Look for libraries that are loaded."""
        self.restore()

    def restore(self) -> None:
        """Give each library its number of threads."""
        if len(sys.modules) != self._modules:
            self._find()
        for library, threads in self._libraries:
            if library.num_threads != threads:
                library.set_num_threads(threads)

    def _find(self) -> None:
        self._modules = len(sys.modules)
        if _USERS.isdisjoint(sys.modules):
            return
        said = os.environ.get(_SET_BY_IMPORT)
        try:
            import threadpoolctl  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            return
        if said is None:
            os.environ.pop(_SET_BY_IMPORT, None)
        known = {library.filepath: threads for library, threads in self._libraries}
        with contextlib.suppress(Exception):  # a library that it can't ask is left as it is
            self._libraries = [
                (library, known.get(library.filepath, self._threads or library.num_threads))
                for library in threadpoolctl.ThreadpoolController().lib_controllers
            ]
        self._modules = len(sys.modules)
