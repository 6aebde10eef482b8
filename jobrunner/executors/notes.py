"""Passing a job's warnings and log records on to the caller's own `warnings` and `logging`.

They arrive as JSON (see `worker.relay`), and are passed on by a callback thread, for filters, handlers and formatters
are the user's code.  Each is marked with the job's id: as the attribute `job_id`, and in its text.
"""

from __future__ import annotations

import builtins
import json
import logging
import sys
import warnings
from typing import Any

__all__ = ["pass_on"]

_log = logging.getLogger("jobrunner")


def pass_on(body: bytes, job_id: str, pid: int) -> None:
    """Warn of, or log, what a job has.

    Args:
        body: the body of the note.
        job_id: the job that said so.
        pid: its worker.
    """
    note = json.loads(body)
    if "warning" in note:
        _warn(note, job_id)
    else:
        _record(note, job_id, pid)


def _warn(note: dict[str, Any], job_id: str) -> None:
    category = _category(note["classes"])
    text = f"{note['warning']} (job {job_id})"
    message: Warning | str
    try:
        message = category(text)
        message.job_id = job_id  # type: ignore[attr-defined]
    except Exception:  # a class of the user's that takes other arguments
        category = message = UserWarning(text)  # type: ignore[assignment]
        category = UserWarning
    try:
        # Without a registry: a job's warning is never one that was shown before.
        warnings.warn_explicit(message, category, note["path"], note["line"])
    except Warning as error:
        # A filter of the caller's makes errors of such warnings, and there is nobody to raise this one to.
        _log.warning("%s: %s", type(error).__name__, text)


def _category(classes: list[list[str]]) -> type[Warning]:
    """The first of the classes that is known here; nothing is imported for it."""
    for module, name in classes:
        found = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
        if isinstance(found, type) and issubclass(found, Warning):
            return found
    return UserWarning


def _record(note: dict[str, Any], job_id: str, pid: int) -> None:
    logger = logging.getLogger(note["log"])
    if not logger.isEnabledFor(note["level"]):
        return
    fields = {
        **note.get("extra", {}),
        "name": note["log"],
        "levelno": note["level"],
        "levelname": logging.getLevelName(note["level"]),
        "msg": f"{note['text']} (job {job_id})",
        "args": None,
        "pathname": note.get("path", ""),
        "filename": note.get("path", "").replace("\\", "/").rpartition("/")[2],
        "module": note.get("path", "").replace("\\", "/").rpartition("/")[2].removesuffix(".py"),
        "lineno": note.get("line", 0),
        "funcName": note.get("function"),
        "threadName": note.get("thread"),
        "exc_text": note.get("exception"),
        "stack_info": note.get("stack"),
        "process": pid,
        "processName": f"jobrunner-worker-{pid}",
        "job_id": job_id,
    }
    if "created" in note:
        fields["created"] = note["created"]
        fields["msecs"] = (note["created"] - int(note["created"])) * 1000
    logger.handle(logging.makeLogRecord(fields))
