# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated trees: owners compared with those `chown -R -h` gives, entry by entry, and counts with a model."""

# ruff: noqa: PTH101, PTH103, PTH118, PTH211 - system calls are the subject

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import typing as t
from unittest import mock

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership as own
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership_walk as walker
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")

TARGET = (54321, 54322)
ids = st.sampled_from([TARGET[0], TARGET[1], 0, 7])
pairs = st.one_of(st.just(TARGET), st.tuples(ids, ids))
names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
leaves = st.one_of(
    st.tuples(st.just("file"), pairs, st.sampled_from([0o644, 0o4755, 0o2644, 0o600])),
    st.tuples(st.just("symlink"), pairs, st.sampled_from(["..", "/etc", "nowhere", "."])),
    st.tuples(st.just("fifo"), pairs, st.just(0o600)),
    st.tuples(st.just("hardlink"), pairs, st.integers(0, 5)),
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=6),
    lambda below: st.dictionaries(names, st.one_of(leaves, st.tuples(st.just("directory"), pairs, below)), max_size=5),
    max_leaves=25,
)


def build(root: bytes, tree: dict[bytes, t.Any], files: list[bytes] | None = None) -> None:
    files = [] if files is None else files
    os.makedirs(root, exist_ok=True)
    for name, (kind, owner, detail) in tree.items():
        path = os.path.join(root, name)
        if kind == "hardlink":
            if files:
                os.link(files[detail % len(files)], path, follow_symlinks=False)
            continue
        if kind == "file":
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            files.append(path)
        elif kind == "symlink":
            os.symlink(detail, path)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            build(path, detail, files)
        os.lchown(path, *owner)
        if kind in ("file", "fifo"):
            os.chmod(path, detail)


def entries(root: bytes) -> dict[bytes, os.stat_result]:
    found = {b"": os.lstat(root)}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


def owners(root: bytes) -> dict[bytes, tuple[int, int]]:
    return {path: (entry.st_uid, entry.st_gid) for path, entry in entries(root).items()}


def changes(root: bytes) -> dict[bytes, int]:
    return {path: entry.st_ctime_ns for path, entry in entries(root).items()}


def walk(root: bytes, **policy: t.Any) -> walker.Report:
    path = os.fsdecode(root)
    fd = own.open_root(path)
    try:
        return walker.own_tree(fd, path, walker.Policy(*TARGET, **policy))
    finally:
        os.close(fd)


@settings(max_examples=60)
@given(tree=trees, workers=st.sampled_from([1, 1, 3]))
def test_owners_are_those_chown_gives_and_counts_those_of_a_model(tree: dict[bytes, t.Any], workers: int) -> None:
    base = os.fsencode(tempfile.mkdtemp(prefix="ownership-"))
    try:
        ours, theirs = base + b"/ours", base + b"/theirs"
        build(ours, tree)
        build(theirs, tree)
        before = entries(ours)
        wrong = {(entry.st_dev, entry.st_ino) for entry in before.values() if (entry.st_uid, entry.st_gid) != TARGET}
        with mock.patch.multiple(walker, FORK_AFTER=0, BIG_DIRECTORY=0):
            check = walk(ours, apply=False, workers=workers, change_hardlinks=True)
            assert changes(ours) == {path: entry.st_ctime_ns for path, entry in before.items()}
            report = walk(ours, apply=True, workers=workers, change_hardlinks=True)
            again = walk(ours, apply=True, workers=workers, change_hardlinks=True)
        subprocess.run(["chown", "-R", "-h", "{}:{}".format(*TARGET), theirs], check=True)

        assert owners(ours) == owners(theirs)
        assert check.examined == report.examined == again.examined == len(before)
        assert check.wrong.total == report.wrong.total == report.changed == len(wrong)
        assert again.wrong.total == again.changed == again.failed.total == report.failed.total == 0
        now = entries(ours)
        for path, entry in before.items():
            if (entry.st_uid, entry.st_gid) == TARGET:
                assert now[path].st_mode == entry.st_mode, "an entry that was right lost its mode"
                assert now[path].st_ctime_ns == entry.st_ctime_ns, "an entry that was right was touched"
    finally:
        shutil.rmtree(base)


@settings(max_examples=40)
@given(tree=trees, chosen=st.integers(0, 1000), workers=st.sampled_from([1, 3]))
def test_what_is_excluded_stays_and_the_rest_does_not(tree: dict[bytes, t.Any], chosen: int, workers: int) -> None:
    base = os.fsencode(tempfile.mkdtemp(prefix="ownership-"))
    try:
        build(base, tree)
        before = entries(base)
        excluded = sorted(before)[chosen % len(before)]
        glob = re.sub(r"([*?[])", r"[\1]", os.fsdecode(excluded))
        spared = {path for path in before if excluded and (path == excluded or path.startswith(excluded + b"/"))}
        with mock.patch.multiple(walker, FORK_AFTER=0, BIG_DIRECTORY=0):
            globs = (glob,) if excluded else ()
            walk(base, apply=True, workers=workers, exclude=globs, change_hardlinks=True)
        for path, owner in owners(base).items():
            entry = before[path]
            if path not in spared:
                assert owner == TARGET
            elif entry.st_nlink == 1:  # a file's other name may lie where it is owned
                assert owner == (entry.st_uid, entry.st_gid)
    finally:
        shutil.rmtree(base)
