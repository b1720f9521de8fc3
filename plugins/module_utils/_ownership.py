# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Note that this module util is **PRIVATE** to the collection. It can change at any time without notice.

What is judged before a tree is owned: owners, roots and globs. How and why: docs/volume_ownership.md.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import typing as t

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
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NO_ID = -1


class OwnershipError(Exception):
    """What the operator asked for cannot be done; one sentence that names the thing and the remedy."""


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
