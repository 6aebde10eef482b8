"""Which plots a benchmark has, and their files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jobrunner.bench.compare import Comparison, comparisons
from jobrunner.bench.plots.canvas import style
from jobrunner.bench.plots.comparison import comparison_figure
from jobrunner.bench.plots.growth import growth_figure
from jobrunner.bench.plots.samples import samples_figure
from jobrunner.bench.plots.speedup import speedup_figure
from jobrunner.bench.result import BenchmarkResult
from jobrunner.errors import StoreError

__all__ = ["draw"]


def draw(
    result: BenchmarkResult,
    directory: str | os.PathLike[str],
    compared: Sequence[Comparison] | None = None,
    against: str | None = None,
) -> list[str]:
    """Draw what there is to be drawn: samples, growth, speedup and comparison, each as PNG and as SVG.

    Args:
        result: the benchmark.
        directory: where the files go, such as ``samples.png``; it is made if it is not there, and files of these names
            are replaced.
        compared: the comparisons to be drawn; default those with the first implementation.
        against: what they are with, for people; default the first implementation or "the baseline".

    Returns:
        The paths of the files.

    Raises:
        SpecError: matplotlib is not installed.
        StoreError: the directory can't be made, or a file can't be written.
    """
    place = Path(directory)
    written = []
    with style():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the directory can't be made: {error.strerror or error}", path=str(place)) from error
        if compared is None:
            compared = comparisons(result)
        for name, figure in (
            ("samples", samples_figure(result)),
            ("growth", growth_figure(result)),
            ("speedup", speedup_figure(result)),
            ("comparison", comparison_figure(result, compared, against)),
        ):
            if figure is not None:
                written += figure.save(place, name)
    return written
