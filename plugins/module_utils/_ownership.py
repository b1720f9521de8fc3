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
import gc
import grp
import mmap
import os
import pwd
import re
import resource
import select
import signal
import stat
import time
import traceback
import typing as t
from bisect import insort
from itertools import islice

# What a tree of the operating system is made of: refused as roots with everything below them …
SYSTEM_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"),
    *("/var/lib/apt", "/var/lib/containerd", "/var/lib/dpkg", "/var/lib/systemd"),
)
# … and directories that many things share: refused themselves, not what lies below.
SHARED_DIRECTORIES = (
    *("/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/snap", "/srv", "/tmp", "/var"),  # noqa: S108
    *("/var/backups", "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/mail", "/var/opt", "/var/spool"),
    *("/var/tmp", "/var/lib/docker", "/var/lib/docker/volumes"),  # noqa: S108
)
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FORK_AFTER = 8_000  # entries: fewer are done before a helper would have started
CHUNK = 4096  # entries of one directory between two looks at what the other helpers need
BIG_DIRECTORY = 512 * 1024  # bytes of the directory itself, about 20 000 entries on ext4: shared between the helpers
SHARE_DEPTH = 200  # deeper directories stay with the helper that found them
MAX_HELPERS = 8
NO_ID = -1
# Mode bits of what is no plain file: executable, setuid or setgid, a directory or a rare kind of entry.
NOT_PLAIN = 0o6111 | stat.S_IFDIR


class OwnershipError(Exception):
    """What the operator asked for cannot be done; one sentence that names the thing and the remedy."""


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


# --- identities ------------------------------------------------------------------------------------------------------


def resolve_id(value: str, kind: str) -> int:
    """The number of an owner or group given by name or number; numbers need not exist on this host.

    C(kind) is C(owner) or C(group). Raises OwnershipError for an unknown name or a number the kernel does not take.
    """
    if re.fullmatch(r"[0-9]+", value):
        number = int(value)
        if number >= 2**32 - 1:
            raise OwnershipError(f"{kind} {value} is not a valid number: expected 0 to {2**32 - 2}.")
        return number
    try:
        return pwd.getpwnam(value).pw_uid if kind == "owner" else grp.getgrnam(value).gr_gid
    except KeyError:
        raise OwnershipError(
            f"{kind} {value!r} does not exist on this host: create it first, or give the number the container runs as."
        ) from None


def host_id(container_id: int, name: str, table: str) -> int:
    """The number that C(container_id) has on the host of a Docker engine with userns-remap to C(name).

    C(table) is the text of /etc/subuid or /etc/subgid; ranges of one name follow each other, lowest first.
    """
    offset = container_id
    ranges = sorted(
        (int(start), int(length))
        for owner, start, length in (line.split(":") for line in table.split() if line.count(":") == 2)
        if owner == name
    )
    for start, length in ranges:
        if offset < length:
            return start + offset
        offset -= length
    raise OwnershipError(
        f"number {container_id} has no place in the subordinate ids of {name!r}: "
        "expected a range in /etc/subuid and /etc/subgid that is long enough; check userns_remap."
    )


def check_mapped(number: int, kind: str, id_map: str) -> None:
    """Refuses a number that this process's user namespace does not know; C(id_map) is /proc/self/uid_map or gid_map."""
    for line in id_map.splitlines():
        inside, _outside, length = (int(field) for field in line.split())
        if inside <= number < inside + length:
            return
    raise OwnershipError(
        f"{kind} {number} is not mapped in the user namespace this task runs in: "
        "run the task on the host itself, or map the number."
    )


# --- roots -----------------------------------------------------------------------------------------------------------


def resolve_root(path: str, follow_root: bool = False, within: str | None = None) -> str:
    """The real path of a root that may be walked; refuses what no operator means. It need not exist yet."""
    if not path.startswith("/") or "\0" in path:
        raise OwnershipError(f"path {path!r} is not absolute: give the full path of a directory.")
    # The last name decides whether the root is a symlink; "link/" and "link/." name the same entry as "link".
    plain = os.path.normpath(path)
    if ".." in path.split("/"):
        raise OwnershipError(f"path {path!r} contains '..': give the path without it.")
    if os.path.islink(plain) and not follow_root:
        raise OwnershipError(
            f"path {path} is a symlink to {os.readlink(plain)}: give the directory itself, or set follow_root."
        )
    real = os.path.realpath(plain)
    for tree in SYSTEM_TREES:
        if real == tree or real.startswith(tree + "/"):
            raise OwnershipError(f"path {path} lies in the system directory {tree}: give a data directory.")
    try:
        found = os.stat(real)
    except OSError:
        found = None
    for shared in SHARED_DIRECTORIES:
        if real == shared or (found and os.path.exists(shared) and os.path.samestat(found, os.stat(shared))):
            raise OwnershipError(f"path {path} is the system directory {shared}: give a data directory below it.")
    if within is not None:
        allowed = os.path.realpath(within)
        if not is_below(real, allowed):
            raise OwnershipError(f"path {path} leads to {real}, outside {within}: expected a directory below it.")
    return real


def is_below(path: str, parent: str) -> bool:
    """Whether a real path lies below another one."""
    return path != parent and path.startswith(parent.rstrip("/") + "/")


def open_root(real: str) -> int:
    """A descriptor of the directory at a real path, reached without following any symlink."""
    fd = os.open("/", OPEN_DIRECTORY)
    for name in real.split("/")[1:] if real != "/" else []:
        try:
            below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise OwnershipError(f"path {real} is not a directory: at {name!r} expected a directory.") from None
            if error.errno == errno.ENOENT:
                raise OwnershipError(f"path {real} does not exist: create it first, or set create.") from None
            raise OwnershipError(f"path {real} cannot be opened: {error.strerror}.") from None
        finally:
            os.close(fd)
        fd = below
    return fd


def create_root(real: str, mode: int, uid: int, gid: int) -> None:
    """Makes the directory, with those above it as the caller (root) with 0755; mode and owner are for the last."""
    missing: list[str] = []
    existing = real
    while not os.path.lexists(existing):
        existing, name = os.path.split(existing)
        missing.insert(0, name)
    fd = open_root(existing)
    umask = os.umask(
        0
    )  # the mode is right from the first instant, so an interruption leaves nothing a second run overlooks
    try:
        for name in missing:
            os.mkdir(name, mode if name is missing[-1] else 0o755, dir_fd=fd)
            below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    except OSError as error:
        raise OwnershipError(f"path {real} cannot be created: {error.strerror}.") from None
    finally:
        os.umask(umask)
        os.close(fd)


def printable(path: str) -> str:
    """A path that can be shown and sent: what is not printable UTF-8 is escaped, the middle of a long one cut."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return text if len(text) <= 4096 else f"{text[:2000]} [… {len(text) - 4000} characters …] {text[-2000:]}"


# --- globs -----------------------------------------------------------------------------------------------------------


def compile_globs(globs: t.Iterable[str]) -> re.Pattern[str] | None:
    """One pattern for paths relative to the root: C(*), C(?) and C([…]) stay within a name, C(**) spans directories."""
    patterns = [_translate(glob) for glob in globs]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.DOTALL) if patterns else None


def _translate(glob: str) -> str:
    names = [name for name in glob.split("/") if name not in ("", ".")]
    if not names or ".." in names:
        raise OwnershipError(f"exclude {glob!r} names nothing below a root: expected a glob such as 'cache/*.sock'.")
    pattern = ""
    for number, name in enumerate(names):
        last = number == len(names) - 1
        if name == "**":
            pattern += ".+" if last else "(?:[^/]+/)*"
        else:
            pattern += _translate_name(name) + ("" if last else "/")
    return pattern


def _translate_name(name: str) -> str:
    pattern = ""
    for piece in re.findall(r"\[!?\]?[^]]*\]|.", name, re.DOTALL):
        if piece == "*":
            pattern += "[^/]*"
        elif piece == "?":
            pattern += "[^/]"
        elif len(piece) > 1:
            inside = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
            pattern += "[^" + inside[1:] + "]" if inside.startswith("!") else "[" + inside.replace("^", "\\^") + "]"
        else:
            pattern += re.escape(piece)
    return pattern


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


class _Directory:
    """A directory on the way: its name in its parent, and once it was opened, what identifies it."""

    __slots__ = ("depth", "fd", "identity", "name", "parent", "part")

    def __init__(self, parent: _Directory | None, name: str, part: int = -1) -> None:
        self.parent = parent
        self.name = name
        self.depth: int = parent.depth + 1 if parent else 0
        self.fd = -1
        self.identity: tuple[int, int] | None = None  # (st_dev, st_ino)
        self.part = part  # of a big directory that several list: the names whose hash is theirs; -1: all

    def path(self) -> str:
        """Relative to the root, which is the empty string."""
        names = []
        node: _Directory = self
        while node.parent:
            names.append(node.name)
            node = node.parent
        return "/".join(reversed(names))


class _Packed(t.NamedTuple):
    """A directory as one helper gives it to another, with those above it."""

    above: _Packed | None
    name: str
    identity: tuple[int, int] | None
    part: int


class _Swapped(Exception):
    """Another directory has taken the place of one that was open before."""


class Walker:
    """Walks one tree, alone or as one of several helpers. C(fd) is the root, C(real) its path."""

    def __init__(self, fd: int, real: str, policy: Policy) -> None:
        self.policy = policy
        self.report = Report()
        self.found = os.fstat(fd)
        self.root = _Directory(None, "")
        self.root.fd = fd
        self.pending = [_Directory(None, "")]
        self.parts = 0  # into how many a big directory is split; 0: it is not
        self.tick: t.Callable[[bool], None] = lambda busy: None  # called after every directory and every CHUNK
        self._open: dict[_Directory, None] = {}  # least recently used first; never holds the root
        free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd"))
        self._open_limit = max(1, min(128, free - 8))
        self._noatime = os.O_NOATIME
        self._exclude = compile_globs(policy.exclude)
        self._mount_names = mount_names(_read("/proc/self/mountinfo"), real) if policy.one_file_system else frozenset()
        self._mount_id = _mount_id(fd) if self._mount_names else ""
        # Where anybody may link to anybody's files, a name can become a link to a foreign file after it was examined.
        self._links_protected = _read("/proc/sys/fs/protected_hardlinks").strip() != "0"
        self._verify = True  # until one change was seen to stick: some file systems ignore owners and say nothing
        self._prefix: tuple[_Directory | None, str] = (None, "")

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

    def _enter(self, node: _Directory) -> bool:
        """Opens a directory to be listed and owns it; false if there is nothing to list."""
        try:
            fd = self._open_at(node.name, self._descriptor(node.parent)) if node.parent else self._open_at(".")
            found = os.fstat(fd)
        except _Swapped:
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
            self.pending.extend(_Directory(node.parent, node.name, part) for part in range(self.parts))
            return False
        node.fd = fd
        node.identity = (found.st_dev, found.st_ino)
        if node.parent and node.part < 1:
            self.report.examined += 1
            if self._is_wrong(found):
                self._own_directory(node, found)
        return True

    def _own_directory(self, node: _Directory, found: os.stat_result) -> None:
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

    def _descriptor(self, node: _Directory) -> int:
        """An open descriptor of a directory that was open before; raises _Swapped if another has taken its place."""
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
                raise _Swapped
            below.fd = fd
            self._remember(below)
            node = below
        return node.fd

    def _remember(self, node: _Directory) -> None:
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

    def _list(self, node: _Directory) -> bool:
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
                                pending.append(_Directory(parent, entry.name))
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

    def _quick_from(self, node: _Directory) -> str | None:
        """The name from which on a wrong plain file of one name needs nothing but the change and a count.

        None if no entry of this directory is that simple.
        """
        policy = self.policy
        if policy.uid == NO_ID or policy.gid == NO_ID or not self._links_protected or self._mount_names:
            return None
        if policy.apply and self._verify:
            return None
        return self.report.wrong.bound(node.depth + 1, lambda: self._path(node, ""))

    def _included(self, node: _Directory, entries: t.Iterator[os.DirEntry[str]]) -> t.Iterator[os.DirEntry[str]]:
        prefix = self._path(node, "")
        for entry in entries:
            if self._exclude is None or not self._exclude.fullmatch(prefix + entry.name):
                yield entry
            elif node.part < 0 or hash(entry.name) % self.parts == node.part:
                self.report.excluded += 1

    def _is_wrong(self, found: os.stat_result) -> bool:
        uid, gid = self.policy.uid, self.policy.gid
        return (found.st_uid != uid and uid != NO_ID) or (found.st_gid != gid and gid != NO_ID)

    def _own(self, node: _Directory, name: str, found: os.stat_result) -> None:
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

    def _change(self, node: _Directory, name: str, found: os.stat_result, target: str) -> None:
        """Changes a wrong entry through C(target): its name in the directory, or a descriptor's path."""
        report, policy = self.report, self.policy
        if stat.S_ISDIR(found.st_mode):  # it was none when it was listed
            report.examined -= 1
            self.pending.append(_Directory(node if node.parent else self.root, name))
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

    def _privileges(self, node: _Directory, target: str, mode: int) -> set[str]:
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

    def _path(self, node: _Directory, name: str) -> str:
        """Path of an entry; what comes before the name is kept for the next entry."""
        if self._prefix[0] is not node:
            path = node.path()
            self._prefix = (node, path + "/" if path else "")
        return self._prefix[1] + name

    def _note(self, findings: Findings, node: _Directory, name: str | None, detail: str) -> None:
        """Counts an entry of a directory, or the directory itself, and keeps its path if it is among the first."""
        findings.total += 1
        depth = node.depth if name is None else node.depth + 1
        if findings.wants(depth):
            findings.keep(depth, node.path() if name is None else self._path(node, name), detail)

    def _missed(self, node: _Directory, name: str, error: OSError) -> None:
        if error.errno in VANISHED:
            self.report.vanished += 1
        else:
            self.report.examined += 1
            self._failed(node, name, "cannot be examined", error)

    def _lost(self, node: _Directory) -> None:
        self.report.vanished += node.part < 1
        self._note(self.report.lost_directories, node, None, "")

    def _failed(self, node: _Directory, name: str | None, what: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        if error.errno == errno.EPERM:
            reason += " (is it immutable, append-only, or on a share that squashes root?)"
        self._note(self.report.failed, node, name, f"{what}: {reason}")

    # Sharing

    def give(self) -> list[_Packed]:
        """The older half of the pending directories, which lie highest in the tree, for another helper."""
        if not self.pending or self.pending[0].depth > SHARE_DEPTH:
            return []
        half = min((len(self.pending) + 1) // 2, 1000)
        given, self.pending[:half] = self.pending[:half], []
        packed: dict[_Directory, _Packed] = {}

        def pack(node: _Directory) -> _Packed:
            if node not in packed:
                above = pack(node.parent) if node.parent else None
                packed[node] = _Packed(above, node.name, node.identity, node.part)
            return packed[node]

        return [pack(node) for node in given]

    def take(self, given: list[_Packed]) -> None:
        """Makes the pending directories of another helper this one's."""
        nodes: dict[int, _Directory] = {}

        def unpack(packed: _Packed) -> _Directory:
            if id(packed) not in nodes:
                parent = unpack(packed.above) if packed.above else None
                if parent and parent.parent is None:
                    parent = self.root
                node = nodes[id(packed)] = _Directory(parent, packed.name, packed.part)
                node.identity = packed.identity
            return nodes[id(packed)]

        self.pending.extend(unpack(packed) for packed in given)


class _Channel:
    """Messages between this process and another one that was forked from it."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads = reads
        self.writes = writes

    def send(self, message: t.Any) -> None:
        """Raises ConnectionError if the other process is gone."""
        import pickle  # only big trees need it

        data = pickle.dumps(message)
        view = memoryview(len(data).to_bytes(8, "little") + data)
        while view:
            view = view[os.write(self.writes, view) :]

    def receive(self) -> t.Any:
        """Raises EOFError if the other process is gone."""
        import pickle

        return pickle.loads(self._exactly(int.from_bytes(self._exactly(8), "little")))  # noqa: S301 - our own process

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = os.read(self.reads, size - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    def close(self) -> None:
        os.close(self.reads)
        os.close(self.writes)


def _channel_pair() -> tuple[_Channel, _Channel]:
    (down, into_down), (up, into_up) = os.pipe(), os.pipe()
    return _Channel(up, into_down), _Channel(down, into_up)


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
            _walk_together(walker, helpers)
    walker.own_root()
    walker.close()
    return walker.report


def _walk_together(walker: Walker, helpers: int) -> None:
    """Works off the pending directories with forked helpers; who has none is given some of another's."""
    hungry = mmap.mmap(-1, mmap.PAGESIZE)  # first byte: whether a helper is without work
    children: dict[_Channel, int] = {}
    idle: list[_Channel] = []
    poll = select.poll()
    channels: dict[int, _Channel] = {}
    given: list[list[_Packed]] = []
    gc.freeze()
    try:
        for number in range(helpers):
            ours, theirs = _channel_pair()
            try:
                pid = os.fork()
            except OSError:  # no more processes allowed: those that run do the work
                ours.close()
                theirs.close()
                break
            if pid == 0:
                for channel in (*children, ours):
                    channel.close()
                if number:
                    walker.pending = []
                _help(walker, theirs, hungry)
            theirs.close()
            children[ours] = pid
            channels[ours.reads] = ours
            poll.register(ours.reads, select.POLLIN)
        if not children:
            walker.walk()
            return
        walker.pending = []
        while len(idle) < len(children):
            for reads, _event in poll.poll():
                message = channels[reads].receive()
                if message is None:
                    idle.append(channels[reads])
                else:
                    given.append(message)
            while idle and given:
                idle.pop().send(given.pop())
            hungry[0] = bool(idle)
        for channel in children:
            channel.send(None)
            walker.report.merge(channel.receive())
    except (EOFError, ConnectionError):
        raise OwnershipError(
            "a helper process died before the tree was done, which memory or a signal can cause: "
            "run the task again to finish, or set workers to 1."
        ) from None
    finally:
        gc.unfreeze()
        for channel, pid in children.items():
            channel.close()
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        hungry.close()


def _help(walker: Walker, channel: _Channel, hungry: mmap.mmap) -> t.NoReturn:
    """The life of a helper: walk, ask for more, report at the end."""
    parent = os.getppid()

    def tick(busy: bool) -> None:
        if hungry[0] and len(walker.pending) > (not busy):
            given = walker.give()
            if given:
                channel.send(given)
        if os.getppid() != parent:
            os._exit(1)

    walker.report = Report()
    walker.tick = tick
    try:
        while True:
            walker.walk()
            channel.send(None)
            given = channel.receive()
            if given is None:
                break
            walker.take(given)
        channel.send(walker.report)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    except BaseException:  # the parent learns it from the closed channel
        traceback.print_exc()
    finally:
        os._exit(0)
