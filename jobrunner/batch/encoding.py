"""Results as a store keeps them: JSON where that says the same, else a pickle."""

from __future__ import annotations

import json
import pickle
from typing import Any, Final, NamedTuple

import cloudpickle

from jobrunner.errors import SerializationError
from jobrunner.memory import format_bytes

__all__ = ["JSON", "PICKLE", "WITHHELD", "Encoded", "Withheld", "decode", "encode", "storable_text"]

JSON: Final = "json"
PICKLE: Final = "pickle"

#: The most bytes of a result: a row of SQLite's has at most 1,000,000,000, what the job printed included.
_MOST = 950_000_000


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
        SerializationError: it can't be pickled either, or is larger than a store can take (950 MB).

    Example:
        >>> encode({"energy": -1.5}).data
        '{"energy":-1.5}'
        >>> encode((1, 2)).format
        'pickle'
    """
    encoded = _as_json(value) or _as_pickle(value)
    if len(encoded.data) > _MOST:
        raise SerializationError(
            f"the result can't be stored: it takes {format_bytes(len(encoded.data))}, and a store has room for "
            f"{format_bytes(_MOST)}; write it to a file, and return the file's name"
        )
    return encoded


def _as_json(value: Any) -> Encoded | None:
    """The JSON form, which is ASCII; None if there is none that says the same."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        return Encoded(JSON, text) if bool(json.loads(text) == value) else None
    except Exception:  # what JSON lacks, or whatever the value's own methods raise
        return None


def _as_pickle(value: Any) -> Encoded:
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


def storable_text(text: str) -> str:
    """`text` with what UTF-8 lacks (half of a surrogate pair, as in names of files) written as an escape.

    Example:
        >>> storable_text("caf\\udce9")
        'caf\\\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
