"""Real clusters on this machine, started by tests: a Dask scheduler with its workers, a Ray head with a second node."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobrunner.cluster.dask import DaskExecutor
from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.cluster.ray import RayExecutor

_ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A port of the loopback interface that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """That of a cluster's processes, which find the tests' modules."""
    # A node is not a lane of the caller's, and its threads are its own; what engines warn of is theirs.
    kept = (name for name in os.environ if not name.startswith("JOBRUNNER_") and name != "PYTHONWARNINGS")
    own = {name: os.environ[name] for name in kept}
    return {**own, "PYTHONPATH": str(_ROOT)}


class DaskCluster:
    """A scheduler, and workers, each a process of its own.

    Args:
        workers: how many workers to begin with.
        cpus: threads of each, which are the places for jobs.
        nanny: whether each is watched over by a nanny, which makes it a daemonic process.
    """

    def __init__(self, workers: int = 2, *, cpus: int = 1, nanny: bool = False) -> None:
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._cpus = cpus
        self._nanny = nanny
        self._logs = tempfile.TemporaryDirectory(prefix="jobrunner-test-dask-")
        self._made = 0
        self.scheduler = self._start_scheduler()
        self.workers = [self.add_worker() for _ in range(workers)]
        self.await_workers(workers)

    def _start(self, name: str, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        log = open(Path(self._logs.name) / f"{name}.log", "wb")  # noqa: SIM115 (it is the process's)
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment(), **variables},
                cwd=self._logs.name,
                start_new_session=True,
            )

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        return self._start(
            "scheduler", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port),
            "--no-dashboard", "--no-show",
        )  # fmt: skip

    def add_worker(self, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        """One more worker, with variables of its environment."""
        self._made += 1
        kind = "--nanny" if self._nanny else "--no-nanny"
        return self._start(
            f"worker-{self._made}", "distributed.cli.dask_worker", self.address, "--nthreads", str(self._cpus), kind,
            "--no-dashboard", "--memory-limit", "4GiB", "--name", f"worker-{self._made}", *options,
            **variables,
        )  # fmt: skip

    def restart_head(self) -> None:
        """A new scheduler where the old one was, and workers for it."""
        self.scheduler = self._start_scheduler()
        count = len(self.workers)
        self.workers = [self.add_worker() for _ in range(count)]
        self.await_workers(count)

    def await_workers(self, count: int) -> None:
        """Wait until so many workers are there, or only the scheduler."""
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            if count:
                client.wait_for_workers(count, timeout=60)

    def kill_node(self, description: Mapping[str, Any]) -> None:
        """End the process of a node by SIGKILL; those of its jobs have to go by themselves."""
        os.kill(description["pid"], signal.SIGKILL)

    def is_head(self, description: Mapping[str, Any]) -> bool:
        """Whether a node is one without which there is no cluster."""
        return False

    def kill_head(self) -> None:
        """End the scheduler by SIGKILL."""
        self.scheduler.kill()
        self.scheduler.wait()

    def log(self) -> str:
        """What all of them have said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(Path(self._logs.name).glob("*.log")))

    def close(self) -> None:
        """End all of them."""
        for process in [*self.workers, self.scheduler]:
            end_tree(process)
        self._logs.cleanup()


class RayCluster:
    """A head and a second node.

    Args:
        cpus: of each.
        configuration: of Ray's, as variables of its processes' environment.
    """

    def __init__(self, cpus: int = 1, **configuration: str) -> None:
        self._cpus = cpus
        self._configuration = configuration
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        # A Unix socket's path, which Ray makes below it, must be short.
        self._directory = tempfile.TemporaryDirectory(prefix="jr-ray-")
        self.head = self._start("--head", "--port", str(self.port), "--temp-dir", self._directory.name)
        self.node: subprocess.Popen[bytes] | None = None
        self.node = self.add_node()
        self._await_nodes()

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        log = open(Path(self._directory.name) / f"{len(options)}-{free_port()}.log", "wb")  # noqa: SIM115
        with log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--block",
                    "--num-cpus", str(self._cpus),
                    "--node-ip-address", "127.0.0.1", "--disable-usage-stats", "--object-store-memory", "200000000",
                    "--min-worker-port", "0", "--max-worker-port", "0", "--include-log-monitor", "false",
                    *(["--include-dashboard", "false"] if "--head" in options else []),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment(), **self._configuration},
                cwd=self._directory.name,
                start_new_session=True,
            )  # fmt: skip

    def add_node(self, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        """One more node, with variables of its processes' environment."""
        before, self._configuration = self._configuration, {**self._configuration, **variables}
        try:
            return self._start("--address", self.address, *options)
        finally:
            self._configuration = before

    def _await_nodes(self) -> None:
        """Wait until both nodes are there, asking in a process of its own."""
        code = (
            "import ray, sys, time\n"
            "until = time.monotonic() + 60\n"
            "while True:\n"
            "    try:\n"
            f"        ray.init(address={self.address!r}, log_to_driver=False, logging_level='ERROR')\n"
            "        if sum(node['Alive'] for node in ray.nodes()) >= 2: break\n"
            "        ray.shutdown()\n"
            "    except Exception:\n"
            "        if time.monotonic() > until: raise\n"
            "    time.sleep(0.2)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=90, capture_output=True)

    def kill_node(self, description: Mapping[str, Any]) -> None:
        """End the processes of a node by SIGKILL; those of its jobs have to go by themselves."""
        raylet = psutil.Process(description["pid"]).parent()
        assert raylet is not None and raylet.name() == "raylet", raylet
        for one in [raylet, *raylet.children()]:
            with contextlib.suppress(psutil.Error):
                one.kill()

    def is_head(self, description: Mapping[str, Any]) -> bool:
        """Whether a node is the one without which there is no cluster."""
        return self.head.pid in [one.pid for one in psutil.Process(description["pid"]).parents()]

    def kill_head(self) -> None:
        """End the head, and the node beside it, by SIGKILL."""
        for one in psutil.Process(self.head.pid).children():
            with contextlib.suppress(psutil.Error):
                one.kill()

    def restart_head(self) -> None:
        """A new head where the old one was, and a second node."""
        for process in (self.node, self.head):
            if process is not None:
                end_tree(process)
        self.head = self._start("--head", "--port", str(self.port), "--temp-dir", self._directory.name)
        self.node = self.add_node()
        self._await_nodes()

    def log(self) -> str:
        """What all of them have said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(Path(self._directory.name).glob("*.log")))

    def close(self) -> None:
        """End all of them."""
        for process in (self.node, self.head):
            if process is not None:
                end_tree(process)
        with contextlib.suppress(OSError):
            self._directory.cleanup()


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        for one in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                one.kill()
    process.wait()


@contextlib.contextmanager
def cluster_of(engine: str, **options: Any) -> Iterator[DaskCluster | RayCluster]:
    """A cluster of two nodes for a ``with`` block."""
    pytest.importorskip("distributed" if engine == "dask" else "ray")
    cluster = DaskCluster(**options) if engine == "dask" else RayCluster(**options)
    try:
        yield cluster
    finally:
        cluster.close()


def connect(engine: str, address: str, **options: Any) -> ClusterExecutor:
    """An executor on a cluster, when both of its nodes are there."""
    executor: ClusterExecutor = (DaskExecutor if engine == "dask" else RayExecutor)(address, **options)
    assert len(executor.nodes) == 2
    return executor
