"""Programs whose threads wait in `result()` while signals come; run in interpreters of their own (`test_attendance`).

What a process does while it is idle is read from /proc.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

from jobrunner import JobFuture, JobTimeoutError, LocalExecutor
from tests.core.gates import append_line, lines

_HANG_S = 60.0
_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)


class AlarmError(Exception):
    """Raised by a signal handler."""


def _raise_alarm(*_: object) -> NoReturn:
    raise AlarmError


def note(path: str, number: int) -> int:
    """Note that the job runs."""
    append_line(path, number)
    return number


class _Feeder:
    """Submits a job when the last one is over, on a thread of its own: no signal handler interrupts it."""

    def __init__(self, executor: LocalExecutor, path: str) -> None:
        self.futures: list[JobFuture[int]] = []
        self._executor = executor
        self._path = path
        self._over = False
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def _feed(self) -> None:
        for number in itertools.count():
            if self._over:
                return
            future = self._executor.submit(note, self._path, number)
            done = threading.Event()
            future.add_done_callback(lambda _, done=done: done.set())  # type: ignore[misc]
            self.futures.append(future)
            done.wait()

    def stop(self) -> None:
        self._over = True
        self._thread.join()


class _Pest:
    """Sends this process a signal at a random moment, when it is told to."""

    def __init__(self, number: int, seed: int) -> None:
        self._number = number
        self._source = random.Random(seed)
        self._orders = threading.Semaphore(0)
        self._over = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while self._orders.acquire() and not self._over:
            # The moment is what is random here; nothing waits for it.
            select.select([], [], [], self._source.uniform(0, 0.002))
            os.kill(os.getpid(), self._number)

    def order(self) -> None:
        self._orders.release()

    def stop(self) -> None:
        self._over = True
        self._orders.release()
        self._thread.join()


def interrupted_at_random(times: int, number: int, seed: int) -> None:
    """So many signals whose handler raises, while the main thread waits: each arrives, and no result is lost."""
    path = os.path.join(os.getcwd(), "runs")
    raised: type[BaseException] = KeyboardInterrupt if number == signal.SIGINT else AlarmError
    if number != signal.SIGINT:
        signal.signal(number, _raise_alarm)
    handlers = [signal.getsignal(one) for one in _WATCHED]
    pest = _Pest(number, seed)
    with LocalExecutor(1, spare_workers=0) as executor:
        executor.submit(abs, 1).result()
        feeder = _Feeder(executor, path)
        futures, count, came = feeder.futures, 0, 0
        while came < times:
            pest.order()
            try:
                while True:
                    while len(futures) <= count:
                        os.sched_yield()
                    assert futures[count].result(_HANG_S) == count
                    count += 1
            except raised:
                came += 1
        pest.stop()
        assert [signal.getsignal(one) for one in _WATCHED] == handlers, "a handler was not put back"
        if number != signal.SIGINT:
            # A worker that ends sends a signal too, and nobody expects the handler's error any more.
            signal.signal(number, signal.SIG_DFL)
        feeder.stop()
        assert [future.result(_HANG_S) for future in futures] == list(range(len(futures)))
        assert lines(Path(path)) == [str(ran) for ran in range(len(futures))]
        assert executor.submit(abs, -2).result(_HANG_S) == 2
        assert executor.stats()["restarts"] == 0


def timer_at_random(times: int, seed: int) -> None:
    """An interval timer whose handler raises at any moment, also as soon as handlers are put back: all are put back."""
    signal.signal(signal.SIGALRM, _raise_alarm)
    signal.signal(signal.SIGTERM, lambda *_: None)
    handlers = [signal.getsignal(one) for one in _WATCHED]
    source = random.Random(seed)
    with LocalExecutor(1, spare_workers=0) as executor:
        future = executor.submit(signal.pause)
        for number in range(times):
            try:
                signal.setitimer(signal.ITIMER_REAL, source.uniform(0.0001, 0.001))
                while True:
                    try:
                        future.result(timeout=0)
                    except JobTimeoutError:
                        continue
            except AlarmError:
                pass
            assert [signal.getsignal(one) for one in _WATCHED] == handlers, f"after {number}, one was not put back"
        assert future.cancel()
        assert executor.submit(abs, -2).result(_HANG_S) == 2


def switches() -> int:
    """How often the threads of this process have been switched to, all told, but for the one that asks."""
    total = 0
    for task in os.listdir("/proc/self/task"):
        if int(task) == threading.get_native_id():
            continue
        try:
            status = Path(f"/proc/self/task/{task}/status").read_text()
        except FileNotFoundError:  # the thread has ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
    return total


def idle_after_use() -> None:
    """After jobs of all kinds, an executor that has nothing to do does nothing."""
    with LocalExecutor(2, spare_workers=1, idle_timeout=None) as executor:
        for number in range(300):
            assert executor.submit(abs, -number).result() == number
        threads = [
            threading.Thread(target=lambda: [executor.submit(abs, -1).result() for _ in range(100)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(executor.map(abs, range(1000))) == list(range(1000))
        staying = executor.submit(signal.pause)
        try:
            staying.result(timeout=0.05)
        except JobTimeoutError:
            assert staying.cancel()
        executor.submit(abs, 1).result()
        fewest = min(_switches_in(1.0) for _ in range(3))
        assert fewest <= 3, f"{fewest} switches a second"


def _switches_in(seconds: float) -> int:
    before = switches()
    time.sleep(seconds)  # what is measured is what happens meanwhile
    return switches() - before
