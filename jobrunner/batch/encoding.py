"""Results as a store keeps them: JSON where that says the same, else a pickle."""

from __future__ import annotations

import json
import pickle
from typing import Any, Final, NamedTuple

import cloudpickle

from jobrunner.errors import SerializationError

__all__ = ["JSON", "PICKLE", "WITHHELD", "Encoded", "Withheld", "decode", "encode"]

JSON: Final = "json"
PICKLE: Final = "pickle"


class Encoded(NamedTuple):
    """A value in its stored form.

    Attributes:
        format: ``"json"`` or ``"pickle"``.
        data: the JSON text, or the pickle.
    """

    format: str
    data: str | bytes


class Withheld:
    """Stands for a pickled result that is not loaded, since another user could have written it."""

    def __repr__(self) -> str:
        return "<withheld: a pickle that another user could have written>"


WITHHELD: Final = Withheld()


def encode(value: Any) -> Encoded:
    """The stored form of what a function returned.

    JSON is taken where it reads back as an equal value: numbers, text, booleans, None, and lists and mappings with text
    keys of those (NumPy's float64, which is a float, becomes one).  Tuples, NaN, arrays and all else are pickled.

    Raises:
        SerializationError: it can't be pickled either.

    Example:
        >>> encode({"energy": -1.5}).data
        '{"energy":-1.5}'
        >>> encode((1, 2)).format
        'pickle'
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        if bool(json.loads(text) == value):
            return Encoded(JSON, text)
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return Encoded(PICKLE, cloudpickle.dumps(value, protocol=5))
    except Exception as error:  # whatever the value's own methods raise
        raise SerializationError(f"the result can't be stored: {type(error).__name__}: {error}") from error


def decode(encoded: Encoded, *, trusted: bool) -> Any:
    """The value again.

    Args:
        encoded: what `encode` gave.
        trusted: whether a pickle may be loaded; else `WITHHELD` stands for its value.

    Raises:
        SerializationError: the pickle can't be loaded, such as where a module that it needs is missing.

    Example:
        >>> decode(encode((1, 2)), trusted=True)
        (1, 2)
        >>> decode(encode((1, 2)), trusted=False)
        <withheld: a pickle that another user could have written>
    """
    if encoded.format == JSON or isinstance(encoded.data, str):
        return json.loads(encoded.data)
    if not trusted:
        return WITHHELD
    try:
        return pickle.loads(encoded.data)  # noqa: S301 - nobody else could have written it, see `trust`
    except Exception as error:
        raise SerializationError(f"the stored result can't be loaded: {type(error).__name__}: {error}") from error
