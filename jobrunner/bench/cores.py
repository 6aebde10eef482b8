"""Which cores are kept for what is timed, and keeping the calling process off them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

__all__ = ["Cores", "choose_cores", "parse_cores", "usable_cores", "vacated"]

_SYSTEM = Path("/sys/devices/system/cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cores:
    """What runs where.

    Attributes:
        reserved: the cores that a sample is pinned to; empty: none can be, or none is to be.
        others: what is left to the calling process; empty: the same as the reserved ones.
        pool: what the workers of a batch may use, in the order in which it is taken.
        note: what a reader of the results should know of that.
    """

    reserved: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    pool: tuple[int, ...] = ()
    note: str | None = None

    def for_width(self, cores: int) -> tuple[int, ...]:
        """So many cores for the workers of a batch; all that there are, where that is more than there are."""
        return self.pool[:cores]


def usable_cores() -> tuple[int, ...] | None:
    """The logical cores that this process may use; None where the system can't pin a process (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    process = psutil.Process()
    return tuple(sorted(process.cpu_affinity())) if hasattr(process, "cpu_affinity") else None


def parse_cores(text: str) -> tuple[int, ...]:
    """Cores as Linux lists them.

    Raises:
        ValueError: it is no such list.

    Example:
        >>> parse_cores("2-4,7")
        (2, 3, 4, 7)
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (each.strip() for each in part.partition("-"))
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise ValueError(f"expected cores such as 2,3 or 4-7, found {text!r}")
        low, high = int(first), int(last or first)
        if not low <= high < 2**16:
            raise ValueError(f"expected cores such as 2,3 or 4-7, found {text!r}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def choose_cores(threads: int, *, pin: bool | None = None, wanted: Sequence[int] = ()) -> Cores:
    """Choose the cores for samples that use so many threads.

    Those that the kernel keeps other work off (``isolcpus``) come first, then the last ones: interrupts tend to be
    served by the first.  Of two that are one physical core, the second is left idle where there are enough.

    Args:
        threads: cores that a sample takes up.
        pin: whether to pin; None: if the system can.
        wanted: these cores and no others.

    Raises:
        ValueError: the system can't pin, there are no such cores, or fewer than `threads`.
    """
    if pin is False:
        if wanted:
            raise ValueError("cores to be pinned to were given, and not to be pinned: leave out either")
        return Cores()
    usable = usable_cores()
    if usable is None:
        if pin or wanted:
            raise ValueError("this system has no means to pin a process to a core; leave it out")
        return Cores(note="samples are not pinned to a core: this system has no means for it")
    isolated = _listed(_SYSTEM / "isolated")
    if wanted:
        missing = sorted(set(wanted) - set(usable) - set(isolated))
        if missing:
            raise ValueError(
                f"there is no core {', '.join(map(str, missing))} for this process; it may use "
                f"{', '.join(map(str, usable))}"
            )
        if len(wanted) < threads:
            raise ValueError(f"{len(wanted)} cores are too few for {threads} threads")
        reserved = tuple(sorted(wanted)[-threads:])
    elif len(isolated) >= threads:
        reserved = isolated[-threads:]
    elif threads <= len(usable):
        reserved = tuple(sorted(_spread(usable)[:threads]))
    else:
        return Cores(
            note=f"samples are not pinned: they use {threads} threads, and this process has {len(usable)} cores"
        )
    beside = {sibling for core in reserved for sibling in _siblings(core)}
    others = tuple(core for core in usable if core not in beside)
    others = others or tuple(core for core in usable if core not in reserved)
    note = None if others else "the calling process has no core but those that samples run on"
    # Those that were asked for, and no others; else the reserved ones first, and the calling process's last.
    rest = wanted or (*(core for core in usable if core in beside), *reversed(others))
    pool = (*reserved, *(core for core in rest if core not in reserved))
    return Cores(reserved=reserved, others=others, pool=pool, note=note)


def _spread(cores: Sequence[int]) -> list[int]:
    """Cores in the order in which they are to be taken: the last first, second threads of a core at the end."""
    first: list[int] = []
    second: list[int] = []
    taken: set[int] = set()
    for core in reversed(cores):
        (second if core in taken else first).append(core)
        taken |= set(_siblings(core))
    return first + second


def _siblings(core: int) -> tuple[int, ...]:
    """The logical cores that are one physical core with this one, itself included."""
    return _listed(_SYSTEM / f"cpu{core}" / "topology" / "thread_siblings_list") or (core,)


def _listed(file: Path) -> tuple[int, ...]:
    try:
        text = file.read_text(encoding="ascii").strip()
        return parse_cores(text) if text else ()
    except (OSError, ValueError):
        return ()


@contextlib.contextmanager
def vacated(cores: Cores) -> Iterator[None]:
    """Keep the calling process, its threads and what it starts meanwhile, off the reserved cores."""
    if not cores.reserved or not cores.others:
        yield
        return
    before = _move(dict.fromkeys(_threads(), cores.others))
    try:
        yield
    finally:
        for thread in _threads():  # those that were started meanwhile, by one that had been moved
            before.setdefault(thread, before.get(threading.get_native_id(), cores.others))
        _move(before)


def _threads() -> list[int]:
    """The threads of this process, as far as each can be moved by itself; elsewhere the process."""
    if hasattr(os, "sched_setaffinity"):
        return [thread.id for thread in psutil.Process().threads()]
    return [os.getpid()]


def _move(where: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Have threads run on some cores; returns where they ran before."""
    before: dict[int, tuple[int, ...]] = {}
    for thread, cores in where.items():
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # it has ended
                before[thread] = tuple(os.sched_getaffinity(thread))
                os.sched_setaffinity(thread, cores)
        else:
            process = psutil.Process()
            before[thread] = tuple(process.cpu_affinity())
            process.cpu_affinity(list(cores))
    return before
