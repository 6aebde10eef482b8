"""A real browser without a window, and a reader of the pictures that it takes."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

__all__ = ["Browser", "Picture", "browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")


class Picture:
    """A PNG of eight bits a channel, RGB or RGBA, not interlaced: what Chromium writes.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        place, packed = 8, b""
        while place < len(data):
            (length,) = struct.unpack(">I", data[place : place + 4])
            kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
            if kind == b"IHDR":
                self.width, self.height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
                assert depth == 8 and colour in (2, 6) and interlaced == 0
                self._channels = 3 if colour == 2 else 4
            elif kind == b"IDAT":
                packed += body
            place += length + 12
        self._rows = self._unfilter(zlib.decompress(packed))

    def _unfilter(self, raw: bytes) -> list[bytearray]:
        size, step = self.width * self._channels, self._channels
        rows: list[bytearray] = []
        before = bytearray(size)
        for start in range(0, len(raw), size + 1):
            row = bytearray(raw[start + 1 : start + 1 + size])
            filtered = raw[start]
            for place in range(size if filtered else 0):
                left = row[place - step] if place >= step else 0
                above = before[place]
                corner = before[place - step] if place >= step else 0
                if filtered == 1:
                    guess = left
                elif filtered == 2:
                    guess = above
                elif filtered == 3:
                    guess = (left + above) // 2
                else:
                    _, _, guess = min(
                        (abs(above - corner), 0, left),
                        (abs(left - corner), 1, above),
                        (abs(left + above - 2 * corner), 2, corner),
                    )
                row[place] = (row[place] + guess) & 255
            rows.append(row)
            before = row
        return rows

    def colour(self, x: int, y: int) -> tuple[int, int, int]:
        """Red, green and blue of a pixel."""
        start = x * self._channels
        red, green, blue = self._rows[y][start : start + 3]
        return red, green, blue

    def colours(self) -> set[tuple[int, int, int]]:
        """All colours of every fourth row and column."""
        return {self.colour(x, y) for y in range(0, self.height, 4) for x in range(0, self.width, 4)}


class Browser:
    """Headless Chromium.

    Args:
        program: its path.
        profile: a directory of its own.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self._program = program
        self._profile = profile

    def _run(self, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                self._program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={self._profile}",
                *options,
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )

    def dom(self, page: Path, *, width: int = 1200) -> tuple[str, list[str]]:
        """The document after its scripts have run, and what the console has said."""
        ran = self._run(page, f"--window-size={width},900", "--dump-dom")
        return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]

    def picture(self, page: Path, into: Path, *, width: int, height: int, dark: bool) -> Picture:
        """What the page looks like."""
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        self._run(page, f"--window-size={width},{height}", f"--screenshot={into}", *scheme)
        return Picture(into)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """The browser that there is; without one the test is skipped."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(_NAMES)} is on the PATH")
    return Browser(program, tmp_path_factory.mktemp("profile"))
