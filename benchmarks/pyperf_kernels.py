"""The kernels as a script of pyperf's, which runs itself again in its worker processes."""

from __future__ import annotations

from typing import Any

import pyperf

from benchmarks.kernels import KERNELS

__all__ = ["main"]


def main() -> None:
    """Time the kernels by pyperf's own defaults; ``--kernel NAME`` only that one."""

    def pass_on(command: list[str], options: Any) -> None:
        if options.kernel:
            command += ["--kernel", options.kernel]

    runner = pyperf.Runner(program_args=("-m", "benchmarks.pyperf_kernels"), add_cmdline_args=pass_on)
    runner.argparser.add_argument("--kernel", choices=list(KERNELS))
    wanted = runner.parse_args().kernel
    for name, function in KERNELS.items():
        if wanted in (None, name):
            runner.bench_func(name, function)


if __name__ == "__main__":
    main()
