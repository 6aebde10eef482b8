"""Who could have written a store: a pickle from another user's hand is that user's program.

A file counts as ours alone if

- it and what SQLite keeps beside it (``-wal``, ``-journal``, ``-shm``) belong to this user, and nobody else may write
  them;
- nobody else may put files into its directory, unless the directory is sticky, as /tmp is, where they can't take ours
  away.

A group that has this user as its only member, as many systems give each, is nobody else.  Where the system has no such
owners (Windows), the file is taken as ours: what may write there is governed by other means.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import psutil

__all__ = ["SIDECARS", "network_file_system", "other_writers", "strange_log"]

#: What SQLite may keep beside a file, by the end of its name.
SIDECARS = ("-wal", "-journal", "-shm")

#: File systems of more than one machine: the shared memory of SQLite's write-ahead log does not reach across.
_NETWORK = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.moosefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "prl_fs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "wekafs",
    }
)


def other_writers(path: Path) -> str | None:
    """How somebody else could have written the store at `path`, as the end of a sentence; None: nobody could.

    Args:
        path: the file; it need not exist.
    """
    if not hasattr(os, "geteuid"):
        return None
    if path.is_symlink():
        path = path.resolve()  # SQLite keeps its files beside the one that the link leads to
    for name in (str(path), *(f"{path}{ending}" for ending in SIDECARS)):
        try:
            found = os.stat(name)
        except FileNotFoundError:
            continue
        if found.st_uid != os.geteuid():
            return f"{name} belongs to another user (uid {found.st_uid})"
        if _others_may_write(name, found):
            return f"others may write {name} (mode {stat.S_IMODE(found.st_mode):04o})"
    directory = path.resolve().parent
    found = os.stat(directory)
    if found.st_uid not in (os.geteuid(), 0):
        return f"its directory {directory} belongs to another user (uid {found.st_uid})"
    if _others_may_write(directory, found) and not found.st_mode & stat.S_ISVTX:
        return f"others may put files into its directory {directory} (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def strange_log(path: Path) -> bool:
    """Whether a log or journal beside the store at `path` is another user's than the store.

    SQLite would replay it into the store; and, run by root, give it to the store's owner, after which nobody could tell
    any more whose it was.
    """
    if not hasattr(os, "geteuid"):
        return False
    file = path.resolve()
    owner = os.stat(file).st_uid
    for ending in ("-wal", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(f"{file}{ending}").st_uid != owner:
                return True
    return False


def _others_may_write(path: str | Path, found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    if not found.st_mode & stat.S_IWGRP:
        return False
    # Of a file with an access control list, these bits are what anybody who is named there may do at most.
    return _has_access_list(path) or not _is_private_group(found.st_gid)


def _has_access_list(path: str | Path) -> bool:
    if not hasattr(os, "getxattr"):
        return False
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:  # there is none, or the file system knows none
        return False


def _is_private_group(number: int) -> bool:
    """Whether the user is the only member of a group: it has the user's name, and nobody else is in it."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    if user.pw_gid != number or group.gr_name != user.pw_name or not set(group.gr_mem) <= {user.pw_name}:
        return False
    return all(other.pw_uid == user.pw_uid for other in pwd.getpwall() if other.pw_gid == number)


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that `path` is on, such as ``"nfs4"``; None if it is on none that is known.

    Args:
        path: a file, or where one is to be.
    """
    directory = str(path.resolve().parent)
    if directory.startswith("\\\\"):
        return "smb"
    best, kind = "", ""
    for mounted in psutil.disk_partitions(all=True):
        point = mounted.mountpoint
        inside = directory == point or directory.startswith(point if point.endswith(os.sep) else point + os.sep)
        if inside and len(point) >= len(best):
            best, kind = point, "smb" if "remote" in mounted.opts.split(",") else mounted.fstype.lower()
    return kind if kind in _NETWORK or kind == "smb" else None
