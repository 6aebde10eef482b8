"""What is said where Qiskit is missing, too old, or newer than what is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobrunner.qiskit import versions


def test_qiskit_missing_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version_of", lambda package: None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'jobrunner\[qiskit\]'"):
        versions.check_qiskit()


@pytest.mark.parametrize("old", ["0.46.3", "1.2.4", "1.0.0rc1"])
def test_qiskit_too_old_is_told_with_both_versions(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version_of", lambda package: old)
    with pytest.raises(ImportError, match=f"needs Qiskit 1.3 or later, and found {old}"):
        versions.check_qiskit()


@pytest.mark.parametrize("good", ["1.3.0", "1.4.2", "2.0.0rc1", "2.6.2", "3.0"])
def test_others_are_taken(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version_of", lambda package: good)
    versions.check_qiskit()


def test_without_qiskit_the_rest_is_untouched(tmp_path: Path) -> None:
    # A directory of that name without metadata is no Qiskit.
    code = (
        "import importlib.metadata as m, jobrunner\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'qiskit': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "print(jobrunner.PrimitiveJob)\n"
        "try:\n    import jobrunner.qiskit\nexcept ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[1].startswith("jobrunner.qiskit needs Qiskit, which is not installed")


def test_what_is_known_is_quiet(recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"qiskit": "1.3.1", "qiskit-algorithms": "0.3.1", "qiskit-aer": "0.17.0"}
    monkeypatch.setattr(versions, "version_of", known.get)
    versions.warn_of_unknown()
    assert not recwarn.list
    monkeypatch.setattr(versions, "version_of", {"qiskit-algorithms": "0.2.0"}.get)
    with pytest.warns(versions.UnknownVersionWarning, match=r"qiskit-algorithms 0\.2\.0 is older"):
        versions.warn_of_unknown()
