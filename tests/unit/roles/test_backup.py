# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the role backup: what it saves, which sets it takes for whole, and that half a dump is never saved."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

PROJECT = Path(__file__).resolve().parents[3]
ROLE = PROJECT / "roles/backup"
sys.path.insert(0, str(ROLE / "files"))

from dify_backup import basics, cli, databases, sets  # noqa: E402
from dify_backup.backup import Backup  # noqa: E402
from dify_backup.config import Config  # noqa: E402
from dify_backup.mysql import Tally  # noqa: E402
from dify_backup.project import plan  # noqa: E402
from dify_backup.restic import Restic, vanished  # noqa: E402
from dify_backup.restore import place  # noqa: E402
from dify_backup.state import metrics  # noqa: E402
from dify_backup.tree import listed, summary, walked  # noqa: E402

DOCKER = "/opt/dify/docker"


def service(image: str, *volumes: tuple[str, str], **more: t.Any) -> dict[str, t.Any]:
    """A resolved service; a source without a slash is a named volume."""
    mounts = [
        {"type": "bind" if "/" in source else "volume", "source": source, "target": target}
        for source, target in volumes
    ]
    return {"image": image, "volumes": mounts, **more}


def project() -> dict[str, t.Any]:
    """A resolved project like a release's, with what operators add."""
    database = {"DB_HOST": "db", "DB_USERNAME": "postgres", "DB_PASSWORD": "secret"}
    environment = {**database, "DB_DATABASE": "main", "REDIS_HOST": "redis", "VECTOR_STORE": "weaviate"}
    storage = (f"{DOCKER}/volumes/app/storage", "/app/api/storage")
    return {
        "name": "dify",
        "services": {
            "api": service("dify-api:1", storage, environment=environment, depends_on={"db": {}, "redis": {}}),
            "worker": service("dify-api:1", storage),
            "web": service("dify-web:1"),
            "plugin_daemon": service(
                "daemon:1",
                (f"{DOCKER}/volumes/plugin_daemon", "/app"),
                environment={**database, "DB_DATABASE": "plugins"},
            ),
            "db": service("postgres:15", (f"{DOCKER}/volumes/db/data", "/data")),
            "redis": service("redis:6", (f"{DOCKER}/volumes/redis/data", "/data")),
            "weaviate": service("weaviate:1", (f"{DOCKER}/volumes/weaviate", "/var/lib"), profiles=["weaviate"]),
            "sandbox": service("sandbox:1", ("home", "/home"), ("/srv/mine", "/mine")),
            "nginx": service("nginx:1", depends_on={"api": {}, "web": {}}),
        },
        "volumes": {"home": {"name": "dify_home"}},
    }


def made(config: dict[str, t.Any]) -> t.Any:
    return plan(config, DOCKER, {"dify_home": "/var/lib/docker/volumes/dify_home/_data"})


def test_everything_below_the_project_is_saved_but_for_databases_cache_and_store() -> None:
    plan = made(project())
    assert plan.files == [DOCKER, "/srv/mine", "/var/lib/docker/volumes/dify_home/_data"]
    assert plan.excluded == [f"{DOCKER}/volumes/{name}" for name in ("db/data", "redis/data", "weaviate")]
    assert plan.store_paths == [f"{DOCKER}/volumes/weaviate"]
    assert plan.volumes == {"dify_home": "/var/lib/docker/volumes/dify_home/_data"}


def test_both_databases_are_found_by_what_their_services_are_told() -> None:
    assert [(one.name, one.service) for one in made(project()).databases] == [("main", "db"), ("plugins", "db")]


def test_a_password_shows_in_no_representation() -> None:
    assert "secret" not in repr(made(project()))


def test_those_that_use_the_store_wait_for_its_copy_and_nobody_else() -> None:
    plan = made(project())
    assert (plan.writers, plan.store) == (["api", "worker"], ["weaviate"])


def test_services_wake_after_those_they_need() -> None:
    order = made(project()).order
    assert order.index("db") < order.index("api") < order.index("nginx")
    assert sorted(order) == sorted(project()["services"])


def test_a_store_elsewhere_is_not_looked_for() -> None:
    config = project()
    config["services"]["api"]["environment"]["VECTOR_STORE"] = "tidb_vector"
    del config["services"]["weaviate"]
    plan = made(config)
    assert (plan.store, plan.store_paths) == ([], [])


def test_what_an_operator_mounts_read_only_from_outside_is_left_alone() -> None:
    config = project()
    mounts = config["services"]["web"]["volumes"]
    mounts.append({"type": "bind", "source": "/", "target": "/host", "read_only": True})
    assert "/" not in made(config).files


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DB_TYPE": "oceanbase"}, r"DB_TYPE oceanbase, DB_HOST db\) cannot be backed up"),
        ({"DB_TYPE": "mysql", "DB_HOST": "oceanbase"}, r"DB_TYPE mysql, DB_HOST oceanbase\) cannot"),
        ({"DB_DATABASE": ""}, "DB_DATABASE"),
    ],
)
def test_a_database_that_cannot_be_saved_is_refused(change: dict[str, str], said: str) -> None:
    config = project()
    config["services"]["oceanbase"] = service("oceanbase/oceanbase-ce:4")
    for name in ("api", "plugin_daemon"):
        config["services"][name]["environment"].update(change)
    with pytest.raises(basics.Problem, match=said):
        made(config)


def test_a_database_elsewhere_is_known_by_its_address() -> None:
    config = project()
    config["services"]["plugin_daemon"]["environment"].update(DB_TYPE="mysql", DB_HOST="db.example.com")
    plan = made(config)
    assert [(one.kind, one.service, one.address) for one in plan.databases] == [
        ("postgresql", "db", "db"),
        ("mysql", "", "db.example.com:3306"),
    ]


def test_two_databases_of_one_name_are_refused() -> None:
    config = project()
    config["services"]["plugin_daemon"]["environment"].update(DB_DATABASE="main", DB_HOST="db.example.com")
    with pytest.raises(basics.Problem, match=r"main at db and another one at db\.example\.com:5432"):
        made(config)


# Dumps of MySQL

DUMP = r"""-- MySQL dump
/*!50001 CREATE VIEW `seen` AS SELECT
 1 AS `id`*/;
CREATE TABLE `none` (
  `id` int
);
CREATE TABLE `od``d 资料` (
  `id` int
);
set autocommit=0;
INSERT INTO `od``d 资料` VALUES (1,'\nINSERT INTO `none` VALUES (1);\n');
INSERT INTO `od``d 资料` (`id`) VALUES (2,'LONG');
commit;
DELIMITER ;;
/*!50003 CREATE TRIGGER t AFTER INSERT ON none FOR EACH ROW BEGIN
INSERT INTO `none` VALUES (1);
END */;;
DELIMITER ;
INSERT INTO `last` VALUES (1);

-- Dump completed on 2026-11-22 19:00:00
""".replace("LONG", "x" * 5000).encode()


@given(st.lists(st.integers(1, 200), min_size=1))
def test_rows_are_counted_however_a_dump_arrives(sizes: list[int]) -> None:
    tally = Tally()
    position = number = 0
    while position < len(DUMP):
        size = sizes[number % len(sizes)]
        tally(DUMP[position : position + size])
        position, number = position + size, number + 1
    tally(b"")
    assert tally.rows == {"none": 0, "od`d 资料": 2, "last": 1}


@pytest.mark.parametrize("length", [0, 10, len(DUMP) // 2, DUMP.index(b"\n-- Dump completed")])
def test_a_dump_of_mysql_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "dump").write_bytes(DUMP[:length])
    with pytest.raises(basics.Problem, match="cut short"):
        basics.pump(["cat", str(tmp_path / "dump")], sink(f"cat >/dev/null; touch {tmp_path}/ended"), tap=Tally())
    assert not (tmp_path / "ended").exists()


# Sets


def snapshots(number: int, parts: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """A whole set as restic lists it, the manifest last."""
    identity = f"2026112{number}T000000Z-00000{number}"
    at = f"2026-11-2{number}T00:00:00Z"
    listed = [
        {"id": f"{number}-{part}", "time": at, "tags": [sets.TAG, f"set={identity}", f"part={part}"]} for part in parts
    ]
    names = [f"of={part}:{number}-{part}" for part in parts]
    tags = [sets.TAG, f"set={identity}", "part=manifest", *names]
    return [*listed, {"id": f"{number}-manifest", "time": at, "tags": tags}]


PARTS = ("database-dify", "files", "store")
whole = st.integers(1, 5).map(lambda count: [one for number in range(count) for one in snapshots(number, PARTS)])


@given(st.data(), whole)
def test_a_set_is_complete_exactly_when_nothing_of_it_is_missing(data: st.DataObject, full: list[t.Any]) -> None:
    there = data.draw(st.lists(st.sampled_from(full), unique_by=lambda one: t.cast("str", one["id"])))
    for found in sets.sets(there):
        number = found.identity[7]
        ids = {one["id"] for one in there if one["id"].startswith(f"{number}-")}
        assert found.complete == (ids == {f"{number}-{part}" for part in (*PARTS, "manifest")})
        assert set(found.snapshots) == ids


@given(st.data(), whole)
def test_the_newest_complete_set_and_all_after_it_is_never_forgotten(data: st.DataObject, full: list[t.Any]) -> None:
    there = data.draw(st.lists(st.sampled_from(full), unique_by=lambda one: t.cast("str", one["id"])))
    kept = data.draw(st.sets(st.sampled_from([one["id"] for one in full if one["id"].endswith("manifest")])))
    found = sets.sets(there)
    gone = sets.outdated(found, kept)
    complete = [one for one in found if one.complete]
    if not complete:
        assert gone == []
        return
    newest = complete[-1]
    assert sets.choose(found, "latest") == newest
    for one in found:
        if one.identity >= newest.identity or (one.complete and one.manifest in kept):
            assert not set(gone) & set(one.snapshots)
        else:
            assert set(one.snapshots) <= set(gone)


def test_a_manifest_goes_before_the_parts_it_names() -> None:
    found = sets.sets([*snapshots(1, PARTS), *snapshots(2, PARTS)])
    assert sets.outdated(found, ["2-manifest"])[0] == "1-manifest"


def test_sets_that_were_copied_to_another_repository_are_complete_there() -> None:
    copied = [{**one, "id": f"copy-{one['id']}", "original": one["id"]} for one in snapshots(1, PARTS)]
    assert [one.complete for one in sets.sets(copied)] == [True]


def test_what_restic_repaired_is_no_longer_what_was_saved() -> None:
    full = snapshots(1, PARTS)
    full[-1]["tags"].append("tree=files:whole")
    full[1]["tree"] = "whole"
    assert sets.sets(full)[0].complete
    full[1] |= {"id": "new", "original": full[1]["id"], "tree": "less"}
    (found,) = sets.sets(full)
    assert found.missing == ["files"]
    assert "new" in found.snapshots


def test_what_is_missing_is_named() -> None:
    full = snapshots(1, PARTS)
    found = sets.sets([one for one in full if "files" not in one["id"]])
    with pytest.raises(basics.Problem, match=r"no complete set.*20261121T000000Z-000001 without files"):
        sets.choose(found, "latest")
    with pytest.raises(basics.Problem, match="incomplete: files missing"):
        sets.choose(found, "20261121T000000Z-000001")
    with pytest.raises(basics.Problem, match="no set"):
        sets.choose(found, "20261122T000000Z-000001")


# Streams


def sink(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_stream_arrives_whole_and_with_its_digest(tmp_path: Path) -> None:
    target = tmp_path / "arrived"
    text = "seq 1 300000"
    moved = basics.pump(["sh", "-c", text], sink(f"cat >{target}"))
    content = subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout
    assert target.read_bytes() == content
    assert moved == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_after_a_failing_dump_nobody_sees_an_end(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    with pytest.raises(basics.Problem, match="sh failed with 3: no such table"):
        basics.pump(
            ["sh", "-c", "seq 1 300000; echo no such table >&2; exit 3"], sink(f"cat >/dev/null; touch {ended}")
        )
    assert not ended.exists()


def test_a_repository_that_stops_taking_is_told_with_its_own_words() -> None:
    with pytest.raises(basics.Problem, match="sh failed with 1: no space left"):
        basics.pump(["sh", "-c", "seq 1 3000000"], sink("head -c 10 >/dev/null; echo no space left >&2; exit 1"))


# Trees


def test_a_tree_is_the_same_whatever_order_it_is_read_in(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/资料.txt").write_text("x")
    (tmp_path / "link").symlink_to("dir")
    entries = list(walked([str(tmp_path)], [], set()))
    assert summary(entries) == summary(reversed(entries))
    before = summary(entries)
    assert {key: before[key] for key in ("files", "directories", "symlinks", "bytes")} == {
        "files": 1,
        "directories": 2,
        "symlinks": 1,
        "bytes": 1,
    }
    (tmp_path / "dir/资料.txt").chmod(0o600)
    assert summary(walked([str(tmp_path)], [], set()))["digest"] != before["digest"]


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ('{"message_type":"error","error":{"Op":"lstat","Path":"/x","Err":2},"item":"/x"}', True),
        ('{"message_type":"error","error":{"message":"lstat /x: no such file or directory"},"item":"/x"}', True),
        ('{"message_type":"error","error":{"Op":"open","Path":"/x","Err":13},"item":"/x"}', False),
        ('{"message_type":"error","error":{"message":"read /x: input/output error"},"item":"/x"}', False),
        ("error", False),
    ],
)
def test_only_files_that_vanished_may_go_unread(line: str, gone: bool) -> None:
    assert vanished(line) is gone


# The real restic


@pytest.fixture
def config(tmp_path: Path) -> t.Any:
    restic = shutil.which("restic")
    assert restic, "restic is missing; make unit installs it"
    (tmp_path / "password").write_text("a password")
    paths = {name: str(tmp_path / name) for name in ("repository", "state_path", "cache_path")}
    Path(paths["state_path"]).mkdir()
    made = {field.name: "" for field in dataclasses.fields(Config)}
    made |= {"name": "server", "password_file": str(tmp_path / "password"), "restic": restic, **paths}
    more: dict[str, t.Any] = {"restic_options": [], "keep": {"last": 1}, "append_only": False, "check_subset": "100%"}
    return Config(**{**made, **more})


NO_OPTIONS = argparse.Namespace()


def save(restic: t.Any, identity: str, tree: Path) -> None:
    """A set of two parts."""
    tags = ["set=" + identity]
    dump = restic.store(["echo", "a dump"], "database.dump", [*tags, "part=database"])
    files = restic.backup([str(tree)], [], [*tags, "part=files"])
    names = [f"of=database:{dump['snapshot_id']}", f"of=files:{files['snapshot_id']}"]
    manifest = {"set": identity, "parts": {"database": {}, "files": {}}}
    restic.store(["echo", json.dumps(manifest)], "manifest.json", [*tags, "part=manifest", *names])


def test_sets_live_and_go_as_a_whole(config: t.Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree [1]*"
    tree.mkdir(mode=0o2750)
    os.chown(tree, 1001, 70)
    (tree / "Übersicht 资料.txt").write_text("content")
    assert cli.init(config, NO_OPTIONS) == {"created": True}
    assert cli.init(config, NO_OPTIONS) == {"created": False}
    restic = Restic(config)
    for number in range(3):
        save(restic, f"2026112{number}T000000Z-000000", tree)
    with pytest.raises(basics.Problem, match="sh failed with 1: cut"):
        restic.store(
            ["sh", "-c", "echo half; echo cut >&2; exit 1"], "x", ["set=20261123T000000Z-000000", "part=database"]
        )
    found = sets.sets(restic.snapshots())
    assert [one.complete for one in found] == [True, True, True]
    manifest = cli.show(config, argparse.Namespace(set="latest"))
    assert manifest["set"] == "20261122T000000Z-000000"
    assert {part: saved["snapshot"] for part, saved in manifest["parts"].items()} == found[-1].parts

    lines = restic.run("ls", "--json", found[-1].parts["files"]).splitlines()
    assert summary(listed(lines, [str(tree)], set())) == summary(walked([str(tree)], [], set()))
    sound = restic.load(found[-1].parts["database"], "database.dump", ["cat"])
    assert sound["bytes"] == len("a dump\n")

    assert cli.forget(config, NO_OPTIONS) == {"forgotten": 6}
    assert [one.identity for one in sets.sets(restic.snapshots())] == ["20261122T000000Z-000000"]
    assert cli.check(config, NO_OPTIONS) == {}


def test_an_exclusion_is_a_path_and_no_pattern(config: t.Any, tmp_path: Path) -> None:
    cli.init(config, NO_OPTIONS)
    restic = Restic(config)
    for name in ("a", "[ab]", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    saved = restic.backup([str(tmp_path / "tree")], [str(tmp_path / "tree/[ab]")], [])
    lines = restic.run("ls", "--json", saved["snapshot_id"]).splitlines()
    names = {Path(entry.path).name for entry in listed(lines, [str(tmp_path / "tree")], set())}
    assert names == {"tree", "a", "b"}


def test_a_damaged_repository_is_found_and_nothing_is_restored_from_it_unsaid(config: t.Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(200_000))
    cli.init(config, NO_OPTIONS)
    restic = Restic(config)
    saved = restic.backup([str(tree)], [], [])
    found = summary(walked([str(tree)], [], set()))
    part = {"snapshot": saved["snapshot_id"], "paths": [str(tree)], "excluded": [], **found}
    place(restic, "files", part, without=[], root=str(tmp_path / "first"))
    pack = max(Path(config.repository, "data").glob("*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    content = pack.read_bytes()
    pack.write_bytes(content[:5000] + b"damage" + content[5006:])
    with pytest.raises(basics.Problem, match="The repository is damaged"):
        cli.check(config, NO_OPTIONS)
    with pytest.raises(basics.Problem, match=r"The part files could not be restored.*restore an older set"):
        place(restic, "files", part, without=[], root=str(tmp_path / "second"))


def test_a_dump_that_is_not_the_one_that_was_saved_is_refused(config: t.Any, tmp_path: Path) -> None:
    cli.init(config, NO_OPTIONS)
    restic = Restic(config)
    whole = restic.store(["seq", "1", "300000"], "database.dump", [])
    half = restic.store(["seq", "1", "150000"], "database.dump", [])
    session = t.cast("databases.Session", argparse.Namespace(environment=dict(os.environ)))
    saved = {"snapshot": whole["snapshot_id"], "sha256": whole["sha256"]}
    databases._load(restic, saved, "database.dump", ["cat"], session)
    with pytest.raises(basics.Problem, match="is not what was saved"):
        databases._load(restic, {**saved, "snapshot": half["snapshot_id"]}, "database.dump", ["cat"], session)


def test_a_wrong_password_is_named_and_the_repository_stays(config: t.Any) -> None:
    cli.init(config, NO_OPTIONS)
    Path(config.password_file).write_text("another password")
    with pytest.raises(basics.Problem, match=r"neither be opened \(.*wrong password"):
        cli.init(config, NO_OPTIONS)


# What is told


def test_metrics_are_what_prometheus_reads() -> None:
    ended = {"backup": {"success": True, "ended": 1.5, "message": "", "set": "x"}, "check": {"success": False}}
    text = metrics(ended)
    assert 'selfhost_dify_backup_last_run_success{command="backup"} 1.0\n' in text
    assert 'selfhost_dify_backup_last_run_success{command="check"} 0.0\n' in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_credentials_in_an_address_are_hidden() -> None:
    said = basics.complaint(["restic"], 1, "Fatal: unable to open https://me:secret@backup.example.com/dify")
    assert "secret" not in said
    assert "backup.example.com" in said


def test_a_run_waits_for_another_one_and_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "LOCK", str(tmp_path / "lock"))
    with cli.locked(0), pytest.raises(basics.Problem, match="Another run"), cli.locked(0):
        pass
    with cli.locked(0):
        pass


def test_what_a_killed_run_halted_is_woken_by_nobody_while_another_one_runs(
    config: t.Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "LOCK", str(tmp_path / "lock"))
    halted = Path(config.state_path) / "halted.json"
    halted.write_text(json.dumps({"start": [], "unpause": []}))
    with cli.locked(0):
        assert cli.wake(config, NO_OPTIONS) == {"resumed": False}
        assert halted.exists()


def test_what_hangs_while_users_wait_is_given_up(config: t.Any, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    run = Backup(dataclasses.replace(config, project_path=str(tmp_path / "docker")), "online")
    with pytest.raises(basics.Problem, match="not copied within 1 seconds"), run.limited(1):
        basics.run(["sleep", "60"])
    with run.limited(0):
        pass


def test_a_failed_run_is_remembered_and_told(
    config: t.Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "LOCK", str(tmp_path / "lock"))
    told = tmp_path / "told"
    changed = dataclasses.replace(
        config,
        textfile_path=str(tmp_path / "backup.prom"),
        alert_command=["sh", "-c", f'echo "$1" >{told}', "sh"],
        lock_timeout=0,
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dataclasses.asdict(changed)))
    assert cli.main(["--config", str(path), "check"]) == 1
    assert "check: restic failed" in capsys.readouterr().err
    assert 'last_run_success{command="check"} 0.0' in (tmp_path / "backup.prom").read_text()
    assert cli.main(["--config", str(path), "alert", "check"]) == 0
    assert told.read_text().startswith("server: check failed: restic failed")


def test_role_and_program_know_the_same_configuration() -> None:
    written = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__backup_config"]
    assert list(written) == [field.name for field in dataclasses.fields(Config)]


def test_manifests_tell_the_collections_version() -> None:
    assert (
        yaml.safe_load((ROLE / "vars/main.yml").read_text())["__backup_version"]
        == yaml.safe_load((PROJECT / "galaxy.yml").read_text())["version"]
    )
