"""The package: what importing it costs, what it exports, which floor imports which, what a type checker sees."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import jobrunner

_PACKAGE = Path(jobrunner.__file__).parent

#: The floor of each module or package, by its name below `jobrunner`; the longest match counts.
_FLOORS = {
    "errors": 0, "status": 0, "lazy": 0, "packages": 0,
    "options": 1, "report": 1, "backend": 1, "serialization": 1, "messages": 1, "role": 1, "handover": 1,
    "execution": 1, "processes": 1, "streams": 1, "texts": 1, "memory": 1, "segments": 1, "received": 1,
    "anonymous_memory": 1, "parcel": 1, "sharing": 1, "job_ids": 1, "html": 1, "unbuffered": 1,
    "worker": 2, "executors": 2,
    "primitive_job": 3, "algorithm_job": 3, "waiting": 3, "cluster": 3,
    "storage": 1, "batch": 4, "bench": 4,
    "qiskit": 5, "joblib": 5, "cli": 5, "__main__": 5, "__init__": 6,
}  # fmt: skip


def _modules() -> list[str]:
    return sorted(
        ".".join(path.relative_to(_PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in _PACKAGE.rglob("*.py")
    )


def _floor(module: str) -> int:
    return _FLOORS[module.partition(".")[0] or "__init__"]


def _imports(module: str) -> list[tuple[str, int]]:
    """The modules of ours that a module imports when it runs, with the lines; not those for the type checker only."""
    path = _PACKAGE / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            names = [node.module or ""]
        found += [
            (name.removeprefix("jobrunner").lstrip("."), node.lineno)
            for name in names
            if name == "jobrunner" or name.startswith("jobrunner.")
        ]
    return found


@pytest.mark.parametrize("module", _modules())
def test_a_module_imports_from_floors_below_its_own_or_its_own_package(module: str) -> None:
    top = module.partition(".")[0]
    for imported, line in _imports(module):
        if not imported:
            continue  # `jobrunner` itself: names that it takes from below when asked
        other = imported.partition(".")[0]
        beside = _floor(imported) == _floor(module) and other in _SIDEWAYS.get(top, ())
        allowed = other == top or _floor(imported) < _floor(module) or beside
        assert allowed, f"{module}:{line} imports {imported}, which is not below it"


#: What may be imported from the same floor: values from values, jobs from jobs, and the worker's entry by its spawner.
_SIDEWAYS = {
    "report": ("status",),
    "options": ("memory",),
    "html": ("memory", "report", "status"),
    "memory": ("anonymous_memory", "processes"),
    "parcel": ("segments",),
    "serialization": ("parcel", "unbuffered"),
    "unbuffered": ("parcel",),
    "execution": ("parcel", "serialization"),
    "sharing": ("anonymous_memory", "messages", "parcel", "received", "segments", "serialization"),
    "segments": ("anonymous_memory",),
    "executors": ("worker",),
    "algorithm_job": ("primitive_job",),
    "waiting": ("primitive_job",),
    "bench": ("batch",),
    "__main__": ("cli",),
}


def test_the_workers_side_knows_nothing_of_the_callers() -> None:
    code = "import jobrunner.worker.serve, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    others = ("jobrunner.executors", "jobrunner.batch", "jobrunner.cli")
    assert [name for name in loaded if name.startswith(others)] == []
    assert {"rich", "click", "numpy", "asyncio", "loky", "psutil"}.isdisjoint(loaded)


@pytest.mark.parametrize(
    "code",
    ["import jobrunner", "from jobrunner import JobStatus, JobError", "import jobrunner; dir(jobrunner)"],
)
def test_importing_the_package_loads_nothing_heavy(code: str) -> None:
    code += "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = set(
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    )
    heavy = {
        "click", "rich", "numpy", "loky", "psutil", "cloudpickle", "asyncio", "multiprocessing", "qiskit", "dask",
        "distributed", "ray", "matplotlib", "sqlite3", "tomllib", "jobrunner.cli", "jobrunner.batch",
        "jobrunner.executors.local",
    }  # fmt: skip
    assert heavy.isdisjoint(loaded), sorted(heavy & loaded)


def test_using_an_inline_job_starts_no_thread_and_loads_no_cli() -> None:
    code = """
import sys, threading
from jobrunner import PrimitiveJob, InlineExecutor
job = PrimitiveJob(abs, -1); job.submit(InlineExecutor()); assert job.result() == 1
print(threading.active_count(), sorted({"click", "rich", "numpy"} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert output.split() == ["1", "[]"]


def test_every_exported_name_can_be_had_and_is_listed() -> None:
    for name in jobrunner.__all__:
        assert getattr(jobrunner, name) is not None
        assert name in dir(jobrunner)
    assert len(set(jobrunner.__all__)) == len(jobrunner.__all__)


def test_the_contracts_names_are_exported() -> None:
    names = {
        "BasePrimitiveJob", "PrimitiveJob", "AlgorithmJob", "JobStatus", "JOB_FINAL_STATES", "JobReport", "Backend",
        "LocalExecutor", "InlineExecutor", "JobFuture", "get_executor", "set_executor", "use_executor", "wait",
        "as_completed", "gather", "JobRunnerError", "JobError", "JobTimeoutError", "JobCancelledError",
        "SerializationError", "WorkerDiedError", "MemoryLimitExceeded", "TimeLimitExceeded", "ExecutorShutdownError",
        "SpecError", "StoreError", "DaskExecutor", "RayExecutor", "share", "register_joblib",
    }  # fmt: skip
    assert names <= set(jobrunner.__all__)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = jobrunner.Nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", _modules())
def test_every_module_exports_what_it_has_only(module: str) -> None:
    if module == "__main__":
        return
    if module.startswith("qiskit"):
        pytest.importorskip("qiskit")
    loaded = importlib.import_module(f"jobrunner.{module}" if module != "__init__" else "jobrunner")
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), name


def test_the_package_is_typed() -> None:
    assert (_PACKAGE / "py.typed").exists()


_TYPED = """
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from typing_extensions import assert_type
from jobrunner import (
    AlgorithmJob, Backend, InlineExecutor, JobFuture, JobReport, JobStatus, LocalExecutor, PrimitiveJob, as_completed,
    gather, get_executor, wait,
)

def f(x: int, *, y: str = "") -> float:
    return x + len(y)

job = PrimitiveJob(f, 1, y="a")
assert_type(job, PrimitiveJob[float])
assert_type(job.result(), float)
assert_type(job.result(timeout=5), float)
assert_type(job.status(), JobStatus)
assert_type(job.report(), JobReport)
assert_type(job.cancel(), bool)
assert_type(job.exception(), BaseException | None)
job.submit()
job.submit(ThreadPoolExecutor())
job.add_done_callback(lambda job: print(job.result() + 1.0))
algorithm = AlgorithmJob(f, 1)
assert_type(algorithm.result(), float)
assert_type(algorithm.backend(), Backend)
async def main() -> None:
    assert_type(await job, float)
executor = LocalExecutor(2)
assert_type(executor.submit(f, 1), JobFuture[float])
assert_type(executor.submit(f, 1).result(), float)
assert_type(InlineExecutor().submit(f, 1).result(), float)
assert_type(executor.with_options(time_limit=5), LocalExecutor)
for value in executor.map(f, [1]):
    assert_type(value, float)
with LocalExecutor() as inner:
    inner.submit(f, 1)
future: Future[float] = executor.submit(f, 1)
for done in as_completed([job]):
    assert_type(done, PrimitiveJob[float])
wait([job]).done
gather([job, algorithm])
"""

_WRONG = """
from jobrunner import LocalExecutor, PrimitiveJob
def f(x: int) -> float:
    return x
text: str = PrimitiveJob(f, 1).result()
LocalExecutor(time_limt=5)
from jobrunner import LocalExecutr
"""


def _mypy(directory: Path, source: str) -> tuple[int, str]:
    api = pytest.importorskip("mypy.api")
    snippet = directory / "snippet.py"
    snippet.write_text(source)
    options = ["--strict", "--config-file=", f"--cache-dir={directory / 'cache'}", "--python-version=3.10"]
    limit = sys.getrecursionlimit()
    try:
        output, errors, code = api.run([*options, str(snippet)])
    finally:
        sys.setrecursionlimit(limit)  # mypy raises it, for good
    return code, output + errors


def test_a_strict_type_checker_knows_the_result_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", str(_PACKAGE.parent))
    code, output = _mypy(tmp_path, _TYPED)
    own = [line for line in output.splitlines() if "snippet.py" in line]
    assert own == [], output
    code, output = _mypy(tmp_path, _WRONG)
    assert code == 1
    own = [line for line in output.splitlines() if "snippet.py" in line and "error" in line]
    assert len(own) == 3, output
    assert "float" in own[0]
    assert "time_limt" in own[1]
    assert "LocalExecutr" in own[2]
