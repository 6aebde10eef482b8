"""Figures: how all plots look, and how they become files.  What they have in common with matplotlib is here."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.bench.plots.texts import shorten
from jobrunner.bench.result import BenchmarkResult
from jobrunner.errors import SpecError, StoreError
from jobrunner.texts import printable

__all__ = ["FAILED", "INK", "SOFT", "Canvas", "Look", "beside", "finite", "look", "picked", "style"]

T = TypeVar("T")

INK, SOFT, FAILED = "#222222", "#666666", "#b3001b"

#: Colours that people with any colour vision tell apart: M. Okabe and K. Ito, "Color Universal Design", 2008, without
#: the yellow, which is hard to see on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")

#: As many that the pairs of colour and shape recur late.
_MARKERS = "osD^vP<X>p"

_DPI = 120

#: Points of the title, and its width as a share of that of its letters' height.
_TITLE, _LETTER = 12.0, 0.66

_STYLE: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud, and the files are small
    "svg.hashsalt": "jobrunner",  # the same plot is the same file
    "text.color": INK,
    "text.parse_math": False,  # names are of others: $ and \ are letters in them
    "xtick.color": "#999999",
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": "#999999",
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


@dataclasses.dataclass(frozen=True)
class Look:
    """How an implementation is told from others.

    Attributes:
        colour: of its marks and lines.
        marker: their shape, in matplotlib's letters.
    """

    colour: str
    marker: str


def look(number: int) -> Look:
    """How the implementation with this number, from 0, is drawn in all plots."""
    return Look(_COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)])


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The settings for drawing, whatever the user's own are, which are as they were afterwards.

    Raises:
        SpecError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib")
        styles = importlib.import_module("matplotlib.style")
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise SpecError("plots need matplotlib: pip install 'jobrunner[plot]'") from error
    with styles.context(["default", dict(_STYLE)]), warnings.catch_warnings():
        # A letter that the font lacks, or a script that matplotlib can't set, is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


class Canvas:
    """A figure of panels in a grid, to be used inside `style`.

    pyplot takes no part: it would choose a display, and keep every figure.

    Args:
        what: what is shown, for the title.
        result: the benchmark, which the title names.
        panels: how many.
        columns: panels side by side at most.
        width, height: of a panel, in inches.
        margin: inches beside the panels, for labels of the first column.
    """

    def __init__(
        self,
        what: str,
        result: BenchmarkResult,
        *,
        panels: int,
        columns: int,
        width: float,
        height: float,
        margin: float,
    ) -> None:
        columns = 2 if panels == 4 else min(columns, panels)
        rows = math.ceil(panels / columns)
        size = (width * columns + margin, height * rows + 0.9)
        self._figure = importlib.import_module("matplotlib.figure").Figure(figsize=size, dpi=_DPI)
        grid = self._figure.subplots(rows, columns, squeeze=False)
        every = [axes for row in grid for axes in row]
        for axes in every[panels:]:
            axes.remove()
        #: The panels, each an ``Axes`` of matplotlib.
        self.axes: list[Any] = every[:panels]
        #: Those at the left end of a row.
        self.leftmost: list[Any] = self.axes[::columns]
        what += ": " if result.complete else ", not complete: "
        room = int(size[0] * 72 / (_TITLE * _LETTER)) - len(what)
        self.title = printable(what) + shorten(result.name, max(room, 12))
        self._figure.suptitle(self.title, fontsize=_TITLE, fontweight="bold", x=0.012, ha="left")

    def below(self, axes: Any, points: float) -> Any:
        """The coordinates of a panel, moved down by some points: 0, 0 is below its lower left corner."""
        transforms = importlib.import_module("matplotlib.transforms")
        return axes.transAxes + transforms.ScaledTranslation(0, -points / 72, self._figure.dpi_scale_trans)

    def legend(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Say below all panels what marks mean.

        Args:
            entries: the text of each, and its properties as those of matplotlib's ``Line2D``.
        """
        line = importlib.import_module("matplotlib.lines").Line2D
        self._figure.legend(
            [line([], [], **{"linestyle": "none", **properties}) for _, properties in entries],
            [text for text, _ in entries],
            loc="outside lower left",
            ncols=len(entries),
            handletextpad=0.5,
            columnspacing=1.8,
        )

    def save(self, directory: Path, name: str) -> list[str]:
        """Write the figure as PNG and as SVG.

        Raises:
            StoreError: a file can't be written.
        """
        # Once, and not for each file: half of the time that drawing takes is that of finding places.
        engine = importlib.import_module("matplotlib.layout_engine").ConstrainedLayoutEngine
        engine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03).execute(self._figure)
        box = self._figure.get_tightbbox().padded(0.1)
        paths = []
        for suffix, metadata in ((".png", {}), (".svg", {"Date": None, "Title": self.title})):
            image = io.BytesIO()
            self._figure.savefig(image, format=suffix[1:], metadata=metadata, bbox_inches=box)
            path = directory / f"{name}{suffix}"
            try:
                path.write_bytes(image.getvalue())
            except OSError as error:
                raise StoreError(f"the plot can't be written: {error.strerror or error}", path=str(path)) from error
            paths.append(str(path))
        return paths


def beside(axes: Any, text: str, row: float | None, *, up: float = 0.0, color: str = SOFT) -> None:
    """Write something small right of a panel.

    Args:
        axes: the panel.
        text: what is written.
        row: at which place of the vertical axis; None: above the panel, as a heading.
        up: points by which it is moved up.
        color: its colour.
    """
    axes.annotate(
        text,
        (1, 1 if row is None else row),
        (7, 4 if row is None else up),
        xycoords="axes fraction" if row is None else ("axes fraction", "data"),
        textcoords="offset points",
        va="bottom" if row is None else "center",
        fontsize=8,
        color=color,
        annotation_clip=False,
    )


def picked(items: Sequence[T], most: int) -> list[T]:
    """The items, or if they are more than `most`, so many of them at even distances, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]


def finite(low: float, high: float) -> bool:
    """Whether an interval has two bounds; one sample gives none."""
    return low > 0 and math.isfinite(high)
