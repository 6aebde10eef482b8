"""Connecting with a cluster: what is said where that can't be, and which nodes are fit."""

from __future__ import annotations

import builtins
import contextlib
import platform
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from jobrunner import DaskExecutor, JobRunnerError, RayExecutor
from jobrunner.cluster.node import describe_node
from jobrunner.cluster.uploads import pack_uploads
from jobrunner.cluster.versions import VersionMismatchWarning, check_nodes, differences, misfit
from tests.clusters import free_port


@pytest.mark.parametrize(("make", "what"), [
    (DaskExecutor, "no Dask scheduler answers at tcp://127.0.0.1:"),
    (RayExecutor, "no Ray cluster answers at 127.0.0.1:"),
])  # fmt: skip
def test_no_cluster_at_the_address_is_told_with_what_was_tried(make: Any, what: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(JobRunnerError, match=what) as told:
        make(address)
    assert "ConnectionRefusedError" in str(told.value)
    assert "Check that it runs" in str(told.value)


@pytest.mark.parametrize(("make", "package"), [(DaskExecutor, "distributed"), (RayExecutor, "ray")])
def test_a_missing_engine_names_its_extra(make: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    extra = "dask" if package == "distributed" else "ray"
    with pytest.raises(ImportError, match=rf"pip install 'jobrunner\[{extra}\]'"):
        make("127.0.0.1:1")


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"colour": "red"}, TypeError, "has no option colour"),
    ({"retries": -1}, ValueError, "retries must be at least 0"),
    ({"memory_limit": "much"}, ValueError, "no amount of memory"),
    ({"initializer": 5}, TypeError, "initializer must be callable"),
    ({"upload": ["none.py"]}, FileNotFoundError, "none.py"),
])  # fmt: skip
def test_options_are_checked_before_anything_is_connected(options: Any, error: Any, words: str) -> None:
    for make in (DaskExecutor, RayExecutor):
        with pytest.raises(error, match=words):
            make("127.0.0.1:1", **options)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8787", "http is of its dashboard"),
        ("localhost", "has no port"),
        ("tcp://[::1]", "has no port"),
        ("tls://head", "has no port"),
        ("tcp://:8786", "has no host"),
        ("tcp://head:http", "has a port that is no number"),
        ("tcp://head:70000", "has a port that is no number"),
    ],
)
def test_what_is_no_schedulers_address_is_told_at_once(address: str, words: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(JobRunnerError, match=words) as told:
        DaskExecutor(address)
    assert isinstance(told.value, ValueError)  # as for whatever else is given wrongly
    assert "://host:8786" in str(told.value)


_RAY_MISTAKES = [
    ("127.0.0.1", "has no port"),
    ("[::1]", "has no port"),
    (":6379", "has no host"),
    ("head:first", "has a port that is no number"),
    ("tcp://127.0.0.1:6379", "is no address of a Ray cluster"),
    ("http://127.0.0.1:8265", "is no address of a Ray cluster"),
    ("ray://127.0.0.1:10001", "is of Ray Client, which is not supported"),
]


@pytest.mark.parametrize(("address", "words"), _RAY_MISTAKES)
@pytest.mark.parametrize("by_environment", [False, True], ids=["argument", "environment"])
def test_what_is_no_address_of_a_ray_cluster_is_told_at_once(
    address: str, words: str, by_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    if by_environment:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(JobRunnerError, match=words) as told:
        RayExecutor(None if by_environment else address)
    assert isinstance(told.value, ValueError)
    assert "expected host:port of the cluster's head, such as 10.0.0.1:6379, or auto" in str(told.value)


def test_a_dask_cluster_has_to_be_named() -> None:
    pytest.importorskip("distributed")
    import dask.config

    with (
        dask.config.set({"scheduler-address": None}),
        pytest.raises(ValueError, match="no Dask cluster is named") as told,
    ):
        DaskExecutor()
    assert isinstance(told.value, JobRunnerError)


def test_dask_takes_an_address_a_client_or_a_cluster_and_nothing_else() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(TypeError, match=r"a scheduler's address, a distributed\.Client or a cluster object"):
        DaskExecutor(5)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("direct", [None, True], ids=["by the scheduler", "directly"])
def test_dask_takes_a_cluster_object_and_a_client_and_speaks_with_workers(direct: bool | None) -> None:
    distributed = pytest.importorskip("distributed")
    import dask.config

    with (
        dask.config.set({"distributed.client.direct-to-workers": direct}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for where in (cluster, client, None):  # None: the process's client
            with DaskExecutor(where, spare_workers=0) as executor:
                assert executor.submit(pow, 2, 10).result(timeout=60) == 1024
                assert executor.backend.max_workers == 1


def test_nodes_of_other_versions_are_found_and_named() -> None:
    same = describe_node()
    assert misfit(same) is None
    assert differences(same) == []
    major, _, _ = platform.python_version().partition(".")
    older = {**same, "python": f"{major}.5.1"}
    assert misfit(older) == f"Python is {major}.5.1 there and {platform.python_version()} here"
    with pytest.raises(JobRunnerError, match=r"tcp://far:1: Python is .*5\.1 there"):
        check_nodes({"tcp://near:1": same, "tcp://far:1": older})
    with pytest.raises(JobRunnerError, match=r"jobrunner is 0\.0 there"):
        check_nodes({"far": {**same, "jobrunner": "0.0"}})
    other = {**same, "packages": {**same["packages"], "cloudpickle": "0.1"}}
    with pytest.warns(VersionMismatchWarning, match=r"cloudpickle is 0\.1 there and .* here \(node far\)"):
        check_nodes({"near": same, "far": other})


def test_what_is_uploaded_is_files_packages_and_archives_of_a_bearable_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__pycache__" / "old.pyc").write_bytes(b"")
    (tmp_path / "module.py").write_text("x = 1\n")
    (name, is_archive, content), module = pack_uploads([package, tmp_path / "module.py"])
    assert (name, is_archive) == ("package", True)
    assert b"package/__init__.py" in content
    assert b"__pycache__" not in content
    assert module == ("module.py", False, b"x = 1\n")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"upload takes Python files.*not .*notes\.txt"):
        pack_uploads([tmp_path / "notes.txt"])
    (tmp_path / "bad.zip").write_text("no archive")
    with pytest.raises(ValueError, match="no zip archive"):
        pack_uploads([tmp_path / "bad.zip"])
    monkeypatch.setattr("jobrunner.cluster.uploads._MOST_BYTES", 3)
    with pytest.raises(ValueError, match="is more than the"):
        pack_uploads([tmp_path / "module.py"])


@pytest.mark.parametrize("make", [DaskExecutor, RayExecutor])
def test_a_port_that_is_silent_is_no_cluster(make: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(JobRunnerError, match="answers at"):
        make(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(
    "banner",
    [b"SSH-2.0-OpenSSH_9.6p1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64)],
    ids=["ssh", "http", "zeros"],
)
def test_a_port_where_something_else_answers_is_no_cluster(banner: bytes) -> None:
    pytest.importorskip("distributed")
    with contextlib.ExitStack() as open_ones:
        server = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def greet() -> None:
            with contextlib.suppress(OSError):  # the server has been shut down
                while True:
                    open_ones.enter_context(server.accept()[0]).sendall(banner)

        before = set(threading.enumerate())
        greeter = threading.Thread(target=greet)
        greeter.start()
        try:
            with pytest.raises(JobRunnerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:\d+ "):
                DaskExecutor(address)
            assert set(threading.enumerate()) <= {*before, greeter}
            with pytest.raises(JobRunnerError, match=r"wants certificates, .* pass a distributed.Client"):
                DaskExecutor(f"tls://{address}")
        finally:
            server.shutdown(socket.SHUT_RDWR)
            greeter.join()


@pytest.mark.parametrize(("resources", "error"), [(5, TypeError), ({"GPU": "x"}, ValueError), ({"GPU": 0}, ValueError)])
def test_resources_are_names_and_numbers(resources: Any, error: Any) -> None:
    for make in (DaskExecutor, RayExecutor):
        with pytest.raises(error, match="resources must map names to numbers"):
            make("127.0.0.1:1", resources=resources)
