# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Note that this module util is **PRIVATE** to the collection. It can change at any time without notice.

Makes a directory tree belong to one owner, by descriptor: every directory is opened relative to its parent without
following symlinks, every entry is examined and changed relative to the descriptor of its directory, so nothing that
is swapped in the tree while it is walked can lead outside. An entry that is already right is only examined.
How and why: docs/volume_ownership.md.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
import time
import typing as t
from bisect import insort
from itertools import islice

from ansible_collections.selfhost.dify.plugins.module_utils._ownership import (
    NO_ID,
    OPEN_DIRECTORY,
    compile_globs,
    is_below,
)

VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
FORK_AFTER = 8_000  # entries: fewer are done before a helper would have started
CHUNK = 4096  # entries of one directory between two looks at what the other helpers need
BIG_DIRECTORY = 512 * 1024  # bytes of the directory itself, about 20 000 entries on ext4: shared between the helpers
MAX_HELPERS = 8
# Mode bits of what is no plain file: executable, setuid or setgid, a directory or a rare kind of entry.
NOT_PLAIN = 0o6111 | stat.S_IFDIR


class Policy(t.NamedTuple):
    """What to do with one tree. C(uid) and C(gid) are numbers of this host; NO_ID leaves that half alone."""

    uid: int
    gid: int
    apply: bool
    recurse: bool = True
    exclude: tuple[str, ...] = ()
    one_file_system: bool = True
    change_hardlinks: bool = False
    workers: int = 0


class Findings:
    """Counts what was found and keeps the first C(limit): the shallowest first, then by path.

    The order does not depend on who found what when, so check mode and a real run, one process and many, name the same.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._first: list[tuple[int, str, str]] = []  # (depth, path, detail), sorted

    def wants(self, depth: int) -> bool:
        """Whether something at this depth could be among the first; spares building paths that nobody will see."""
        return len(self._first) < self.limit or depth <= self._first[-1][0]

    def bound(self, depth: int, prefix: t.Callable[[], str]) -> str | None:
        """In one directory: names from this one on cannot be among the first any more; None if any may be."""
        if len(self._first) < self.limit or depth < self._first[-1][0]:
            return None
        last_depth, last, _detail = self._first[-1]
        if depth > last_depth:
            return ""
        above = prefix()
        if last.startswith(above):
            return last[len(above) :]
        return "" if above > last else None

    def keep(self, depth: int, path: str, detail: str) -> None:
        """Keeps this one if it is among the first; the caller counts it."""
        item = (depth, path, detail)
        if len(self._first) < self.limit:
            insort(self._first, item)
        elif item < self._first[-1]:
            insort(self._first, item)
            self._first.pop()

    def first(self) -> list[tuple[str, str]]:
        """(path, detail) of the first, in order."""
        return [(path, detail) for _depth, path, detail in self._first]

    def merge(self, other: Findings) -> None:
        self.total += other.total
        for item in other._first:
            self.keep(*item)


class Report:
    """What was found in one tree; paths are relative to its root, the empty path is the root itself."""

    def __init__(self) -> None:
        self.examined = 0
        self.changed = 0
        self.vanished = 0
        self.excluded = 0
        self.wrong = Findings(20)  # detail: "uid:gid" before
        self.failed = Findings(100)  # detail: why
        self.stripped = Findings(100)  # detail: what the kernel takes away
        self.skipped_mounts = Findings(100)
        self.skipped_hardlinks = Findings(20)  # detail: "uid:gid"
        self.lost_directories = Findings(20)  # vanished, or renamed with all that is in them
        self.linked: dict[tuple[int, int], bool] = {}  # wrong files with several names, which count once: changed?

    def merge(self, other: Report) -> None:
        """Adds what another helper found."""
        for name in ("wrong", "failed", "stripped", "skipped_mounts", "skipped_hardlinks", "lost_directories"):
            getattr(self, name).merge(getattr(other, name))
        self.examined += other.examined
        self.changed += other.changed
        self.vanished += other.vanished
        self.excluded += other.excluded
        for file, changed in other.linked.items():
            if file in self.linked:
                self.wrong.total -= 1
                self.changed -= changed and self.linked[file]
            self.linked[file] = self.linked.get(file, False) or changed


# --- mounts ----------------------------------------------------------------------------------------------------------


def mount_names(mountinfo: str, root: str) -> frozenset[str]:
    """Last names of the mount points below a root, from the text of /proc/self/mountinfo."""
    points = (_unescape(line.split(" ")[4]) for line in mountinfo.splitlines() if line)
    return frozenset(point.rsplit("/", 1)[1] for point in points if is_below(point, root))


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def _mount_id(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        return next(line for line in info if line.startswith("mnt_id:"))


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


# --- the walk --------------------------------------------------------------------------------------------------------


class Directory:
    """A directory on the way: its name in its parent, and once it was opened, what identifies it."""

    __slots__ = ("depth", "fd", "identity", "name", "parent", "part")

    def __init__(self, parent: Directory | None, name: str, part: int = -1) -> None:
        self.parent = parent
        self.name = name
        self.depth: int = parent.depth + 1 if parent else 0
        self.fd = -1
        self.identity: tuple[int, int] | None = None  # (st_dev, st_ino)
        self.part = part  # of a big directory that several list: the names whose hash is theirs; -1: all

    def path(self) -> str:
        """Relative to the root, which is the empty string."""
        names = []
        node: Directory = self
        while node.parent:
            names.append(node.name)
            node = node.parent
        return "/".join(reversed(names))


class Swapped(Exception):
    """Another directory has taken the place of one that was open before."""


class Walker:
    """Walks one tree, alone or as one of several helpers. C(fd) is the root, C(real) its path."""

    def __init__(self, fd: int, real: str, policy: Policy) -> None:
        self.policy = policy
        self.report = Report()
        self.found = os.fstat(fd)
        self.root = Directory(None, "")
        self.root.fd = fd
        self.pending = [Directory(None, "")]
        self.parts = 0  # into how many a big directory is split; 0: it is not
        self.tick: t.Callable[[bool], None] = lambda busy: None  # called after every directory and every CHUNK
        self._open: dict[Directory, None] = {}  # least recently used first; never holds the root
        free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd"))
        self._open_limit = max(1, min(128, free - 8))
        self._noatime = os.O_NOATIME
        self._exclude = compile_globs(policy.exclude)
        self._mount_names = mount_names(_read("/proc/self/mountinfo"), real) if policy.one_file_system else frozenset()
        self._mount_id = _mount_id(fd) if self._mount_names else ""
        # Where anybody may link to anybody's files, a name can become a link to a foreign file after it was examined.
        self._links_protected = _read("/proc/sys/fs/protected_hardlinks").strip() != "0"
        self._verify = True  # until one change was seen to stick: some file systems ignore owners and say nothing
        self._prefix: tuple[Directory | None, str] = (None, "")

    # Directories

    def walk(self, stop: t.Callable[[], bool] | None = None) -> bool:
        """Works off the pending directories until none is left (true), or until C(stop) says so (false)."""
        while self.pending:
            node = self.pending.pop()
            if self._enter(node):
                if self._list(node) and node.parent:
                    self._remember(node)
                else:
                    os.close(node.fd)
                    node.fd = -1
            self.tick(False)
            if stop and stop():
                return not self.pending
        return True

    def own_root(self) -> None:
        """Comes last: until the tree is right, the root tells whose it was."""
        self.report.examined += 1
        if self._is_wrong(self.found):
            self._own_directory(self.root, self.found)

    def close(self) -> None:
        """Closes every directory but the root."""
        for node in self._open:
            os.close(node.fd)
            node.fd = -1
        self._open.clear()

    def _enter(self, node: Directory) -> bool:
        """Opens a directory to be listed and owns it; false if there is nothing to list."""
        try:
            fd = self._open_at(node.name, self._descriptor(node.parent)) if node.parent else self._open_at(".")
            found = os.fstat(fd)
        except Swapped:
            self._lost(node)
            return False
        except OSError as error:
            if error.errno in VANISHED:
                self._lost(node)
            else:
                self.report.examined += bool(node.parent) and node.part < 1
                self._failed(node, None, "cannot be listed", error)
            return False
        if self._is_mount(node.name, fd, found):
            os.close(fd)
            if node.part < 1:
                self._note(self.report.skipped_mounts, node, None, "")
            return False
        if node.part < 0 and self.parts and found.st_size >= BIG_DIRECTORY:
            os.close(fd)
            self.pending.extend(Directory(node.parent, node.name, part) for part in range(self.parts))
            return False
        node.fd = fd
        node.identity = (found.st_dev, found.st_ino)
        if node.parent and node.part < 1:
            self.report.examined += 1
            if self._is_wrong(found):
                self._own_directory(node, found)
        return True

    def _own_directory(self, node: Directory, found: os.stat_result) -> None:
        self._note(self.report.wrong, node, None, f"{found.st_uid}:{found.st_gid}")
        if not self.policy.apply:
            return
        try:
            os.fchown(node.fd, self.policy.uid, self.policy.gid)
            if self._verify:
                self._check_it_stuck(os.fstat(node.fd))
        except OSError as error:
            self._failed(node, None, "cannot be changed", error)
        else:
            self.report.changed += 1

    def _open_at(self, name: str, parent_fd: int | None = None) -> int:
        if parent_fd is None:
            parent_fd = self.root.fd
        while True:
            try:
                return os.open(name, OPEN_DIRECTORY | self._noatime, dir_fd=parent_fd)
            except OSError as error:
                if error.errno == errno.EPERM and self._noatime:
                    # Only the owner and CAP_FOWNER may leave the access time alone.
                    return os.open(name, OPEN_DIRECTORY, dir_fd=parent_fd)
                if error.errno not in (errno.EMFILE, errno.ENFILE) or len(self._open) < 2:
                    raise
                self._open_limit = max(1, len(self._open) // 2)
                self._close_some(keep=parent_fd)

    def _descriptor(self, node: Directory) -> int:
        """An open descriptor of a directory that was open before; raises Swapped if another has taken its place."""
        closed = []
        while node.fd < 0:
            closed.append(node)
            node = node.parent or self.root
        if node in self._open:
            self._open[node] = self._open.pop(node)
        for below in reversed(closed):
            fd = self._open_at(below.name, node.fd)
            found = os.fstat(fd)
            if below.identity != (found.st_dev, found.st_ino):
                os.close(fd)
                raise Swapped
            below.fd = fd
            self._remember(below)
            node = below
        return node.fd

    def _remember(self, node: Directory) -> None:
        """Keeps a directory open for those below it, and closes the least recently used ones."""
        self._open[node] = None
        if len(self._open) > self._open_limit:
            self._close_some(keep=node.fd)

    def _close_some(self, keep: int) -> None:
        while len(self._open) > self._open_limit:
            node = next(iter(self._open))
            del self._open[node]
            if node.fd == keep:
                self._open[node] = None  # now the most recently used one
            else:
                os.close(node.fd)
                node.fd = -1

    def _is_mount(self, name: str, fd: int, found: os.stat_result) -> bool:
        """Whether an open entry is the root of a mount: of another file system, or of this one once more."""
        if not self.policy.one_file_system:
            return False
        if stat.S_ISDIR(found.st_mode) and found.st_dev != self.found.st_dev:
            return True
        return name in self._mount_names and _mount_id(fd) != self._mount_id

    # Entries

    def _list(self, node: Directory) -> bool:
        """Examines all entries of an open directory; true if directories are among them."""
        report, pending = self.report, self.pending
        fd, part, parts = node.fd, node.part, self.parts
        uid, gid, apply = self.policy.uid, self.policy.gid, self.policy.apply
        parent = node if node.parent else self.root
        directories = listed = skipped = quick = 0
        try:
            with os.scandir(fd) as scan:
                entries = self._included(node, scan) if self._exclude else scan
                more = True
                while more:
                    start = listed
                    bound = self._quick_from(node)
                    for entry in islice(entries, CHUNK):
                        listed += 1
                        if part >= 0 and hash(entry.name) % parts != part:
                            skipped += 1
                            continue
                        try:
                            if entry.is_dir(follow_symlinks=False):
                                pending.append(Directory(parent, entry.name))
                                directories += 1
                                continue
                            found = entry.stat(follow_symlinks=False)
                        except OSError as error:
                            skipped += 1
                            self._missed(node, entry.name, error)
                            continue
                        if found.st_uid == uid and found.st_gid == gid:
                            continue
                        if bound is None or found.st_nlink > 1 or found.st_mode & NOT_PLAIN or entry.name < bound:
                            self._own(node, entry.name, found)
                            continue
                        if apply:
                            try:
                                os.chown(entry.name, uid, gid, dir_fd=fd, follow_symlinks=False)
                            except OSError:
                                self._own(node, entry.name, found)  # which says why
                                continue
                        quick += 1
                    more = listed - start == CHUNK
                    if more:
                        self.tick(True)
        except OSError as error:
            self._failed(node, None, "cannot be listed completely", error)
        report.examined += listed - directories - skipped
        report.wrong.total += quick
        report.changed += quick if apply else 0
        return directories > 0

    def _quick_from(self, node: Directory) -> str | None:
        """The name from which on a wrong plain file of one name needs nothing but the change and a count.

        None if no entry of this directory is that simple.
        """
        policy = self.policy
        if policy.uid == NO_ID or policy.gid == NO_ID or not self._links_protected or self._mount_names:
            return None
        if policy.apply and self._verify:
            return None
        return self.report.wrong.bound(node.depth + 1, lambda: self._path(node, ""))

    def _included(self, node: Directory, entries: t.Iterator[os.DirEntry[str]]) -> t.Iterator[os.DirEntry[str]]:
        prefix = self._path(node, "")
        for entry in entries:
            if self._exclude is None or not self._exclude.fullmatch(prefix + entry.name):
                yield entry
            elif node.part < 0 or hash(entry.name) % self.parts == node.part:
                self.report.excluded += 1

    def _is_wrong(self, found: os.stat_result) -> bool:
        uid, gid = self.policy.uid, self.policy.gid
        return (found.st_uid != uid and uid != NO_ID) or (found.st_gid != gid and gid != NO_ID)

    def _own(self, node: Directory, name: str, found: os.stat_result) -> None:
        """Owns a wrong entry that is no directory: by name, or by descriptor where a name proves too little."""
        if not self._is_wrong(found):
            return
        verify = self._verify and self.policy.apply
        if found.st_nlink == 1 and self._links_protected and name not in self._mount_names and not verify:
            self._change(node, name, found, name)
            return
        try:
            pin = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=node.fd)
        except OSError as error:
            self.report.examined -= 1
            self._missed(node, name, error)
            return
        try:
            found = os.fstat(pin)
            if self._is_mount(name, pin, found):
                self.report.examined -= 1
                self._note(self.report.skipped_mounts, node, name, "")
            elif not self._is_wrong(found):
                return
            elif self._is_foreign_link(found):
                self._note(self.report.skipped_hardlinks, node, name, f"{found.st_uid}:{found.st_gid}")
            else:
                self._change(node, name, found, f"/proc/self/fd/{pin}")
        finally:
            os.close(pin)

    def _is_foreign_link(self, found: os.stat_result) -> bool:
        """Whether the file may have been linked here from elsewhere by somebody who was not its owner.

        With fs.protected_hardlinks only its owner could have done that, so files of the tree's former owner are the
        tree's own; without, nobody can tell.
        """
        if self.policy.change_hardlinks or found.st_nlink == 1 or stat.S_ISDIR(found.st_mode):
            return False
        return found.st_uid != self.found.st_uid or not self._links_protected

    def _change(self, node: Directory, name: str, found: os.stat_result, target: str) -> None:
        """Changes a wrong entry through C(target): its name in the directory, or a descriptor's path."""
        report, policy = self.report, self.policy
        if stat.S_ISDIR(found.st_mode):  # it was none when it was listed
            report.examined -= 1
            self.pending.append(Directory(node if node.parent else self.root, name))
            return
        file = (found.st_dev, found.st_ino)
        if found.st_nlink > 1:
            if file in report.linked:
                return
            report.linked[file] = False
        self._note(report.wrong, node, name, f"{found.st_uid}:{found.st_gid}")
        by_name = target is name
        privileged = self._privileges(node, target, found.st_mode) if found.st_mode & 0o6111 else set()
        if not policy.apply:
            # A setgid bit without the group's execute bit means something else and stays.
            lost = privileged if found.st_mode & stat.S_IXGRP else privileged - {"setgid"}
        else:
            try:
                os.chown(target, policy.uid, policy.gid, dir_fd=node.fd, follow_symlinks=not by_name)
                now = found
                if self._verify or privileged:
                    now = os.stat(target, dir_fd=node.fd, follow_symlinks=not by_name)
                if self._verify and not by_name:
                    self._check_it_stuck(now)
                if (now.st_dev, now.st_ino) != file:
                    privileged = set()  # something else has that name by now
            except OSError as error:
                if error.errno in VANISHED:
                    report.vanished += 1
                else:
                    self._failed(node, name, "cannot be changed", error)
                return
            report.changed += 1
            if found.st_nlink > 1:
                report.linked[file] = True
            lost = privileged - self._privileges(node, target, now.st_mode) if privileged else privileged
        if lost:
            self._note(report.stripped, node, name, ", ".join(sorted(lost)))

    def _privileges(self, node: Directory, target: str, mode: int) -> set[str]:
        """What the kernel may take from a file whose owner changes: setuid, setgid, and capabilities of a program."""
        found = {name for name, bit in (("setuid", stat.S_ISUID), ("setgid", stat.S_ISGID)) if mode & bit}
        if stat.S_ISREG(mode) and mode & 0o111:
            by_name = not target.startswith("/")
            path = f"/proc/self/fd/{node.fd}/{target}" if by_name else target
            try:
                os.getxattr(path, "security.capability", follow_symlinks=not by_name)
                found.add("capabilities")
            except OSError:
                pass  # it has none, or its file system knows none
        return found

    def _check_it_stuck(self, found: os.stat_result) -> None:
        if self._is_wrong(found):
            raise OSError(errno.EOPNOTSUPP, "the file system ignores the change of owner")
        self._verify = False

    # What was found

    def _path(self, node: Directory, name: str) -> str:
        """Path of an entry; what comes before the name is kept for the next entry."""
        if self._prefix[0] is not node:
            path = node.path()
            self._prefix = (node, path + "/" if path else "")
        return self._prefix[1] + name

    def _note(self, findings: Findings, node: Directory, name: str | None, detail: str) -> None:
        """Counts an entry of a directory, or the directory itself, and keeps its path if it is among the first."""
        findings.total += 1
        depth = node.depth if name is None else node.depth + 1
        if findings.wants(depth):
            findings.keep(depth, node.path() if name is None else self._path(node, name), detail)

    def _missed(self, node: Directory, name: str, error: OSError) -> None:
        if error.errno in VANISHED:
            self.report.vanished += 1
        else:
            self.report.examined += 1
            self._failed(node, name, "cannot be examined", error)

    def _lost(self, node: Directory) -> None:
        self.report.vanished += node.part < 1
        self._note(self.report.lost_directories, node, None, "")

    def _failed(self, node: Directory, name: str | None, what: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        if error.errno == errno.EPERM:
            reason += " (is it immutable, append-only, or on a share that squashes root?)"
        self._note(self.report.failed, node, name, f"{what}: {reason}")

    # Sharing


def own_tree(fd: int, real: str, policy: Policy) -> Report:
    """Makes the tree under an open root right, or only looks; the report tells what was found and done.

    Raises OwnershipError if a helper process died; running it again finishes what it left.
    """
    walker = Walker(fd, real, policy)
    if policy.recurse:
        cores = len(os.sched_getaffinity(0))
        helpers = policy.workers or min(cores, MAX_HELPERS)
        walker.parts = helpers if helpers > 1 else 0
        begun, busy = time.monotonic(), time.process_time()

        def stop() -> bool:
            pending = walker.pending
            return len(pending) > 1 and (walker.report.examined >= FORK_AFTER or pending[-1].part >= 0)

        if not walker.walk(stop if helpers > 1 else None):
            waited = time.monotonic() - begun > 2 * (time.process_time() - busy)
            if waited and not policy.workers:
                helpers = min(4 * cores, MAX_HELPERS)  # the disk is what takes time: ask it for more at once
            # Only big trees need them: Python compiles them at each run.
            from ansible_collections.selfhost.dify.plugins.module_utils._ownership_helpers import walk_together

            walk_together(walker, helpers)
    walker.own_root()
    walker.close()
    return walker.report
