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

    def labels(self, volume: str) -> dict[str, str]:
        """What a named volume is labelled with; nothing where there is none of the name."""
        command = ["docker", "volume", "inspect", "--format", "{{json .Labels}}", volume]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (json.loads(done.stdout) or {}) if done.returncode == 0 else {}

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


def resume(config: Config) -> None:
    """Wakes what a backup halted, this one or one that was killed. What did not run before stays as it was."""
    path = config.state("halted.json")
    try:
        halted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    there = run(["docker", "ps", "--all", "--format", "{{.Names}}"]).split()  # some may have been removed since
    halted["start"] = [name for name in halted["start"] if name in there]
    if halted["start"]:
        run(["docker", "stop", *halted["start"]])  # the killed run's own stop may still be under way, and would win
        run(["docker", "start", *halted["start"]])
    paused = set(run(["docker", "ps", "--filter", "status=paused", "--format", "{{.Names}}"]).split())
    for name in halted["unpause"]:
        if name in paused:
            run(["docker", "unpause", name])
    path.unlink()
