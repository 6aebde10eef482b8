"""The guides in docs/ say what is true: each block runs, in the page's order, and prints what is shown under it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks, pattern, shell_variables

# A page runs real batches, benchmarks and clusters, on whatever machine it is; what takes longer hangs.
pytestmark = pytest.mark.timeout(400)
_LONGEST_S = 300

OVERNIGHT = "overnight.md"

#: The pages whose blocks are run, each with the package that it needs besides.
PAGES: dict[str, str | None] = {
    "index.md": None,
    "tutorial.md": None,
    "cancelling.md": None,
    "memory.md": "numpy",
    "seeds.md": "numpy",
    "dead-jobs.md": None,
    "command-line.md": None,
    "lanes.md": None,
    "security.md": None,
    "architecture.md": None,
    "benchmarking.md": None,
    "qiskit.md": "qiskit",
    "cluster.md": "distributed",
    "asyncio.md": "trio",
    "joblib.md": "sklearn",
    "notebooks.md": "tqdm",
}


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a shell in which this interpreter and this checkout's `jobrunner` are found first."""
    # A worker of Dask's that is ended in the midst of a heartbeat says so, now and then.
    variables = {**shell_variables(tmp_path, 110), "DASK_LOGGING__DISTRIBUTED": "critical"}
    if "PYTHONWARNINGS" in variables:
        # A scheduler warns of another one on this machine, as other tests start them.
        variables["PYTHONWARNINGS"] += ",ignore:Port 8787 is already in use"
    return variables


def _comparable(output: str) -> str:
    """It without what differs between runs: times, dates, pids, machines, seconds, and the width of columns."""
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "<time>", output)
    text = re.sub(r"\S+ pid \d+", "# pid #", text)
    text = re.sub(r"\b\d+(\.\d+)? s\b", "# s", text)
    return "\n".join(re.sub(" {2,}", " ", line.rstrip()) for line in text.strip("\n").splitlines())


def test_the_page_has_commands_their_output_and_nothing_too_wide() -> None:
    guide = _page(OVERNIGHT)
    found = blocks(guide)
    assert {block.language for block in found} == {"python", "sh"}
    assert sum(block.output is not None for block in found) >= 15
    code = "".join(block.code for block in found)
    for command in ("run", "status", "results", "failures", "logs", "list", "report"):
        assert f"jobrunner {command}" in code
    assert max(map(len, guide.splitlines())) <= 125


def test_what_is_left_out_of_an_output_may_be_anything_and_the_rest_must_be_there() -> None:
    assert re.fullmatch(pattern(_comparable("a\n...\nz ...\n")), _comparable("a\nb\nc\nz 1\n"))
    assert re.fullmatch(pattern(_comparable("a\n...\nz\n")), _comparable("a\nb c\nz\n"))
    assert not re.fullmatch(pattern(_comparable("a\n...\nz\n")), _comparable("a\nb\n"))
    assert not re.fullmatch(pattern(_comparable("a 1.5 s\n")), _comparable("a 1.5 m\n"))


def _run_page(name: str, directory: Path, environment: dict[str, str]) -> None:
    directory.mkdir()
    for block in blocks(_page(name)):
        if block.language not in ("python", "sh"):
            continue
        where = f"docs/{name}:{block.line}"
        if ".dataframe()" in block.code and importlib.util.find_spec("pandas") is None:
            compile(block.code, where, "exec")
            continue
        if block.language == "python":
            (directory / "example.py").write_text(block.code, encoding="utf-8")
            command = [sys.executable, "example.py"]
        else:
            # What it has started in the background is to be over before the next block, whose output shows it.
            command = ["sh", "-c", f"{block.code}\nended=$?\nwait\nexit $ended"]
        ran = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST_S,
        )
        assert ran.returncode == block.exit_code, f"{where}: {ran.stdout}"
        shown, printed = block.output or "", _comparable(ran.stdout)
        assert re.fullmatch(pattern(_comparable(shown)), printed), f"{where}: {ran.stdout}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_is_true(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    needed = PAGES[page]
    if needed is not None:
        pytest.importorskip(needed)
    _run_page(page, tmp_path / "reader", environment)


def test_every_page_with_code_is_run_by_a_test_here() -> None:
    with_code = {
        page.name
        for page in (ROOT / "docs").rglob("*.md")
        if any(block.language in ("python", "sh") for block in blocks(page.read_text(encoding="utf-8")))
    }
    assert with_code <= {*PAGES, OVERNIGHT}


def test_the_guide_to_overnight_batches_says_what_is_true(tmp_path: Path, environment: dict[str, str]) -> None:
    directory = tmp_path / "reader"
    _run_page(OVERNIGHT, directory, environment)
    assert "<html" in (directory / "percolation.html").read_text(encoding="utf-8")
    # The script for a cluster runs without one.
    script = subprocess.run(
        ["sh", "overnight.sh"], cwd=directory, env=environment, capture_output=True, text=True, timeout=_LONGEST_S
    )
    assert script.returncode == 0, script.stderr
    assert "0 done, 0 failed, 270 done before" in script.stderr
