"""Where jobs run: the metadata of an engine, and what it can do."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["Backend", "Capabilities", "describe_machine", "host_name"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an executor can do.  What it can't, it refuses at submit, so that nothing is promised falsely.

    Attributes:
        cancel_running: `cancel()` ends a job that is running.
        time_limit: a job that runs too long is ended.
        memory_limit: a job that uses too much memory is ended.
        true_running_status: RUNNING is said only once the function has started.
        shared_objects: `share()`d objects reach each worker at most once.
        grace: a job can be interrupted politely before it is ended.
        capture_output: what a job prints can go to its report.
    """

    cancel_running: bool = False
    time_limit: bool = False
    memory_limit: bool = False
    true_running_status: bool = False
    shared_objects: bool = False
    grace: bool = False
    capture_output: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backend:
    """The engine that a job was handed to, and the machine it is on.

    Attributes:
        name: ``"local"``, ``"inline"``, ``"dask"``, ``"ray"``, or the class name of a foreign executor.
        version: version of the library that is the engine, if known.
        max_workers: how many jobs run at a time, if known.
        host: host name of the calling machine.
        platform: operating system and architecture.
        python_version: of the calling interpreter.
        cpu_count: logical CPUs of the machine.
        memory_bytes: physical memory of the machine, in bytes.
        capabilities: what the engine can do.
        options: the options of the executor's jobs that differ from the defaults, read-only.
    """

    name: str
    version: str | None = None
    max_workers: int | None = None
    host: str = ""
    platform: str = ""
    python_version: str = ""
    cpu_count: int = 1
    memory_bytes: int | None = None
    capabilities: Capabilities = Capabilities()
    options: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy does not pickle.
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _rebuild_backend, ({**fields, "options": dict(self.options)},)


def _rebuild_backend(fields: dict[str, Any]) -> Backend:
    return Backend(**fields)


@functools.lru_cache(maxsize=1)
def host_name() -> str:
    """The name of this machine, asked for once."""
    return socket.gethostname()


@functools.lru_cache(maxsize=1)
def describe_machine() -> Mapping[str, Any]:
    """The fields of `Backend` that tell of the machine, read once."""
    import psutil

    return MappingProxyType(
        {
            "host": host_name(),
            "platform": f"{platform.system()}-{platform.machine()}",
            "python_version": platform.python_version(),
            "cpu_count": os.cpu_count() or 1,
            "memory_bytes": int(psutil.virtual_memory().total),
        }
    )
