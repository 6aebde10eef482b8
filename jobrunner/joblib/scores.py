"""scikit-learn's ``error_score``, kept for candidates whose process dies.

GridSearchCV and its like run one function, ``_fit_and_score``, for each candidate and split; it catches what fitting
raises, and reports ``error_score`` then.  A fit that ends its process, or is ended at a limit, gets no chance to; so
the function is called again, here, with an estimator whose ``fit`` does nothing but raise the error.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NoReturn

from jobrunner.errors import TimeLimitExceeded, WorkerDiedError

__all__ = ["ENDED", "can_be_scored", "score_of_failed"]

#: What a job fails with whose process ended, or was ended.
ENDED = (WorkerDiedError, TimeLimitExceeded)

_HOME = "sklearn.model_selection._validation"


def can_be_scored(
    error: BaseException, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether a task that has failed with `error` is one whose caller wants a score all the same."""
    if not isinstance(error, ENDED):
        return False
    inner = getattr(function, "function", function)
    if getattr(inner, "__module__", None) != _HOME or getattr(inner, "__name__", None) != "_fit_and_score":
        return False
    return bool(args) and kwargs.get("error_score", "raise") != "raise"


def score_of_failed(
    error: BaseException, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What ``_fit_and_score`` returns for a fit that raises `error`."""

    def fit(*args: Any, **kwargs: Any) -> NoReturn:
        raise error

    estimator = copy.copy(args[0])
    estimator.fit = fit
    try:
        return function(estimator, *args[1:], **kwargs)
    finally:
        # The caller may get it: as it would be if fitting had raised in it.
        del estimator.fit
