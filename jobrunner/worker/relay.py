"""A job's warnings and log records, on their way to its caller.

They travel as JSON of plain text and numbers, so that nothing of the user's is rebuilt there: the caller passes them to
its own `warnings` and `logging`, marked with the job's id.  The worker's loggers have the levels that the caller's had
when the worker was started, so that what the caller would drop is not sent.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TextIO

__all__ = ["Relay"]

# Of one job no more notes than this are sent, and no longer texts: then their number is told.
_MOST_NOTES = 10_000
_LONGEST_TEXT = 1 << 16

# Where logging notes the handlers there are, the oldest first; a new configuration empties it.
_HANDLERS: list[Any] = getattr(logging, "_handlerList", [])

_PLAIN = (str, int, float, bool, type(None))
# Up to 3.13; what `catch_warnings` calls, without the rest of its work.
_filters_changed: Callable[[], None] | None = getattr(warnings, "_filters_mutated", None)
_RECORD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Relay:
    """Sends what the job in work warns of and logs.

    Args:
        send: sends the body of a note about the job of that number.
        levels: levels of loggers by name; that of the root logger stands under the empty name.
    """

    def __init__(self, send: Callable[[int, bytes], None], levels: Mapping[str, int]) -> None:
        self._send = send
        # The job whose notes are sent; 0: none is in work, or its are not wanted.
        self._job = 0
        self._count = 0
        self._handler = _Handler(self)
        self._installed = False
        self._level = logging.NOTSET
        self._show = warnings.showwarning
        self._show_own = self._show_warning  # one object, to be known again
        self._basic_config = logging.basicConfig
        logging.basicConfig = self._set_up
        for name, level in levels.items():
            logging.getLogger(name or None).setLevel(level)
        self.take()

    def begin(self, job: int, wanted: bool, level: int) -> None:
        """Job number `job` begins.

        Args:
            job: its number.
            wanted: whether its notes are.
            level: the level of the caller's root logger.
        """
        if wanted and level != self._level:
            self._level = level
            logging.getLogger().setLevel(level)
        if wanted != self._installed:
            self._installed = wanted
            self.restore()
        self._job = job if wanted else 0

    def end(self) -> None:
        """The job is over."""
        if self._count:
            left_out, self._count = self._count - _MOST_NOTES, 0
            if left_out > 0:
                text = f"{left_out} more of its messages were left out"
                self._note({"log": "jobrunner", "level": logging.WARNING, "text": text})
                self._count = 0
            # What one job has warned of, the next may warn of again.
            _forget_warnings()
        self._job = 0

    def _set_up(self, **options: Any) -> None:
        """`logging.basicConfig`, for which a logger that we alone listen to is one that nobody has set up."""
        root = logging.getLogger()
        listening = self._handler in root.handlers
        if listening:
            root.removeHandler(self._handler)
        self._basic_config(**options)
        if listening:
            root.addHandler(self._handler)

    def take(self) -> None:
        """Remember how the root logger stands; it has no handler of ours."""
        root = logging.getLogger()
        self._installed = False
        self._handlers = list(root.handlers)
        self._factory = logging.getLogRecordFactory()
        self._level, self._disabled = root.level, root.manager.disable
        loggers = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
        self._off = {logger.name for logger in loggers if logger.disabled}
        self._registered = _registered()

    def restore(self) -> None:
        """Have loggers and the showing of warnings be as they were, but for what is ours."""
        if getattr(logging, "_warnings_showwarning", None) is not None:
            logging.captureWarnings(False)
        if _registered() != self._registered:
            # A new configuration switches all loggers off that it doesn't name.
            for logger in list(logging.root.manager.loggerDict.values()):
                if isinstance(logger, logging.Logger):
                    logger.disabled = logger.name in self._off
            self._registered = _registered()
        if logging.getLogRecordFactory() is not self._factory:
            logging.setLogRecordFactory(self._factory)
        if self._handler.level:
            self._handler.setLevel(logging.NOTSET)
        root = logging.getLogger()
        handlers = [*self._handlers, self._handler] if self._installed else self._handlers
        if root.handlers != handlers:
            root.handlers[:] = handlers
        if root.level != self._level:
            root.setLevel(self._level)
        if root.manager.disable != self._disabled:
            logging.disable(self._disabled)
        show = self._show_own if self._installed else self._show
        if warnings.showwarning is not show:
            warnings.showwarning = show

    def forsake(self) -> None:
        """In a process that a job forked: what it has to say goes where it would without us."""
        self._job = 0
        self._installed = False
        self.restore()

    def _note(self, note: dict[str, Any]) -> None:
        job = self._job
        if not job:
            return  # said between two jobs: a thread that one of them left behind
        self._count += 1
        if self._count <= _MOST_NOTES:
            self._send(job, json.dumps(note).encode())

    def log(self, record: logging.LogRecord) -> None:
        """Send a log record."""
        note: dict[str, Any] = {
            "log": record.name,
            "level": record.levelno,
            "text": record.getMessage()[:_LONGEST_TEXT],
            "path": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "created": record.created,
            "thread": record.threadName,
        }
        if record.exc_info:
            note["exception"] = logging.Formatter().formatException(record.exc_info)[:_LONGEST_TEXT]
        elif record.exc_text:
            note["exception"] = record.exc_text[:_LONGEST_TEXT]
        if record.stack_info:
            note["stack"] = record.stack_info[:_LONGEST_TEXT]
        extra = {
            name: value
            for name, value in record.__dict__.items()
            if name not in _RECORD_FIELDS and isinstance(value, _PLAIN)
        }
        if extra:
            note["extra"] = extra
        self._note(note)

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None or not self._job:
            self._show(message, category, filename, lineno, file, line)
            return
        # The caller knows perhaps only one of its bases.
        classes = [(base.__module__, base.__qualname__) for base in category.__mro__ if issubclass(base, Warning)]
        text = str(message)[:_LONGEST_TEXT]
        self._note({"warning": text, "classes": classes, "path": filename, "line": lineno})


class _Handler(logging.Handler):
    """Hands every record to the relay."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._relay.log(record)
        except Exception:
            self.handleError(record)


def _registered() -> tuple[int, ...]:
    """What changes when a new configuration is made: the number of handlers, and which is the first."""
    handlers = _HANDLERS
    return len(handlers), id(handlers[0]) if handlers else 0


def _forget_warnings() -> None:
    """Have warnings be shown anew that were shown once already."""
    # Each module notes what was shown, and forgets it when the filters change.
    if _filters_changed is not None:
        _filters_changed()
    else:
        with warnings.catch_warnings():
            pass
