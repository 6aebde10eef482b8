"""The function of a batch, named by text: ``module:function`` or ``path/to/sim.py:function``.

A module is looked for as Python does, the working directory first.  A file is imported as if its directory were the
script's: under its own name, with its neighbours importable.  Workers are given the caller's ``sys.path``, so they
import it again by that name, and what the module keeps (caches, tables) is kept per worker.  A file that has no
importable name (``sim.v2.py``), or the name of another module (``random.py``), travels by value instead.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from jobrunner.batch.points import did_you_mean
from jobrunner.errors import SpecError

__all__ = ["Target", "check_parameters", "load_target"]

_FORM = "expected module:function or path/to/file.py:function"

#: What the name of a module begins with that travels by value.
BY_VALUE = "_jobrunner_target_"

#: Parameters that a batch fills in itself, see `jobrunner.batch.seeds`.
_FILLED_IN = ("seed", "rng")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A function that was found by its name.

    Attributes:
        text: the name as it was given.
        function: the function.
        directory: what the name is relative to, for one that can be imported by it again; else None.
    """

    text: str
    function: Callable[..., Any]
    directory: str | None = None

    @property
    def name(self) -> str:
        """The function's own name, for titles and reports."""
        return str(getattr(self.function, "__name__", self.text))

    @property
    def sendable(self) -> Callable[..., Any]:
        """The function as it goes to workers, which may have been started before its directory was on the path."""
        module = sys.modules.get(getattr(self.function, "__module__", None) or "")
        origin = getattr(module, "__file__", None)
        if module is None or origin is None or module.__name__.startswith(BY_VALUE):
            return self.function
        root = Path(origin).resolve().parent
        for _ in range(module.__name__.count(".") + (Path(origin).name == "__init__.py")):
            root = root.parent
        return _Sent(self.function, str(root)) if str(root) in sys.path else self.function


class _Sent:
    """A function that is imported in a worker with its directory on the path."""

    def __init__(self, function: Callable[..., Any], place: str) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._place = place

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _receive, (self._place, cloudpickle.dumps(self._function))


def _receive(place: str, data: bytes) -> Callable[..., Any]:
    """In a worker: the function that was sent; its directory is on the path, also for what it imports later."""
    if place not in sys.path:
        # Taken off again after the job.
        sys.path.insert(0, place)
        importlib.invalidate_caches()
    return pickle.loads(data)  # type: ignore[no-any-return]  # noqa: S301 (our caller's, over a private channel)


def load_target(text: str, *, directory: str | os.PathLike[str] | None = None) -> Target:
    """Import the function that `text` names.

    Args:
        text: ``module:function`` or ``path/to/file.py:function``; the function may be ``Class.method``.
        directory: what a path is relative to, and where modules are looked for first; default the working directory.

    Raises:
        SpecError: the text has another form, there is no such module, file or attribute, importing it failed, or what
            it names can't be called.

    Example:
        >>> load_target("math:hypot").function(3.0, 4.0)
        5.0
    """
    base = Path(directory) if directory is not None else Path.cwd()
    place, colon, attribute = text.rpartition(":")
    if not colon or not place or not attribute:
        raise SpecError(f"{_FORM}, found {text!r}", key="target")
    if place.endswith(".py") or "/" in place or os.sep in place:
        module = _load_file(text, base / Path(place).expanduser())
    else:
        _prepend_path(base)
        module = _load_module(text, place, base)
    return Target(text=text, function=_attribute(text, module, attribute), directory=str(base.resolve()))


def check_parameters(target: Target, names: Iterable[str], common: Iterable[str] | None = None) -> None:
    """Check that the function can be called with parameters of these names.

    Args:
        target: the function.
        names: the parameters that points give.  ``seed`` and ``rng`` need not be among them.
        common: those of them that every point gives; default all.

    Raises:
        SpecError: the function has no such parameter, takes it by position only, or requires one that a point does not
            give.  A function that does not tell its signature (some written in C) passes.

    Example:
        >>> check_parameters(load_target("fnmatch:fnmatch"), ["name", "pattern"])
        Traceback (most recent call last):
        jobrunner.errors.SpecError: pattern: fnmatch() has no such parameter; it has name, pat; did you mean 'pat'?
    """
    try:
        parameters = inspect.signature(target.function).parameters.values()
    except (TypeError, ValueError):
        return
    by_name = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    by_position = {p.name for p in parameters if p.kind is p.POSITIONAL_ONLY}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = list(names)
    always = given if common is None else set(common)
    for name in given:
        if name in by_name or takes_any:
            continue
        if name in by_position:
            raise SpecError(f"{target.name}() takes it by position only; parameters are passed by name", key=name)
        has = f"it has {', '.join(by_name)}" if by_name else "it has none"
        raise SpecError(f"{target.name}() has no such parameter; {has}{did_you_mean(name, by_name)}", key=name)
    for parameter in parameters:
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if required and parameter.name not in always:
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise SpecError(
                    f"{target.name}() takes it by position only; parameters are passed by name", key=parameter.name
                )
            if parameter.name in given:
                raise SpecError(f"{target.name}() requires this parameter, and some points lack it", key=parameter.name)
            if parameter.name not in _FILLED_IN:
                raise SpecError(f"{target.name}() requires this parameter, and no value is given", key=parameter.name)


def _load_module(text: str, name: str, base: Path) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise SpecError(f"{name!r} is no module's name; {_FORM}, found {text!r}", key="target")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            neighbours = (path.stem for path in base.glob("*.py"))
            hint = did_you_mean(missing, {*neighbours, *sys.stdlib_module_names})
            raise SpecError(
                f"no module named {missing!r} (looked in {base} and sys.path){hint}", key="target"
            ) from None
        raise _import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _load_file(text: str, path: Path) -> ModuleType:
    if not path.is_file():
        hint = did_you_mean(path.name, (each.name for each in path.parent.glob("*.py")))
        raise SpecError(f"there is no file {str(path)!r} for {text!r}{hint}", key="target")
    path = path.resolve()
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():  # a file of a package, which may import its siblings by `from .`
        root, name = root.parent, f"{root.name}.{name}"
    known = sys.modules.get(name)
    if known is not None and _is_file(getattr(known, "__file__", None), path):
        return known
    _prepend_path(root)
    try:
        free = known is None and name not in sys.stdlib_module_names and "." not in path.stem
        found = importlib.util.find_spec(name) if free else None
        if found is not None and _is_file(found.origin, path):
            return importlib.import_module(name)
        # Its directory would now hide a module of that name from everybody.
        sys.path.remove(str(root))
        sys.path.append(str(root))
        return _load_by_value(path)
    except (Exception, SystemExit) as error:
        raise _import_failed(str(path), error) from error


def _load_by_value(path: Path) -> ModuleType:
    name = f"{BY_VALUE}{''.join(c if c.isalnum() else '_' for c in path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    cloudpickle.register_pickle_by_value(module)
    return module


def _is_file(name: str | None, path: Path) -> bool:
    return name is not None and os.path.exists(name) and os.path.samefile(name, path)


def _prepend_path(directory: Path) -> None:
    place = str(directory.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
    importlib.invalidate_caches()  # the file may be younger than the finder's listing of its directory


def _import_failed(name: str, error: BaseException) -> SpecError:
    """What an import raised, with the place in the user's code where it did."""
    file: str | None
    line: int | None
    if isinstance(error, SyntaxError):
        file, line, message = error.filename, error.lineno, error.msg
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__ and "importlib" not in frame.filename
        ]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (None, None)
        message = str(error)
    return SpecError(f"importing {name} failed: {type(error).__name__}: {message}", file=file, line=line, key="target")


def _attribute(text: str, module: ModuleType, attribute: str) -> Callable[..., Any]:
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            callables = [name for name, each in vars(found).items() if callable(each) and not name.startswith("_")]
            where = f"{module.__name__!r}" if found is module else repr(getattr(found, "__name__", attribute))
            raise SpecError(f"{where} has no {part!r}{did_you_mean(part, callables)}", key="target") from None
    if not callable(found):
        raise SpecError(f"{text!r} is {type(found).__name__}, which can't be called; expected a function", key="target")
    function: Callable[..., Any] = found
    return function
