"""The commands on a store, run in this process on a store in a directory of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobrunner.cli.app import app
from tests.batch.stores import StoreBuilder

__all__ = ["invoke", "make_unsafe", "store"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreBuilder]:
    """An empty store at the default path of the working directory."""
    monkeypatch.chdir(tmp_path)
    made = StoreBuilder(tmp_path / "jobrunner.db")
    yield made
    made.close()


def invoke(command_line: str) -> Result:
    """Run a command, which must not end in a fault of the program's own."""
    ran = CliRunner().invoke(app, command_line.split())
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
    assert "Traceback" not in ran.output
    return ran


def make_unsafe(path: Path) -> None:
    """Have the store be one that another user could have written."""
    path.chmod(0o666)
