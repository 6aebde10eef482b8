"""What the commands on a store have in common: which store, which batch, and what a mistake is told as."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.stores import StoreBuilder, gone
from tests.cli.store_commands import invoke, store
from tests.command_line import ROOT

__all__ = ["store"]

_COMMANDS = ["status", "results", "failures", "logs", "cancel"]


@pytest.mark.parametrize("command", [*_COMMANDS, "list"])
def test_help_has_an_example(command: str) -> None:
    ran = invoke(f"{command} --help")
    assert ran.exit_code == 0
    assert f"jobrunner {command}" in ran.output


@pytest.mark.parametrize("command", [*_COMMANDS, "list"])
def test_a_store_that_is_not_there_or_none_exits_with_3(command: str, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    ran = invoke(f"{command} --store {path}")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "there is no such store" in ran.stderr
    assert not path.exists()
    path.write_text("no database" * 100)
    ran = invoke(f"{command} --store {path}")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "is no SQLite file" in ran.stderr


@pytest.mark.parametrize("command", _COMMANDS)
def test_the_batch_is_named_where_there_are_several(command: str, store: StoreBuilder) -> None:
    ran = invoke(command)
    assert ran.exit_code == 2
    assert "there is no batch in it yet" in ran.stderr
    store.batch("first")
    store.batch("second")
    ran = invoke(command)
    assert ran.exit_code == 2
    assert "--name: it has several batches, name one of them: 'first', 'second'" in ran.stderr
    ran = invoke(f"{command} --name secnd")
    assert ran.exit_code == 2
    assert "did you mean 'second'" in ran.stderr
    assert invoke(f"{command} --name second").exit_code == 0


@pytest.mark.parametrize("command", ["failures", "logs", "cancel"])
@pytest.mark.parametrize(("total", "extent"), [(0, "it has none"), (1, "only point 0"), (3, "the points 0 to 2")])
def test_a_point_that_is_not_there_exits_with_2(command: str, total: int, extent: str, store: StoreBuilder) -> None:
    batch = store.batch(total=total)
    for place in range(total):
        store.point(batch, place, {"x": place})
    ran = invoke(f"{command} --point 7")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert extent in ran.stderr


@pytest.mark.parametrize("command", _COMMANDS)
def test_no_text_of_a_store_steers_the_terminal(command: str, store: StoreBuilder) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e[bold]"
    batch = store.batch(evil, parameters=[evil], total=3, target=evil)
    runner = store.runner(batch, host=evil)
    store.insert("note", batch=batch, at=0.0, kind=evil, text=evil)
    store.done(batch, runner, 0, {evil: evil}, {evil: evil}, stdout=evil)
    store.failed(batch, runner, 1, {evil: evil}, evil, host=evil, report={"stack": evil}, stdout=evil, stderr=evil)
    store.point(batch, 2, {evil: evil})
    arguments = {"failures": " --full", "cancel": " --point 2"}.get(command, "")
    for ran in (invoke(command + arguments), invoke("list")):
        assert ran.exit_code == 0, ran.output
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(ran.output)
        assert r"\x1b]0;owned" in ran.output.replace("\n", "")


def _run(directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("jobrunner", f"'{sys.executable}' -m jobrunner", 1)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("command", ["results --format csv", "results --json", "failures", "logs", "failures --json"])
def test_a_reader_that_has_enough_is_no_error(command: str, store: StoreBuilder) -> None:
    batch = store.batch(total=4000)
    runner = store.runner(batch, gone())
    store.many(batch, {"done": 4000}, runner)
    store.connection.execute("UPDATE outcome SET stdout = 'printed', error = 'E: wrong'")
    if command.startswith("failures"):
        store.connection.execute("UPDATE point SET status = 'failed'")
    ran = _run(store.path.parent, f"jobrunner {command} | head -n 2")
    assert len(ran.stdout.splitlines()) == 2
    assert "Broken" not in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["results", "status", "list", "results --output /dev/full"])
def test_a_full_disk_is_said_in_one_line_with_exit_code_3(command: str, store: StoreBuilder) -> None:
    batch = store.batch(total=1)
    store.done(batch, store.runner(batch), 0, {"x": 1}, 1)
    ran = _run(store.path.parent, f"jobrunner {command} >/dev/full")
    assert ran.returncode == 3
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_list_shows_each_batch_and_who_runs_it(store: StoreBuilder) -> None:
    first = store.batch("first", total=4, seed="77")
    runner = store.runner(first)
    store.done(first, runner, 0, {"x": 1}, 1)
    store.failed(first, runner, 1, {"x": 2}, "E")
    store.point(first, 2, {"x": 3}, "leased", runner=runner)
    store.point(first, 3, {"x": 4}, "cancelled")
    second = store.batch("second", total=0)
    store.runner(second, gone())
    rows = [line.split() for line in invoke("list").stdout.splitlines()]
    assert rows[0] == ["name", "target", "done", "failed", "left", "total", "seed", "created", "run", "by"]
    assert rows[1][:7] == ["first", "functions:square", "1", "1", "2", "4", "77"]
    assert rows[1][-2:] == ["pid", str(os.getpid())]
    assert rows[2][:7] == ["second", "functions:square", "0", "0", "0", "0", "-"]
    assert rows[2][-1] == "-"
    documents = json.loads(invoke("list --json").stdout)
    assert [document["name"] for document in documents] == ["first", "second"]
    assert documents[0]["counts"] == {"pending": 0, "leased": 1, "done": 1, "failed": 1, "cancelled": 1}
    assert documents[0]["left"] == 2
    assert [runner["pid"] for runner in documents[0]["run_by"]] == [os.getpid()]
    assert documents[1]["run_by"] == []


def test_list_of_nothing_says_so(store: StoreBuilder) -> None:
    ran = invoke("list")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "no batch" in ran.stderr
    assert json.loads(invoke("list --json").stdout) == []
