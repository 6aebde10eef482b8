"""Which packages are installed, in which versions."""

from __future__ import annotations

import functools
import importlib.metadata

__all__ = ["version_of"]


@functools.lru_cache(maxsize=4096)
def version_of(package: str) -> str | None:
    """The version of an installed package, as this process has found it first; None: there is none of that name.

    Args:
        package: its name, as pip has it.

    Example:
        >>> version_of("cloudpickle") is not None
        True
    """
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
