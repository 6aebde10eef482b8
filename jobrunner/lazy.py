"""Packages whose public names are imported when they are first asked for (PEP 562), so that importing them is light.

::

    if TYPE_CHECKING:
        from package.module import name as name
    _HOME = {"name": "module"}
    __all__ = sorted(_HOME)
    if not TYPE_CHECKING:
        __getattr__, __dir__ = lazy_names(__name__, _HOME)

Hidden from type checkers, which take a module with a ``__getattr__`` to have every name, misspelled ones too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: the package's name.
        homes: its public names, each with the module in it that has it.
    """
    own = vars(sys.modules[package])

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = own[name] = getattr(importlib.import_module(f"{package}.{home}"), name)
        return value

    def names() -> list[str]:
        return sorted({*own, *homes})

    return get, names
