"""What code a batch runs, so that a resume notices when it is another.

Told apart are the function itself, whose change means that old and new results don't belong together, and what may or
may not matter: other code in its file, versions of packages, the revision of the repository.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import platform
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from jobrunner.batch.columns import to_json
from jobrunner.packages import version_of

__all__ = ["CodeIdentity", "identify"]

#: Seconds that git may take to tell a revision.
_GIT_PATIENCE_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeIdentity:
    """What identifies the code of a batch.  What can't be known is None.

    Attributes:
        module: the function's module.
        qualname: its qualified name.
        function_digest: SHA-256 of its source without comments and layout; of its byte code where there is no source.
        file: the file that it is in.
        file_digest: SHA-256 of that file.
        python: the version of Python.
        packages: versions of the packages that are imported, by name.
        git_revision: the commit of the repository that the file is in.
    """

    module: str
    qualname: str
    function_digest: str | None
    file: str | None
    file_digest: str | None
    python: str
    packages: Mapping[str, str]
    git_revision: str | None

    def as_dict(self) -> dict[str, Any]:
        """The fields, as `json.dumps` takes them."""
        return dataclasses.asdict(self)

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """How the function differs from what it was, a phrase each.

        Args:
            before: `as_dict` of then.
        """
        found = []
        if self.qualname != before.get("qualname"):
            found.append(f"the function is {self.qualname}(), and was {before.get('qualname')}()")
        elif self.function_digest != before.get("function_digest"):
            found.append(f"the source of {self.qualname}() has changed")
        return found

    def warnings(self, before: Mapping[str, Any]) -> list[str]:
        """What else differs, a phrase each."""
        found = []
        if self.file_digest != before.get("file_digest") and not self.changes(before):
            found.append(f"other code in {Path(self.file).name if self.file else 'its file'} has changed")
        if self.python != before.get("python"):
            found.append(f"Python is {self.python}, and was {before.get('python')}")
        packages = before.get("packages") or {}
        found += [
            f"{name} is {version}, and was {packages[name]}"
            for name, version in sorted(self.packages.items())
            if name in packages and packages[name] != version
        ]
        revision = before.get("git_revision")
        if self.git_revision != revision and self.git_revision and revision:
            found.append(f"the git revision is {self.git_revision[:10]}, and was {revision[:10]}")
        return found


def identify(function: Callable[..., Any]) -> CodeIdentity:
    """The identity of a function's code.

    Example:
        >>> import json
        >>> identify(json.dumps).module
        'json'
    """
    function = inspect.unwrap(function)
    named = function
    while isinstance(named, functools.partial):
        named = inspect.unwrap(named.func)
    file = _file(named)
    return CodeIdentity(
        module=str(getattr(named, "__module__", None)),
        qualname=str(getattr(named, "__qualname__", type(named).__qualname__)),
        function_digest=_function_digest(function),
        file=str(file) if file is not None else None,
        file_digest=_file_digest(file),
        python=platform.python_version(),
        packages=_packages(),
        git_revision=_git_revision(file),
    )


def _function_digest(function: Callable[..., Any], seen: frozenset[int] = frozenset()) -> str | None:
    """What tells a callable from another: its source, and what it has been given to work with.

    Args:
        function: the callable.
        seen: ids of callables that this one was reached from, which are not gone through again.
    """
    seen |= {id(function)}
    if isinstance(function, functools.partial):
        text = str(_function_digest(inspect.unwrap(function.func), seen))
        given: list[Any] = [function.args, function.keywords]
    else:
        source = _source(function)
        if source is None:
            return None
        text = source
        given = [getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)]
        for cell in getattr(function, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # not filled yet
                given.append(cell.cell_contents)
        if inspect.ismethod(function):
            given.append(getattr(function.__self__, "__dict__", None))
        elif not isinstance(function, type) and not inspect.isroutine(function):
            given.append(getattr(function, "__dict__", None))
    parts = [text, *(_state(value, seen) for value in given)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _source(function: Callable[..., Any]) -> str | None:
    """The source without comments and layout; the byte code where there is no source; None where there is neither."""
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = type(function)  # an instance that can be called
    if isinstance(function, type):
        # With the classes of its own package that it inherits from.
        package = function.__module__.partition(".")[0]
        bases = [base for base in function.__bases__ if base.__module__.partition(".")[0] == package]
        own = _source_alone(function)
        return None if own is None else "\0".join([own, *(str(_source(base)) for base in bases)])
    return _source_alone(function)


def _source_alone(function: Callable[..., Any]) -> str | None:
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return _code_bytes(code).hex() if isinstance(code, CodeType) else None
    try:
        # Comments, layout and line numbers are not in it.
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):  # a lambda amid an expression
        return source


def _state(value: Any, seen: frozenset[int]) -> str:
    """What a callable works with, as text that is the same in another process."""
    if callable(value):
        return "" if id(value) in seen else str(_function_digest(inspect.unwrap(value), seen))
    if isinstance(value, Mapping):
        return "".join(f"{key}={_state(each, seen)};" for key, each in value.items())
    if isinstance(value, (list, tuple)) and any(map(callable, value)):
        return "".join(_state(each, seen) for each in value)
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):  # an array, which may be large
        return f"{value.dtype}{getattr(value, 'shape', ())}{hashlib.sha256(value.tobytes()).hexdigest()}"
    # What has no JSON form stands as its repr, which may have an address.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", json.dumps(to_json(value), sort_keys=True))


def _code_bytes(code: CodeType) -> bytes:
    parts = [code.co_code, repr(code.co_names).encode(), repr(code.co_varnames).encode()]
    parts += [_code_bytes(each) if isinstance(each, CodeType) else repr(each).encode() for each in code.co_consts]
    return b"\0".join(parts)


def _file(function: Callable[..., Any]) -> Path | None:
    try:
        found = inspect.getsourcefile(function) or inspect.getfile(function)
    except TypeError:
        found = getattr(sys.modules.get(getattr(function, "__module__", "") or ""), "__file__", None) or ""
    path = Path(found)
    return path.resolve() if found and path.is_file() else None


def _file_digest(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _packages() -> dict[str, str]:
    """The packages that are imported, with their versions."""
    versions = {}
    for name in sorted({name.partition(".")[0] for name in list(sys.modules)} - set(sys.stdlib_module_names)):
        if name.startswith("_"):
            continue
        found = version_of(name)
        if found is not None:
            versions[name] = found
        else:
            with contextlib.suppress(Exception):  # a module may compute it, and fail
                version = getattr(sys.modules.get(name), "__version__", None)
                if isinstance(version, str):
                    versions[name] = version
    return versions


def _git_revision(file: Path | None) -> str | None:
    if file is None:
        return None
    command = ["git", "-C", str(file.parent), "rev-parse", "--verify", "HEAD"]
    try:
        found = subprocess.run(  # noqa: S603 - the arguments are ours, and a path
            command, capture_output=True, text=True, timeout=_GIT_PATIENCE_S, stdin=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
