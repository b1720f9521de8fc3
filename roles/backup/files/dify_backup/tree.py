# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a tree of files looks like, on this host and in a snapshot."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import typing as t

from dify_backup.basics import Json
from dify_backup.project import below

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}


# Go's bits for what Unix keeps beside the permissions.
GO_BITS = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))


class Entry(t.NamedTuple):
    """A file, directory or symlink. ``size`` of files only."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int


def summary(entries: t.Iterable[Entry]) -> Json:
    """Numbers and a digest of a tree that depend on names, kinds, modes, owners and sizes, but not on the order."""
    counts = {"file": 0, "dir": 0, "symlink": 0}
    size = 0
    digest = hashlib.sha256()
    for entry in sorted(entries):
        counts[entry.kind] += 1
        size += entry.size
        digest.update("\0".join(map(str, entry)).encode("utf-8", "surrogateescape") + b"\n")
    return {
        "files": counts["file"],
        "directories": counts["dir"],
        "symlinks": counts["symlink"],
        "bytes": size,
        "digest": digest.hexdigest(),
    }


def listed(lines: t.Iterable[str], paths: t.Sequence[str], without: t.Collection[str]) -> t.Iterator[Entry]:
    """The entries below ``paths`` of a snapshot, from C(restic ls --json)."""
    for line in lines:
        node = json.loads(line)
        path = node.get("path", "")
        if node.get("type") not in KINDS.values() or path in without:
            continue
        if any(below(path, parent) for parent in paths):
            mode = node.get("mode", 0)
            unix = (mode & 0o777) | sum(unix for go, unix in GO_BITS if mode & go)
            size = node.get("size", 0) if node["type"] == "file" else 0
            yield Entry(path, node["type"], unix, node.get("uid", 0), node.get("gid", 0), size)


def walked(
    paths: t.Sequence[str], excluded: t.Sequence[str], without: t.Collection[str], root: str = ""
) -> t.Iterator[Entry]:
    """The same of what is on this host, below ``root``."""
    pending = list(paths)
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(root + path)
        except FileNotFoundError:
            continue
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if path in excluded or path in without or kind is None:
            continue
        size = status.st_size if kind == "file" else 0
        yield Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, size)
        if kind == "dir":
            pending += [os.path.join(path, name) for name in os.listdir(root + path)]
