"""In a notebook: what jobs and executors look like, a batch's progress, and what is left when the kernel goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

nbformat: Any = pytest.importorskip("nbformat")

from tests.core.process_table import await_death, is_alive  # noqa: E402

_SETUP = """
import os, signal
from jobrunner import Batch, LocalExecutor, PrimitiveJob, sweep
executor = LocalExecutor(2)
def scaled(x, by=10): return x * by
"""


def _run(*cells: str) -> Any:
    """A notebook of these cells, executed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return notebook


def _html(cell: Any) -> list[str]:
    return [output["data"]["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def test_jobs_and_executors_are_shown_as_tables(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = _run(
        _SETUP + "job = PrimitiveJob(scaled, 3); job.submit(executor); job.result()",
        "job",
        "executor",
        "dying = executor.submit(os._exit, 3)\ndying.exception()\ndying",
    )
    (job,), (pool,), (dying,) = (_html(cell) for cell in notebook.cells[1:])
    assert "PrimitiveJob: DONE" in job
    assert "<td>scaled</td>" in job
    assert "<td>max_workers</td><td>2</td>" in pool
    assert "JobFuture: ERROR" in dying
    assert "exit code 3" in dying


def test_a_batch_shows_a_bar_below_its_cell_and_takes_it_away(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = _run(
        _SETUP + "shown = []\nfrom IPython import display\nhtml = display.HTML\n"
        "display.HTML = lambda text: (shown.append(text), html(text))[1]",
        "batch = Batch(scaled, sweep(x=[1, 2, 3]), name='scaled <b>')\nbatch.run(executor).done",
        "print(shown[0]); print(shown[-2]); print(repr(shown[-1]))",
        "batch.run(executor, progress=False).skipped",
    )
    assert _html(notebook.cells[1]) == [""]
    first, last, gone = notebook.cells[2].outputs[0]["text"].splitlines()
    assert "scaled &lt;b&gt; <progress value='0' max='3'>" in first
    assert "<progress value='3' max='3'></progress> 3/3, 0 failed" in last
    assert gone == "''"
    assert _html(notebook.cells[3]) == []


def _printed(cell: Any) -> str:
    return "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")


def test_an_edited_module_is_run_by_new_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the guide says: `%autoreload` is for the kernel alone, and workers keep what they have imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edited.py").write_text("def version(_): return 'first'\n")
    edit = """
with open("edited.py", "w") as file: file.write("def version(_): return 'the second'\\n")
later = os.stat("edited.py").st_mtime + 10
os.utime("edited.py", (later, later))
"""
    notebook = _run(
        _SETUP + "import sys; sys.path.insert(0, '')\n%load_ext autoreload\n%autoreload 2\n"
        "import edited\nfrom jobrunner import get_executor",
        "print(*executor.map(edited.version, range(4)), get_executor().submit(edited.version, 0).result())" + edit,
        "executor.shutdown(); get_executor().shutdown()\nexecutor = LocalExecutor(2)",
        "print(edited.version(0), *executor.map(edited.version, range(4)), sep=', ')\n"
        "print(get_executor().submit(edited.version, 0).result())",
    )
    assert _printed(notebook.cells[1]) == "first first first first first\n"
    assert _printed(notebook.cells[3]) == ", ".join(["the second"] * 5) + "\nthe second\n"


def test_a_cell_waits_for_the_end_of_what_it_has_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = _run(
        _SETUP + "from jobrunner import wait",
        "job = executor.submit(signal.pause)\nwhile not job.running(): pass\n"
        "print(job.cancel()); wait([job]); print(job.status().name)",
    )
    assert _printed(notebook.cells[1]) == "True\nCANCELLED\n"


def test_a_cell_waits_in_a_thread_where_the_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = _run(
        _SETUP + "import asyncio\nfrom jobrunner import JobError\nfull = LocalExecutor(1, max_pending=1)",
        "try:\n    for _ in range(9): last = full.submit(signal.pause)\n"
        "except JobError as error: print(error)\nfull.shutdown(kill_workers=True)",
        "full = LocalExecutor(1, max_pending=1)\n"
        "jobs = [await asyncio.to_thread(full.submit, scaled, x) for x in range(9)]\n"
        "print([await job for job in jobs])",
    )
    assert "the queue is full (1 jobs wait: max_pending), and submit can't wait" in _printed(notebook.cells[1])
    assert _printed(notebook.cells[2]) == "[0, 10, 20, 30, 40, 50, 60, 70, 80]\n"


def test_a_kernel_that_is_restarted_leaves_no_process(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = nbformat.v4.new_code_cell(
        _SETUP + "running = executor.submit(signal.pause)\nwhile not running.running(): pass\n"
        "print(os.getpid(), running.report().pid, executor.submit(os.getpid).result())"
    )
    again = nbformat.v4.new_code_cell(_SETUP + "print(executor.submit(scaled, 4).result())")
    notebook = nbformat.v4.new_notebook(cells=[cell, again])
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    with client.setup_kernel():
        client.execute_cell(cell, 0)
        pids = [int(pid) for pid in cell.outputs[0]["text"].split()]
        assert all(is_alive(pid) for pid in pids)
        nbclient.util.run_sync(client.km.restart_kernel)(now=True)
        assert all(await_death(pid) for pid in pids)
        nbclient.util.run_sync(client.kc.wait_for_ready)(timeout=60)
        client.execute_cell(again, 1)
    assert again.outputs[0]["text"] == "40\n"
