"""Standard streams that are shared with the jobs, closed or full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobrunner.batch.store import Store

_SIM = """
def chatty(x):
    print("hello from", x)
    return quiet(x)

def quiet(x):
    return {"square": x * x}
"""


def _run(directory: Path, redirection: str, function: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "sim.py").write_text(_SIM)
    command = " ".join(
        [f"'{sys.executable}'", "-m", "jobrunner", "run", f"sim.py:{function}", "-p", "x=1:3", *arguments]
    )
    return subprocess.run(
        ["/bin/sh", "-c", f"{command} {redirection}"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_jobs_print_does_not_mix_with_the_json_document(tmp_path: Path) -> None:
    ran = _run(tmp_path, "", "chatty", "--json")
    document = json.loads(ran.stdout)
    assert [result["result"]["square"] for result in document["results"]] == [1, 4, 9]
    assert "hello from" not in ran.stderr
    with Store(tmp_path / "jobrunner.db") as store:
        printed = [point.stdout for point in store.points(store.batch(), output=True)]
    assert all(text is not None and text.count("hello from") == 1 for text in printed)
    assert len(printed) == 3


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_standard_output_is_said_in_one_line_with_exit_code_3(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ran = _run(tmp_path, ">/dev/full", "quiet", *arguments)
    assert ran.returncode == 3
    assert "the results can't be printed: No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_standard_stream_is_as_good_as_the_null_device(tmp_path: Path, redirection: str) -> None:
    ran = _run(tmp_path, redirection, "chatty", "--output", "results.jsonl")
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


def test_a_spec_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "sim.py").write_text(_SIM)
    (tmp_path / "batch.toml").write_text(
        '[batch]\ntarget = "sim.py:chatty"\n[sweep]\nx = [1, 2]\n', encoding="utf-8-sig"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "jobrunner", "run", "batch.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
