"""Blocks of code in a page of documentation, and the shell in which a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Block", "blocks", "pattern", "shell_variables"]

ROOT = Path(__file__).resolve().parents[1]


class Block(NamedTuple):
    """A block of code in a page.

    Attributes:
        language: its language.
        code: the code.
        line: the line that it begins at.
        exit_code: what it exits with: the comment ``<!-- exits with 1 -->`` above it says so.
        output: the output that is shown under it, if any.
    """

    language: str
    code: str
    line: int
    exit_code: int
    output: str | None


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in its order."""
    found: list[Block] = []
    pattern = r"^(?:<!-- exits with (\d+) -->\n)?```(\w*)\n(.*?)^```$"
    for match in re.finditer(pattern, page, re.MULTILINE | re.DOTALL):
        exit_code, language, code = match.groups()
        if language == "text":
            found[-1] = found[-1]._replace(output=code)
        else:
            line = page.count("\n", 0, match.start()) + 1
            found.append(Block(language, code, line, int(exit_code or 0), None))
    return found


def pattern(shown: str) -> str:
    """What matches an output that is shown with `...` for what is left out: in a line, or lines between two."""
    return "\n".join(
        r"(?:.*\n)*.*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) for line in shown.splitlines()
    )


def shell_variables(directory: Path, columns: int) -> dict[str, str]:
    """The variables of a shell in which this interpreter and this checkout's `jobrunner` are found first.

    Args:
        directory: where its commands go.
        columns: the width of its terminal.
    """
    commands = directory / "bin"
    commands.mkdir()
    for name, arguments in (("python", ""), ("jobrunner", "-m jobrunner")):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns)}
