"""The recipes of docs/cluster.md for other executors, with those libraries that are installed."""

from __future__ import annotations

import concurrent.futures
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobrunner import PrimitiveJob, gather

pytestmark = pytest.mark.filterwarnings("default")


def _check(executor: concurrent.futures.Executor, name: str) -> None:
    jobs = [PrimitiveJob(pow, number, 2) for number in range(5)]
    for job in jobs:
        job.submit(executor)
    assert gather(jobs) == [0, 1, 4, 9, 16]
    assert jobs[0].report().backend == name


def test_dasks_own_executor() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        _check(client.get_executor(), "ClientExecutor")


def test_executorlibs_executor() -> None:
    executorlib = pytest.importorskip("executorlib")
    with executorlib.SingleNodeExecutor(max_workers=2) as executor:
        _check(executor, "SingleNodeExecutor")


def test_parsls_executor(tmp_path: Path) -> None:
    pytest.importorskip("parsl")
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor

    config = Config(executors=[ThreadPoolExecutor(max_threads=2)], run_dir=str(tmp_path))
    with ParslPoolExecutor(config) as executor:
        _check(executor, "ParslPoolExecutor")


def test_mpis_executor(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("no mpiexec")
    script = tmp_path / "script.py"
    script.write_text(
        "from mpi4py.futures import MPIPoolExecutor\n"
        "from jobrunner import PrimitiveJob\n"
        "if __name__ == '__main__':\n"
        "    with MPIPoolExecutor() as executor:\n"
        "        job = PrimitiveJob(pow, 2, 10)\n"
        "        job.submit(executor)\n"
        "        print(job.result())\n"
    )
    ran = subprocess.run(
        [launcher, "-n", "2", sys.executable, "-m", "mpi4py.futures", str(script)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.stdout == "1024\n", ran.stderr
