# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drill: a set is restored beside whatever runs on this host, asked as a restored server is, and removed again."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import shutil
import time
import typing as t
from pathlib import Path

from dify_backup import databases
from dify_backup.basics import Json, Problem, run
from dify_backup.config import Config
from dify_backup.project import Plan, plan
from dify_backup.restic import Restic
from dify_backup.restore import place
from dify_backup.server import Server
from dify_backup.verify import Verification

PROJECT = "selfhost-dify-drill"
# What would reach out of the project, or stand in the way of what runs beside it.
OUTWARD = (
    *("build", "cap_add", "container_name", "devices", "dns", "external_links", "extra_hosts", "ipc", "links"),
    *("logging", "network_mode", "networks", "pid", "ports", "privileged", "profiles", "restart"),
)
# What a project may take from files.
FILES = ("configs", "secrets")


def isolated(config: Json, root: str, mountpoints: t.Mapping[str, str], here: t.Callable[[str], bool]) -> Json:
    """A resolved project as it may run beside the one it was made from, on data below ``root``.

    Nothing is published, and the only network has no way out, so no mail, webhook or request to a model's provider
    leaves it. ``mountpoints``: named volume to the directory it was saved from. ``here``: whether a path of the host
    is a plain file or directory that may be mounted read-only, such as a certificate.
    """
    services = {}
    for name, service in config["services"].items():
        kept = {key: value for key, value in service.items() if key not in OUTWARD}
        kept["volumes"] = [_moved(config, volume, root, mountpoints, here) for volume in service.get("volumes") or []]
        needed = service.get("depends_on") or {}  # also of services that are not in use
        kept["depends_on"] = {other: how for other, how in needed.items() if other in config["services"]}
        kept["networks"] = {"default": None}
        kept["restart"] = "no"
        services[name] = kept
    networks = {"default": {"name": PROJECT, "internal": True}}
    files = {key: {name: _file(one, root) for name, one in config[key].items()} for key in FILES if key in config}
    return {"name": PROJECT, "services": services, "networks": networks, **files}


def refuse_outside(found: Plan, services: t.Container[str]) -> None:
    """A drill reaches none of what runs elsewhere, so there is none of a server that keeps its data there."""
    needed = {f"database {one.name}": one.service or one.host for one in found.databases}
    for what, where in {**needed, "Redis": found.cache}.items():
        if where not in services:
            raise Problem(
                f"The {what} at {where} is no service of the project, so no drill can run apart from it; "
                "restore the set onto a host of its own instead."
            )


def _file(one: Json, root: str) -> Json:
    return {**one, "file": root + one["file"]} if "file" in one else one


def _moved(
    config: Json, volume: Json, root: str, mountpoints: t.Mapping[str, str], here: t.Callable[[str], bool]
) -> Json:
    if volume["type"] == "bind":
        source = volume["source"]
    elif volume["type"] == "volume":
        known = config["volumes"][volume["source"]]["name"] if volume.get("source") else volume["target"].strip("/")
        source = mountpoints.get(known) or "/volumes-of-the-drill/" + known
    else:
        return volume
    if volume.get("read_only") and here(source):
        return volume
    moved = {"type": "bind", "source": root + source, "target": volume["target"], "bind": {"create_host_path": True}}
    return {**moved, "read_only": True} if volume.get("read_only") else moved


class Drill:
    """One drill. Leaves nothing behind, also of one that was killed."""

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.config = config
        self.restic = Restic(config)
        self.manifest = self.restic.manifest(options.set)
        self.root = os.path.join(config.drill_path, PROJECT)
        self.parts: dict[str, Json] = {
            part: saved for part, saved in self.manifest["parts"].items() if part in ("files", "store")
        }

    def run(self) -> Json:
        started = time.time()
        self.sweep()
        try:
            self.room()
            server, plan = self.server()
            rows = databases.load(server, plan, self.restic, self.manifest, Path(self.root, "progress"))
            server.compose("up", "--detach", "api", *plan.store)
            kept = self.root + self.config.owner_password_file
            verified = Verification(server, plan, kept, self.config.start_timeout).run()
        finally:
            self.sweep()
        return {
            "set": self.manifest["set"],
            "age": round(started - datetime.datetime.fromisoformat(self.manifest["started"]).timestamp()),
            "bytes": sum(part["bytes"] for part in self.manifest["parts"].values()),
            "rows": rows,
            "verified": verified,
        }

    def room(self) -> None:
        """Refuses to fill the disk that production may live on."""
        Path(self.root).mkdir(mode=0o700, parents=True)
        databases = sum(part["bytes"] for part in self.manifest["parts"].values() if "rows" in part)
        needed = sum(part["bytes"] for part in self.parts.values()) + 3 * databases
        free = shutil.disk_usage(self.root).free
        if needed * 1.1 > free:
            raise Problem(
                f"A drill of the set {self.manifest['set']} needs {needed} bytes and a tenth more in {self.root}, "
                f"but {free} are free; set backup_drill_path to a larger disk, or run the drill on another host."
            )

    def server(self) -> tuple[Server, Plan]:
        """The files in place, and the project that is to run on them."""
        for part, saved in self.parts.items():
            place(self.restic, part, saved, without=self.manifest["tracked"], root=self.root)
        path = self.manifest["project_path"]
        # Compose resolved relative paths to where the files are now.
        text = Server(self.root + path).definition().replace(self.root + path, path)
        resolved = json.loads(text)
        volumes = {name: saved["path"] for name, saved in self.manifest["volumes"].items()}
        definition = os.path.join(self.root, "compose.json")
        with open(definition, "w", encoding="utf-8") as file:
            json.dump(isolated(resolved, self.root, volumes, self.here), file)
        found = plan(json.loads(text.replace("$$", "$")), path, volumes)
        refuse_outside(found, resolved["services"])
        words = ["--project-name", PROJECT, "--file", definition, "--project-directory", self.root]
        mounts = {target: self.root + source for target, source in found.mounts.items()}
        return Server(self.root, words=words), dataclasses.replace(found, project=PROJECT, mounts=mounts)

    def here(self, path: str) -> bool:
        """Whether a path that is mounted read-only is none of what was restored."""
        return not os.path.lexists(self.root + path) and (os.path.isfile(path) or os.path.isdir(path))

    def sweep(self) -> None:
        """Removes the drill's containers, network and files, and only those."""
        mine = "label=com.docker.compose.project=" + PROJECT
        for name in run(["docker", "ps", "--all", "--quiet", "--filter", mine]).split():
            run(["docker", "rm", "--force", "--volumes", name])
        for name in run(["docker", "network", "ls", "--quiet", "--filter", mine]).split():
            run(["docker", "network", "rm", name])
        if os.path.lexists(self.root):
            shutil.rmtree(self.root)
