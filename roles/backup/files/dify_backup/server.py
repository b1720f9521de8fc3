# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Compose project on this host."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import typing as t
from pathlib import Path

from dify_backup.basics import Json, Problem, run
from dify_backup.config import Config
from dify_backup.project import Plan, plan

# How Docker is to print a container.
CONTAINER = '{{.State}} {{.Label "com.docker.compose.service"}} {{.Names}}'

# What releases call the service of their own database; its profile is called as the kind is.
BUNDLED = {"postgresql": ("db_postgres", "db"), "mysql": ("db_mysql",)}


# How long those that use the vector store wait for it to come back.
READY_SECONDS = 60


class Container(t.NamedTuple):
    """A container of the project; ``state`` as Docker says it."""

    state: str
    service: str
    name: str


class Server:
    """A Compose project on this host.

    ``image``: one with the tools of databases, in place of the release's. ``words``: what docker compose is told to
    find the project, when not by its directory.
    """

    def __init__(self, path: str, image: str = "", words: t.Sequence[str] = ()) -> None:
        self.path = path
        self.image = image
        self.words = words
        if not Path(self.path).is_dir():
            raise Problem(f"{self.path} is no directory; Dify is not here.")

    def compose(self, *arguments: str) -> str:
        return run(["docker", "compose", *self.words, *arguments], cwd=self.path)

    def definition(self, *options: str) -> str:
        """The project as Compose resolves it and reads it again, as JSON: with every dollar doubled."""
        return self.compose(*options, "config", "--format", "json")

    def resolved(self, *options: str) -> Json:
        """The project as Compose resolves it."""
        config: Json = json.loads(self.definition(*options).replace("$$", "$"))
        return config

    def plan(self) -> Plan:
        config = self.resolved()
        names = [volume["name"] for volume in (config.get("volumes") or {}).values() if volume]
        return plan(config, self.path, {name: self.mountpoint(name) for name in names})

    def database_image(self, kind: str) -> str:
        """The image with the tools of a kind of databases: the release's own, whether its service is wanted or not."""
        if self.image:
            return self.image
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

    def address(self, container: str) -> str:
        """A container's address on one of its networks, which this host reaches."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        found = run(["docker", "inspect", "--format", form, container]).split()
        if not found:
            raise Problem(f"The container {container} has no address, so it cannot be asked.")
        return found[0]

    def tracked(self) -> set[str]:
        """The files below the project's directory that the release brings."""
        command = ["git", "-c", "safe.directory=*", "-C", self.path, "ls-files", "-z", "--", "."]
        return {os.path.join(self.path, name) for name in run(command).split("\0") if name}

    def check_out(self) -> None:
        """Puts the release's own files into the project's directory, where that was moved aside."""
        checkout, name = os.path.split(self.path)
        command = ["git", "-c", "safe.directory=*", "-C", checkout, "checkout", "--quiet", "HEAD", "--", name]
        run(command, preexec_fn=lambda: os.umask(0o022))  # containers read them as other users

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


def ready(container: str) -> bool:
    """Whether a container accepts connections on a port that its image names. Health checks are asked too rarely."""
    found = json.loads(run(["docker", "inspect", container]))[0]
    ports = [int(port.split("/")[0]) for port in found["Config"].get("ExposedPorts") or {} if port.endswith("/tcp")]
    addresses = [network["IPAddress"] for network in found["NetworkSettings"]["Networks"].values()]
    for address in filter(None, addresses):
        for port in ports:
            with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
                return True
    return not ports


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
    if halted["unpause"]:  # they are about to ask what was started
        end = time.monotonic() + READY_SECONDS
        while not all(map(ready, halted["start"])) and time.monotonic() < end:
            time.sleep(0.1)
    # Those that are no longer paused went down with the host, and are there again or have to be started.
    paused = run(["docker", "ps", "--filter", "status=paused", "--format", "{{.Names}}"]).split()
    for command, names in (
        ("unpause", [name for name in halted["unpause"] if name in paused]),
        ("start", [name for name in halted["unpause"] if name in there and name not in paused]),
    ):
        if names:
            run(["docker", command, *names])
    path.unlink()
