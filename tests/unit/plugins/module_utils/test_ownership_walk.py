# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks over real trees: what is changed, what is left alone, and what cannot be done."""

# ruff: noqa: PTH103, PTH118, PTH123 - system calls are the subject

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership as own
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership_walk as walker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")

UID, GID = 54321, 54322
CAPABILITY = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)  # cap_net_raw=ep
Owners = t.Dict[str, t.Tuple[int, int]]


@pytest.fixture(params=["alone", "together"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Small trees are walked by one process; lowered limits make helpers share even those, and split any directory."""
    if request.param == "alone":
        return 1
    monkeypatch.setattr(walker, "FORK_AFTER", 0)
    monkeypatch.setattr(walker, "BIG_DIRECTORY", 0)
    monkeypatch.setattr(walker, "CHUNK", 3)
    return 3


def walk(
    root: Path, workers: int = 1, apply: bool = True, uid: int = UID, gid: int = GID, **more: t.Any
) -> walker.Report:
    fd = own.open_root(str(root))
    try:
        return walker.own_tree(fd, str(root), walker.Policy(uid, gid, apply, workers=workers, **more))
    finally:
        os.close(fd)


def owners(root: Path) -> Owners:
    """Every entry below a root, and the root as the empty path, with its owner."""
    found = {"": root.lstat()}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return {path: (entry.st_uid, entry.st_gid) for path, entry in found.items()}


def wrong(report: walker.Report) -> list[str]:
    return [path for path, _detail in report.wrong.first()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of entry, and an outside that symlinks point to."""
    root = tmp_path / "tree"
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    for folder in ("a/b/c", "a/empty", "d"):
        (root / folder).mkdir(parents=True)
    for file in ("f", "a/f", "a/b/f", "a/b/c/f", "d/g", "d/h", "d/i", "d/j"):
        (root / file).write_text(file)
    (root / "a/to-directory").symlink_to(tmp_path / "outside")
    (root / "a/to-file").symlink_to(tmp_path / "outside/secret")
    (root / "a/dangling").symlink_to("nowhere")
    os.mkfifo(root / "d/fifo")
    os.mknod(root / "d/null", stat.S_IFCHR, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "d/socket"))
    return root


def test_everything_below_a_root_is_owned_and_nothing_else(tree: Path, workers: int) -> None:
    total = len(owners(tree))
    outside = owners(tree.parent / "outside")
    report = walk(tree, workers)
    assert set(owners(tree).values()) == {(UID, GID)}
    assert (report.examined, report.wrong.total, report.changed) == (total, total, total)
    assert owners(tree.parent / "outside") == outside
    assert tree.parent.stat().st_uid == 0


def test_a_second_run_touches_nothing(tree: Path, workers: int) -> None:
    walk(tree, workers)
    before = {path: os.lstat(tree / path) for path in owners(tree)}
    report = walk(tree, workers)
    assert (report.wrong.total, report.changed, report.examined) == (0, 0, len(before))
    for path, entry in before.items():
        now = os.lstat(tree / path)
        assert (now.st_ctime_ns, now.st_atime_ns, now.st_mtime_ns) == (
            entry.st_ctime_ns,
            entry.st_atime_ns,
            entry.st_mtime_ns,
        )


def test_check_mode_finds_what_a_run_changes_and_changes_nothing(tree: Path, workers: int) -> None:
    for path in ("", "a/b/f", "d/socket", "a/to-file"):
        os.lchown(tree / path, 7, GID)
    before = owners(tree)
    check = walk(tree, workers, apply=False)
    assert owners(tree) == before
    report = walk(tree, 1)
    assert check.wrong.first() == report.wrong.first()
    assert check.wrong.total == report.wrong.total == report.changed
    assert ("a/b/f", f"7:{GID}") in check.wrong.first()
    assert check.changed == 0


def test_the_first_wrong_entries_do_not_depend_on_who_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        (tmp_path / f"t/{number % 7}/{number % 11}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"t/{number % 7}/{number % 11}/{number}").touch()
    alone = walk(tmp_path / "t", apply=False)
    monkeypatch.setattr(walker, "FORK_AFTER", 0)
    monkeypatch.setattr(walker, "BIG_DIRECTORY", 0)
    for workers in (2, 5):
        together = walk(tmp_path / "t", workers, apply=False)
        assert together.wrong.first() == alone.wrong.first()
        assert (together.wrong.total, together.examined) == (alone.wrong.total, alone.examined)
    assert wrong(alone)[:9] == ["", "0", "1", "2", "3", "4", "5", "6", "0/0"]
    assert len(wrong(alone)) == 20


@pytest.mark.parametrize(("uid", "gid", "expected"), [(UID, own.NO_ID, (UID, 0)), (own.NO_ID, GID, (0, GID))])
def test_a_half_that_was_not_asked_for_stays(
    tree: Path, workers: int, uid: int, gid: int, expected: tuple[int, int]
) -> None:
    walk(tree, workers, uid=uid, gid=gid)
    assert set(owners(tree).values()) == {expected}
    assert walk(tree, workers, uid=uid, gid=gid).wrong.total == 0


def test_without_recurse_only_the_root_is_owned(tree: Path) -> None:
    report = walk(tree, recurse=False)
    assert report.examined == report.changed == 1
    assert [path for path, owner in owners(tree).items() if owner == (UID, GID)] == [""]


def test_excluded_entries_and_what_is_in_them_stay(tree: Path, workers: int) -> None:
    report = walk(tree, workers, exclude=("a/b", "**/f", "d/[gh]"))
    left = {path for path, owner in owners(tree).items() if owner == (0, 0)}
    assert left == {"a/b", "a/b/c", "a/b/f", "a/b/c/f", "a/f", "f", "d/g", "d/h"}
    assert report.excluded == 5
    assert report.examined == report.changed == len(owners(tree)) - len(left)


def test_names_that_are_not_text(tmp_path: Path, workers: int) -> None:
    names = [b"\xff\xfe", b"new\nline", b"-rf", b"$HOME", b"~root", b" ", b"a\\b", b"\x1b[31m", b"x" * 250]
    root = os.fsencode(tmp_path / "t")
    for name in names:
        os.makedirs(root + b"/" + name + b".d")
        Path(os.fsdecode(root + b"/" + name + b".d/" + name[:200])).touch()
    report = walk(tmp_path / "t", workers)
    assert report.changed == 2 * len(names) + 1
    assert set(owners(tmp_path / "t").values()) == {(UID, GID)}


# Privileges


def set_capability(path: Path) -> None:
    try:
        os.setxattr(path, "security.capability", CAPABILITY)
    except OSError:
        pytest.skip("this file system keeps no capabilities")


def test_privileges_of_a_file_that_is_right_are_kept(tree: Path) -> None:
    program = tree / "program"
    program.touch()
    walk(tree)
    program.chmod(0o6755)
    set_capability(program)
    assert walk(tree).wrong.total == 0
    assert program.stat().st_mode & 0o7777 == 0o6755
    assert os.getxattr(program, "security.capability") == CAPABILITY


def test_privileges_a_needed_change_takes_are_reported_and_predicted(tree: Path, workers: int) -> None:
    for name, mode in (("suid", 0o4755), ("sgid", 0o2755), ("both", 0o6711), ("locking", 0o2644), ("plain", 0o755)):
        (tree / name).touch()
        (tree / name).chmod(mode)
    (tree / "capable").touch(0o755)
    set_capability(tree / "capable")
    (tree / "a").chmod(0o2775)
    check = walk(tree, workers, apply=False)
    report = walk(tree, workers)
    assert report.stripped.first() == check.stripped.first()
    assert dict(report.stripped.first()) == {
        "suid": "setuid",
        "sgid": "setgid",
        "both": "setgid, setuid",
        "capable": "capabilities",
    }
    assert report.stripped.total == check.stripped.total == 4
    assert (tree / "a").stat().st_mode & 0o7777 == 0o2775


# Hard links


def test_a_file_linked_from_elsewhere_by_somebody_else_is_left_alone(tree: Path, workers: int) -> None:
    foreign = tree.parent / "outside/secret"
    os.chown(foreign, 99, 99)
    os.link(foreign, tree / "a/linked")
    os.link(tree / "d/g", tree / "a/own")
    check = walk(tree, workers, apply=False)
    report = walk(tree, workers)
    assert foreign.stat().st_uid == 99
    assert report.skipped_hardlinks.first() == check.skipped_hardlinks.first() == [("a/linked", "99:99")]
    assert (tree / "a/own").stat().st_uid == UID
    assert walk(tree, workers, change_hardlinks=True).changed == 1
    assert foreign.stat().st_uid == UID


def test_a_file_with_several_names_counts_once(tree: Path, workers: int) -> None:
    for number in range(40):
        os.link(tree / "d/g", tree / f"a/link{number}")
    os.link(tree / "a/to-file", tree / "d/linked-symlink", follow_symlinks=False)
    entries = len(owners(tree))
    check = walk(tree, workers, apply=False)
    report = walk(tree, workers)
    assert check.examined == report.examined == entries
    assert check.wrong.total == report.wrong.total == report.changed == entries - 41
    assert set(owners(tree).values()) == {(UID, GID)}
    assert set(owners(tree.parent / "outside").values()) == {(0, 0)}


def test_without_the_kernels_protection_no_link_is_trusted(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = walker._read
    monkeypatch.setattr(walker, "_read", lambda path: "0\n" if path.endswith("protected_hardlinks") else read(path))
    os.link(tree.parent / "outside/secret", tree / "a/linked")
    report = walk(tree)
    assert (tree.parent / "outside/secret").stat().st_uid == 0
    assert report.skipped_hardlinks.total == 1
    assert {path for path, owner in owners(tree).items() if owner != (UID, GID)} == {"a/linked"}


def test_the_root_comes_last_so_that_an_interrupted_run_is_finished(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(tree / "d/g", tree.parent / "elsewhere")
    monkeypatch.setattr(walker.Walker, "own_root", lambda self: sys.exit(1))
    with pytest.raises(SystemExit):
        walk(tree)
    os.lchown(tree / "d/g", 0, 0)
    monkeypatch.undo()
    walk(tree)
    assert set(owners(tree).values()) == {(UID, GID)}


# Mounts


@contextlib.contextmanager
def mounted(*arguments: str) -> t.Iterator[None]:
    if subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode:
        pytest.skip("this environment lets nobody mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


def test_mounts_below_a_root_are_left_alone(tree: Path, workers: int) -> None:
    outside = tree.parent / "outside"
    for name in ("other fs", "same fs"):
        (tree / name).mkdir()
    (tree / "file").touch()
    with contextlib.ExitStack() as mounts:
        mounts.enter_context(mounted("-t", "tmpfs", "tmpfs", str(tree / "other fs")))
        mounts.enter_context(mounted("--bind", str(outside), str(tree / "same fs")))
        mounts.enter_context(mounted("--bind", str(outside / "secret"), str(tree / "file")))
        (tree / "other fs/x").touch()
        check = walk(tree, workers, apply=False)
        report = walk(tree, workers)
        for found in (check, report):
            assert [path for path, _owner in found.skipped_mounts.first()] == ["file", "other fs", "same fs"]
        assert report.examined == report.changed == check.examined == check.wrong.total
        assert set(owners(outside).values()) == {(0, 0)}
        assert (tree / "other fs/x").stat().st_uid == 0
        assert walk(tree, workers, one_file_system=False).changed == 4  # "file" is "same fs/secret"
        assert (tree / "other fs/x").stat().st_uid == (outside / "secret").stat().st_uid == UID


def test_a_root_may_be_a_mount_itself(tmp_path: Path, workers: int) -> None:
    (tmp_path / "data").mkdir()
    with mounted("-t", "tmpfs", "tmpfs", str(tmp_path / "data")):
        (tmp_path / "data/x/y").mkdir(parents=True)
        assert walk(tmp_path / "data", workers).changed == 3


def test_a_read_only_mount_fails_only_for_what_is_wrong(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with mounted("-t", "tmpfs", "tmpfs", str(data)):
        (data / "right").mkdir()
        (data / "file").touch()
        walk(data)
        os.lchown(data / "file", 0, 0)
        subprocess.run(["mount", "-o", "remount,ro", data], check=True)
        report = walk(data, workers)
        assert report.failed.first() == [("file", "cannot be changed: Read-only file system")]
        assert (report.wrong.total, report.changed, report.examined) == (1, 0, 3)


# What cannot be done


@pytest.fixture
def immutable(tree: Path) -> t.Iterator[Path]:
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", tree / "d/g"], check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    subprocess.run(["chattr", "+i", tree / "a/b"], check=True)
    yield tree
    subprocess.run(["chattr", "-i", tree / "d/g", tree / "a/b"], check=True)


def test_immutable_entries_are_named_and_the_rest_is_done(immutable: Path, workers: int) -> None:
    report = walk(immutable, workers)
    assert [path for path, _reason in report.failed.first()] == ["a/b", "d/g"]
    assert all("Operation not permitted (is it immutable" in reason for _path, reason in report.failed.first())
    assert {path for path, owner in owners(immutable).items() if owner != (UID, GID)} == {"a/b", "d/g"}
    assert report.wrong.total - report.changed == report.failed.total == 2


def as_user(uid: int, action: t.Callable[[], str], limits: dict[int, int] | None = None) -> str:
    """What an action says in a process that is somebody else, or may do less."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for limit, value in (limits or {}).items():
                resource.setrlimit(limit, (value, value))
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.write(write, action().encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_without_privileges_nothing_is_called_right_that_was_not_seen(tree: Path, workers: int) -> None:
    """Somebody without root's rights, as on a share that squashes root."""
    tree.parent.chmod(0o755)
    for parent in (tree.parents[1], tree.parents[2]):
        parent.chmod(0o755)
    walk(tree)
    os.lchown(tree / "d/g", 0, 0)
    (tree / "a/b").chmod(0o700)

    def action() -> str:
        report = walk(tree, workers)
        return repr((report.failed.first(), report.wrong.total, report.changed))

    failed, found, changed = eval(as_user(1234, action))
    assert dict(failed)["a/b"] == "cannot be listed: Permission denied"
    assert dict(failed)["d/g"].startswith("cannot be changed: Operation not permitted")
    assert (len(failed), found, changed) == (2, 1, 0)


def test_a_file_system_that_ignores_owners_is_found_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chown", lambda *arguments, **more: None)
    monkeypatch.setattr(os, "fchown", lambda *arguments: None)
    report = walk(tree)
    assert report.changed == 0
    assert report.failed.total == report.wrong.total == len(owners(tree))
    assert report.failed.first()[0] == ("", "cannot be changed: the file system ignores the change of owner")


# Sizes


@pytest.fixture
def deep(tmp_path: Path) -> t.Iterator[t.Callable[[int, int], Path]]:
    """Makes a chain of directories, each with a file and some more directories; takes it away, which pytest cannot."""

    def make(depth: int, siblings: int) -> Path:
        root = tmp_path / "deep"
        root.mkdir()
        fd = os.open(root, os.O_RDONLY)
        for _level in range(depth):
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            for number in range(siblings):
                os.mkdir(f"s{number}", dir_fd=fd)
            os.mkdir("directory", dir_fd=fd)
            below = os.open("directory", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        return root

    yield make
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_a_chain_of_ten_thousand_directories(
    deep: t.Callable[[int, int], Path], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walker, "BIG_DIRECTORY", 2**20)
    root = deep(10_000, 0)
    report = walk(root, workers)
    assert (report.examined, report.changed, report.failed.total) == (20_001, 20_001, 0)
    assert walk(root, workers).wrong.total == 0
    shown = subprocess.run(["find", root, "-maxdepth", "1", "!", "-user", str(UID)], check=True, stdout=subprocess.PIPE)
    assert shown.stdout == b""


def test_few_descriptors_are_enough_for_a_deep_comb(deep: t.Callable[[int, int], Path], workers: int) -> None:
    root = deep(500, 2)

    def action() -> str:
        report = walk(root, workers)
        return f"{report.examined} {report.changed} {report.failed.total} {report.vanished}"

    assert as_user(0, action, {resource.RLIMIT_NOFILE: 64}) == "2001 2001 0 0"
    assert walk(root).wrong.total == 0


def test_descriptors_that_run_out_are_given_back(deep: t.Callable[[int, int], Path]) -> None:
    """Far fewer are left than the limit says, since the process holds others."""
    root = deep(200, 2)

    def action() -> str:
        held = []
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/", os.O_RDONLY))
        for fd in held[-8:]:
            os.close(fd)
        report = walk(root)
        return f"{report.examined} {report.changed} {report.failed.total} {report.vanished}"

    assert as_user(0, action, {resource.RLIMIT_NOFILE: 256}) == "801 801 0 0"


@pytest.fixture
def million() -> t.Iterator[Path]:
    """A million files in one directory, in memory: some file systems take minutes to make so many."""
    memory = Path("/dev/shm")
    if not os.path.ismount(memory) or os.statvfs(memory).f_favail < 1_100_000:
        pytest.skip("there is no room for a million files in /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        fd = os.open(directory, os.O_RDONLY)
        for number in range(1_000_000):
            os.mknod(f"f{number:06}", dir_fd=fd)
        os.close(fd)
        yield Path(directory)


def test_a_million_entries_in_one_directory(million: Path) -> None:
    """Really split between helpers by its size, with no limit lowered."""
    assert million.stat().st_size >= walker.BIG_DIRECTORY
    report = walk(million, workers=2)
    assert (report.examined, report.changed) == (1_000_001, 1_000_001)
    report = walk(million, workers=3, apply=False)
    assert (report.examined, report.wrong.total) == (1_000_001, 0)
    with os.scandir(million) as entries:
        assert {entry.stat(follow_symlinks=False).st_uid for entry in entries} == {UID}


# User namespaces


def test_an_owner_inside_a_user_namespace(tree: Path) -> None:
    """The files of a remapped container: the host's number, which the container sees as its own."""
    uid = own.host_id(1001, "dockremap", "dockremap:231072:65536\n")
    walk(tree, uid=uid, gid=uid)
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here")
    with subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo; read go; stat -c %u:%g ."],
        cwd=tree,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as inside:
        assert inside.stdout is not None
        if inside.stdout.readline() != b"\n":
            pytest.skip("this environment lets nobody make user namespaces")
        for id_map in ("uid_map", "gid_map"):
            Path(f"/proc/{inside.pid}/{id_map}").write_text("0 231072 65536\n", encoding="ascii")
        said, _errors = inside.communicate(b"go\n")
    assert said == b"1001:1001\n"
