"""When room is scarce: a queue with a bound, and descriptors that run out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from jobrunner import JobFuture, LocalExecutor
from tests.core.gates import Gate, meet
from tests.core.scripts import Script

MakeLocal = Callable[..., LocalExecutor]
Run = Callable[..., Script]


def test_jobs_that_wait_in_a_lane_count_as_pending(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1, max_pending=2)
    list(executor.map(abs, range(30), chunksize=1))  # jobs are known to be tiny now, and are prefetched
    blocker = executor.submit(meet, gate.path)
    gate.await_arrival()
    waiting: list[JobFuture[int]] = []
    full = threading.Event()

    def fill() -> None:
        for number in range(10):
            if number == 2:
                full.set()
            waiting.append(executor.submit(abs, number))

    filler = threading.Thread(target=fill)
    filler.start()
    full.wait()
    assert len(waiting) == 2
    assert executor.stats()["queued"] == 2
    gate.release()
    filler.join()
    blocker.result()
    assert [job.result() for job in waiting] == list(range(10))


def test_a_death_is_told_also_while_the_caller_is_out_of_descriptors(script: Run, tmp_path: Path) -> None:
    path = tmp_path / "told"
    # Not checked for silence: loky's thread complains of the descriptors on stderr.
    script(
        f"path = {str(path)!r}"
        """
import os, resource
from jobrunner import LocalExecutor
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
executor = LocalExecutor(1)
assert executor.submit(abs, -1).result() == 1
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
job = executor.submit(os._exit, 3)
error = job.exception()
for fd in held: os.close(fd)
open(path, "w").write(f"{type(error).__name__} {executor.submit(abs, -2).result()}")
executor.shutdown()
"""
    ).finish()
    assert path.read_text() == "WorkerDiedError 2"
