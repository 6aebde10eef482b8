"""Files that are sent to the nodes, for their jobs to import."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobrunner.memory import format_bytes

__all__ = ["pack_uploads"]

#: All of it goes to each node: what is larger belongs to where the nodes find it themselves.
_MOST_BYTES = 1 << 28


def pack_uploads(paths: Sequence[Path]) -> list[tuple[str, bool, bytes]]:
    """What is to be sent: (name, whether it is an archive to unpack, content).

    Args:
        paths: Python files, directories of packages, and archives of such (``.zip``, ``.whl``).

    Raises:
        ValueError: one is none of these, or all are too much.
        OSError: one can't be read.
    """
    uploads = [_pack(path) for path in paths]
    size = sum(len(content) for _, _, content in uploads)
    if size > _MOST_BYTES:
        raise ValueError(
            f"upload: {format_bytes(size)} is more than the {format_bytes(_MOST_BYTES)} that are sent to each node: "
            "put it where the nodes find it"
        )
    return uploads


def _pack(path: Path) -> tuple[str, bool, bytes]:
    if not path.exists():
        raise FileNotFoundError(f"upload: there is no {path}")
    if path.is_dir():
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in _files(path):
                archive.write(file, Path(path.resolve().name) / file.relative_to(path))
        return path.resolve().name, True, packed.getvalue()
    if path.suffix in (".zip", ".whl"):
        content = path.read_bytes()
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            raise ValueError(f"upload: {path} is no zip archive ({error})") from error
        if damaged is not None:
            raise ValueError(f"upload: {damaged} in {path} is damaged")
        return path.name, True, content
    if path.suffix != ".py":
        raise ValueError(f"upload takes Python files, packages' directories, .zip and .whl, not {path}")
    return path.name, False, path.read_bytes()


def _files(directory: Path) -> Iterator[Path]:
    for file in sorted(directory.rglob("*")):
        parts = file.relative_to(directory).parts
        if file.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in parts):
            yield file
