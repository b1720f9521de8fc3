# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `_ownership` decides before it walks: numbers, roots, globs, mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership as own
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership_walk as walker


@pytest.mark.parametrize(
    ("value", "kind", "number"), [("1001", "owner", 1001), ("0", "group", 0), ("root", "owner", 0)]
)
def test_a_name_or_any_number_is_an_owner(value: str, kind: str, number: int) -> None:
    assert own.resolve_id(value, kind) == number


@pytest.mark.parametrize("value", ["no-such-user", "-1", "4294967295", "1001:1001", "", " 1001", "1001.0", "\u0661"])
def test_what_is_neither_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(own.OwnershipError) as failure:
        own.resolve_id(value, "owner")
    assert f"owner {value!r}" in str(failure.value) or f"owner {value}" in str(failure.value)


SUBUID = "root:1:2\ndockremap:100000:1000\nother:500000:65536\ndockremap:300000:65536\n"


@pytest.mark.parametrize(("inside", "outside"), [(0, 100000), (999, 100999), (1000, 300000), (1001, 300001)])
def test_a_number_inside_a_remapped_container_has_one_on_the_host(inside: int, outside: int) -> None:
    assert own.host_id(inside, "dockremap", SUBUID) == outside


@pytest.mark.parametrize(("inside", "name"), [(66536, "dockremap"), (0, "absent"), (65536, "other")])
def test_a_number_without_a_place_in_the_ranges_is_refused(inside: int, name: str) -> None:
    with pytest.raises(own.OwnershipError, match=f"{inside}.*'{name}'.*userns_remap"):
        own.host_id(inside, name, SUBUID)


def test_a_number_the_user_namespace_does_not_know_is_refused() -> None:
    own.check_mapped(1001, "owner", "         0          0 4294967295\n")
    own.check_mapped(1001, "owner", "0 1000 1\n1 100000 65536\n")
    with pytest.raises(own.OwnershipError, match="group 1001 is not mapped"):
        own.check_mapped(1001, "group", "0 1000 1\n")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/.",
        "/etc",
        "/etc/",
        "/usr/local/share",
        "/var/lib",
        "/var/lib/docker/volumes",
        "/home",
        "/tmp",
        "/boot",
    ],
)
def test_a_system_directory_is_refused(path: str) -> None:
    with pytest.raises(own.OwnershipError, match="system directory"):
        own.resolve_root(path)


@pytest.mark.parametrize("path", ["", "data", "./data", "/data/../etc", "/data\0x"])
def test_a_path_that_is_not_plainly_absolute_is_refused(path: str) -> None:
    with pytest.raises(own.OwnershipError, match="path"):
        own.resolve_root(path)


def test_a_root_that_is_a_symlink_is_refused_unless_it_may_be_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    for path in ("link", "link/", "link/."):
        with pytest.raises(own.OwnershipError, match="is a symlink to data"):
            own.resolve_root(f"{tmp_path}/{path}")
    assert own.resolve_root(f"{tmp_path}/link", follow_root=True) == str(tmp_path / "data")


def test_a_followed_root_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(own.OwnershipError, match="system directory /etc"):
        own.resolve_root(f"{tmp_path}/link", follow_root=True)


def test_a_root_must_lie_within_the_allowed_parent(tmp_path: Path) -> None:
    (tmp_path / "in/data").mkdir(parents=True)
    (tmp_path / "inside").mkdir()
    (tmp_path / "in/out").symlink_to(tmp_path / "inside")
    within = str(tmp_path / "in")
    assert own.resolve_root(f"{within}/data", within=within) == f"{within}/data"
    for path in (f"{tmp_path}/inside", within, f"{within}/out/x"):
        with pytest.raises(own.OwnershipError, match=f"outside {within}"):
            own.resolve_root(path, within=within)


def test_a_root_is_opened_without_following_symlinks(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "file").touch()
    fd = own.open_root(str(tmp_path / "a/b"))
    assert os.path.samestat(os.fstat(fd), (tmp_path / "a/b").stat())
    os.close(fd)
    for path, message in (("link/b", "is not a directory"), ("file", "is not a directory"), ("a/c", "does not exist")):
        with pytest.raises(own.OwnershipError, match=message):
            own.open_root(str(tmp_path / path))


GLOBS = [
    ("*.pid", "a.pid", True),
    ("*.pid", "x/a.pid", False),
    ("**/*.pid", "a.pid", True),
    ("**/*.pid", "x/y/a.pid", True),
    ("cache", "cache", True),
    ("cache/", "cache", True),
    ("./cache", "cache", True),
    ("cache", "x/cache", False),
    ("a/**", "a", False),
    ("a/**", "a/b/c", True),
    ("a/**/z", "a/z", True),
    ("a/**/z", "a/b/c/z", True),
    ("a/**/z", "az", False),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("[ab]x", "bx", True),
    ("[!ab]x", "bx", False),
    ("[!ab]x", "cx", True),
    ("[a-c]", "b", True),
    ("[]]", "]", True),
    ("[^a]", "^", True),
    ("a.b", "axb", False),
    ("a[", "a[", True),
    ("a+(b)", "a+(b)", True),
    ("*", ".hidden", True),
    ("*", "new\nline", True),
    ("*", "\udcff", True),
]


@pytest.mark.parametrize(("glob", "path", "matches"), GLOBS)
def test_globs(glob: str, path: str, matches: bool) -> None:
    pattern = own.compile_globs([glob])
    assert pattern is not None
    assert bool(pattern.fullmatch(path)) is matches


@pytest.mark.parametrize("glob", ["", "/", "../x", "a/../b", "."])
def test_a_glob_that_names_nothing_below_the_root_is_refused(glob: str) -> None:
    with pytest.raises(own.OwnershipError, match="exclude"):
        own.compile_globs([glob])


def test_no_globs_exclude_nothing() -> None:
    assert own.compile_globs([]) is None


def test_mounts_below_a_root_are_found_by_name() -> None:
    info = (
        "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
        "30 22 0:30 / /data rw - ext4 /dev/vdb rw\n"
        "31 30 0:31 / /data/with\\040space rw shared:1 - tmpfs tmpfs rw\n"
        "32 30 0:30 /x /data/a/b rw - ext4 /dev/vdb rw\n"
        "33 22 0:33 / /database rw - tmpfs tmpfs rw\n"
    )
    assert walker.mount_names(info, "/data") == {"with space", "b"}
    assert walker.mount_names(info, "/data/a") == {"b"}
    assert walker.mount_names(info, "/data/c") == frozenset()


def test_paths_can_be_shown_whatever_they_are_named() -> None:
    assert own.printable("/a/ü b") == "/a/ü b"
    assert own.printable("/a/\udcff\udcfe") == "/a/\\xff\\xfe"
    assert own.printable("/a/new\nline\x1b[0m") == "/a/new\\nline\\x1b[0m"
    assert len(own.printable("/a" * 100_000)) < 4200


def test_findings_keep_the_first_whatever_order_they_come_in() -> None:
    places = [(depth, f"{depth}/{name}", "x") for depth in range(5) for name in range(9)]
    forward, backward = walker.Findings(20), walker.Findings(20)
    for place in places:
        forward.keep(*place)
    for place in reversed(places):
        if backward.wants(place[0]):
            backward.keep(*place)
    assert forward.first() == backward.first() == [place[1:] for place in places[:20]]
