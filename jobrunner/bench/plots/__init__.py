"""Plots of a benchmark, as PNG and SVG files: samples, growth, speedup and comparison.

::

    write.py ──▶ samples.py  growth.py  speedup.py  comparison.py    a figure each, or None: nothing to draw
                     └──────────┴───────────┴───────────┘
                                    ▼
                     canvas.py  figures, colours, files     ticks.py  axes     texts.py  what is written on them

Only canvas.py imports matplotlib, and only when it draws.
"""

from __future__ import annotations

from jobrunner.bench.plots.write import draw

__all__ = ["draw"]
