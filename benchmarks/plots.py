"""The figures as pictures, by matplotlib."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import data, efficiency, queues
from benchmarks.peers import ALL_PEERS, MACHINE, OURS
from benchmarks.results import Run, Series

__all__ = ["Picture", "check", "draw", "keys"]

_DPI = 110
_INK, _FAINT = "#333333", "#bbbbbb"
_OUR_COLOUR = "#d62728"
# For the others, in the order of `ALL_PEERS`: told apart by shape as well.
_COLOURS = ("#1f77b4", "#17becf", "#2ca02c", "#8c564b", "#9467bd", "#e377c2", "#bcbd22", "#7f7f7f", "#ff7f0e")
_MARKERS = "svD^<>pPX"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that was written.

    title: what it shows.
    path: its file.
    """

    title: str
    path: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Panel:
    """A part of a picture.

    title: above it.
    keys: the figures that it shows: one for a list of peers, more for lines.
    places: where each stands on the horizontal axis, and what it is called there, for lines.
    across: what the horizontal axis is.
    """

    title: str
    keys: Sequence[str]
    places: Sequence[tuple[float, str]] = ()
    across: str = ""


def check() -> None:
    """See that pictures can be drawn.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("drawing needs matplotlib: pip install -e '.[plot]'")


def draw(run: Run, directory: Path) -> list[Picture]:
    """Draw all pictures of which the run has a figure.

    Args:
        run: what was measured.
        directory: where the PNG files go.

    Raises:
        ImportError: matplotlib is not installed.
    """
    check()
    pictures = []
    for name, title, panels in _PICTURES:
        shown = [panel for panel in panels if any(_values(run, key) for key in panel.keys)]
        if shown:
            path = directory / f"{name}.png"
            _draw(run, title, shown, path)
            pictures.append(Picture(title=title, path=path))
    return pictures


def _values(run: Run, key: str) -> list[Series]:
    return [series for series in run.series if series.key == key and series.values]


def _draw(run: Run, title: str, panels: Sequence[_Panel], path: Path) -> None:
    # No pyplot: it would choose a display, and keep every picture.
    figure = importlib.import_module("matplotlib.figure").Figure(
        figsize=(5.2 * max(len(panels), 2) if not panels[0].places else 5.0 * max(len(panels), 2) + 1.6, 4.4),
        layout="constrained",
    )
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_title(panel.title, fontsize=11, color=_INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if panel.places:
            _lines(axes, run, panel)
        else:
            _list(axes, run, panel.keys[0])
    if panels[0].places:
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        order = [*ALL_PEERS, _LIMIT]
        names = sorted(handles, key=order.index)
        figure.legend([handles[name] for name in names], names, loc="outside right center", frameon=False)
    figure.suptitle(title, fontsize=13, fontweight="bold", color=_INK)
    with warnings.catch_warnings():
        # A glyph that a font lacks is no reason to stop.
        warnings.simplefilter("ignore")
        figure.savefig(path, dpi=_DPI)


_LIMIT = "the machine"


def _list(axes: Any, run: Run, key: str) -> None:
    """The peers from best to worst: the median, and a line from the smallest sample to the largest."""
    found = _values(run, key)
    limit = next((series for series in found if series.peer == MACHINE), None)
    unit = found[0].figure.how

    def shown(series: Series) -> float:
        assert series.median is not None
        return unit.shown(series.median)

    peers = [series for series in found if series.peer != MACHINE]
    peers.sort(key=shown, reverse=not unit.inverse)
    everything = [unit.shown(value) for series in found for value in series.values]
    logarithmic = min(everything) > 0 and max(everything) > 8 * min(everything) and unit.symbol != "%"
    if logarithmic:
        axes.set_xscale("log")
    for place, series in enumerate(peers):
        ours = series.peer == OURS
        colour = _OUR_COLOUR if ours else "#4c78a8"
        values = [unit.shown(value) for value in series.values]
        axes.plot([min(values), max(values)], [place, place], color=colour, linewidth=2.5, alpha=0.45, zorder=2)
        axes.plot(shown(series), place, "o", color=colour, markersize=9 if ours else 7, zorder=3, clip_on=False)
        text = unit.text(series.median)
        axes.annotate(
            text, (max(values), place), (9, 0), textcoords="offset points", va="center", fontsize=9, color=_INK
        )
    axes.set_yticks(range(len(peers)), [series.peer for series in peers])
    for label in axes.get_yticklabels():
        if label.get_text() == OURS:
            label.set_fontweight("bold")
    axes.set_ylim(-0.7, len(peers) - 0.3)
    if limit is not None:
        axes.axvline(shown(limit), color=_INK, linestyle="--", linewidth=1)
        axes.annotate(
            f" {_LIMIT}: {unit.text(limit.median)}",
            (shown(limit), -0.62),
            fontsize=8.5,
            color=_INK,
            va="bottom",
            ha="right" if unit.inverse else "left",
        )
    if logarithmic:
        low, high = min(everything), max(everything)
        axes.set_xlim(low / 1.6, high * (high / low) ** 0.35)
    else:
        axes.set_xlim(0, (max(everything) or 1.0) * 1.3)
    axes.grid(axis="x", color=_FAINT, linewidth=0.5, alpha=0.6)
    better = "more is better" if unit.inverse else "less is better"
    axes.set_xlabel(f"{unit.symbol}: {better}", fontsize=9, color=_INK)
    axes.tick_params(axis="y", length=0)


def _lines(axes: Any, run: Run, panel: _Panel) -> None:
    """A line a peer through its medians, over sizes or lengths."""
    by_peer: dict[str, list[tuple[float, Series]]] = {}
    for key, (place, _) in zip(panel.keys, panel.places, strict=True):
        for series in _values(run, key):
            by_peer.setdefault(series.peer, []).append((place, series))
    unit = next(series.figure.how for points in by_peer.values() for _, series in points)
    colours = dict(zip([name for name in ALL_PEERS if name != OURS], zip(_COLOURS, _MARKERS, strict=True), strict=True))
    for peer, points in by_peer.items():
        x = [place for place, _ in points]
        y = [unit.shown(series.median or 0.0) for _, series in points]
        if peer == MACHINE:
            axes.plot(x, y, "--", color=_INK, linewidth=1.3, label=_LIMIT, zorder=2)
        elif peer == OURS:
            axes.plot(x, y, "o-", color=_OUR_COLOUR, linewidth=2.6, markersize=7, label=peer, zorder=4)
        else:
            colour, marker = colours[peer]
            axes.plot(x, y, marker + "-", color=colour, linewidth=1.1, markersize=5, alpha=0.85, label=peer, zorder=3)
    axes.set_xscale("log")
    axes.set_xticks([place for place, _ in panel.places], [name for _, name in panel.places], fontsize=8.5)
    axes.set_xticks([], minor=True)
    if unit.inverse:
        axes.axhline(100, color=_INK, linewidth=0.8, alpha=0.6)
        axes.set_ylim(0, None)
    else:
        axes.set_yscale("log")
    axes.set_xlabel(panel.across, fontsize=9, color=_INK)
    axes.set_ylabel(unit.symbol, fontsize=9, color=_INK)
    axes.grid(color=_FAINT, linewidth=0.5, alpha=0.6)


def _single(title: str, key: str) -> _Panel:
    return _Panel(title=title, keys=(key,))


def _over_sizes(title: str, case: str) -> _Panel:
    return _Panel(
        title=title,
        keys=[*(f"{case}/{name}" for name in data.SIZES), f"{case}_{data.HUGE_NAME}"],
        places=[(size, name) for name, size in (*data.SIZES.items(), (data.HUGE_NAME, data.HUGE))],
        across="size of the array",
    )


def _over_lengths(title: str, suffix: str) -> _Panel:
    return _Panel(
        title=title,
        keys=[f"efficiency/{name}{suffix}" for name in efficiency.LENGTHS],
        places=[(seconds, name) for name, seconds in efficiency.LENGTHS.items()],
        across="work in a job",
    )


def _over_queues(title: str, figure: str) -> _Panel:
    return _Panel(
        title=title,
        keys=[f"queue_{name}/{figure}" for name in queues.LENGTHS],
        places=[(length, name) for name, length in queues.LENGTHS.items()],
        across="jobs in the queue",
    )


#: File, title and panels of each.
_PICTURES: tuple[tuple[str, str, tuple[_Panel, ...]], ...] = (
    (
        "calls",
        "What a job costs that does nothing",
        (
            _single("round trip", "round_trip"),
            _single("handed in one by one", "throughput"),
            _single("items through map", "map"),
        ),
    ),
    (
        "efficiency",
        "How much of the cores short jobs get",
        (_over_lengths("of the cores", ""), _over_lengths("of what plain processes reach", "_plain")),
    ),
    (
        "simulations",
        "How much of the cores simulations get",
        (
            _single("Monte Carlo with NumPy, of the cores", "numpy"),
            _single("... of what plain processes reach", "numpy/plain"),
            _single("random circuits with Qiskit, of the cores", "qiskit"),
            _single("... of what plain processes reach", "qiskit/plain"),
        ),
    ),
    (
        "arrays",
        "What it takes to hand over an array",
        (
            _over_sizes("as an argument", "argument"),
            _over_sizes("as a result", "result"),
            _over_sizes("shared by 16 jobs, a job", "shared"),
        ),
    ),
    (
        "objects",
        "What it takes to hand over a nested object",
        (
            _single("as an argument", "argument/object"),
            _single("as a result", "result/object"),
            _single("shared by 16 jobs, a job", "shared/object"),
        ),
    ),
    (
        "starting",
        "What it takes until a pool can be used",
        (
            _single("import of the module", "import"),
            _single("import of the executor", "import_executor"),
            _single("new pool to first result", "cold_start"),
        ),
    ),
    (
        "ends",
        "What it takes until a slot works again",
        (_single("a running job was cancelled", "cancel"), _single("a job has crashed", "crash")),
    ),
    (
        "queues",
        "What jobs cost that wait",
        (
            _over_queues("handing one in", "submit"),
            _over_queues("running it", "drain"),
            _over_queues("memory of one", "memory"),
        ),
    ),
    (
        "idle",
        "What a pool costs that does nothing",
        (
            _single("memory by worker", "idle/memory"),
            _single("CPU time, of one core", "idle/cpu"),
            _single("wake-ups of the caller", "idle/wake_ups"),
        ),
    ),
)


def keys() -> set[str]:
    """The figures that pictures are made of."""
    return {key for _, _, panels in _PICTURES for panel in panels for key in panel.keys}
