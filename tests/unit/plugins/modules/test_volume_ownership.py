# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it: options, results, diff, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selfhost.dify.plugins.modules import volume_ownership

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
UID, GID = 54321, 54322


Run = t.Callable[..., "dict[str, t.Any]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def module(check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        arguments = {"_ansible_check_mode": check, "_ansible_diff": True, **options}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            volume_ownership.main()
        return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))

    return module


@pytest.fixture
def run_apart(tmp_path: Path) -> Run:
    """Runs the module as a program: warnings are part of its result only outside the controller's process."""

    def module(**options: t.Any) -> dict[str, t.Any]:
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", volume_ownership.__name__, str(arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return t.cast("dict[str, t.Any]", json.loads(done.stdout))

    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/f").touch()
    return tmp_path / "tree"


@root_only
def test_check_run_and_run_again(run: Run, tree: Path) -> None:
    check = run(check=True, paths=[str(tree)], owner=UID, group=str(GID))
    assert (tree / "a/f").stat().st_uid == 0
    first = run(paths=[str(tree)], owner=UID, group=str(GID))
    for outcome in (check, first):
        outcome["roots"][0].pop("duration")
    assert check == first
    assert first["changed"] is True
    (root,) = first["roots"]
    assert (root["path"], root["owner"], root["group"]) == (str(tree), UID, GID)
    assert root["examined"] == root["wrong"] == root["changed"] == 3
    assert root["wrong_paths"][1] == {"path": f"{tree}/a", "owner": 0, "group": 0}
    assert first["diff"][0]["before"] == f"0:0 {tree}\n0:0 {tree}/a\n0:0 {tree}/a/f\n"
    assert first["diff"][0]["after"] == f"{UID}:{GID} {tree}\n{UID}:{GID} {tree}/a\n{UID}:{GID} {tree}/a/f\n"
    again = run(paths=[str(tree)], owner=UID, group=str(GID))
    assert again["changed"] is False
    assert again["diff"][0]["before"] == again["diff"][0]["after"] == ""


@root_only
def test_a_dictionary_overrides_the_options_for_its_root(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a/x").mkdir(parents=True)
    (tmp_path / "b/x").mkdir(parents=True)
    (tmp_path / "c/x").mkdir(parents=True)
    paths = [
        {"path": str(tmp_path / "a"), "owner": 77, "recurse": False},
        {"path": str(tmp_path / "b"), "group": "88", "exclude": ["x"]},
        str(tmp_path / "c"),
        {"path": str(tmp_path / "d/e"), "create": True, "mode": "0750"},
    ]
    outcome = run(paths=paths, owner=UID, group=GID)
    found = {name: (tmp_path / name).stat() for name in ("a", "a/x", "b", "b/x", "c", "c/x", "d", "d/e")}
    assert {name: (entry.st_uid, entry.st_gid) for name, entry in found.items()} == {
        "a": (77, GID),
        "a/x": (0, 0),
        "b": (UID, 88),
        "b/x": (0, 0),
        "c": (UID, GID),
        "c/x": (UID, GID),
        "d": (0, 0),
        "d/e": (UID, GID),
    }
    assert found["d/e"].st_mode & 0o7777 == 0o750
    assert found["d"].st_mode & 0o7777 == 0o755
    assert [root["created"] for root in outcome["roots"]] == [False, False, False, True]


@root_only
def test_a_root_is_created_once_and_its_mode_is_then_left_alone(run: Run, tmp_path: Path) -> None:
    options = {"paths": [str(tmp_path / "new")], "owner": UID, "create": True, "mode": "2770"}
    check = run(check=True, **options)
    assert not (tmp_path / "new").exists()
    first = run(**options)
    assert check["changed"] is first["changed"] is True
    assert check["diff"] == first["diff"]
    assert first["diff"][0]["before"] == "absent\n"
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o2770
    (tmp_path / "new").chmod(0o700)
    assert run(**options)["changed"] is False
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o700


@root_only
def test_the_diff_of_many_ends_with_how_many_more(run: Run, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"t/{number}").mkdir(parents=True)
    outcome = run(paths=[str(tmp_path / "t")], owner=UID)
    assert len(outcome["roots"][0]["wrong_paths"]) == 20
    assert outcome["diff"][0]["before"].endswith("\nand 11 more\n")
    assert f"\n{UID}:0 {tmp_path}/t/0\n" in outcome["diff"][0]["after"]


@root_only
def test_what_cannot_be_changed_fails_the_task_with_its_name(
    run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.chown

    def chown(name: t.Any, *arguments: t.Any, **more: t.Any) -> None:
        if name == "f":
            raise PermissionError(1, "Operation not permitted")
        really(name, *arguments, **more)

    monkeypatch.setattr(os, "chown", chown)
    (tree / "g").touch()
    outcome = run(paths=[str(tree)], owner=UID)
    assert outcome["failed"] is True
    assert outcome["changed"] is True
    assert f"{tree}/a/f cannot be changed: Operation not permitted" in outcome["msg"]
    assert outcome["roots"][0]["failed_total"] == 1
    assert (tree / "g").stat().st_uid == UID


@root_only
def test_stripped_privileges_and_foreign_links_are_warned_of(run_apart: Run, tree: Path) -> None:
    (tree / "program").touch()
    (tree / "program").chmod(0o4755)
    (tree.parent / "foreign").touch()
    os.chown(tree.parent / "foreign", 99, 99)
    os.link(tree.parent / "foreign", tree / "link")
    outcome = run_apart(paths=[str(tree)], owner=UID)
    root = outcome["roots"][0]
    assert root["stripped"] == [{"path": f"{tree}/program", "lost": ["setuid"]}]
    assert root["skipped_hardlinks"] == [{"path": f"{tree}/link", "owner": 99, "group": 99}]
    warnings = "\n".join(str(warning) for warning in outcome["warnings"])
    assert f"lost setuid, setgid or capabilities by the change of owner, the first is {tree}/program" in warnings
    assert f"the first is {tree}/link" in warnings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to own"),
        ({"paths": ["{tree}"]}, "path {tree} is given no owner"),
        (
            {"paths": ["{tree}/absent"], "owner": "1"},
            "path {tree}/absent does not exist: create it first, or set create",
        ),
        ({"paths": ["{tree}/a/f"], "owner": "1"}, "path {tree}/a/f is not a directory"),
        ({"paths": ["/etc"], "owner": "1"}, "system directory /etc"),
        ({"paths": ["{tree}"], "owner": "no-such-user"}, "owner 'no-such-user' does not exist"),
        ({"paths": ["{tree}"], "group": "no-such-group"}, "group 'no-such-group' does not exist"),
        ({"paths": ["{tree}"], "owner": "1", "mode": 493}, "mode 493 is not a quoted octal number"),
        ({"paths": ["{tree}"], "owner": "1", "mode": "u=rwx"}, "mode 'u=rwx' is not"),
        ({"paths": ["{tree}"], "owner": "1", "exclude": ["../x"]}, "exclude '../x'"),
        ({"paths": ["{tree}"], "owner": "1", "within": "/srv"}, "outside /srv"),
        ({"paths": ["{tree}"], "owner": "1", "workers": -1}, "workers is -1"),
        ({"paths": [{"path": "{tree}", "uid": 1}], "owner": "1"}, "has uid: expected some of path, owner"),
        ({"paths": [{"owner": 1}]}, "missing required arguments: path"),
        ({"paths": ["{tree}", {"path": "{tree}/a", "owner": 2}], "owner": "1"}, "{tree}/a lies in {tree}"),
        ({"paths": ["{tree}", {"path": "{tree}", "owner": 2}], "owner": "1"}, "give each path once"),
    ],
)
def test_a_request_that_cannot_be_meant_changes_nothing(run: Run, tree: Path, options: t.Any, message: str) -> None:
    before = tree.stat().st_ctime_ns
    outcome = run(**json.loads(json.dumps(options).replace("{tree}", str(tree))))
    assert outcome["failed"] is True
    assert message.replace("{tree}", str(tree)) in outcome["msg"]
    assert tree.stat().st_ctime_ns == before


@root_only
def test_a_root_in_another_may_have_its_own_owner_if_it_is_excluded_there(run: Run, tree: Path) -> None:
    paths = [{"path": str(tree), "exclude": ["a"]}, {"path": str(tree / "a"), "owner": 2}]
    run(paths=paths, owner="1")
    assert run(paths=paths, owner="1")["changed"] is False
    assert (tree.stat().st_uid, (tree / "a/f").stat().st_uid) == (1, 2)


LOCAL = {"Driver": "local", "Mountpoint": "/var/lib/docker/volumes/x/_data", "Options": None}


@pytest.mark.parametrize(
    ("inspected", "path"),
    [
        (LOCAL, "/var/lib/docker/volumes/x/_data"),
        ({**LOCAL, "Options": {"type": "none", "o": "bind", "device": "/srv/x"}}, "/srv/x"),
        ({**LOCAL, "Options": {"type": "none", "o": "rw,bind", "device": "/srv/x"}}, "/srv/x"),
        ({**LOCAL, "Options": {"type": "tmpfs", "device": "tmpfs"}, "Mountpoint": "/proc"}, "/proc"),
    ],
)
def test_where_the_files_of_a_volume_lie(inspected: dict[str, t.Any], path: str) -> None:
    assert volume_ownership.volume_path("x", inspected) == path


@pytest.mark.parametrize(
    ("inspected", "message"),
    [
        ({**LOCAL, "Driver": "rclone"}, "volume x belongs to the driver rclone"),
        ({**LOCAL, "Options": {"type": "nfs", "o": "addr=h", "device": ":/x"}}, "only mounted on .* while a container"),
    ],
)
def test_a_volume_whose_files_are_not_there_is_refused(inspected: dict[str, t.Any], message: str) -> None:
    with pytest.raises(volume_ownership.OwnershipError, match=message):
        volume_ownership.volume_path("x", inspected)


@root_only
def test_a_volume_is_asked_of_docker(run: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command itself is replaced by one that gives Docker's recorded answers."""
    command = tree.parent / "bin/docker"
    command.parent.mkdir()
    answer = json.dumps([{**LOCAL, "Mountpoint": str(tree), "Name": "storage", "Scope": "local", "Labels": None}])
    command.write_text(
        "#!/bin/sh\n"
        f"[ \"$1 $2 $3 $4\" = 'volume inspect -- storage' ] && echo '{answer}' && exit\n"
        'echo "Error response from daemon: get $4: no such volume" >&2; exit 1\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    assert run(volumes=["storage"], owner=UID)["roots"][0]["path"] == str(tree)
    assert (tree / "a/f").stat().st_uid == UID
    outcome = run(volumes=["absent"], owner=UID)
    assert "volume absent cannot be inspected: Error response from daemon: get absent: no such volume" in outcome["msg"]
