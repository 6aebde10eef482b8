"""What is guaranteed of a job on a cluster: that it is what it is with a LocalExecutor."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobrunner import (
    Batch,
    JobStatus,
    LocalExecutor,
    MemoryLimitExceeded,
    PrimitiveJob,
    SerializationError,
    TimeLimitExceeded,
    WorkerDiedError,
    share,
    sweep,
    wait,
)
from jobrunner.cluster.executor import ClusterExecutor
from tests.clusters import DaskCluster, RayCluster, cluster_of, connect
from tests.core.gates import Gate, append_line, arrive, arrive_and_stay, lines, meet
from tests.core.process_table import await_none, is_alive


def family(gate: str) -> None:
    """Start a child that is a session of its own, and stay with it."""
    code = "import sys; from tests.core.gates import arrive_and_stay; arrive_and_stay(sys.argv[1])"
    subprocess.Popen([sys.executable, "-c", code, gate], start_new_session=True)
    arrive_and_stay(gate)


def fill(megabytes: int) -> int:
    """Use so much memory for as long as it is allowed to."""
    held = np.ones((megabytes, 1 << 17))
    until = time.monotonic() + 60
    while time.monotonic() < until:
        held[0, 0] += 1
    return held.nbytes


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def draw(x: int, rng: np.random.Generator) -> float:
    """A number that depends on the seed alone."""
    return float(rng.normal()) + x


def speak(text: str) -> None:
    """Print, warn and log."""
    print(text)
    print(text + "!", file=sys.stderr)
    warnings.warn(text, UserWarning, stacklevel=1)
    logging.getLogger("tests.speech").warning("said %s", text)


def fail_at_first(path: str) -> str:
    """Raise at the first attempt."""
    append_line(path, "begun")
    if len(lines(Path(path))) == 1:
        raise KeyError("first")
    return "second"


def total(table: Any, index: int) -> tuple[float, int]:
    """Something of a shared table, and which process it is in."""
    return float(table[index].sum()), os.getpid()


def test_a_cancel_ends_the_whole_process_tree_and_leaves_bystanders(executor: ClusterExecutor, gate: Gate) -> None:
    job = executor.submit(family, gate.path)
    pids = gate.await_arrival(2)
    bystander = executor.submit(arrive_and_stay, gate.path)
    (beside,) = gate.await_arrival()
    assert job.cancel() is True
    assert job.status() is JobStatus.CANCELLED
    assert not [pid for pid in pids if is_alive(pid)]
    assert is_alive(beside)
    assert not bystander.done()
    assert bystander.cancel() is True
    assert not is_alive(beside)


def test_a_time_limit_ends_a_job_and_names_its_node(executor: ClusterExecutor) -> None:
    job = executor.with_options(time_limit=2).submit(spin)
    with pytest.raises(TimeLimitExceeded, match=r"time limit of 2 s.*It ran on node"):
        job.result(timeout=60)
    report = job.report()
    assert report.cause is not None
    assert "time limit" in report.cause
    assert not await_none(lambda: [report.pid] if report.pid and is_alive(report.pid) else [], 5.0)


def test_a_memory_limit_ends_a_job(executor: ClusterExecutor) -> None:
    job = executor.with_options(memory_limit="200MiB").submit(fill, 600)
    with pytest.raises(MemoryLimitExceeded) as told:
        job.result(timeout=60)
    assert told.value.limit == 200 << 20
    assert told.value.peak is not None


def test_limits_above_every_node_are_refused_with_the_nodes_name(executor: ClusterExecutor) -> None:
    with pytest.raises(ValueError, match=r"what the largest node, .*, has"):
        executor.with_options(memory_limit="900TiB")
    with pytest.raises(ValueError, match="cores of the largest node"):
        executor.with_options(threads=500)


def test_a_death_is_its_jobs_alone(executor: ClusterExecutor) -> None:
    dies = executor.submit(os._exit, 7)
    lives = [executor.submit(pow, 3, number) for number in range(20)]
    with pytest.raises(WorkerDiedError, match="exit code 7") as told:
        dies.result(timeout=60)
    assert told.value.exit_code == 7
    assert [job.result(timeout=60) for job in lives] == [3**number for number in range(20)]


def test_what_a_job_raises_is_retried_if_that_is_asked_for(executor: ClusterExecutor, tmp_path: Path) -> None:
    view = executor.with_options(retries=1, retry_on=KeyError)
    job = view.submit(fail_at_first, str(tmp_path / "attempts"))
    assert job.result(timeout=60) == "second"
    report = job.report()
    assert report.attempts == 2
    assert report.cause is not None
    assert "attempt 1: it raised KeyError" in report.cause
    died = executor.with_options(retries=2).submit(os._exit, 3)
    with pytest.raises(WorkerDiedError):
        died.result(timeout=60)
    assert died.report().attempts == 3


def test_output_warnings_and_log_records_reach_the_caller(
    executor: ClusterExecutor, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    captured = executor.with_options(capture_output=True).submit(speak, "kept")
    with pytest.warns(UserWarning, match="kept"):
        captured.result(timeout=60)
        wait([captured])
    output = captured.output()
    assert output is not None
    assert output.stdout == "kept\n"
    assert "kept!" in output.stderr
    assert captured.report().stdout_tail == "kept\n"
    assert [record.getMessage() for record in caplog.records if "said kept" in record.getMessage()]
    with pytest.warns(UserWarning, match="shown"):
        executor.submit(speak, "shown").result(timeout=60)
    assert "shown" in capfd.readouterr().out


def test_large_arguments_and_results_are_writable_and_whole(executor: ClusterExecutor) -> None:
    sent = np.arange(3_000_000.0).reshape(3, -1)
    got = executor.submit(np.add, sent, 1).result(timeout=60)
    np.testing.assert_array_equal(got, sent + 1)
    got[0, 0] = 5


def test_a_shared_object_reaches_each_worker_once_and_is_let_go(executor: ClusterExecutor) -> None:
    table = share(np.ones((4, 100_000)))
    jobs = [executor.submit(total, table, number % 4) for number in range(20)]
    assert {job.result(timeout=60)[0] for job in jobs} == {100_000.0}
    small = share({"a": 1})
    assert executor.submit(dict.get, small, "a").result(timeout=60) == 1


def test_a_seeded_batch_is_bit_identical_to_a_local_one(executor: ClusterExecutor, tmp_path: Path) -> None:
    def values(run_on: Any, name: str) -> list[bytes]:
        batch = Batch(draw, sweep(x=range(12)), name=name, store=tmp_path / f"{name}.db", seed=7, replicates=2)
        summary = batch.run(run_on, progress=False)
        assert summary.done == 24
        return sorted(pickle.dumps(found) for found in batch.results())

    with LocalExecutor(max_workers=2, spare_workers=0) as local:
        expected = values(local, "local")
    assert values(executor, "cluster") == expected


def test_map_gives_results_in_order_and_errors_in_their_places(executor: ClusterExecutor) -> None:
    assert list(executor.map(pow, range(300), [2] * 300)) == [number * number for number in range(300)]
    found = list(executor.map(divmod, [1, 2, 3], [1, 0, 1], return_exceptions=True))
    assert found[0] == (1, 0)
    assert isinstance(found[1], ZeroDivisionError)
    endless = executor.map(abs, iter(int, 1), buffersize=10)
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]


def test_a_module_that_nodes_lack_is_named_with_the_remedy_which_helps(
    engine: str, lasting: DaskCluster | RayCluster, executor: ClusterExecutor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name = f"only_here_{os.getpid()}"
    module = tmp_path / f"{name}.py"
    module.write_text("def triple(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    triple = __import__(name).triple
    job = PrimitiveJob(triple, 2)
    job.submit(executor)
    with pytest.raises(SerializationError, match=rf"lacks the module '{name}'.*upload="):
        job.result(timeout=60)
    assert job.report().cause is not None
    with connect(engine, lasting.address, upload=[module], spare_workers=0) as sent_along:
        assert sent_along.submit(triple, 2).result(timeout=60) == 6


def test_a_queue_has_a_bound_that_jobs_which_waited_for_others_pass(
    engine: str, lasting: DaskCluster | RayCluster, gate: Gate
) -> None:
    with connect(engine, lasting.address, max_pending=2, spare_workers=0) as bounded:
        assert [bounded.submit(pow, 2, number) for number in range(50)][-1].result(timeout=60) == 2**49
        held = [bounded.submit(meet, gate.path) for _ in range(2)]
        gate.await_arrival(2)
        with LocalExecutor(max_workers=1, spare_workers=0) as local:
            inner = PrimitiveJob(meet, gate.path, 5)
            inner.submit(local)
            gate.await_arrival()
            outer = PrimitiveJob(PrimitiveJob.result, inner)
            outer.submit(bounded)
            waiting = [bounded.submit(pow, 2, number) for number in range(2)]
            gate.release(3)
            assert outer.result(timeout=60) == 5
        assert [job.result(timeout=60) for job in [*held, *waiting]] == [None, None, 1, 2]


def test_a_job_that_is_retried_again_and_again_can_be_cancelled(executor: ClusterExecutor) -> None:
    view = executor.with_options(retries=100_000, retry_on=ZeroDivisionError)
    for _ in range(20):
        job = view.submit(divmod, 1, 0)
        while not job.report().attempts > 1:
            wait([job], timeout=0.01)
        assert job.cancel() is True
        assert job.status() is JobStatus.CANCELLED


def test_a_map_that_is_closed_before_it_began_cancels_what_is_left(executor: ClusterExecutor, gate: Gate) -> None:
    results = executor.map(meet, [gate.path] * 10)
    gate.await_arrival(2)
    results.close()  # type: ignore[attr-defined]
    assert executor.submit(pow, 2, 3).result(timeout=60) == 8
    assert executor.stats()["queued"] == executor.stats()["running"] == 0


def test_a_limit_above_every_node_is_refused_when_the_executor_is_made(
    engine: str, lasting: DaskCluster | RayCluster
) -> None:
    with pytest.raises(ValueError, match="largest node"):
        connect(engine, lasting.address, memory_limit="900TiB")


def test_jobs_run_under_a_nanny_whose_workers_are_daemonic(gate: Gate) -> None:
    with cluster_of("dask", nanny=True) as cluster, connect("dask", cluster.address) as executor:
        job = executor.submit(arrive_and_stay, gate.path)
        (pid,) = gate.await_arrival()
        assert job.cancel() is True
        assert not is_alive(pid)
        assert executor.submit(arrive, gate.path).result(timeout=60) in gate.await_arrival()


def version() -> int:
    import simmod  # type: ignore[import-not-found]

    return int(simmod.VERSION)


def test_what_one_executor_uploads_no_other_imports(
    engine: str, lasting: DaskCluster | RayCluster, tmp_path: Path
) -> None:
    def connect_with(number: int) -> ClusterExecutor:
        module = tmp_path / str(number) / "simmod.py"
        module.parent.mkdir()
        module.write_text(f"VERSION = {number}\n")
        # Each job is the first of a worker.
        return connect(engine, lasting.address, upload=module, max_jobs_per_worker=1, preload=["simmod"])

    with connect_with(1) as one, connect_with(2) as two, connect(engine, lasting.address) as none:
        for _ in range(2):
            assert {one.submit(version).result(60), one.submit(version).result(60)} == {1}
            assert {two.submit(version).result(60), two.submit(version).result(60)} == {2}
        assert isinstance(none.submit(version).exception(60), ModuleNotFoundError)
