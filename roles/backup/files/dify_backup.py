# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Back up and restore a Dify server with restic. The role selfhost.dify.backup installs and configures it.

A backup is a set: a snapshot for each part, all with the tag C(set=ID), and last of all a manifest whose tags name the
snapshots of the parts. A set without its manifest, or without a part that the manifest names, is incomplete: it is
never restored, and it goes when a newer complete one is there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
import typing as t
import uuid
from pathlib import Path

CONFIG = "/etc/selfhost-dify-backup/config.json"
LOCK = "/run/selfhost-dify-backup.lock"
TAG = "selfhost.dify"
FORMAT = 1
# How Docker is to print a container.
CONTAINER = '{{.State}} {{.Label "com.docker.compose.service"}} {{.Names}}'
CHUNK = 1 << 20
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}
# Go's bits for what Unix keeps beside the permissions.
GO_BITS = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))

Json = t.Dict[str, t.Any]


class Problem(Exception):
    """What went wrong, as a sentence for the operator."""


class Locked(Problem):
    """Another run is under way."""


# What follows from the Compose project -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Database:
    """A database of the project; ``service`` runs its server."""

    name: str
    service: str
    user: str
    password: str = dataclasses.field(repr=False)

    @property
    def part(self) -> str:
        return "database-" + self.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a server consists of. Paths are absolute and of the host."""

    project: str
    url: str
    databases: list[Database]
    writers: list[str]  # services that use the vector store
    store: list[str]  # services that are the vector store
    store_paths: list[str]
    files: list[str]
    excluded: list[str]  # below ``files``, but saved by other means or not worth it
    volumes: dict[str, str]  # named volumes of the project, with where they are
    owned: list[str]  # directories that containers write to
    images: dict[str, str]  # by service
    order: list[str]  # all services, each after those it waits for


def plan(config: Json, path: str, mountpoints: t.Mapping[str, str]) -> Plan:
    """What is to be saved, from the resolved project of the services that run.

    ``path``: the project's directory. ``mountpoints``: named volume to its directory, as Docker tells it. All below
    ``path`` is saved, so that nothing an operator put there is missed, but for what the databases' dumps hold and for
    Redis, whose queues and sessions are of the moment. What the vector store writes is a part of its own, since it has
    to be stopped for it.
    """
    services: dict[str, Json] = config["services"]
    if "api" not in services:
        raise Problem(f"The project in {path} has no service api; is it Dify's?")
    environment = services["api"].get("environment") or {}
    databases = _databases(services)
    servers = {database.service for database in databases}
    cache = environment.get("REDIS_HOST", "")
    chosen = environment.get("VECTOR_STORE", "")
    store = sorted(
        name
        for name, service in services.items()
        if chosen and chosen in (service.get("profiles") or []) and name not in servers
    )
    image = services["api"]["image"]
    files, excluded, store_paths, owned = [path], set(), set(), set()
    volumes: dict[str, str] = {}
    for name, service in services.items():
        for volume in service.get("volumes") or []:
            source = _source(config, volume, mountpoints)
            if not source:
                continue
            if name in servers or name == cache:
                excluded.add(source)
                continue
            if volume["type"] == "volume":
                volumes[config["volumes"][volume["source"]]["name"]] = source
            elif volume.get("read_only") and not _below(source, path):
                continue
            if name in store:
                store_paths.add(source)
            elif not _below(source, path):
                files.append(source)
            owned.add(source)
    return Plan(
        project=config["name"],
        url=environment.get("CONSOLE_WEB_URL", ""),
        databases=databases,
        writers=sorted(name for name, service in services.items() if service.get("image") == image),
        store=store,
        store_paths=_roots(store_paths),
        files=_roots(files),
        excluded=_roots(excluded | store_paths),
        volumes=volumes,
        owned=sorted(owned),
        images={name: service["image"] for name, service in sorted(services.items()) if "image" in service},
        order=_ordered({name: set(service.get("depends_on") or {}) for name, service in services.items()}),
    )


def _ordered(needs: t.Mapping[str, t.Collection[str]]) -> list[str]:
    """The names, each after those it needs.

    >>> _ordered({"nginx": ["api"], "api": ["redis", "external"], "redis": []})
    ['redis', 'api', 'nginx']
    """
    found: list[str] = []

    def visit(name: str) -> None:
        if name in needs and name not in found and name not in visiting:
            visiting.add(name)
            for needed in sorted(needs[name]):
                visit(needed)
            found.append(name)

    visiting: set[str] = set()
    for name in sorted(needs):
        visit(name)
    return found


def _databases(services: t.Mapping[str, Json]) -> list[Database]:
    """The databases of the services that have one, from what the services themselves are told."""
    found: dict[tuple[str, str], Database] = {}
    for name in ("api", "plugin_daemon"):
        environment = (services.get(name) or {}).get("environment") or {}
        if not environment.get("DB_DATABASE"):
            continue
        kind = environment.get("DB_TYPE") or "postgresql"
        if kind != "postgresql":
            raise Problem(f"The database of {name} is a {kind}; only PostgreSQL can be backed up so far.")
        host = environment.get("DB_HOST", "")
        if host not in services:
            raise Problem(
                f"The database of {name} is at {host}, which is no service of the project; "
                "only the bundled PostgreSQL can be backed up so far."
            )
        database = Database(
            environment["DB_DATABASE"], host, environment.get("DB_USERNAME", ""), environment.get("DB_PASSWORD", "")
        )
        found.setdefault((host, database.name), database)
    if not found:
        raise Problem("The services api and plugin_daemon name no database (DB_DATABASE).")
    return list(found.values())


def _source(config: Json, volume: Json, mountpoints: t.Mapping[str, str]) -> str:
    """The directory or file of the host behind a mount; empty for what has none."""
    if volume["type"] == "bind":
        return t.cast("str", volume["source"])
    if volume["type"] == "volume" and volume.get("source"):
        return mountpoints.get(config["volumes"][volume["source"]]["name"], "")
    return ""


def _below(path: str, parent: str) -> bool:
    """Whether a path is another one, or below it.

    >>> _below("/a/b", "/a"), _below("/ab", "/a"), _below("/a", "/a")
    (True, False, True)
    """
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def _roots(paths: t.Iterable[str]) -> list[str]:
    """The paths that lie below no other one, sorted.

    >>> _roots(["/b/c", "/a", "/b", "/b-c"])
    ['/a', '/b', '/b-c']
    """
    found: list[str] = []
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if not found or not _below(path, found[-1]):
            found.append(path)
    return found


def pattern(path: str) -> str:
    """A path as a pattern of restic's.

    >>> pattern("/a*[b]")
    '/a\\\\*\\\\[b]'
    """
    return re.sub(r"([\\*?\[])", r"\\\1", path)


# Sets ----------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Set:
    """The snapshots of one backup."""

    identity: str
    time: str
    manifest: str  # the snapshot's ID, empty where there is none
    parts: dict[str, str]  # part to the snapshot's ID
    missing: list[str]  # parts that the manifest names, or the manifest itself
    strays: list[str]  # snapshots of the set that no manifest names

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def snapshots(self) -> list[str]:
        """All of them, the manifest first: once it is gone, the set cannot be taken for complete."""
        return [*([self.manifest] if self.manifest else []), *self.parts.values(), *self.strays]


def sets(snapshots: t.Iterable[Json]) -> list[Set]:
    """The sets among snapshots as restic lists them, oldest first.

    A snapshot that was copied from another repository counts as the one it was made from.
    """
    grouped: dict[str, list[Json]] = {}
    for snapshot in snapshots:
        tags = snapshot.get("tags") or []
        identity = _tagged(tags, "set")
        if TAG in tags and identity:
            grouped.setdefault(identity, []).append(snapshot)
    return [_set(identity, members) for identity, members in sorted(grouped.items())]


def _set(identity: str, members: list[Json]) -> Set:
    members = sorted(members, key=lambda member: str(member["time"]))
    manifests = [member for member in members if _tagged(member["tags"], "part") == "manifest"]
    if not manifests:
        return Set(
            identity, members[-1]["time"], "", {}, ["manifest"], [t.cast("str", member["id"]) for member in members]
        )
    manifest = manifests[-1]
    named = dict(tag[3:].split(":", 1) for tag in manifest["tags"] if tag.startswith("of="))
    parts = {
        part: member["id"]
        for part, snapshot in named.items()  # up to restic 0.16 the first digits of it
        for member in members
        if any(known.startswith(snapshot) for known in (member["id"], member.get("original") or ""))
    }
    strays = [member["id"] for member in members if member is not manifest and member["id"] not in parts.values()]
    missing = sorted(set(named) - set(parts)) if named else ["every part"]
    return Set(identity, manifest["time"], manifest["id"], parts, missing, strays)


def _tagged(tags: t.Iterable[str], name: str) -> str:
    return next((tag[len(name) + 1 :] for tag in tags if tag.startswith(name + "=")), "")


def choose(found: t.Sequence[Set], wanted: str) -> Set:
    """The set to restore: C(latest) is the newest complete one."""
    if wanted == "latest":
        complete = [one for one in found if one.complete]
        if not complete:
            raise Problem(f"The repository holds no complete set of this server{_incomplete(found)}.")
        return complete[-1]
    matching = [one for one in found if one.identity == wanted]
    if not matching:
        raise Problem('There is no set "{}"; there are: {}.'.format(wanted, _names(found) or "none"))
    if matching[0].missing:
        raise Problem("The set {} is incomplete: {} missing.".format(wanted, " and ".join(matching[0].missing)))
    return matching[0]


def _names(found: t.Iterable[Set]) -> str:
    return ", ".join(one.identity for one in found if one.complete)


def _incomplete(found: t.Iterable[Set]) -> str:
    texts = ["{} without {}".format(one.identity, " and ".join(one.missing)) for one in found if one.missing]
    return "; incomplete are " + ", ".join(texts) if texts else ""


def outdated(found: t.Sequence[Set], kept: t.Collection[str]) -> list[str]:
    """The snapshots to forget: of sets whose manifest is not among ``kept``, and of what older runs left unfinished.

    The newest complete set stays in any case, and everything that is newer than it.
    """
    newest = max((number for number, one in enumerate(found) if one.complete), default=-1)
    return [
        snapshot
        for one in found[: max(newest, 0)]
        for snapshot in (one.strays if one.complete and one.manifest in kept else one.snapshots)
    ]


# What a tree looks like ----------------------------------------------------------------------------------------------


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
        if any(_below(path, parent) for parent in paths):
            mode = node.get("mode", 0)
            unix = (mode & 0o777) | sum(unix for go, unix in GO_BITS if mode & go)
            size = node.get("size", 0) if node["type"] == "file" else 0
            yield Entry(path, node["type"], unix, node.get("uid", 0), node.get("gid", 0), size)


def walked(paths: t.Sequence[str], excluded: t.Sequence[str], without: t.Collection[str]) -> t.Iterator[Entry]:
    """The same of what is on this host."""
    pending = list(paths)
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if path in excluded or path in without or kind is None:
            continue
        size = status.st_size if kind == "file" else 0
        yield Entry(path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, size)
        if kind == "dir":
            pending += [os.path.join(path, name) for name in os.listdir(path)]


# What monitoring reads -----------------------------------------------------------------------------------------------


def metrics(state: Json) -> str:
    """The state as Prometheus' textfile collector reads it."""
    lines = []
    for name, text, values in (
        ("last_run_timestamp_seconds", "When a command ended last.", "ended"),
        ("last_success_timestamp_seconds", "When a command ended well last.", "succeeded"),
        ("last_run_success", "Whether the last run of a command ended well.", "success"),
        ("duration_seconds", "How long the last good run of a command took.", "duration"),
        ("downtime_seconds", "How long the last good backup kept users waiting.", "downtime"),
        ("size_bytes", "How much the newest complete set holds.", "bytes"),
        ("added_bytes", "How much of it was new to the repository.", "added"),
    ):
        rows = [(command, run[values]) for command, run in sorted(state.items()) if values in run]
        if rows:
            full = "selfhost_dify_backup_" + name
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
            lines += [f'{full}{{command="{command}"}} {float(value)}' for command, value in rows]
    return "".join(line + "\n" for line in lines)


# The host ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Config:
    """What the role wrote; see its options of the same names."""

    name: str
    repository: str
    password_file: str
    environment_file: str
    restic: str
    restic_options: list[str]
    project_path: str
    mode: str
    paths: list[str]
    edge_paths: list[str]
    edge_volumes: list[str]
    keep: dict[str, int]
    append_only: bool
    check_subset: str
    textfile_path: str
    alert_command: list[str]
    lock_timeout: int
    state_path: str
    cache_path: str
    version: str

    @classmethod
    def read(cls, path: str) -> Config:
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise Problem(f"{path} cannot be read ({error}); run the role backup again.") from None

    def state(self, name: str) -> Path:
        return Path(self.state_path) / name


def run(command: t.Sequence[str], **options: t.Any) -> str:
    """What a command prints; its failure is a Problem with what it complained of."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", check=False, **options
    )
    if done.returncode:
        raise Problem(complaint(command, done.returncode, done.stderr or done.stdout))
    return done.stdout


def complaint(command: t.Sequence[str], code: int, output: str) -> str:
    """What a failed command said: its last lines, without credentials."""
    lines = [said(line) for line in output.strip().splitlines() if line.strip()]
    words = "; ".join(lines[-3:]) if lines else "it said nothing"
    program = " ".join(command[:2]) if command[0] == "docker" else Path(command[0]).name
    return "{} failed with {}: {}".format(program, code, re.sub(r"://[^/@\s]+@", "://***@", words))


def said(line: str) -> str:
    """The message of a line that may be JSON.

    >>> said('{"message_type":"exit_error","code":12,"message":"Fatal: wrong password"}')
    'Fatal: wrong password'
    """
    try:
        message = json.loads(line)["message"]
    except (ValueError, KeyError, TypeError):
        return line
    return str(message)


class Restic:
    """The repository, by restic's own commands. Secrets go by files and the environment, never as arguments."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.environment = {
            **os.environ,
            "HOME": os.environ.get("HOME") or "/root",
            "RESTIC_REPOSITORY": config.repository,
            "RESTIC_PASSWORD_FILE": config.password_file,
            "RESTIC_CACHE_DIR": config.cache_path,
            "RESTIC_PROGRESS_FPS": "0.01",
            **_environment(config.environment_file),
        }
        self.base = [config.restic, *(word for option in config.restic_options for word in ("-o", option))]

    def run(self, *arguments: str) -> str:
        return run([*self.base, *arguments], env=self.environment)

    def popen(self, *arguments: str, **options: t.Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.base, *arguments], env=self.environment, **options)

    def version(self) -> str:
        return self.run("version").split()[1]

    def snapshots(self) -> list[Json]:
        text = self.run("snapshots", "--json", "--host", self.config.name, "--tag", TAG)
        return json.loads(text) or []

    def backup(self, paths: t.Sequence[str], excluded: t.Sequence[str], tags: t.Sequence[str]) -> Json:
        """A snapshot of files. What vanished while it was made is no error; all else that was not read is."""
        command = [*self.base, "backup", "--json", *self._labels(tags)]
        command += ["--exclude=" + pattern(path) for path in excluded]
        command += ["--", *paths]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, errors="surrogateescape", check=False
        )
        if done.returncode not in (0, 3):
            raise Problem(complaint(command, done.returncode, done.stderr))
        unread = [line for line in done.stderr.splitlines() if '"error"' in line and not vanished(line)]
        if unread:
            raise Problem("restic could not read everything: {}".format("; ".join(unread[:3])))
        return _summary(done.stdout)

    def store(self, source: t.Sequence[str], name: str, tags: t.Sequence[str], **options: t.Any) -> Json:
        """A snapshot of what a command prints, which is only made when the command ends well."""
        with tempfile.TemporaryFile() as printed:
            command = ["backup", "--json", "--stdin", "--stdin-filename", name, *self._labels(tags)]
            sink = self.popen(*command, stdin=subprocess.PIPE, stdout=printed, stderr=subprocess.PIPE)
            moved = pump(source, sink, **options)
            printed.seek(0)
            return {**_summary(printed.read().decode()), **moved}

    def load(self, snapshot: str, name: str, target: t.Sequence[str], **options: t.Any) -> Json:
        """Hands what a snapshot of C(store) holds to a command."""
        sink = subprocess.Popen(
            target, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
        )
        return pump([*self.base, "dump", snapshot, "/" + name], sink, env=self.environment)

    def _labels(self, tags: t.Sequence[str]) -> list[str]:
        labels = ["--host", self.config.name]
        for tag in (TAG, *tags):
            labels += ["--tag", tag]
        return labels


def _environment(path: str) -> dict[str, str]:
    """Name to value of a file of NAME=value lines."""
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).exists() else ""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _summary(output: str) -> Json:
    for line in reversed(output.splitlines()):
        if '"summary"' in line:
            found: Json = json.loads(line)
            if found.get("snapshot_id"):
                return found
    raise Problem("restic reported no snapshot, so nothing was saved.")


def vanished(line: str) -> bool:
    """Whether an error line of restic's is about a file that is no longer there."""
    try:
        error = json.loads(line).get("error") or {}
    except ValueError:
        return False
    text = error.get("message", "") if isinstance(error, dict) else str(error)
    return "no such file or directory" in text or (isinstance(error, dict) and error.get("Err") == 2)


def pump(source: t.Sequence[str], sink: subprocess.Popen[bytes], **options: t.Any) -> Json:
    """Moves what a command prints into another one: how much it was, and its digest.

    The other one sees an end only after the command ended well; otherwise it is killed before, so that half of a dump
    never becomes a snapshot.
    """
    assert sink.stdin
    digest, size, broken = hashlib.sha256(), 0, False
    with tempfile.TemporaryFile() as errors:
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(source, stdout=subprocess.PIPE, stderr=errors, **options)
        assert process.stdout
        try:
            while True:
                chunk = process.stdout.read(CHUNK)
                if not chunk:
                    break
                digest.update(chunk)
                size += len(chunk)
                sink.stdin.write(chunk)
            sink.stdin.flush()
        except BrokenPipeError:
            broken = True
            process.kill()  # nobody takes the rest
        except BaseException:
            sink.kill()
            process.kill()
            raise
        process.stdout.close()
        code = process.wait()
        errors.seek(0)
        words = errors.read().decode("utf-8", "replace")
    if code and not broken:
        sink.kill()
        sink.communicate()
        raise Problem(complaint(source, code, words))
    with contextlib.suppress(BrokenPipeError):
        sink.stdin.close()
    sink.stdin = None  # communicate() would close it once more
    complaints = sink.communicate()[1] or b""
    if sink.returncode or broken:
        raise Problem(complaint(t.cast("list[str]", sink.args), sink.returncode, complaints.decode("utf-8", "replace")))
    return {"bytes": size, "sha256": digest.hexdigest()}


class Container(t.NamedTuple):
    """A container of the project; ``state`` as Docker says it."""

    state: str
    service: str
    name: str


class Server:
    """The Compose project on this host."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = config.project_path
        if not Path(self.path).is_dir():
            raise Problem(f"{self.path} is no directory; Dify is not here.")

    def compose(self, *arguments: str) -> str:
        return run(["docker", "compose", *arguments], cwd=self.path)

    def plan(self) -> Plan:
        config = json.loads(self.compose("config", "--format", "json"))
        names = [volume["name"] for volume in (config.get("volumes") or {}).values() if volume]
        return plan(config, self.path, {name: self.mountpoint(name) for name in names})

    def mountpoint(self, volume: str) -> str:
        """Where a named volume is; empty where there is none of the name."""
        command = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def containers(self, project: str) -> list[Container]:
        lines = run(
            ["docker", "ps", "--all", "--filter", f"label=com.docker.compose.project={project}", "--format", CONTAINER]
        ).splitlines()
        return [Container(*line.split()) for line in lines]

    def container(self, project: str, service: str) -> str:
        """The running container of a service."""
        names = [one.name for one in self.containers(project) if (one.state, one.service) == ("running", service)]
        if not names:
            raise Problem(f"The service {service} does not run, so its data cannot be read.")
        return names[0]

    def tracked(self) -> set[str]:
        """The files below the project's directory that the release brings."""
        command = ["git", "-c", "safe.directory=*", "-C", self.path, "ls-files", "-z", "--", "."]
        return {os.path.join(self.path, name) for name in run(command).split("\0") if name}

    def release(self) -> Json:
        command = ["git", "-c", "safe.directory=*", "-C", self.path]
        commit = run([*command, "rev-parse", "HEAD"]).strip()
        tags = run([*command, "tag", "--points-at", "HEAD"]).split()
        return {"tag": tags[0] if tags else "", "commit": commit}

    def images(self, plan: Plan) -> Json:
        """Service to the image it runs, with the digests that registries know it by."""
        found = {}
        for service, image in plan.images.items():
            command = ["docker", "image", "inspect", "--format", "{{.Id}} {{json .RepoDigests}}", image]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            identity, _space, digests = done.stdout.strip().partition(" ")
            found[service] = {"image": image, "id": identity, "digests": json.loads(digests or "[]") or []}
        return found


class Session:
    """A PostgreSQL session inside its container, whose snapshot of the database pg_dump takes over.

    So what is counted here is exactly what the dump holds.
    """

    def __init__(self, container: str, database: Database) -> None:
        self.database = database
        self.command = ["docker", "exec", "--interactive", "--env", "PGPASSWORD", container]
        self.environment = {**os.environ, "PGPASSWORD": database.password}

    def tool(self, name: str, *arguments: str) -> list[str]:
        return [*self.command, name, "--username", self.database.user, *arguments]

    def query(self, *statements: str, database: str = "") -> list[list[str]]:
        """The rows of all statements, in one read-only transaction."""
        script = "\n".join(["SET statement_timeout = 0;", *statements])
        text = run(
            self.tool("psql", "-qAtXF", "\t", "-v", "ON_ERROR_STOP=1", "-d", database or self.database.name),
            input=script,
            env=self.environment,
        )
        return [line.split("\t") for line in text.splitlines()]

    @contextlib.contextmanager
    def snapshot(self) -> t.Iterator[tuple[str, dict[str, int]]]:
        """The name of the snapshot, and rows by table in it."""
        command = self.tool("psql", "-qAtXF", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.database.name)
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            command, env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(BEGIN + COUNT + "\\echo end\n")
                process.stdin.flush()
                lines = []
                for line in process.stdout:
                    if line.strip() == "end":
                        break
                    lines.append(line.rstrip("\n").split("\t"))
                else:
                    process.wait()
                    errors.seek(0)
                    raise Problem(complaint(command, process.returncode, errors.read()))
                yield lines[0][0], {table: int(rows) for table, rows in lines[1:]}
            finally:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()


BEGIN = """SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_export_snapshot();
"""
# The rows of every table that the planner takes for no larger: an exact count reads all of it.
COUNT = """SELECT format('SELECT %L, count(*) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
AND c.reltuples <= 1000000 ORDER BY 1 \\gexec
"""


# Commands ------------------------------------------------------------------------------------------------------------


class Backup:
    """One run of a backup."""

    def __init__(self, config: Config, mode: str) -> None:
        self.config = config
        self.mode = mode
        self.server = Server(config)
        self.restic = Restic(config)
        self.started = time.time()
        self.identity = "{}-{}".format(_utc(self.started).strftime("%Y%m%dT%H%M%SZ"), uuid.uuid4().hex[:6])
        self.parts: dict[str, Json] = {}
        self.downtime = 0.0

    def run(self) -> Json:
        resume(self.config)
        self.restic.run("unlock")
        self.plan = self.server.plan()
        self.tracked = self.server.tracked()
        release = self.server.release()
        if self.mode == "cold":
            databases = {database.service for database in self.plan.databases}
            with self.halted(stop=[name for name in self.plan.images if name not in databases]):
                self.dump()
                self.files()
                self.store_files()
        else:
            self.dump()
            self.files()
            self.store_online()
        self.edge()
        self.describe()
        return self.manifest(release)

    def tags(self, part: str) -> list[str]:
        return ["set=" + self.identity, "part=" + part]

    def dump(self) -> None:
        for service in sorted({database.service for database in self.plan.databases}):
            databases = [database for database in self.plan.databases if database.service == service]
            container = self.server.container(self.plan.project, service)
            session = Session(container, databases[0])
            part = "roles-" + service
            saved = self.restic.store(
                session.tool("pg_dumpall", "--roles-only"), "roles.sql", self.tags(part), env=session.environment
            )
            self.parts[part] = {"snapshot": saved["snapshot_id"], **_dumped(saved)}
            for database in databases:
                self.dump_one(Session(container, database))

    def dump_one(self, session: Session) -> None:
        database = session.database
        with session.snapshot() as (name, rows):
            # Not compressed: restic does that, and finds again what did not change.
            command = session.tool(
                "pg_dump", "--format=custom", "--compress=0", "--snapshot=" + name, "--dbname=" + database.name
            )
            saved = self.restic.store(command, "database.dump", self.tags(database.part), env=session.environment)
        self.parts[database.part] = {
            "snapshot": saved["snapshot_id"],
            "database": database.name,
            "service": database.service,
            "rows": rows,
            **_dumped(saved),
        }

    def files(self) -> None:
        paths = _roots([*self.plan.files, *(path for path in self.config.paths if Path(path).exists())])
        self.save("files", paths, self.plan.excluded)

    def store_files(self) -> None:
        paths = [path for path in self.plan.store_paths if Path(path).exists()]
        if paths:
            self.save("store", paths, [])

    def store_online(self) -> None:
        """Copies the vector store twice: while it runs, for what does not change, and stopped, for the rest."""
        paths = [path for path in self.plan.store_paths if Path(path).exists()]
        if not paths:
            return
        rehearsal = ["set=" + self.identity, "part=rehearsal"]
        with contextlib.suppress(Problem):  # a running store may take files away; the copy that counts comes next
            self.restic.backup(paths, [], rehearsal)
        with self.halted(stop=self.plan.store, pause=self.plan.writers):
            self.store_files()

    def edge(self) -> None:
        volumes = {name: self.server.mountpoint(name) for name in self.config.edge_volumes}
        paths = [path for path in [*self.config.edge_paths, *volumes.values()] if path and Path(path).exists()]
        if paths:
            self.save("edge", _roots(paths), [])

    def save(self, part: str, paths: t.Sequence[str], excluded: t.Sequence[str]) -> None:
        saved = self.restic.backup(paths, excluded, self.tags(part))
        self.parts[part] = {
            "snapshot": saved["snapshot_id"],
            "paths": list(paths),
            "excluded": list(excluded),
            "added": saved.get("data_added", 0),
        }

    def describe(self) -> None:
        """Says of the parts what is in them; from the repository, so that nothing waits for it."""
        for part in self.parts.values():
            if "paths" in part:
                lines = self.restic.run("ls", "--json", part["snapshot"]).splitlines()
                part.update(summary(listed(lines, part["paths"], self.tracked)))

    @contextlib.contextmanager
    def halted(self, stop: t.Sequence[str], pause: t.Sequence[str] = ()) -> t.Iterator[None]:
        """Halts services for a while. What is to be woken is written down before, for whoever finds this run dead."""
        running = [one for one in self.server.containers(self.plan.project) if one.state == "running"]
        halt = {
            "start": [
                one.name for service in self.plan.order for one in running if one.service == service and service in stop
            ],
            "unpause": sorted(one.name for one in running if one.service in pause),
        }
        self.config.state("halted.json").write_text(json.dumps(halt), encoding="utf-8")
        before = time.monotonic()
        try:
            if halt["unpause"]:
                run(["docker", "pause", *halt["unpause"]])
            if halt["start"]:
                self.server.compose("stop", *stop)
            yield
        finally:
            resume(self.config)
            self.downtime += time.monotonic() - before

    def manifest(self, release: Json) -> Json:
        ended = time.time()
        owners = {}
        for path in self.plan.owned:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                owners[path] = f"{status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):04o}"
        keys = sorted(_environment(os.path.join(self.server.path, ".env")))
        manifest = {
            "format": FORMAT,
            "set": self.identity,
            "name": self.config.name,
            "started": _utc(self.started).isoformat(),
            "duration": round(ended - self.started, 3),
            "downtime": round(self.downtime, 3),
            "mode": self.mode,
            "collection": self.config.version,
            "restic": self.restic.version(),
            "release": release,
            "project": self.plan.project,
            "project_path": self.server.path,
            "url": self.plan.url,
            "keys": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
            "images": self.server.images(self.plan),
            "volumes": {
                name: {"path": self.server.mountpoint(name), "labels": _labels(name)}
                for name in [*self.plan.volumes, *self.config.edge_volumes]
            },
            "owners": owners,
            "parts": self.parts,
        }
        text = json.dumps(manifest, indent=2, sort_keys=True)
        tags = self.tags("manifest")
        tags += ["of={}:{}".format(part, saved["snapshot"]) for part, saved in sorted(self.parts.items())]
        with tempfile.TemporaryFile() as file:
            file.write(text.encode())
            file.seek(0)
            self.restic.store(["cat"], "manifest.json", tags, stdin=file)
        return manifest


def _dumped(saved: Json) -> Json:
    return {"bytes": saved["bytes"], "sha256": saved["sha256"], "added": saved.get("data_added", 0)}


def _labels(volume: str) -> Json:
    command = ["docker", "volume", "inspect", "--format", "{{json .Labels}}", volume]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    labels: Json = (json.loads(done.stdout) or {}) if done.returncode == 0 else {}
    return labels


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def resume(config: Config) -> None:
    """Wakes what a backup halted, this one or one that was killed. What did not run before stays as it was."""
    path = config.state("halted.json")
    try:
        halted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    if halted["start"]:
        run(["docker", "start", *halted["start"]])
    paused = set(run(["docker", "ps", "--filter", "status=paused", "--format", "{{.Names}}"]).split())
    for name in halted["unpause"]:
        if name in paused:
            run(["docker", "unpause", name])
    path.unlink()


def backup(config: Config, options: argparse.Namespace) -> Json:
    manifest = Backup(config, options.mode or config.mode).run()
    parts = manifest["parts"].values()
    return {
        "set": manifest["set"],
        "downtime": manifest["downtime"],
        "bytes": sum(part["bytes"] for part in parts),
        "added": sum(part["added"] for part in parts),
    }


def forget(config: Config, options: argparse.Namespace) -> Json:
    """Forgets the sets that restic's own policy would forget by their manifests, each as a whole, and prunes."""
    if config.append_only:
        return {"forgotten": 0}
    restic = Restic(config)
    restic.run("unlock")
    policy = [f"--keep-{unit}={number}" for unit, number in sorted(config.keep.items()) if number]
    text = restic.run(
        *("forget", "--dry-run", "--json", "--host", config.name, "--tag", TAG + ",part=manifest"),
        *("--group-by", "host", *policy),
    )
    kept = {snapshot["id"] for group in json.loads(text) or [] for snapshot in group.get("keep") or []}
    gone = outdated(sets(restic.snapshots()), kept)
    if gone:
        restic.run("forget", *gone)
        restic.run("prune")
    return {"forgotten": len(gone)}


def check(config: Config, options: argparse.Namespace) -> Json:
    restic = Restic(config)
    restic.run("unlock")
    restic.run("check", "--read-data-subset", config.check_subset)
    return {}


def init(config: Config, options: argparse.Namespace) -> Json:
    """Makes the repository where there is none. restic never writes over one."""
    restic = Restic(config)
    try:
        restic.run("cat", "config")
        return {"created": False}
    except Problem as unreadable:
        try:
            restic.run("init")
        except Problem as uncreated:
            raise Problem(f"The repository can neither be opened ({unreadable}) nor made ({uncreated}).") from None
    return {"created": True}


def show(config: Config, options: argparse.Namespace) -> Json:
    """The manifest of a set, with its snapshots as they are called in this repository."""
    restic = Restic(config)
    chosen = choose(sets(restic.snapshots()), options.set)
    manifest: Json = json.loads(restic.run("dump", chosen.manifest, "/manifest.json"))
    for part, snapshot in chosen.parts.items():
        manifest["parts"][part]["snapshot"] = snapshot
    return manifest


def status(config: Config, options: argparse.Namespace) -> Json:
    found = sets(Restic(config).snapshots())
    complete = [one for one in found if one.complete]
    return {
        "newest": complete[-1].identity if complete else None,
        "complete": [one.identity for one in complete],
        "incomplete": {one.identity: one.missing for one in found if one.missing},
        "runs": _state(config),
    }


def alert(config: Config, options: argparse.Namespace) -> Json:
    """Tells the operator of a unit that failed. systemd calls it, so that also a killed run is told."""
    state = _state(config)
    failed = [
        "{} failed: {}".format(command, state[command]["message"])
        for command in UNITS[options.unit]
        if not state.get(command, {}).get("success", True)
    ]
    message = f"{config.name}: " + ("; ".join(failed) or f"{options.unit} failed, see journalctl")
    _publish(config, state)
    if config.alert_command:
        run([*config.alert_command, message])
    return {"message": message}


class Restore:
    """One restore, onto a host where the release is checked out and nothing of Dify runs."""

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.config = config
        self.options = options
        self.restic = Restic(config)
        self.server = Server(config)

    def run(self) -> Json:
        self.restic.run("unlock")
        self.manifest = show(self.config, self.options)
        # Says that what is there comes from a restore of this set that did not end.
        begun = self.config.state("restoring")
        if not (begun.exists() and begun.read_text(encoding="utf-8") == self.manifest["set"]):
            self.refuse()
            begun.write_text(self.manifest["set"], encoding="utf-8")
        self.volumes()
        tracked = self.server.tracked()
        for part in ("files", "store", *(["edge"] if self.options.edge else [])):
            if part in self.manifest["parts"]:
                self.files(part, tracked)
        counted = self.databases()
        begun.unlink()
        return {"set": self.manifest["set"], "rows": counted}

    def wanted(self) -> list[str]:
        """The named volumes to restore."""
        volumes = self.manifest["volumes"]
        return [
            name
            for name in sorted(volumes)
            if volumes[name]["path"] and (self.options.edge or name not in self.config.edge_volumes)
        ]

    def volumes(self) -> None:
        """Makes the named volumes as Compose would, so that it takes them for its own."""
        for name in self.wanted():
            saved = self.manifest["volumes"][name]
            words = [word for key, value in sorted(saved["labels"].items()) for word in ("--label", f"{key}={value}")]
            run(["docker", "volume", "create", *words, name])
            if self.server.mountpoint(name) != saved["path"]:
                raise Problem(
                    f"The volume {name} is in {self.server.mountpoint(name)} here, but was in {saved['path']}; "
                    "give Docker the same data-root as on the old host."
                )

    def refuse(self) -> None:
        """Refuses what the set does not fit."""
        if self.manifest["format"] != FORMAT:
            raise Problem(
                "The set {} is of format {}, but this program knows {}; use a newer release of the collection.".format(
                    self.manifest["set"], self.manifest["format"], FORMAT
                )
            )
        wanted, here = self.manifest["release"], self.server.release()
        if wanted["commit"] != here["commit"] and not self.options.other_release:
            raise Problem(
                "The set {} is of Dify {} ({}), but {} holds {} ({}); check that release out first.".format(
                    self.manifest["set"],
                    wanted["tag"],
                    wanted["commit"][:12],
                    self.server.path,
                    here["tag"],
                    here["commit"][:12],
                )
            )
        if self.manifest["project_path"] != self.server.path:
            raise Problem(
                "The set {} holds {}, but Dify is to be in {}; set dify_path to the former.".format(
                    self.manifest["set"], self.manifest["project_path"], self.server.path
                )
            )
        occupied = [one.name for one in self.server.containers(self.manifest["project"])]
        occupied += [name for name in self.wanted() if self.server.mountpoint(name)]
        environment = Path(self.server.path, ".env")
        occupied += [str(environment)] if environment.exists() else []
        if occupied:
            raise Problem(
                "{} is no empty target, since there are {}. Restore onto another host, or move these away; after a "
                "restore that ended, go on with selfhost.dify.site.".format(
                    self.server.path, ", ".join(sorted(occupied))
                )
            )

    def files(self, part: str, tracked: set[str]) -> None:
        """Puts a part's files in place. restic compares every file it wrote with the repository."""
        saved = self.manifest["parts"][part]
        skipped = sorted(path for path in tracked if any(_below(path, parent) for parent in saved["paths"]))
        words = ["--exclude=" + pattern(path) for path in skipped]
        if [int(number) for number in self.restic.version().split(".")[:2]] >= [0, 15]:
            words.append("--sparse")
        self.restic.run("restore", saved["snapshot"], "--target", "/", "--verify", *words)
        found = summary(walked(saved["paths"], saved["excluded"], tracked))
        wrong = [f"{key} is {found[key]}, not {saved[key]}" for key in found if found[key] != saved[key]]
        if wrong:
            raise Problem("The part {} was not restored as it was saved: {}.".format(part, ", ".join(wrong)))

    def databases(self) -> dict[str, int]:
        """Fills the databases of a server that starts with no data, before anything uses them."""
        plan = self.server.plan()
        total = {}
        for service in sorted({database.service for database in plan.databases}):
            self.server.compose("up", "--detach", "--wait", "--no-deps", service)
            container = self.server.container(plan.project, service)
            mine = [database for database in plan.databases if database.service == service]
            session = Session(container, mine[0])
            saved = self.manifest["parts"]["roles-" + service]
            # Roles that are there already, as the one that the server was made with, only get their settings again.
            self.load(saved, "roles.sql", session, "psql", "-qX", "-d", "postgres")
            for database in mine:
                total[database.name] = self.database(Session(container, database))
        return total

    def database(self, session: Session) -> int:
        name = session.database.name
        saved = self.manifest["parts"].get(session.database.part)
        if saved is None:
            raise Problem("The set {} has no database {}.".format(self.manifest["set"], name))
        if [name] not in session.query("SELECT datname FROM pg_database;", database="postgres"):
            run(session.tool("createdb", name), env=session.environment)
        rows = {table: int(number) for table, number in session.query(COUNT)}
        if not rows:  # in one transaction: after a run that was cut short there is all or nothing
            words = ["--exit-on-error", "--single-transaction", "--dbname=" + name]
            self.load(saved, "database.dump", session, "pg_restore", *words)
            rows = {table: int(number) for table, number in session.query(COUNT)}
        wrong = [
            f"{table} has {rows.get(table)} rows, not {number}"
            for table, number in saved["rows"].items()
            if rows.get(table) != number
        ]
        if wrong:
            raise Problem("The database {} is not as it was saved: {}.".format(name, ", ".join(wrong)))
        return sum(rows.values())

    def load(self, saved: Json, name: str, session: Session, tool: str, *arguments: str) -> None:
        moved = self.restic.load(saved["snapshot"], name, session.tool(tool, *arguments), env=session.environment)
        if moved["sha256"] != saved["sha256"]:
            raise Problem("{} of snapshot {} is not what was saved.".format(name, saved["snapshot"]))


def restore(config: Config, options: argparse.Namespace) -> Json:
    return Restore(config, options).run()


def wake(config: Config, options: argparse.Namespace) -> Json:
    """Resumes unless a run is under way, which does so itself."""
    try:
        with locked(0):
            resume(config)
    except Locked:
        return {"resumed": False}
    return {"resumed": True}


COMMANDS: dict[str, t.Callable[[Config, argparse.Namespace], Json]] = {
    "init": init,
    "backup": backup,
    "forget": forget,
    "check": check,
    "status": status,
    "show": show,
    "restore": restore,
    "resume": wake,
    "alert": alert,
}
# One at a time, since they would stand in each other's way.
EXCLUSIVE = ("backup", "forget", "check", "restore", "init")
# Whose results monitoring is told.
REPORTED = ("backup", "forget", "check")
# What the units run.
UNITS = {"backup": ("backup", "forget"), "check": ("check",)}


def _state(config: Config) -> Json:
    try:
        state: Json = json.loads(config.state("state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state


def _keep(config: Config, command: str, result: Json) -> None:
    """Remembers how a command ended, for status and monitoring."""
    state = _state(config)
    state[command] = {**(state.get(command) or {}), **result}
    _replace(config.state("state.json"), json.dumps(state, indent=2, sort_keys=True), 0o600)
    if "ended" in result:
        _publish(config, state)


def _publish(config: Config, state: Json) -> None:
    if config.textfile_path:
        _replace(Path(config.textfile_path), metrics(state), 0o644)


def _replace(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name("." + path.name + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    temporary.replace(path)


@contextlib.contextmanager
def locked(timeout: int) -> t.Iterator[None]:
    """Waits until no other run is under way."""
    with open(LOCK, "w", encoding="utf-8") as file:
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Locked(f"Another run was still under way after {timeout} seconds; try again later.") from None
                time.sleep(0.5)
        yield


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="dify-backup", description=__doc__.splitlines()[0])
    main.add_argument("--config", default=CONFIG)
    commands = main.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="make the repository, where there is none")
    command = commands.add_parser("backup", help="make a set")
    command.add_argument("--mode", choices=["online", "cold"])
    commands.add_parser("forget", help="forget sets by the policy, and prune")
    commands.add_parser("check", help="check the repository, and read some of its data")
    commands.add_parser("status", help="say which sets there are and how the last runs ended")
    command = commands.add_parser("show", help="print the manifest of a set")
    command.add_argument("--set", default="latest")
    command = commands.add_parser("restore", help="restore a set onto a host without data")
    command.add_argument("--set", default="latest")
    command.add_argument("--edge", action="store_true", help="also what belongs to the TLS edge")
    command.add_argument("--other-release", action="store_true", help="whatever release is checked out")
    commands.add_parser("resume", help="start what a killed backup left halted")
    command = commands.add_parser("alert", help="tell of a failed run")
    command.add_argument("unit", choices=UNITS)
    return main


def terminated(number: int, frame: object) -> t.NoReturn:
    raise Problem(f"stopped by signal {number}")


def main(arguments: t.Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, terminated)
    started = time.time()
    config: Config | None = None
    try:
        config = Config.read(options.config)
        with locked(config.lock_timeout) if options.command in EXCLUSIVE else contextlib.nullcontext():
            started = time.time()
            if options.command in REPORTED:
                _keep(config, options.command, {"success": False, "message": "it was cut short"})
            result = COMMANDS[options.command](config, options)
        if options.command in REPORTED:
            ended = time.time()
            ending = {"ended": ended, "succeeded": ended, "success": True, "duration": ended - started, "message": ""}
            _keep(config, options.command, {**ending, **result})
        print(json.dumps(result, indent=2, sort_keys=True))
        return 0
    except (Problem, OSError) as problem:
        if config and options.command in REPORTED:
            with contextlib.suppress(OSError):
                _keep(config, options.command, {"ended": time.time(), "success": False, "message": str(problem)})
        print(f"{options.command}: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
