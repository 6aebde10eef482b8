"""The units of figures: how they are written, drawn and kept.

Whatever its unit, the smaller a value is, the better: a throughput is kept as the seconds of one job, an efficiency as
the core-seconds spent for a second of work.  So ratios mean the same everywhere, and pyperf compares rightly.
"""

from __future__ import annotations

import dataclasses

__all__ = ["UNITS", "Unit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """How values are shown.

    symbol: after the number.
    pyperf: pyperf's name of what is kept: ``"second"``, ``"byte"`` or ``"integer"``.
    factor: shown is the value times this ...
    inverse: ... or this by the value; then the larger is the better.
    """

    symbol: str
    pyperf: str = "second"
    factor: float = 1.0
    inverse: bool = False

    def shown(self, value: float) -> float:
        """A value as a number in this unit."""
        if not self.inverse:
            return value * self.factor
        return self.factor / value if value else float("inf")

    def text(self, value: float | None) -> str:
        """A value as text, of three digits or so; ``"-"`` for None.

        Example:
            >>> UNITS["µs"].text(0.0001234), UNITS["/s"].text(0.00005), UNITS["ms"].text(None), UNITS["kB"].text(1234.5)
            ('123 µs', '20,000/s', '-', '1.23 kB')
            >>> UNITS["efficiency"].text(1.25), UNITS["share"].text(0.0), UNITS["count/s"].text(0.0)
            ('80.0 %', '0 %', '0/s')
        """
        if value is None:
            return "-"
        number = self.shown(value)
        space = "" if self.symbol.startswith("/") else " "
        if number >= 100:
            return f"{number:,.0f}{space}{self.symbol}"
        if self.symbol == "%" and self.inverse:
            return f"{number:.1f}{space}{self.symbol}"
        return f"{number:.3g}{space}{self.symbol}"


#: All of them by the name that a figure gives.
UNITS: dict[str, Unit] = {
    "s": Unit(symbol="s"),
    "ms": Unit(symbol="ms", factor=1e3),
    "µs": Unit(symbol="µs", factor=1e6),
    # The seconds of one, shown as so many a second.
    "/s": Unit(symbol="/s", inverse=True),
    # Core-seconds for a second of work.
    "efficiency": Unit(symbol="%", factor=100.0, inverse=True),
    # Seconds of CPU time a second.
    "share": Unit(symbol="%", factor=100.0),
    "kB": Unit(symbol="kB", pyperf="byte", factor=1e-3),
    "MB": Unit(symbol="MB", pyperf="byte", factor=1e-6),
    "count/s": Unit(symbol="/s", pyperf="integer"),
}
