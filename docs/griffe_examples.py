"""The docstrings' "Example:" as a section of examples: griffe knows "Examples:" only, and else shows a box."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["ExampleSections"]


class ExampleSections(griffe.Extension):
    """Renames the section in what is shown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Look at an object that has just been read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
