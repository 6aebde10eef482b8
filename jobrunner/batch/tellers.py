"""Where the progress of a batch is told, other than on a terminal: a notebook, a tqdm bar, a function of the user's."""

from __future__ import annotations

import functools
import html
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = ["Teller", "in_notebook", "is_tqdm", "make_teller", "misuse", "open_tqdm"]


class Teller(Protocol):
    """Is told how far a batch is."""

    def tell(self, ended: int, failed: int, total: int | None, left: str) -> None:
        """So many points have ended, of which so many have failed, of so many (None: not known).

        `left` is the time left, for people.
        """

    def close(self) -> None:
        """There is nothing more to tell."""


def in_notebook() -> bool:
    """Whether this is the kernel of a Jupyter notebook, which shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def is_tqdm(mode: object) -> TypeGuard[Callable[..., Any]]:
    """Whether it is a class of tqdm's, or one that is made alike, or a `functools.partial` of one, with its options."""
    kind = _without_options(mode)
    return isinstance(kind, type) and hasattr(kind, "update") and hasattr(kind, "set_postfix_str")


def misuse(mode: object) -> str | None:
    """Why what is callable can't be told of progress, in words; None: it can."""
    if not isinstance(mode, type) and is_tqdm(type(mode)):
        return "a bar: give the class, or a functools.partial of it"
    called = _without_options(mode)
    if inspect.iscoroutinefunction(called):
        return f"the coroutine function {called!r}, for which nobody would wait"
    if callable(called) and inspect.iscoroutinefunction(type(called).__call__):
        return f"{called!r}, whose __call__ is a coroutine function, for which nobody would wait"
    if inspect.isfunction(called) and called.__module__.partition(".")[0] == "tqdm":
        return f"tqdm's {called.__name__}, which makes a bar of its own: give the class tqdm"
    return None


def _without_options(mode: object) -> object:
    """What a `functools.partial` calls; anything else as it is."""
    while isinstance(mode, functools.partial):
        mode = mode.func
    return mode


def open_tqdm(kind: Callable[..., Any], name: str, **options: Any) -> Any:
    """A bar of what `is_tqdm` takes for a class; `name` stands before it, unless a partial names another text."""
    given = kind.keywords if isinstance(kind, functools.partial) else {}
    return kind(**{"desc": name, **given, **options})


def make_teller(mode: object, name: str) -> Teller | None:
    """What is to be told, beside a terminal.

    Args:
        mode: as of `Batch.run`.
        name: the batch's name.

    Returns:
        None where the mode names nothing of the kind.
    """
    if is_tqdm(mode):
        return _TqdmTeller(mode, name)
    if callable(mode):
        return _FunctionTeller(mode)
    if mode in (None, True) and in_notebook():
        return _NotebookTeller(name)
    return None


class _FunctionTeller:
    def __init__(self, function: Callable[[int, int, int | None], object]) -> None:
        self._function = function

    def tell(self, ended: int, failed: int, total: int | None, left: str) -> None:
        self._function(ended, failed, total)

    def close(self) -> None:
        return


class _TqdmTeller:
    """A bar of a class of tqdm's: for a terminal, a notebook, a chat."""

    def __init__(self, kind: Callable[..., Any], name: str) -> None:
        self._kind = kind
        self._name = name
        self._bar: Any = None

    def tell(self, ended: int, failed: int, total: int | None, left: str) -> None:
        if self._bar is None:
            # tqdm's rate counts from here.
            self._bar = open_tqdm(self._kind, self._name, total=total, initial=ended)
        if failed:
            self._bar.set_postfix_str(f"{failed} failed", refresh=False)
        self._bar.total = total
        self._bar.update(ended - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _NotebookTeller:
    """A bar below the cell, which takes nothing but IPython, and leaves when the batch is over."""

    def __init__(self, name: str) -> None:
        self._name = html.escape(name)
        self._handle: Any = None

    def tell(self, ended: int, failed: int, total: int | None, left: str) -> None:
        self._show(
            f"<div>{self._name} <progress value='{ended}' max='{max(total or 1, 1)}'></progress> "
            f"{ended}/{total}, {failed} failed, ETA {left}</div>"
        )

    def close(self) -> None:
        if self._handle is not None:
            self._show("")

    def _show(self, text: str) -> None:
        from IPython import display

        shown: Any = display
        if self._handle is None:
            self._handle = shown.display(shown.HTML(text), display_id=True)
        else:
            self._handle.update(shown.HTML(text))
