"""Whoever could have written a store is noticed: by its file, by what SQLite keeps beside it, by its directory."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobrunner.storage import trust
from jobrunner.storage.trust import SIDECARS, network_file_system, other_writers, strange_log

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "own"
    place.mkdir(mode=0o700)
    path = place / "store.db"
    path.touch(mode=0o600)
    return path


class System:
    """`os` as another user would see it, or with a file of another user's."""

    def __init__(self) -> None:
        self.user = os.geteuid()
        self.strange: Path | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def geteuid(self) -> int:
        return self.user

    def stat(self, path: str | Path) -> os.stat_result:
        found = os.stat(path)
        if str(path) != str(self.strange):
            return found
        return os.stat_result([*found[:4], found.st_uid + 1, *found[5:10]])


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()
    monkeypatch.setattr(trust, "os", made)
    return made


def test_ones_own_file_in_ones_own_directory_is_ones_own(store: Path) -> None:
    assert other_writers(store) is None


def test_a_file_that_is_not_there_yet_is_ones_own_where_nobody_else_could_make_it(store: Path) -> None:
    assert other_writers(store.with_name("new.db")) is None


@pytest.mark.parametrize("mode", [0o602, 0o606, 0o666, 0o622])
@pytest.mark.parametrize("ending", ["", *SIDECARS])
def test_a_file_that_all_may_write_is_not(store: Path, mode: int, ending: str) -> None:
    file = Path(f"{store}{ending}")
    file.touch(mode=0o600)
    assert other_writers(store) is None
    file.chmod(mode)
    assert other_writers(store) == f"others may write {file} (mode {mode:04o})"


def test_a_file_that_others_may_read_is(store: Path) -> None:
    store.chmod(0o644)
    assert other_writers(store) is None


def test_a_group_that_may_write_counts_unless_it_is_the_users_alone(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.chmod(0o660)
    monkeypatch.setattr(trust, "_is_private_group", lambda number: False)
    assert other_writers(store) == f"others may write {store} (mode 0660)"
    monkeypatch.setattr(trust, "_is_private_group", lambda number: number == store.stat().st_gid)
    assert other_writers(store) is None


def test_a_group_without_an_entry_is_nobodys_own() -> None:
    assert not trust._is_private_group(2**31 - 5)


@pytest.mark.parametrize("ending", ["", *SIDECARS])
def test_a_file_of_another_user_is_not(store: Path, ending: str, system: System) -> None:
    file = Path(f"{store}{ending}")
    file.touch(mode=0o600)
    system.strange = file
    assert other_writers(store) == f"{file} belongs to another user (uid {file.stat().st_uid + 1})"
    assert strange_log(store) is (ending in ("-wal", "-journal"))


def test_a_store_of_another_user_is_not(store: Path, system: System) -> None:
    Path(f"{store}-wal").touch()
    system.user += 1
    assert other_writers(store) == f"{store} belongs to another user (uid {os.getuid()})"
    assert not strange_log(store)  # it is that user's, as the store is


def test_a_directory_of_another_user_is_not(store: Path, system: System) -> None:
    system.strange = store.parent
    assert other_writers(store) == f"its directory {store.parent} belongs to another user (uid {os.getuid() + 1})"


def test_a_directory_that_others_may_write_is_not_unless_it_is_sticky(store: Path) -> None:
    store.parent.chmod(0o777)
    assert other_writers(store) == f"others may put files into its directory {store.parent} (mode 0777)"
    store.parent.chmod(0o1777)
    assert other_writers(store) is None


def test_what_lies_beside_the_file_that_a_link_leads_to_counts(store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(store)
    assert other_writers(link) is None
    log = Path(f"{store}-wal")
    log.touch()
    log.chmod(0o666)
    assert other_writers(link) == f"others may write {log.resolve()} (mode 0666)"


class Mounted:
    def __init__(self, mountpoint: str, fstype: str, opts: str = "rw") -> None:
        self.mountpoint, self.fstype, self.opts = mountpoint, fstype, opts


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/anna/store.db", "nfs4"),
        ("/home2/store.db", None),
        ("/home/local/store.db", None),
        ("/home/local/deep/store.db", None),
        ("/scratch/run/store.db", "lustre"),
        ("/share/store.db", "smb"),
        ("/store.db", None),
    ],
)
def test_the_innermost_mount_decides_on_a_network_file_system(
    path: str, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [
        Mounted("/", "ext4"),
        Mounted("/home", "nfs4"),
        Mounted("/home/local", "xfs"),
        Mounted("/scratch", "lustre"),
        Mounted("/share", "ntfs", "rw,remote"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert network_file_system(Path(path)) == kind


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="needs access control lists as Linux has them")
def test_whom_an_access_control_list_lets_write_is_another_writer(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_is_private_group", lambda number: True)
    # Version 2; the owner, user 65534 and the group may read and write, the mask too, others nothing.
    undefined = 0xFFFFFFFF
    entries = [(1, 6, undefined), (2, 6, 65534), (4, 6, undefined), (16, 6, undefined), (32, 0, undefined)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    store.chmod(0o660)
    assert trust.other_writers(store) is None
    try:
        os.setxattr(store, "system.posix_acl_access", listed)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    assert "others may write" in str(trust.other_writers(store))
