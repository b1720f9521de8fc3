# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Compose project on this host."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from pathlib import Path

from dify_backup.basics import Json, Problem, run
from dify_backup.config import Config
from dify_backup.project import Plan, plan

# How Docker is to print a container.
CONTAINER = '{{.State}} {{.Label "com.docker.compose.service"}} {{.Names}}'

# What releases call the service of their own database; its profile is called as the kind is.
BUNDLED = {"postgresql": ("db_postgres", "db"), "mysql": ("db_mysql",)}


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

    def resolved(self, *options: str) -> Json:
        """The project as Compose resolves it; there it doubles every dollar."""
        config: Json = json.loads(self.compose(*options, "config", "--format", "json").replace("$$", "$"))
        return config

    def plan(self) -> Plan:
        config = self.resolved()
        names = [volume["name"] for volume in (config.get("volumes") or {}).values() if volume]
        return plan(config, self.path, {name: self.mountpoint(name) for name in names})

    def database_image(self, kind: str) -> str:
        """The image with the tools of a kind of databases: the release's own, whether its service is wanted or not."""
        if self.config.database_image:
            return self.config.database_image
        services = self.resolved("--profile", kind)["services"]
        for name in BUNDLED[kind]:
            if services.get(name, {}).get("image"):
                return t.cast("str", services[name]["image"])
        raise Problem(
            f"The release has no image with the tools of {kind} (services {', '.join(BUNDLED[kind])}); "
            "set backup_database_image to one."
        )

    def mountpoint(self, volume: str) -> str:
        """Where a named volume is; empty where there is none of the name."""
        command = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def labels(self, volume: str) -> dict[str, str]:
        """What a named volume is labelled with; nothing where there is none of the name."""
        command = ["docker", "volume", "inspect", "--format", "{{json .Labels}}", volume]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (json.loads(done.stdout) or {}) if done.returncode == 0 else {}

    def containers(self, project: str) -> list[Container]:
        """Those of services, but for single runs of one."""
        labels = {"project": project, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        lines = run(["docker", "ps", "--all", *filters, "--format", CONTAINER]).splitlines()
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
