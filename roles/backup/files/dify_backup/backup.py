# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of a backup."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import signal
import stat
import tempfile
import time
import typing as t
import uuid
from pathlib import Path

from dify_backup import databases
from dify_backup.basics import Json, Problem, read_environment, run, utc
from dify_backup.config import Config
from dify_backup.project import roots
from dify_backup.restic import Restic
from dify_backup.server import Server, resume
from dify_backup.sets import FORMAT
from dify_backup.state import replace
from dify_backup.tree import listed, summary


class Backup:
    """One run of a backup."""

    def __init__(self, config: Config, mode: str) -> None:
        self.config = config
        self.mode = mode
        self.server = Server(config.project_path, config.database_image)
        self.restic = Restic(config)
        self.started = time.time()
        self.identity = "{}-{}".format(utc(self.started).strftime("%Y%m%dT%H%M%SZ"), uuid.uuid4().hex[:6])
        self.parts: dict[str, Json] = {}
        self.downtime = 0.0

    def run(self) -> Json:
        resume(self.config)
        self.restic.run("unlock")
        self.plan = self.server.plan()
        self.tracked = self.server.tracked()
        release = self.server.release()
        if self.mode == "cold":
            servers = {database.service for database in self.plan.databases}
            with self.halted(stop=[name for name in self.plan.images if name not in servers]):
                self.databases()
                self.files()
                self.store_files()
        else:
            self.databases()
            self.files()
            self.store_online()
        self.edge()
        self.describe()
        return self.manifest(release)

    def tags(self, part: str) -> list[str]:
        return ["set=" + self.identity, "part=" + part]

    def databases(self) -> None:
        self.parts.update(databases.dump(self.server, self.plan, self.restic, self.tags))

    def files(self) -> None:
        paths = roots([*self.plan.files, *(path for path in self.config.paths if Path(path).exists())])
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
            self.save("edge", roots(paths), [])

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

        def one(part: Json) -> Json:
            lines = self.restic.run("ls", "--json", part["snapshot"]).splitlines()
            return summary(listed(lines, part["paths"], self.tracked))

        parts = [part for part in self.parts.values() if "paths" in part]
        with concurrent.futures.ThreadPoolExecutor() as threads:  # most of it is restic's start
            for part, found in zip(parts, threads.map(one, parts)):
                part.update(found)

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
        replace(self.config.state("halted.json"), json.dumps(halt), 0o600)
        before = time.monotonic()
        self.restic.patience = 0  # nor do users wait for another server's run
        try:
            with self.limited(self.config.halt_timeout if self.mode == "online" else 0):
                if halt["unpause"]:
                    run(["docker", "pause", *halt["unpause"]])
                if pause:  # and everybody waits, while Compose would take a second to read the project
                    for name in reversed(halt["start"]):
                        run(["docker", "stop", name])
                elif halt["start"]:
                    self.server.compose("stop", *stop)
                yield
        finally:
            resume(self.config)
            self.restic.patience = self.config.lock_timeout
            self.downtime += time.monotonic() - before

    @contextlib.contextmanager
    def limited(self, seconds: int) -> t.Iterator[None]:
        """Gives up after a while. It wakes what is halted before all else, since what hangs may not end when killed."""

        def give_up(number: int, frame: object) -> t.NoReturn:
            resume(self.config)
            raise Problem(
                f"The vector store was not copied within {seconds} seconds. It runs again, and this set stays "
                "incomplete; find out why the repository is slow, or raise backup_halt_timeout."
            )

        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)

    def manifest(self, release: Json) -> Json:
        ended = time.time()
        owners = {}
        for path in self.plan.owned:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                owners[path] = f"{status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):04o}"
        keys = sorted(read_environment(os.path.join(self.server.path, ".env")))
        manifest = {
            "format": FORMAT,
            "set": self.identity,
            "name": self.config.name,
            "started": utc(self.started).isoformat(),
            "duration": round(ended - self.started, 3),
            "downtime": round(self.downtime, 3),
            "mode": self.mode,
            "collection": self.config.version,
            "restic": self.restic.version,
            "release": release,
            "project": self.plan.project,
            "project_path": self.server.path,
            "url": self.plan.environment.get("CONSOLE_WEB_URL", ""),
            "elsewhere": self.plan.elsewhere,
            "keys": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
            "images": self.server.images(self.plan),
            "volumes": {
                name: {"path": self.server.mountpoint(name), "labels": self.server.labels(name)}
                for name in [*self.plan.volumes, *self.config.edge_volumes]
            },
            "fresh": self.plan.fresh,
            "tracked": sorted(self.tracked),
            "owners": owners,
            "parts": self.parts,
        }
        text = json.dumps(manifest, indent=2, sort_keys=True)
        tags = self.tags("manifest")
        trees = {snapshot["id"]: snapshot["tree"] for snapshot in self.restic.snapshots()}
        for part, saved in sorted(self.parts.items()):
            tags.append("of={}:{}".format(part, saved["snapshot"]))
            tags += [f"tree={part}:{tree}" for known, tree in trees.items() if known.startswith(saved["snapshot"])]
        with tempfile.TemporaryFile() as file:
            file.write(text.encode())
            file.seek(0)
            self.restic.store(["cat"], "manifest.json", tags, stdin=file)
        return manifest
