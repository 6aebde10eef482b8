"""What jobrunner must show against its peers and the machine, judged by the figures of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from benchmarks.peers import MACHINE, OURS
from benchmarks.results import Run
from benchmarks.units import UNITS

__all__ = ["CASES_NEEDED", "Target", "targets"]

#: What must be measured for all of them.
CASES_NEEDED = (
    "import",
    "import_executor",
    "cold_start",
    "idle",
    "round_trip",
    "throughput",
    "map",
    "efficiency",
    "argument",
    "result",
    "shared",
    "cancel",
    "queue_1k",
    "queue_1M",
)

_STDLIB = "concurrent.futures"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A target, and what has become of it.

    title: the figure.
    ours, theirs: jobrunner's figure and the other's, as text.
    against: what it is held against.
    ratio: what is judged, where that is one by the other.
    wanted: the target, as text.
    met: None where the run can't tell.
    note: what else there is to know.
    """

    title: str
    ours: str
    against: str = ""
    theirs: str = ""
    ratio: float | None = None
    wanted: str
    met: bool | None
    note: str = ""


def targets(run: Run) -> list[Target]:
    """The targets of which the run has our figure, or of which it should: all whose case was run."""
    keys = {series.key for series in run.series}
    return [target for key, make in _TARGETS if key in keys and (target := make(run)) is not None]


def _against(
    title: str, key: str, bound: float, *, peer: str | None = None, faster: bool = False
) -> tuple[str, Callable[[Run], Target | None]]:
    """Our median by that of a peer, or of the best peer, must be at most the bound.

    With faster, the ratio is that of the speeds, and must be at least the bound.
    """

    def judge(run: Run) -> Target:
        best = run.best(key) if peer is None else _named(run, key, peer)
        text = _unit_text(run, key)
        ours = run.median(key, OURS)
        ratio = None
        if ours is not None and best is not None and ours > 0 and best[1] > 0:
            ratio = best[1] / ours if faster else ours / best[1]
        met = None if ratio is None else ratio >= bound if faster else ratio <= bound
        return Target(
            title=title,
            ours=text(ours),
            against=best[0] if best is not None else peer or "",
            theirs=text(best[1]) if best is not None else "-",
            ratio=ratio,
            wanted=f"≥ {bound:g} ×" if faster else f"≤ {bound:g} ×",
            met=met,
        )

    return key, judge


def _echo(run: Run) -> Target | None:
    target = _against("no-op round trip", "round_trip", 4.0, peer=MACHINE)[1](run)
    one_core = run.median("round_trip/one_core", MACHINE)
    if target is None or one_core is None:
        return target
    return dataclasses.replace(target, note=f"the echo across cores; on one core {UNITS['µs'].text(one_core)}")


def _named(run: Run, key: str, peer: str) -> tuple[str, float] | None:
    median = run.median(key, peer)
    return (peer, median) if median is not None else None


def _unit_text(run: Run, key: str) -> Callable[[float | None], str]:
    unit = next((series.figure.how for series in run.series if series.key == key), UNITS["s"])
    return unit.text


def _efficiency(length: str, least: float) -> tuple[str, Callable[[Run], Target | None]]:
    key = f"efficiency/{length}"

    def judge(run: Run) -> Target:
        text = UNITS["efficiency"].text
        of_plain, of_cores = run.median(f"{key}_plain", OURS), run.median(key, OURS)
        best = run.best(f"{key}_plain")
        return Target(
            title=f"efficiency at {length} jobs, of plain processes'",
            ours=text(of_plain),
            against=best[0] if best is not None else "",
            theirs=text(best[1]) if best is not None else "-",
            ratio=1.0 / of_plain if of_plain else None,
            wanted=f"≥ {least:g}",
            met=None if not of_plain else 1.0 / of_plain >= least,
            note=f"of the cores {text(of_cores)}, plain processes {text(run.median(key, MACHINE))}",
        )

    return key, judge


def _cancel(run: Run) -> Target | None:
    target = _against("cancel until the slot has run the next", "cancel", 0.15, peer="pebble")[1](run)
    series = run.find("cancel", OURS)
    if target is None or series is None:
        return target
    lost = any("lost" in note for note in series.notes)
    return dataclasses.replace(
        target, met=target.met and not lost if target.met is not None else None, note="; ".join(series.notes)
    )


def _import(key: str, title: str) -> tuple[str, Callable[[Run], Target | None]]:
    def judge(run: Run) -> Target:
        text = UNITS["ms"].text
        ours, theirs = run.median(key, OURS), run.median(key, _STDLIB)
        return Target(
            title=title,
            ours=text(ours),
            against=_STDLIB,
            theirs=text(theirs),
            wanted="≤ + 20 ms",
            met=None if ours is None or theirs is None else ours <= theirs + 0.020,
        )

    return key, judge


def _queue_memory(run: Run) -> Target:
    text = UNITS["kB"].text
    ours = run.median("queue_1M/memory", OURS)
    best = run.best("queue_1M/memory")
    return Target(
        title="memory of a queued no-op job, 1 M queued",
        ours=text(ours),
        against=best[0] if best is not None else "",
        theirs=text(best[1]) if best is not None else "-",
        ratio=ours / best[1] if ours is not None and best is not None and best[1] > 0 else None,
        wanted="≤ 1.5 kB",
        met=None if ours is None else ours <= 1500.0,
    )


def _queue_cost(run: Run) -> Target:
    def cost(name: str, peer: str) -> float | None:
        parts = [run.median(f"queue_{name}/{part}", peer) for part in ("submit", "drain")]
        return None if None in parts else sum(part for part in parts if part is not None)

    text = UNITS["µs"].text
    many, few = cost("1M", OURS), cost("1k", OURS)
    ratio = many / few if many is not None and few else None
    return Target(
        title="cost of a job, submit and drain: 1 M queued against 1 k",
        ours=text(many),
        against="1 k queued",
        theirs=text(few),
        ratio=ratio,
        wanted="≤ 1.3 ×",
        met=None if ratio is None else ratio <= 1.3,
    )


def _wake_ups(run: Run) -> Target:
    text = UNITS["count/s"].text
    ours = run.median("idle/wake_ups", OURS)
    best = run.best("idle/wake_ups")
    return Target(
        title="wake-ups of the caller, idle with workers up",
        ours=text(ours),
        against=best[0] if best is not None else "",
        theirs=text(best[1]) if best is not None else "-",
        wanted="0",
        met=None if ours is None else ours == 0.0,
    )


def _make() -> Iterator[tuple[str, Callable[[Run], Target | None]]]:
    yield _against("no-op round trip", "round_trip", 0.5)
    yield "round_trip", _echo
    yield _against("no-ops submitted one by one", "throughput", 1.5, faster=True)
    yield _against("map of no-ops, automatic chunks", "map", 1.0, faster=True)
    yield _efficiency("1ms", 0.95)
    yield _efficiency("10ms", 0.99)
    yield _against("64 MB array in", "argument/64MB", 0.5)
    yield _against("64 MB array out", "result/64MB", 0.5)
    yield _against("64 MB array shared by 16 jobs", "shared/64MB", 0.5)
    yield "cancel", _cancel
    yield _import("import", "import of the module")
    yield _import("import_executor", "import of the executor")
    yield _against("cold start to first result", "cold_start", 1.0, peer="loky")
    yield "queue_1M/memory", _queue_memory
    yield "queue_1M/submit", _queue_cost
    yield "idle/wake_ups", _wake_ups


_TARGETS = tuple(_make())
