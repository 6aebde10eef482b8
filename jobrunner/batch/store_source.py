"""A store as the source of a run: its points out of it, and their outcomes back into it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from jobrunner.batch.encoding import Encoded, encode, storable_text
from jobrunner.batch.ledger import Entry, Ledger
from jobrunner.batch.outcomes import Outcome
from jobrunner.batch.registry import Registration
from jobrunner.batch.run import StopRequest
from jobrunner.batch.seeds import Seeding
from jobrunner.batch.work import Work
from jobrunner.report import JobReport
from jobrunner.serialization import RemoteTraceback

__all__ = ["StoreSource"]

#: So many characters of each stream, and of a stack, are kept in a store.
_OUTPUT_MOST = 1 << 20
_STACK_MOST = 1 << 16


class StoreSource:
    """Points of a store, and their outcomes back into it; see `jobrunner.batch.run.Source`.

    Args:
        path: the store.
        registration: the batch, and this process's part in it.
        seeding: gives each point its seed.
        stop: its queue gets the events.
    """

    def __init__(self, path: Path, registration: Registration, seeding: Seeding, stop: StopRequest) -> None:
        self._ledger = Ledger(path, registration.batch.id, registration.runner, stop.events.put, seeding.seed)
        self._ledger.start()
        self.ask = self._ledger.ask
        self.say = self._ledger.say
        #: write all that was recorded, and give back what has no outcome
        self.close = self._ledger.close

    def prepare(self, value: Any) -> Encoded:
        """A result as the store keeps it."""
        return encode(value)

    def record(self, work: Work, outcome: Outcome, prepared: Encoded | None) -> None:
        """Record an outcome, and the result in its stored form."""
        columns: dict[str, Any] = {"recorded_at": time.time()}
        if prepared is not None:
            columns["format"], columns["result"] = prepared
        report, cause = outcome.report, outcome.cause
        if report is not None:
            for name in ("started_at", "finished_at", "run_s", "cpu_s", "peak_rss_bytes", "host", "pid"):
                columns[name] = getattr(report, name)
        columns["report"] = _report_json(report, outcome.error)
        columns["error"] = None if cause is None else storable_text(cause)
        columns["stdout"] = _bounded(outcome.stdout, _OUTPUT_MOST)
        columns["stderr"] = _bounded(outcome.stderr, _OUTPUT_MOST)
        self._ledger.record(Entry(work.id, outcome.status.value, columns))


def _report_json(report: JobReport | None, error: BaseException | None) -> str | None:
    """A job's report as the store keeps it: without what it printed, which is kept apart."""
    fields = {} if report is None else report.as_dict()
    for name in ("stdout_head", "stdout_tail", "stderr_head", "stderr_tail"):
        fields.pop(name, None)
    if (
        fields.get("stack") is None
        and isinstance(error, BaseException)
        and isinstance(error.__cause__, RemoteTraceback)
    ):
        # A function that raised: where it did.
        fields["stack"] = _bounded(str(error.__cause__), _STACK_MOST)
    return json.dumps(fields, separators=(",", ":")) if fields else None


def _bounded(text: str, most: int) -> str | None:
    """What is kept of a text; None for nothing."""
    if len(text) <= most:
        return storable_text(text) or None
    half = most // 2
    return storable_text(f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}")
