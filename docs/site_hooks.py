"""What the site has beyond docs/: pages that stand at the repository's top, and the examples that pages link to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

__all__ = ["on_files", "on_page_markdown"]

_ROOT = Path(__file__).resolve().parents[1]

#: Pages of the site that are files at the top, where other tools look for them.
_TOP = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security-policy.md"}

_LINK = re.compile(r"\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages at the top, and what examples there are."""
    for name, page in _TOP.items():
        text = (_ROOT / name).read_text(encoding="utf-8")
        # Links there are relative to the top.
        text = re.sub(r"\]\(docs/", "](", re.sub(r"\]\((?!docs/|https?:|#)", "](../", text))
        files.append(File.generated(config, page, content=text))
    for path in sorted((_ROOT / "examples").rglob("*")):
        if path.suffix in (".py", ".toml"):
            name = path.relative_to(_ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Have links out of docs/ lead to what `on_files` has added; to directories there are none."""

    def here(match: re.Match[str]) -> str:
        target, anchor = match.group(1), match.group(2) or ""
        target = _TOP.get(target, target)
        if files.get_file_from_path(target) is not None:
            return f"]({target}{anchor})"
        return "]()" if (_ROOT / target).is_dir() else match.group(0)

    if "/" in page.file.src_uri:
        return markdown
    return re.sub(r"\[([^\]]+)\]\(\)", r"\1", _LINK.sub(here, markdown))
