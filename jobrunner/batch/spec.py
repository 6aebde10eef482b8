"""A batch described by a TOML file.

::

    [batch]
    target = "ising.py:simulate"          # module:function or file.py:function, relative to this file; required
    name = "ising"                        # default: this file's name without .toml
    seed = 1                              # default: drawn at random, and shown
    replicates = 1                        # how often each point is run, each time with a seed of its own
    points = "points.csv"                 # a .csv or .jsonl file of points, relative to this file; multiplied with the
                                          # parameters below
    store = "ising.db"                    # where results are kept, relative to this file

    [sweep]                               # the product of these
    size = [16, 32]
    temperature = "1.5:3.5:0.1"           # start:stop:step, the stop included if hit; any other text is one value

    [[zip]]                               # lists that advance together, multiplied with the sweep; may be repeated
    field = [0.0, 0.1]
    label = ["off", "on"]

    [fixed]                               # the same for every point, taken as it stands
    sweeps = 1000

    [options]
    time_limit = 60.0                     # seconds a job may take
    memory_limit = "2GiB"                 # memory that a job's processes may use
    retries = 0                           # further attempts when a worker died
    threads = 1                           # BLAS/OpenMP threads of a job
    grace = 0.0                           # seconds between a polite interrupt and the end of a job's processes
    max_failures = 10                     # so many points may fail before the batch stops
    stop_on_error = false                 # whether the first failure stops it
    workers = 4                           # how many jobs run at a time
    engine = "dask"                       # where they run: local (this machine), dask or ray
    address = "tcp://host:8786"           # of that cluster; default: as the engine finds it by itself
    upload = ["model.py"]                 # modules that jobs import on its nodes, relative to this file
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobrunner.batch.points import Points, did_you_mean, sweep, zip_points
from jobrunner.batch.points_file import read_points
from jobrunner.batch.values import canonical_json, looks_like_range, parse_range
from jobrunner.errors import SpecError
from jobrunner.options import JobOptions, UnboundedJobOptions, check_count

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ENGINES", "Spec", "load_spec"]

#: What a batch can be told to run on.
ENGINES = ("local", "dask", "ray")

_TABLES = ("batch", "sweep", "zip", "fixed", "options")
_BATCH_KEYS = ("target", "name", "seed", "replicates", "points", "store")
_JOB_KEYS = ("time_limit", "memory_limit", "retries", "threads", "grace")
#: More digits than Python reads as one number, unless told to.
_LONG_NUMBER = re.compile(r"[0-9_]{4300}")

_POLICY_KEYS = ("max_failures", "stop_on_error")
_PLACE_KEYS = ("workers", "engine", "address", "upload")
_OPTION_KEYS = (*_JOB_KEYS, *_POLICY_KEYS, *_PLACE_KEYS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a spec file says.

    Attributes:
        path: the file.
        target: ``module:function`` or ``file.py:function``, relative to the file's directory.
        name: the batch's name.
        seed: the batch's seed; None: one is to be drawn.
        replicates: how often each point is run, at least once.
        points: the points, those of a file and fixed parameters included.
        fixed: the fixed parameters.
        store: where results are kept, as an absolute path; None: not said.
        options: those of ``time_limit``, ``memory_limit``, ``retries``, ``threads`` and ``grace`` that the file gives,
            as `JobOptions` takes them.
        policy: those of ``max_failures`` (at least 1) and ``stop_on_error`` that the file gives.
        workers: how many jobs run at a time; None: not said.
        engine: where they run, one of `ENGINES`; None: not said.
        address: of that cluster; None: not said.
        upload: the files, as absolute paths, that jobs import on the nodes of a cluster.
        lines: for each parameter the line that it stands in, where that is known.
        target_line: the line that the target stands in.
    """

    path: Path
    target: str
    name: str
    seed: int | None
    replicates: int
    points: Points
    fixed: Mapping[str, Any]
    store: Path | None
    options: Mapping[str, Any]
    policy: Mapping[str, Any]
    workers: int | None
    engine: str | None
    address: str | None
    upload: tuple[Path, ...]
    lines: Mapping[str, int | None]
    target_line: int

    @property
    def directory(self) -> Path:
        """The directory that the target is relative to."""
        return self.path.resolve().parent

    def located(self, error: SpecError) -> SpecError:
        """`error` with the file, and its parameter's line, else that of the target, where it names no place itself."""
        if error.file is not None:
            return error
        line = self.lines.get(error.key or "") or self.target_line
        return _located(error, str(self.path), line)


def load_spec(path: str | os.PathLike[str], *, engine: str | None = None) -> Spec:
    """Read and check a spec file.  The target is not imported.

    Args:
        path: the TOML file.
        engine: what the jobs will run on, whatever the file says; None: what the file says, else this machine.  On this
            machine they can't be given more than it has.

    Raises:
        SpecError: the file can't be read or is no TOML, a key is unknown, missing or of the wrong type, or the points
            are wrong; with the file, the line where it is known, and what was expected.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "roots.toml")
        >>> _ = file.write_text('[batch]\\ntarget = "math:sqrt"\\n[sweep]\\nx = "0:1:0.5"\\n')
        >>> spec = load_spec(file)
        >>> spec.name, list(spec.points)
        ('roots', [{'x': 0.0}, {'x': 0.5}, {'x': 1.0}])
    """
    return _Reader(Path(path), engine).spec()


class _Reader:
    """One reading of one file: every error raised through it has the file and the line."""

    def __init__(self, path: Path, engine: str | None) -> None:
        self.path = path
        self.engine = engine
        try:
            self.text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise SpecError(f"can't be read: {error.strerror}", file=str(path)) from error
        except UnicodeDecodeError as error:
            raise SpecError("is no UTF-8 text; expected a TOML file", file=str(path)) from error
        try:
            self.document: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"at line (\d+)", str(error))
            line = int(place.group(1)) if place else self.text.count("\n") + 1
            raise SpecError(f"is no valid TOML: {error}", file=str(path), line=line) from error
        except ValueError as error:  # Python's bound on the digits of a whole number
            line = next((n for n, text in enumerate(self.text.splitlines(), 1) if _LONG_NUMBER.search(text)), 1)
            raise SpecError(f"has a number that is too long: {error}", file=str(path), line=line) from error
        except RecursionError as error:
            raise SpecError(
                "is nested too deeply; expected lists and tables of a few levels", file=str(path)
            ) from error

    def spec(self) -> Spec:
        for table in self.document:
            if table not in _TABLES:
                raise self.wrong(f"unknown; a spec has {_listed(_TABLES)}{did_you_mean(table, _TABLES)}", None, table)
        batch = self.table("batch")
        self.check_keys("batch", batch, _BATCH_KEYS)
        if "target" not in batch:
            raise self.wrong("is required: module:function or file.py:function", "batch", "target")
        for key in ("target", "name", "points", "store"):
            if key in batch and not (isinstance(batch[key], str) and batch[key] and "\0" not in batch[key]):
                raise self.wrong(f"expected text, found {batch[key]!r}", "batch", key)
        seed = batch.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise self.wrong(f"expected a whole number, found {seed!r}", "batch", "seed")
        replicates = batch.get("replicates", 1)
        if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 1:
            raise self.wrong(f"expected a whole number of at least 1, found {replicates!r}", "batch", "replicates")
        points, lines = self.points()
        options = self.options()
        return Spec(
            path=self.path,
            target=batch["target"],
            name=batch.get("name", self.path.stem),
            seed=seed,
            replicates=replicates,
            points=points,
            fixed=self.table("fixed"),
            store=self.neighbour(batch["store"]) if "store" in batch else None,
            options={key: value for key, value in options.items() if key in _JOB_KEYS},
            policy={key: value for key, value in options.items() if key in _POLICY_KEYS},
            workers=options.get("workers"),
            engine=options.get("engine"),
            address=options.get("address"),
            upload=tuple(self.neighbour(name) for name in options.get("upload", ())),
            lines=lines,
            target_line=self.line("batch", "target"),
        )

    def points(self) -> tuple[Points, dict[str, int | None]]:
        swept, fixed, zipped = self.table("sweep"), self.table("fixed"), self.document.get("zip", [])
        if not isinstance(zipped, list) or not all(isinstance(group, dict) for group in zipped):
            raise self.wrong("expected [[zip]], a table of lists that may be repeated", None, "zip")
        if "sweep" in self.document and not swept:
            raise self.wrong("is empty: expected at least one parameter with its values", None, "sweep")
        lines: dict[str, int | None] = {}
        points = Points()
        if "points" in self.table("batch"):
            points = self.file_points(self.table("batch")["points"])
            lines.update(dict.fromkeys(points.names, self.line("batch", "points")))

        def add(table: str, make: Callable[..., Points], lists: Mapping[str, Any], place: int = 0) -> None:
            nonlocal points
            for key in lists:
                line = self.line(table, key, place)
                if key in lines:
                    known = f"the parameter is given twice (line {lines[key]})"
                    raise SpecError(known, file=str(self.path), line=line, key=key)
                lines[key] = line
            try:
                points *= make(**lists)
            except SpecError as error:
                line = self.line(table, error.key or next(iter(lists), None), place)
                raise _located(error, str(self.path), line) from error

        for key, value in swept.items():
            add("sweep", sweep, {key: self.values("sweep", key, value)})
        for place, group in enumerate(zipped):
            add("zip", zip_points, {key: self.values("zip", key, value, place) for key, value in group.items()}, place)
        if fixed:
            add("fixed", zip_points, {key: [self.checked("fixed", key, value)] for key, value in fixed.items()})
        return points, lines

    def file_points(self, name: str) -> Points:
        try:
            return read_points(self.neighbour(name))
        except SpecError as error:
            if error.line is not None:
                raise
            raise self.wrong(str(error), "batch", "points") from error

    def neighbour(self, name: str) -> Path:
        """The file that `name` names, relative to the spec file."""
        return self.path.resolve().parent / os.path.expanduser(name)  # not Path's, which raises for an unknown user

    def values(self, table: str, key: str, value: Any, place: int = 0) -> Any:
        """The values of one swept or zipped parameter: a list's items, a text range's numbers, else itself."""
        if isinstance(value, str) and looks_like_range(value):
            try:
                return parse_range(key, value)
            except SpecError as error:
                raise _located(error, str(self.path), self.line(table, key, place)) from error
        self.checked(table, key, value, place)
        return value if isinstance(value, list) else [value]

    def checked(self, table: str, key: str, value: Any, place: int = 0) -> Any:
        try:
            canonical_json(value)
        except TypeError as error:
            message = "expected numbers, text, booleans, lists or tables; dates and times can be given as text"
            raise self.wrong(f"{message} ({error})", table, key, place) from error
        except ValueError as error:
            raise self.wrong(f"expected finite numbers, found {value!r}", table, key, place) from error
        return value

    def options(self) -> dict[str, Any]:
        options = self.table("options")
        self.check_keys("options", options, _OPTION_KEYS)
        kind = JobOptions if self.place(options) == "local" else UnboundedJobOptions
        for key, value in options.items():
            if key in ("engine", "address", "upload"):
                continue
            if key == "stop_on_error":
                if not isinstance(value, bool):
                    raise self.wrong(f"expected true or false, found {value!r}", "options", key)
                continue
            try:
                if key in _JOB_KEYS:
                    kind(**{key: value})
                else:
                    check_count(key, value)
            except (TypeError, ValueError) as error:
                raise self.wrong(str(error), "options", key) from error
        if options.get("stop_on_error") and "max_failures" in options:
            raise self.wrong("is max_failures = 1: give one of the two", "options", "stop_on_error")
        return options

    def place(self, options: Mapping[str, Any]) -> str:
        """The engine that the jobs will run on, the file's own words about it checked."""
        named, address, upload = (options.get(key) for key in ("engine", "address", "upload"))
        if "engine" in options and named not in ENGINES:
            raise self.wrong(f"expected one of {_listed(ENGINES)}, found {named!r}", "options", "engine")
        if "address" in options and not (isinstance(address, str) and address):
            raise self.wrong(f"expected text, found {address!r}", "options", "address")
        names = upload if isinstance(upload, list) else [None]
        if "upload" in options and not all(isinstance(name, str) and name and "\0" not in name for name in names):
            raise self.wrong(f"expected a list of files, found {upload!r}", "options", "upload")
        for key in ("address", "upload"):
            if key in options and named not in ENGINES[1:]:
                raise self.wrong('is for a cluster: name it with engine = "dask" or "ray"', "options", key)
        return self.engine or named or "local"

    def table(self, name: str) -> dict[str, Any]:
        table = self.document.get(name, {})
        if not isinstance(table, dict):
            raise self.wrong(f"expected a table [{name}], found {table!r}", None, name)
        return table

    def check_keys(self, table: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in found:
            if key not in known:
                raise self.wrong(f"unknown; [{table}] has {_listed(known)}{did_you_mean(key, known)}", table, key)

    def wrong(self, message: str, table: str | None, key: str, place: int = 0) -> SpecError:
        return SpecError(message, file=str(self.path), line=self.line(table, key, place), key=key)

    def line(self, table: str | None, key: str | None, place: int = 0) -> int:
        """Where `key` of `table` (or the table `key` itself) stands, as far as plain lines tell.

        Args:
            table: the table's name; None if `key` is one.
            key: the key; None or unknown: the line of the table, or else the first line.
            place: which of the tables of that name, from 0.

        The TOML parser keeps no positions.  Inline tables are not searched: the line of their table is given then.
        """
        current: str | None = None
        seen = -1  # the place of the table of that name which was seen last
        fallback: int | None = None
        for number, text in enumerate(self.text.splitlines(), start=1):
            header = re.match(r"\s*\[\[?\s*([\w\"'. -]+?)\s*\]\]?\s*(#.*)?$", text)
            if header:
                current = header.group(1).strip("\"'")
                if table is None and current == key:
                    return number
                if current == table:
                    seen += 1
                    if seen == place:
                        fallback = number
                continue
            name = re.match(r"\s*([\w\"'. -]+?)\s*=", text)
            if name is None or (current is not None and current == table and seen != place):
                continue
            path = [part.strip().strip("\"'") for part in name.group(1).split(".")]
            if current is not None:
                path.insert(0, current)
            if path[: 2 if table is not None else 1] == ([table, key] if table is not None else [key]):
                return number
            if path[0] == table:
                fallback = fallback or number
        return fallback or 1


def _located(error: SpecError, file: str, line: int | None) -> SpecError:
    """`error`, which names no file, with its place."""
    message = str(error).removeprefix(f"{error.key}: ")
    return SpecError(message, file=file, line=line, key=error.key)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
