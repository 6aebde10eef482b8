"""``jobrunner run --engine`` and ``jobrunner doctor --engine``: a batch on a real cluster, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters import DaskCluster, RayCluster, environment, free_port


def _command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobrunner", *arguments],
        cwd=directory,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_batch_runs_on_the_cluster_with_a_module_that_only_the_caller_has(
    engine: str, lasting: DaskCluster | RayCluster, tmp_path: Path
) -> None:
    (tmp_path / "simulation.py").write_text("def square(x):\n    return x * x\n")
    where = ("--engine", engine, "--address", lasting.address)
    ran = _command(tmp_path, "run", "simulation:square", "-p", "x=1:20", *where, "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["done"], found["failed"]) == (20, 0)
    again = _command(tmp_path, "run", "simulation:square", "-p", "x=1:25", *where, "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert (found["done"], found["skipped"]) == (25, 20)


def test_a_spec_names_its_cluster_and_the_modules_that_its_jobs_import(
    engine: str, lasting: DaskCluster | RayCluster, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "simulation.py").write_text("def run(x):\n    import model\n\n    return model.double(x)\n")
    text = '[batch]\ntarget = "simulation.py:run"\n[sweep]\nx = [1, 2]\n[options]\nupload = ["model.py"]\n'
    spec = tmp_path / "batch.toml"
    spec.write_text(f'{text}engine = "{engine}"\naddress = "{lasting.address}"\n')
    (tmp_path / "elsewhere").mkdir()
    ran = _command(tmp_path / "elsewhere", "run", "../batch.toml", "--json")
    assert ran.returncode == 0, ran.stderr
    assert [point["result"] for point in json.loads(ran.stdout)["results"]] == [2, 4]
    refused = _command(tmp_path / "elsewhere", "run", "../batch.toml", "--memory-limit", "900TB", "--fresh")
    assert refused.returncode == 2, refused.stderr
    assert "what the largest node" in refused.stderr


def test_doctor_shows_the_cluster(engine: str, lasting: DaskCluster | RayCluster, tmp_path: Path) -> None:
    ran = _command(tmp_path, "doctor", "--json", "--engine", engine, "--address", lasting.address)
    assert ran.returncode == 0, ran.stderr
    cluster = json.loads(ran.stdout)["cluster"]
    assert len(cluster["nodes"]) == 2
    assert all(node["cores"] == 1 and node["differs"] == [] for node in cluster["nodes"].values())
    shown = _command(tmp_path, "doctor", "--engine", engine, "--address", lasting.address)
    assert "cluster at" in shown.stdout


def test_no_cluster_is_told_in_one_line_with_exit_code_3(engine: str, tmp_path: Path) -> None:
    (tmp_path / "simulation.py").write_text("def square(x):\n    return x * x\n")
    where = ("--engine", engine, "--address", f"127.0.0.1:{free_port()}")
    for command in (("run", "simulation:square", "-p", "x=1:3"), ("doctor",)):
        ran = _command(tmp_path, *command, *where)
        assert ran.returncode == 3, ran.stderr
        assert "answers at" in ran.stderr
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(("kind", "where", "words"), [
    ("dask", (), "no Dask cluster is named"),
    ("dask", ("--address", "127.0.0.1"), "has no port"),
    ("dask", ("--address", "http://127.0.0.1:8787"), "http is of its dashboard"),
    ("ray", ("--address", "127.0.0.1"), "has no port"),
    ("ray", ("--address", "tcp://127.0.0.1:6379"), "is no address of a Ray cluster"),
    ("ray", ("--address", "ray://127.0.0.1:10001"), "is of Ray Client, which is not supported"),
])  # fmt: skip
def test_what_is_no_address_is_told_in_one_line_with_exit_code_2(
    kind: str, where: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    pytest.importorskip("distributed" if kind == "dask" else "ray")
    (tmp_path / "simulation.py").write_text("def square(x):\n    return x * x\n")
    ran = _command(tmp_path, "run", "simulation:square", "-p", "x=1:3", "--engine", kind, *where)
    assert ran.returncode == 2, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert words in line
    assert "pip install" not in line
