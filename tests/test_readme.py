"""README.md says what is true: its code runs and prints what is shown, its commands work, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT, Block, blocks, pattern, shell_variables

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = blocks(README)
SET_UPS = [block.code.strip() for block in BLOCKS if "venv" in block.code]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language == "sh" and "venv" not in block.code]


def _name(block: Block) -> str:
    return f"line-{block.line}"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a shell in which this interpreter and this checkout's `jobrunner` are found first."""
    return shell_variables(tmp_path, 120)


def _run(arguments: list[str], directory: Path, environment: dict[str, str]) -> str:
    """What the program printed, on either stream; it must end well."""
    ran = subprocess.run(
        arguments,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def _comparable(output: str) -> list[str]:
    """Its lines without what differs between runs: times, job ids, pids, and trailing blanks."""
    text = re.sub(r"\b\d+\.\d+ s\b", "# s", output)
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"\bpid \d+", "pid #", text)
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def test_every_block_is_run_by_a_test_here() -> None:
    assert {block.language for block in BLOCKS} == {"python", "sh"}
    assert len(SET_UPS) == 2
    assert len(PYTHON) >= 6
    assert len(SHELL) >= 2
    assert all(block.output for block in PYTHON)


@pytest.mark.parametrize("block", PYTHON, ids=_name)
def test_a_python_block_prints_what_is_shown(block: Block, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "example.py").write_text(block.code, encoding="utf-8")
    printed = _run([sys.executable, "example.py"], tmp_path, environment)
    assert block.output is not None
    assert _comparable(printed) == _comparable(block.output)


def test_the_shell_blocks_run_one_after_the_other_and_print_what_is_shown(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """In one directory, as a reader would run them: one writes the file that another runs."""
    for block in SHELL:
        printed = _run(["sh", "-c", block.code], tmp_path, environment)
        shown = "\n".join(_comparable(block.output or ""))
        assert re.fullmatch(pattern(shown), "\n".join(_comparable(printed))), f"line {block.line}: {printed}"
    assert len((tmp_path / "walk.csv").read_text().splitlines()) == 7


# --- the two commands that set up ------------------------------------------------------------------------------------
#
# Making an environment and installing into it is .ci/run's to show; here, that they ask for what there is, and that
# what they end in works.


def _steps(command: str) -> list[list[str]]:
    assert "\n" not in command
    return [shlex.split(step) for step in command.split(" && ")]


def _project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("command", SET_UPS, ids=["run", "test"])
def test_a_set_up_makes_an_environment_and_installs_extras_that_exist(command: str) -> None:
    make, enter, install, _ = _steps(command)
    assert make == ["python3", "-m", "venv", ".venv"]
    assert enter == [".", ".venv/bin/activate"]
    assert install[:3] == ["pip", "install", "-q"]
    match = re.fullmatch(r"\.\[([\w,]+)\]", install[-1])
    assert match
    assert set(match.group(1).split(",")) <= set(_project()["optional-dependencies"])


def test_the_first_command_ends_in_a_batch_that_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    """The spec that it names, with fewer points and sweeps."""
    pytest.importorskip("numpy")
    command = _steps(SET_UPS[0])[-1]
    assert command[:2] == ["jobrunner", "run"]
    spec = Path(command[2])
    text = (ROOT / spec).read_text(encoding="utf-8")
    small = text.replace("sweeps = 4000", "sweeps = 40").replace('"1.5:3.5:0.1"', '"1.5:3.5:1.0"')
    small = small.replace("[16, 32]", "[8]")
    assert small.count("sweeps = 40\n") == small.count("1.0") == small.count("[8]") == 1
    (tmp_path / spec).parent.mkdir()
    (tmp_path / spec).write_text(small, encoding="utf-8")
    (tmp_path / "examples" / "ising.py").write_text((ROOT / "examples" / "ising.py").read_text(encoding="utf-8"))
    printed = _run(["sh", "-c", shlex.join(command)], tmp_path, environment)
    assert "temperature" in printed
    assert "energy" in printed
    assert "ising: 3 done, 0 failed" in printed


def test_the_second_command_ends_in_the_tests(environment: dict[str, str]) -> None:
    """A small part of them: all would include this one."""
    command = _steps(SET_UPS[1])[-1]
    small = [*command, "-q", "-p", "no:cacheprovider", "tests/batch/test_seeds.py"]
    assert " passed" in _run(["sh", "-c", shlex.join(small)], ROOT, environment)


def test_the_test_command_is_that_of_ci_and_of_contributing() -> None:
    command = shlex.join(_steps(SET_UPS[1])[-1])
    assert f"| tests | `{command}` |" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    ci = ROOT / ".ci" / "run"
    if not ci.exists():
        pytest.skip("an unpacked source distribution has no .ci")
    assert f"step {command}\n" in ci.read_text(encoding="utf-8")


# --- the rest of the text --------------------------------------------------------------------------------------------


def test_the_links_lead_to_files_that_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_options_named_are_those_of_the_command(environment: dict[str, str]) -> None:
    help_text = "".join(_run(["jobrunner", command, "--help"], ROOT, environment) for command in ("run", "bench"))
    section = README.partition("## Command line")[2].partition("\n## ")[0]
    options = set(re.findall(r"`(--[a-z-]+)", section))
    assert len(options) > 5
    assert all(option in help_text for option in options)
