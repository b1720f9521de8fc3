# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees that somebody else changes, maliciously or not, while they are walked.

SELFHOST_DIFY_STRESS_SECONDS sets how long the attack lasts for each case; 2 seconds without it.
"""

# ruff: noqa: PTH103, PTH104, PTH106, PTH108, PTH118 - system calls are the subject

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership as own
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership_walk as walker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")

SECONDS = float(os.environ.get("SELFHOST_DIFY_STRESS_SECONDS", "2"))
TARGETS = (54321, 54322)
RENAME_EXCHANGE = 2


@pytest.fixture(params=["alone", "together"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    if request.param == "alone":
        return 1
    monkeypatch.setattr(walker, "FORK_AFTER", 0)
    monkeypatch.setattr(walker, "BIG_DIRECTORY", 8192)
    return 2


def walk(root: Path, uid: int, workers: int, apply: bool = True) -> walker.Report:
    fd = own.open_root(str(root))
    try:
        return walker.own_tree(fd, str(root), walker.Policy(uid, uid, apply, workers=workers))
    finally:
        os.close(fd)


def grow(root: Path, directories: int, files: int) -> None:
    for number in range(directories):
        (root / f"d{number}/below").mkdir(parents=True)
        for file in range(files):
            (root / f"d{number}/f{file}").touch()
            (root / f"d{number}/below/f{file}").touch()


def everything(root: Path) -> list[str]:
    return [os.path.join(folder, name) for folder, names, files in os.walk(root) for name in (".", *names, *files)]


@contextlib.contextmanager
def meanwhile(action: t.Callable[[int], None]) -> t.Iterator[t.Callable[[], int]]:
    """Another process repeats an action, given the number of the turn, until the block ends; tells the turns done."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if child == 0:
        turn = 0
        try:
            while True:
                action(turn)
                turn += 1
                shared[:8] = turn.to_bytes(8, "little")
        finally:
            os._exit(1)
    try:
        yield lambda: int.from_bytes(shared[:8], "little")
        finished, _status = os.waitpid(child, os.WNOHANG)
        assert finished == 0, "the process that disturbs the walk died"
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_what_is_swapped_for_a_symlink_never_leads_outside(tmp_path: Path, workers: int) -> None:
    tree, side, outside = tmp_path / "tree", tmp_path / "side", tmp_path / "outside"
    grow(tree, 12, 30)
    grow(outside, 12, 30)
    side.mkdir()
    pairs = []
    # Directories with all that is in them, directories in the middle of a path, and files.
    for name in ("d0", "d3", "d5/below", "d7", "d9/below", "d1/f7", "d11"):
        decoy = side / name.replace("/", "-")
        decoy.symlink_to(outside / name)
        pairs.append((os.fsencode(tree / name), os.fsencode(decoy)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, pairs[0][0], -100, pairs[0][1], RENAME_EXCHANGE):
        pytest.skip("this system cannot exchange two names at once")

    def swap(turn: int) -> None:
        here, there = pairs[turn % len(pairs)]
        libc.renameat2(-100, here, -100, there, RENAME_EXCHANGE)

    runs = escapes = 0
    with meanwhile(swap) as swaps:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or swaps() < 5000:
            report = walk(tree, TARGETS[runs % 2], workers)
            assert report.failed.total == 0, report.failed.first()
            runs += 1
            escaped = [path for path in everything(outside) if os.lstat(path).st_uid != 0]
            for path in escaped:
                os.lchown(path, 0, 0)
            escapes += bool(escaped)
        print(f"{runs} walks, {swaps()} swaps, {escapes} escapes")
    assert escapes == 0


def test_entries_that_come_and_go_fail_nothing(tmp_path: Path, workers: int) -> None:
    tree = tmp_path / "tree"
    grow(tree, 8, 40)
    short = [f"{tree}/d{number % 8}/short{number}" for number in range(64)]

    def come_and_go(turn: int) -> None:
        path, old = short[turn % 64], short[(turn + 32) % 64]
        if turn % 3:
            Path(path).touch()
        else:
            os.makedirs(path + "/x", exist_ok=True)
        with contextlib.suppress(OSError):
            os.unlink(old)
        with contextlib.suppress(OSError):
            os.rmdir(old + "/x")
            os.rmdir(old)
        with contextlib.suppress(OSError):
            os.unlink(path)

    with meanwhile(come_and_go) as turns:
        end = time.monotonic() + SECONDS / 2
        runs = 0
        while time.monotonic() < end or turns() < 2000:
            report = walk(tree, TARGETS[runs % 2], workers)
            assert report.failed.total == 0, report.failed.first()
            assert report.wrong.total >= report.changed > 0
            runs += 1
    walk(tree, TARGETS[0], workers)
    assert {os.lstat(path).st_uid for path in everything(tree)} == {TARGETS[0]}


def test_directories_renamed_while_walked_are_owned_or_reported(tmp_path: Path, workers: int) -> None:
    tree = tmp_path / "tree"
    grow(tree, 12, 60)
    (tree / "d0/hall").mkdir()

    def rename(turn: int) -> None:
        here, there = tree / f"d{1 + turn // 2 % 11}/below", tree / "d0/hall/below"
        if turn % 2:
            here, there = there, here
        os.rename(here, there)

    with meanwhile(rename) as turns:
        end = time.monotonic() + SECONDS / 2
        runs = 0
        while time.monotonic() < end or turns() < 2000:
            report = walk(tree, TARGETS[runs % 2], workers)
            assert report.failed.total == 0, report.failed.first()
            assert report.vanished >= report.lost_directories.total
            runs += 1
    walk(tree, TARGETS[0], workers)
    assert {os.lstat(path).st_uid for path in everything(tree)} == {TARGETS[0]}


def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path: Path, workers: int) -> None:
    tree = tmp_path / "tree"
    grow(tree, 40, 40)
    for _attempt in range(5):
        walk(tree, 0, 1)
        walker = os.fork()
        if walker == 0:
            os.setpgid(0, 0)
            try:
                walk(tree, TARGETS[0], workers)
            finally:
                os._exit(0)
        while all(os.lstat(path).st_uid == 0 for path in everything(tree)):
            if os.waitpid(walker, os.WNOHANG)[0]:
                break
        else:
            os.kill(walker, signal.SIGKILL)
            os.waitpid(walker, 0)
        # Helpers notice that they are alone, so that nothing is left of the process group.
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(walker, 0)
        report = walk(tree, TARGETS[0], workers)
        assert report.failed.total == 0
        assert {os.lstat(path).st_uid for path in everything(tree)} == {TARGETS[0]}


def test_a_helper_that_dies_fails_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "tree", 4, 4)
    monkeypatch.setattr(walker, "FORK_AFTER", 0)
    own_entry = walker.Walker._own

    def die(walker: walker.Walker, node: t.Any, name: str, found: os.stat_result) -> None:
        if name == "f3":
            os.kill(os.getpid(), signal.SIGKILL)
        own_entry(walker, node, name, found)

    monkeypatch.setattr(walker.Walker, "_own", die)
    with pytest.raises(own.OwnershipError, match=r"a helper process died.*run the task again"):
        walk(tmp_path / "tree", TARGETS[0], 3)
    assert (tmp_path / "tree").stat().st_uid == 0
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
