"""What is expected of a faulty job, and the judgement on what it came to."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["NOTHING", "Expected", "describe"]

#: Stands for: no result is right.
NOTHING: Any = object()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What a faulty job may come to.  Where both a result and errors are given, either is right.

    result: the only right result; NOTHING: it must fail.
    errors: names of the types of error that fit, for jobrunner; of others any error is taken that comes for the job.
    exit_code, signal: what jobrunner's error must tell, where it is known.
    returned: what it means that the job has returned where it must fail.
    """

    result: Any = NOTHING
    errors: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: int | None = None
    returned: str = "no error"

    def judge(self, result: Any, error: BaseException | None, *, strict: bool) -> str | None:
        """None if the outcome is as expected; else the verdict, in a few words.

        Args:
            result: what the job has returned, if `error` is None.
            error: what came instead.
            strict: whether the error must be one of those that fit.

        Example:
            >>> Expected(result=1).judge(1, None, strict=True)
            >>> Expected(errors=("KeyError",)).judge(None, IndexError(), strict=True)
            'wrong error: IndexError'
            >>> Expected(errors=("KeyError",)).judge(None, IndexError(), strict=False)
            >>> Expected(result=1).judge(None, IndexError(), strict=False)
            'fails: IndexError'
        """
        if error is None:
            if self.result is NOTHING:
                return self.returned
            return None if result == self.result else "wrong result"
        if not self.errors:
            return f"fails: {type(error).__name__}"
        if not strict:
            return None
        if type(error).__name__ not in self.errors:
            return f"wrong error: {type(error).__name__}"
        for name in ("exit_code", "signal"):
            wanted, told = getattr(self, name), getattr(error, name, None)
            if wanted is not None and told != wanted:
                return f"wrong {name.replace('_', ' ')}: {told}"
        return None


def describe(error: BaseException) -> str:
    """An error in one line; it may be one that can't be printed.

    Example:
        >>> describe(ValueError("too large"))
        'ValueError: too large'
    """
    try:
        text = str(error).partition("\n")[0][:200]
    except Exception:
        text = "(can't be printed)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
