"""Ending lanes, each on a thread of its own: the kernel may take its time, and no other lane is to wait.

An ender owns its lane from the decision to end it until it has told that the processes are gone; when the dispatcher
has taken in what the worker had still sent (`Lane.taken_in`), the ender closes the lane.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jobrunner.executors.lane import Lane
from jobrunner.executors.pool_job import PoolJob
from jobrunner.executors.services import services

__all__ = ["Enders"]

_log = logging.getLogger("jobrunner")

# How often, and with what pauses, the processes of a lane are looked for while the system refuses.
_TRIES = 50
_PAUSE_S = 0.1


class Enders:
    """The enders of one pool.

    Args:
        ended: told, on the ender's thread and with no lock held, of each lane whose processes are gone and reaped; it
            has somebody set `Lane.taken_in`.
    """

    def __init__(self, ended: Callable[[Lane], None]) -> None:
        self._ended = ended
        # Guards what is below; inside it no other lock is taken.
        self._changed = threading.Condition()
        # How many lanes are being ended, and the threads that do it.
        self._ending = 0
        self._threads: list[threading.Thread] = []

    def end(self, lane: Lane, interrupt: int = 0, grace: float = 0.0) -> None:
        """Have a lane ended; does not wait.

        Args:
            lane: the lane; once only.
            interrupt: number of the sending to be interrupted first, politely; 0: none.
            grace: seconds that it has for that.
        """
        with self._changed:
            self._ending += 1
        thread = services().run_on_thread(lambda: self._end(lane, interrupt, grace), f"jobrunner-ender-{lane.pid}")
        if thread is not None:
            with self._changed:
                self._threads = [*(ender for ender in self._threads if ender.is_alive()), thread]

    def join(self) -> None:
        """Wait until every lane that was to be ended is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._ending)
            threads = self._threads
        for thread in threads:
            thread.join()

    def _end(self, lane: Lane, interrupt: int, grace: float) -> None:
        if not _end_processes(lane, interrupt, grace):
            job = lane.slot.victim
            if isinstance(job, PoolJob):
                job.cause = f"the kernel has not ended its processes yet (worker pid {lane.pid}: uninterruptible I/O?)"
                job.stuck = True
                future = job.future
                if future is not None:
                    future.look_again()
            lane.await_death()
        lane.reap()
        self._ended(lane)
        # The dispatcher takes in what the worker had sent; what is left joins threads of loky's, for some milliseconds.
        lane.taken_in.wait()
        lane.close()
        with self._changed:
            self._ending -= 1
            self._changed.notify_all()


def _end_processes(lane: Lane, interrupt: int, grace: float) -> bool:
    """End a lane's processes, trying again while the system is out of descriptors or memory."""
    for _ in range(_TRIES):
        try:
            return lane.end(interrupt, grace)
        except OSError as error:
            _log.debug("the processes of worker %s can't be looked for", lane.pid, exc_info=True)
            reason = error
            interrupt = 0
            # Nobody sets it before this is over: a pause.
            lane.taken_in.wait(_PAUSE_S)
    _log.warning("what worker %s has started may be left running, for it can't be looked for: %s", lane.pid, reason)
    lane.worker.kill()
    return lane.worker.wait(None)
