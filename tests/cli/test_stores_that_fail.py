"""What can't be used, store or output, is told in a line with exit code 3; what was recorded stays, and can go on."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobrunner.batch.store import Store
from tests.command_line import ROOT, CommandLine

FUNCTIONS = """
import os, shutil, time

def large(x):
    with open("ran.txt", "a") as file:
        file.write(f"{x}\\n")
    return "y" * 20_000

def waits(x):
    with open("fifo", "w") as file:
        file.write(f"{os.getpid()}\\n")
    if not os.path.exists("go"):
        time.sleep(600)
    return x

def loses_the_output(x):
    shutil.rmtree("out")
    return x
"""

#: Run before the command line, in its process.
SHORT_WAIT = "import jobrunner.storage.connection as store; store._LOCKED_S = 0.2"
SMALL_FILE = """
import jobrunner.storage.connection as store
plain = store._open
def small(path, mode):
    connection = plain(path, mode)
    connection.execute("PRAGMA max_page_count = 80")
    return connection
store._open = small
"""

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_PR_CAPBSET_DROP = 24


def obey_modes() -> None:
    """In a child before exec: have the modes of files bind root too."""
    if os.geteuid() == 0:
        for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            if ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError("can't give up root's rights")


def limit_files() -> None:
    """In a child before exec: no file larger than this, as a disk that is full or a quota that is used up."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def directory(command_line: CommandLine) -> Path:
    (command_line.directory / "work.py").write_text(FUNCTIONS)
    return command_line.directory


def run(
    command_line: CommandLine, *arguments: str, prelude: str = "", preexec: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """`jobrunner run work.py:...` with something changed in its process."""
    process = start(command_line, *arguments, prelude=prelude, preexec=preexec)
    stdout, stderr = process.communicate(timeout=100)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def start(
    command_line: CommandLine, *arguments: str, prelude: str = "", preexec: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{prelude}\nfrom jobrunner.cli import main; main()", "run", *arguments],
        cwd=command_line.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
    )
    command_line.started.append(process)
    return process


def assert_one_error(ran: subprocess.CompletedProcess[str], *reasons: str) -> None:
    assert ran.returncode == 3, ran.stderr
    assert ran.stdout == ""
    assert ran.stderr.startswith("jobrunner: ")
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert all(reason in ran.stderr for reason in reasons), ran.stderr


def done(store: Path) -> set[int]:
    with Store(store) as opened:
        return {point.parameters["x"] for point in opened.points(opened.batch(), "done")}


# --- a disk that is full ---------------------------------------------------------------------------------------------


def _mount(directory: Path, options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(directory)], check=True, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        _mount(disk, "size=400k,mode=700")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def assert_resumes(command_line: CommandLine, store: Path, kept: set[int]) -> None:
    """What was done is not run again, and the rest is."""
    ran = run(command_line, "work.py:large", "-p", "x=1:40", "--store", str(store))
    assert ran.returncode == 0, ran.stderr
    assert f"{40 - len(kept)} done, 0 failed, {len(kept)} done before" in ran.stderr
    assert done(store) == set(range(1, 41))
    lines = (command_line.directory / "ran.txt").read_text().split()
    assert all(lines.count(str(x)) == 1 for x in kept)


@pytest.mark.parametrize("way", ["file size", "pages"])
def test_a_full_disk_ends_the_run_and_with_room_again_a_resume_completes(
    command_line: CommandLine, directory: Path, way: str
) -> None:
    store = directory / "store.db"
    assert run(command_line, "work.py:large", "-p", "x=1:5", "--store", "store.db").returncode == 0
    grown = ("work.py:large", "-p", "x=1:40", "--store", "store.db")
    if way == "pages":
        ran = run(command_line, *grown, prelude=SMALL_FILE)
        assert_one_error(ran, "store.db: the disk is full: make room and run the same command again")
    else:
        ran = run(command_line, *grown, preexec=limit_files)
        assert_one_error(ran, "store.db: the disk has failed to read or write it, or your quota on it is used up")
    kept = done(store)
    assert {1, 2, 3, 4, 5} <= kept < set(range(1, 41))
    assert_resumes(command_line, store, kept)


def test_a_full_file_system_ends_the_run_and_with_room_again_a_resume_completes(
    command_line: CommandLine, directory: Path, small_disk: Path
) -> None:
    store = small_disk / "store.db"
    assert run(command_line, "work.py:large", "-p", "x=1:5", "--store", str(store)).returncode == 0
    assert_one_error(run(command_line, "work.py:large", "-p", "x=1:40", "--store", str(store)), str(store), "the disk")
    kept = done(store)
    assert {1, 2, 3, 4, 5} <= kept < set(range(1, 41))
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert_resumes(command_line, store, kept)


def test_a_disk_without_room_for_a_new_store_is_told(command_line: CommandLine, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(300_000))
    with contextlib.suppress(OSError), (small_disk / "more").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", str(small_disk / "store.db"))
    assert_one_error(ran, "the disk")
    (small_disk / "other").unlink()
    ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", str(small_disk / "store.db"))
    assert ran.returncode == 0, ran.stderr


# --- a store that is locked ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def test_a_store_that_stays_locked_is_told_before_anything_runs(command_line: CommandLine, directory: Path) -> None:
    assert run(command_line, "work.py:large", "-p", "x=1").returncode == 0
    with locked(directory / "jobrunner.db"):
        ran = run(command_line, "work.py:large", "-p", "x=1:2", prelude=SHORT_WAIT)
    assert_one_error(ran, "jobrunner.db: another process has kept it locked")
    assert (directory / "ran.txt").read_text() == "1\n"


def test_a_store_locked_amid_a_run_ends_what_runs_and_a_resume_completes(
    command_line: CommandLine, directory: Path, meeting: Callable[[int], list[int]]
) -> None:
    process = start(command_line, "work.py:waits", "-p", "x=1:2", "--workers", "2", prelude=SHORT_WAIT)
    pids = meeting(2)
    with locked(directory / "jobrunner.db"):
        stdout, stderr = process.communicate(timeout=100)
    assert_one_error(subprocess.CompletedProcess([], process.returncode, stdout, stderr), "has kept it locked")
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    (directory / "go").touch()
    ran = run(command_line, "work.py:waits", "-p", "x=1:2", prelude=SHORT_WAIT)
    assert ran.returncode == 0, ran.stderr
    assert done(directory / "jobrunner.db") == {1, 2}


# --- a store that is read-only ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
@pytest.mark.parametrize(
    ("file_mode", "directory_mode", "reason"),
    [(0o400, 0o700, "is read-only"), (0o000, 0o700, "is read-only"), (0o600, 0o500, "is read-only")],
)
def test_a_store_that_may_not_be_written_is_told_and_left_as_it_is(
    command_line: CommandLine, directory: Path, file_mode: int, directory_mode: int, reason: str
) -> None:
    place = directory / "place"
    place.mkdir()
    store = place / "store.db"
    assert run(command_line, "work.py:large", "-p", "x=1", "--store", str(store)).returncode == 0
    for ending in ("-wal", "-shm"):
        Path(f"{store}{ending}").unlink(missing_ok=True)
    before = store.read_bytes()
    store.chmod(file_mode)
    place.chmod(directory_mode)
    ran = run(command_line, "work.py:large", "-p", "x=1:2", "--store", str(store), preexec=obey_modes)
    place.chmod(0o700)
    store.chmod(0o600)
    assert_one_error(ran, f"{store}: {reason}")
    assert store.read_bytes() == before
    assert (directory / "ran.txt").read_text() == "1\n"


def test_a_store_on_a_read_only_file_system_is_told_and_can_be_read(
    command_line: CommandLine, directory: Path, small_disk: Path
) -> None:
    store = small_disk / "store.db"
    assert run(command_line, "work.py:large", "-p", "x=1", "--store", str(store)).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_one_error(run(command_line, "work.py:large", "-p", "x=1:2", "--store", str(store)), "is read-only")
    assert_one_error(run(command_line, "work.py:large", "-p", "x=1", "--store", f"{store}2"), "Read-only file system")
    assert done(store) == {1}


# --- what is no store of ours ----------------------------------------------------------------------------------------


def _later_version(store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 2")


def _another_programs(store: Path) -> None:
    store.unlink()
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("CREATE TABLE point (x)")


def _another_programs_empty(store: Path) -> None:
    store.unlink()
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 1")


def _text(store: Path) -> None:
    store.write_text("x,y\n1,2\n")


def _cut_off(store: Path) -> None:
    os.truncate(store, store.stat().st_size // 2)


def _overwritten(store: Path) -> None:
    data = store.read_bytes()
    store.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_later_version, "was written by a later version of jobrunner (its tables are of version 2, this one knows 1)"),
        (_another_programs, "is another program's SQLite file"),
        (_another_programs_empty, "is another program's SQLite file"),
        (_text, "is no SQLite file"),
        (_cut_off, "is damaged"),
        (_overwritten, "is damaged"),
    ],
)
@pytest.mark.parametrize("by_name", [False, True], ids=["target", "stored"])
def test_what_is_no_store_is_told_and_left_as_it_is(
    command_line: CommandLine, directory: Path, spoil: Callable[[Path], None], reason: str, by_name: bool
) -> None:
    store = directory / "jobrunner.db"
    assert run(command_line, "work.py:large", "-p", "x=1:3").returncode == 0
    for ending in ("-wal", "-shm"):
        Path(f"{store}{ending}").unlink(missing_ok=True)
    spoil(store)
    digest = hashlib.sha256(store.read_bytes()).digest()
    ran = run(command_line, *(() if by_name else ("work.py:large", "-p", "x=1:4")))
    assert_one_error(ran, f"jobrunner.db: {reason}")
    assert hashlib.sha256(store.read_bytes()).digest() == digest
    assert sorted((directory / "ran.txt").read_text().split()) == ["1", "2", "3"]


def test_a_directory_or_pipe_is_no_store(command_line: CommandLine) -> None:
    (command_line.directory / "place.db").mkdir()
    os.mkfifo(command_line.directory / "pipe.db")
    for name in ("place.db", "pipe.db"):
        ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", name)
        assert_one_error(ran, f"{name}: is no file")
    ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", "none/store.db")
    assert_one_error(ran, "none/store.db: can't be used: No such file or directory")


def test_an_empty_file_becomes_a_store(command_line: CommandLine) -> None:
    (command_line.directory / "store.db").touch()
    ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", "store.db")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["a b?c#d%20.db", os.fsdecode(b"\xff.db")])
def test_a_stores_name_may_have_any_letters(command_line: CommandLine, name: str) -> None:
    ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", name)
    assert ran.returncode == 0, ran.stderr
    assert (command_line.directory / name).stat().st_mode & 0o777 == 0o600


# --- a store that somebody else could have written -------------------------------------------------------------------


def test_a_store_that_others_could_write_is_refused_and_not_run(command_line: CommandLine, directory: Path) -> None:
    store = directory / "jobrunner.db"
    assert run(command_line, "work.py:large", "-p", "x=1").returncode == 0
    store.chmod(0o606)
    for arguments in (("work.py:large", "-p", "x=1:2"), ()):
        ran = run(command_line, *arguments)
        assert_one_error(ran, "others may write jobrunner.db (mode 0606)")
    store.chmod(0o600)
    assert (directory / "ran.txt").read_text() == "1\n"
    assert run(command_line, "work.py:large", "-p", "x=1:2").returncode == 0


def test_no_store_is_made_where_others_could_put_one(command_line: CommandLine) -> None:
    place = command_line.directory / "open"
    place.mkdir()
    place.chmod(0o777)
    ran = command_line.run("run", "functions:square", "-p", "x=1", "--store", "open/store.db")
    assert_one_error(ran, "others may put files into its directory")
    assert not list(place.iterdir())
    place.chmod(0o1777)  # where nobody can take away what is another's
    assert command_line.run("run", "functions:square", "-p", "x=1", "--store", "open/store.db").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
@pytest.mark.parametrize("ending", ["", "-wal", "-journal"])
def test_what_belongs_to_another_user_is_refused(command_line: CommandLine, directory: Path, ending: str) -> None:
    assert run(command_line, "work.py:large", "-p", "x=1").returncode == 0
    theirs = directory / f"jobrunner.db{ending}"
    theirs.touch()
    os.chown(theirs, 12345, -1)
    for arguments in (("work.py:large", "-p", "x=1:2"), ()):
        assert_one_error(run(command_line, *arguments), f"jobrunner.db{ending} belongs to another user (uid 12345)")
    assert (directory / "ran.txt").read_text() == "1\n"


# --- an output that can't be written ---------------------------------------------------------------------------------


def test_an_output_lost_meanwhile_ends_with_3_and_all_is_in_the_store(
    command_line: CommandLine, directory: Path
) -> None:
    (directory / "out").mkdir()
    ran = run(command_line, "work.py:loses_the_output", "-p", "x=1", "--output", "out/results.csv")
    assert ran.returncode == 3
    assert ran.stdout.split() == ["x", "result", "1", "1"]
    assert ran.stderr.splitlines()[-1] == (
        "jobrunner: out/results.csv: the output file can't be written: No such file or directory"
    )
    assert "Traceback" not in ran.stderr
    (directory / "out").mkdir()
    again = run(command_line, "work.py:loses_the_output", "-p", "x=1", "--output", "out/results.csv")
    assert again.returncode == 0, again.stderr
    assert len((directory / "out" / "results.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["directory", "unwritable", "unsearchable", "fresh"])
@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
def test_an_unwritable_output_is_told_before_anything_runs(
    command_line: CommandLine, directory: Path, kind: str
) -> None:
    place = directory / "out"
    place.mkdir()
    output = place / "results.csv"
    if kind == "directory":
        output.mkdir()
    elif kind != "fresh":
        output.write_text("kept\n")
        output.chmod(0o400)
    place.chmod({"unsearchable": 0o000, "fresh": 0o500}.get(kind, 0o700))
    ran = run(command_line, "work.py:large", "-p", "x=1", "--output", "out/results.csv", preexec=obey_modes)
    place.chmod(0o700)
    assert_one_error(ran, "out/results.csv: the output file can't be written: ")
    assert not (directory / "ran.txt").exists()
    assert not (directory / "jobrunner.db").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
def test_an_output_in_a_directory_that_takes_no_new_file_is_written_in_place(
    command_line: CommandLine, directory: Path
) -> None:
    place = directory / "out"
    place.mkdir()
    (place / "results.jsonl").write_text("before\n")
    place.chmod(0o500)
    ran = run(command_line, "work.py:large", "-p", "x=7", "--output", "out/results.jsonl", preexec=obey_modes)
    place.chmod(0o700)
    assert ran.returncode == 0, ran.stderr
    (line,) = (place / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["parameters"] == {"x": 7}


def test_an_output_that_is_a_link_is_written_where_it_leads(command_line: CommandLine, directory: Path) -> None:
    (directory / "out.jsonl").symlink_to("results.dat")
    ran = run(command_line, "work.py:large", "-p", "x=7", "--output", "out.jsonl")
    assert ran.returncode == 0, ran.stderr
    assert (directory / "out.jsonl").is_symlink()
    assert json.loads((directory / "results.dat").read_text())["parameters"] == {"x": 7}


def test_the_store_is_not_taken_for_the_output(command_line: CommandLine, directory: Path) -> None:
    assert run(command_line, "work.py:large", "-p", "x=1", "--store", "store.csv").returncode == 0
    (directory / "link.csv").symlink_to("store.csv")
    for name in ("store.csv", "link.csv"):
        ran = run(command_line, "work.py:large", "-p", "x=1:2", "--store", "store.csv", "--output", name)
        assert ran.returncode == 2
        assert f"--output: '{name}' is the store itself" in ran.stderr
    assert done(directory / "store.csv") == {1}


# --- a mistake in the description ------------------------------------------------------------------------------------

SPECS = {
    '[batch]\ntarget = "work.py:large"\nsed = 1\n': (3, "unknown; [batch] has", "did you mean 'seed'?"),
    '[batch]\ntarget = "work.py:large"\n[options]\nretries = "many"\n': (4, "retries", "many"),
    '[batch]\ntarget = "work.py:large"\n[sweep]\nx = [1, 2, 1]\n': (4, "x=1 stands twice", "replicates"),
    '[batch]\ntarget = "work.py:large"\n[sweep]\nx = [1]\ny = [2]\n': (5, "large() has no such parameter", "it has x"),
    '[batch]\ntarget = "work.py:large"\n': (2, "x: large() requires this parameter"),
    '[batch]\ntarget = "work.py:large"\n[sweep]\nx = "1:2:0"\n': (4, "the range never ends"),
    '[batch]\ntarget = "work.py:large"\n[sweep]\nx = [1.0, nan]\n': (4, "expected finite numbers"),
    '[batch]\ntarget = "work.py:lage"\n[sweep]\nx = [1]\n': (2, "has no 'lage'; did you mean 'large'?"),
}


@pytest.mark.parametrize("text", SPECS)
def test_a_mistake_in_a_spec_is_told_with_its_line_before_a_store_is_made(
    command_line: CommandLine, directory: Path, text: str
) -> None:
    line, *reasons = SPECS[text]
    (directory / "spec.toml").write_text(text)
    ran = run(command_line, "spec.toml")
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith(f"jobrunner: spec.toml:{line}: "), ran.stderr
    assert all(str(reason) in ran.stderr for reason in reasons), ran.stderr
    assert not (directory / "jobrunner.db").exists()
    assert not (directory / "ran.txt").exists()


def test_a_target_that_fails_to_import_shows_what_it_raised_and_where(
    command_line: CommandLine, directory: Path
) -> None:
    (directory / "broken.py").write_text("import os\nraise RuntimeError('no licence')\n")
    (directory / "spec.toml").write_text('[batch]\ntarget = "broken.py:f"\n')
    ran = run(command_line, "spec.toml")
    assert ran.returncode == 2
    assert "importing" in ran.stderr
    assert "broken.py:2: " in ran.stderr
    assert "RuntimeError: no licence" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (directory / "jobrunner.db").exists()


def test_sigxfsz_is_what_python_ignores() -> None:
    """Else `limit_files` would test nothing: the process would be killed."""
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
