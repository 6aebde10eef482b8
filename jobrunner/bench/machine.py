"""The machine and the interpreter that a benchmark ran on; nothing that names the machine or its user."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from jobrunner import __version__

__all__ = ["describe", "differences", "warnings_of_machine"]

#: What makes a machine another one, by the names of `describe`.
_IDENTITY = ("cpu_model_name", "cpu_count", "system", "architecture")

_CPUS = Path("/sys/devices/system/cpu")


def describe(cores: Sequence[int]) -> dict[str, Any]:
    """The machine, under pyperf's names where it has them.  What can't be known is left out.

    Args:
        cores: the cores that samples run on; their frequency governor is told.
    """
    found: dict[str, Any] = {
        "cpu_model_name": _cpu_model(),
        "cpu_count": os.cpu_count() or 1,
        "memory_bytes": int(psutil.virtual_memory().total),
        "system": platform.system(),
        "architecture": platform.machine(),
        "platform": platform.platform(),
        "python_implementation": sys.implementation.name,
        "python_version": platform.python_version(),
        "python_compiler": platform.python_compiler(),
        "jobrunner_version": __version__,
        "python_hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "cpu_governor": _setting(cores, "cpufreq/scaling_governor"),
        "cpu_boost": _boost(),
    }
    if hasattr(os, "getloadavg"):
        found["load_avg_1min"] = os.getloadavg()[0]
    return {name: value for name, value in found.items() if value is not None}


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "cpu model")))
    return next(names, platform.processor() or None)


def _setting(cores: Sequence[int], name: str) -> str | None:
    """A setting of the cores; several where they differ; None where there is none, as in most virtual machines."""
    texts = {_text(_CPUS / f"cpu{core}" / name) for core in (cores or range(os.cpu_count() or 1))} - {None}
    return ",".join(sorted(text for text in texts if text)) or None


def _boost() -> bool | None:
    """Whether cores may exceed their nominal frequency."""
    no_turbo = _text(_CPUS / "intel_pstate" / "no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    boost = _text(_CPUS / "cpufreq" / "boost")
    return None if boost is None else boost == "1"


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def warnings_of_machine(machine: Mapping[str, Any]) -> list[str]:
    """What of the machine's state makes its times vary, a sentence each."""
    found = []
    governor = machine.get("cpu_governor")
    if governor and governor != "performance":
        found.append(
            f"the cores' frequency governor is {governor}: times vary with the frequency; 'performance' keeps it steady"
        )
    load, cores = machine.get("load_avg_1min"), machine.get("cpu_count", 1)
    if isinstance(load, float) and load > 0.5 * cores:
        found.append(f"other work ran on this machine at the start (load {load:.1f} on {cores} cores)")
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """How the machine of `other` differs from that of `one`, a phrase each.

    Example:
        >>> differences({"cpu_count": 8, "system": "Linux"}, {"cpu_count": 4})
        ['cpu count is 4, here 8']
    """
    return [
        f"{name.removesuffix('_name').replace('_', ' ')} is {other[name]}, here {one[name]}"
        for name in _IDENTITY
        if name in one and name in other and one[name] != other[name]
    ]
