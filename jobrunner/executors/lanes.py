"""The lanes of one pool whose workers are up: what is still to be sent to them, and who listens to them.

Its owner is the pool, whose lock is held in all that it does, but for what says otherwise.  Who reads a lane's channel
holds that lock as well: the dispatcher, or the thread to which the lane is lent; see `jobrunner.executors.attendant`.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobrunner.executors.attendant import CAN_ATTEND, Attendant
from jobrunner.executors.freight import Freight
from jobrunner.executors.lane import Lane
from jobrunner.executors.listener import Heard, Listener
from jobrunner.executors.output import OutputWriter
from jobrunner.executors.records import LaneState, Slot

__all__ = ["Lanes"]


class Lanes:
    """The lanes of a pool.

    Args:
        freight: the large data of its jobs, of which workers are told what is not used any more.
        writer: takes what jobs print and is not captured.
    """

    def __init__(self, freight: Freight, writer: OutputWriter) -> None:
        self._freight = freight
        self._writer = writer
        self._listener = Listener()
        #: whether a lane can be lent to another thread than the dispatcher
        self.can_lend = CAN_ATTEND and self._listener.can_lend
        # By number.
        self._lanes: dict[int, Lane] = {}
        # Those that something was queued in since the lock was taken; sent to before it is released.
        self._unsent: set[Lane] = set()
        # Those that are not listened to yet; those that would not take all that was to be sent; those whose output is
        # not listened to, because it can't be written as fast as it comes.
        self._opened: list[Lane] = []
        self._blocked: set[Lane] = set()
        self._muted: set[Lane] = set()

    def of(self, slot: Slot | None) -> Lane | None:
        """The lane of a slot, if its worker is up; takes no lock."""
        return None if slot is None else self._lanes.get(slot.number)

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, lane: Lane) -> None:
        """A lane's worker is up; `listen` follows."""
        self._lanes[lane.number] = lane
        self._opened.append(lane)

    def remove(self, lane: Lane) -> None:
        """A lane's worker is gone."""
        if lane in self._opened:
            self._opened.remove(lane)  # it ended before it was ever listened to
        self._listener.forget(lane)
        self._muted.discard(lane)
        self._blocked.discard(lane)
        del self._lanes[lane.number]

    # --- sending ---

    def note_unsent(self, lane: Lane) -> None:
        """Something was queued in a lane; `send` sends it."""
        self._unsent.add(lane)

    def send(self) -> None:
        """Send what was queued, and tell workers what of theirs, or of what they have, is not used any more."""
        if self._freight.returned or self._freight.forgotten:
            self._tell_what_went()
        while self._unsent:
            self.flush(self._unsent.pop())

    def flush(self, lane: Lane) -> None:
        """Send what was queued in one lane now."""
        self._unsent.discard(lane)
        if not lane.flush():
            self._blocked.add(lane)
            self.wake()

    def forget_share(self, number: int) -> None:
        """Nobody holds the handle of a shared object any more; takes no lock."""
        self._freight.forgotten.append(number)
        self.wake()

    def _tell_what_went(self) -> None:
        forgotten, returned = self._freight.forgotten, self._freight.returned
        while forgotten:
            number = forgotten.popleft()
            for lane in self._lanes.values():
                lane.forget(number)
                self._unsent.add(lane)
        told: dict[Lane, list[tuple[int, bool]]] = {}
        while returned:
            number, segment, reusable = returned.popleft()
            if number in self._lanes:
                told.setdefault(self._lanes[number], []).append((segment, reusable))
        for lane, segments in told.items():
            lane.return_segments(segments)
            self._unsent.add(lane)

    # --- lending ---

    def lend(self, slot: Slot | None, attendant: Attendant) -> Lane | None:
        """The lane of a job that is alone in it, lent to an attendant; None where that can't be."""
        lane = self.of(slot)
        if (
            lane is None
            or lane.attendant is not None
            or lane.eof
            or lane in self._blocked
            or lane.slot.state is not LaneState.SERVING
            or len(lane.slot.inflight) != 1
        ):
            return None
        lane.attendant = attendant
        self._listener.lend(lane)
        return lane

    def take_back(self, lane: Lane, *, wake: bool = True) -> None:
        """Have the dispatcher listen to a lane, if another thread does, which is to be woken."""
        attendant, lane.attendant = lane.attendant, None
        if attendant is not None:
            if wake:
                attendant.wake()
            if not lane.eof:
                self._listener.take_back(lane)

    # --- listening; but for `wake` and `forsake` the dispatcher's alone ---

    def wait(self, timeout: float | None) -> Heard:
        """Wait until something happens, at most `timeout` seconds (None: as long as it takes); holds no lock."""
        return self._listener.wait(timeout)

    def wake(self) -> None:
        """Let `wait` return; takes no lock, for it may be called from anywhere, garbage collection included."""
        self._listener.wake()

    def listen(self) -> None:
        """Listen to all that there is to listen to, and try again what would not be sent."""
        for lane in self._opened:
            self._listener.listen(lane)
        self._opened.clear()
        if self._muted and self._writer.has_room(self.wake):
            for lane in self._muted:
                self._listener.listen_to_output(lane)
            self._muted.clear()
        for lane in list(self._blocked):
            self.take_back(lane)
            sent = lane.flush()
            if sent:
                self._blocked.discard(lane)
            self._listener.watch_for_room(lane, not sent)

    def take_output(self, lane: Lane, stream: int) -> None:
        """Take in what a worker has printed; it is not dealt out yet."""
        if lane.output is None or lane in self._muted:
            return
        if not self._writer.has_room(self.wake):
            self._muted.add(lane)
            self._listener.ignore_output(lane)
        elif lane.output.read(stream) is False:
            self._listener.ignore(lane.output.ours[stream])

    def ignore_channel(self, lane: Lane) -> None:
        """Nothing more comes from a lane's channel; its worker may live on."""
        self._listener.ignore(lane.fileno())

    def close(self) -> None:
        """There are no lanes any more, nor will there be."""
        self._listener.close()

    def forsake(self) -> None:
        """In a fork: let go of the channels, which are the parent's; takes no lock."""
        for lane in self:
            lane.forsake()
        self._listener.forsake()
