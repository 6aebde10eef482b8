"""Which versions of Qiskit, and of what stands on it, are known to work."""

from __future__ import annotations

import re
import sys
import warnings
from typing import NamedTuple

from jobrunner.packages import version_of

__all__ = ["KNOWN", "UnknownVersionWarning", "check_qiskit", "warn_of_unknown"]


class UnknownVersionWarning(UserWarning):
    """A package is of a version that was not tried with this one of jobrunner."""


class Known(NamedTuple):
    """The versions of a package that are known.

    Attributes:
        oldest: the first that is.
        below: the first that is not any more.
    """

    oldest: tuple[int, ...]
    below: tuple[int, ...]


#: By the names under which the packages are installed.
KNOWN = {
    "qiskit": Known((1, 3), (2, 7)),
    "qiskit-algorithms": Known((0, 3), (0, 5)),
    "qiskit-aer": Known((0, 15), (0, 19)),
    "qiskit-machine-learning": Known((0, 8), (0, 10)),
    "qiskit-optimization": Known((0, 6), (0, 8)),
    "qiskit-ibm-runtime": Known((0, 30), (0, 52)),
}


def check_qiskit() -> None:
    """Make sure that there is a Qiskit which `jobrunner.qiskit` can work with.

    Raises:
        ImportError: there is none, or it is too old; the message says how to get one.
    """
    found = version_of("qiskit")
    if found is None:
        raise ImportError("jobrunner.qiskit needs Qiskit, which is not installed: pip install 'jobrunner[qiskit]'")
    oldest = KNOWN["qiskit"].oldest
    if _numbers(found) < oldest:
        raise ImportError(
            f"jobrunner.qiskit needs Qiskit {_text(oldest)} or later, and found {found}: "
            "pip install --upgrade 'jobrunner[qiskit]'"
        )


def warn_of_unknown() -> None:
    """Warn of each installed package whose version is not known to work."""
    for package, (oldest, below) in KNOWN.items():
        found = version_of(package)
        if found is None or oldest <= _numbers(found) < below:
            continue
        than = "newer" if _numbers(found) >= below else "older"
        warnings.warn(
            f"{package} {found} is {than} than what this jobrunner was tried with (from {_text(oldest)} on, "
            f"below {_text(below)}): its jobs may not all run in processes",
            UnknownVersionWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """The ``stacklevel`` at which `warn_of_unknown` warns of who called jobrunner, be it by a ``with`` block."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("jobrunner.", "contextlib")):
        frame, level = frame.f_back, level + 1
    return level


def _numbers(version: str) -> tuple[int, ...]:
    """The release's numbers; what stands behind them (``rc1``, ``.dev0``) is left out."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found.group().split("."))) if found else ()


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
