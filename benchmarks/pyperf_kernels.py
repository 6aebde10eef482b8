"""The kernels as a script of pyperf's, which runs itself again in its worker processes."""

from __future__ import annotations

import pyperf

from benchmarks.kernels import KERNELS

__all__ = ["main"]


def main() -> None:
    """Time each kernel by pyperf's own defaults."""
    runner = pyperf.Runner(program_args=("-m", "benchmarks.pyperf_kernels"))
    for name, function in KERNELS.items():
        runner.bench_func(name, function)


if __name__ == "__main__":
    main()
