# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images: one base, the target hosts, the services.

A tag is the hash of everything the image is made from, so what is there is right and what changed is rebuilt.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import apt
from lab.engine import LABEL, PREFIX, apt_install, as_root, docker, docker_command
from lab.run import CACHE, TESTBED, TestbedError, run, say, step

DEFAULT_OS = "debian-13"


# What a throw-away client may be made from, and what its image takes from client/ besides its Dockerfile.
CLIENTS: dict[str, list[str]] = {"plain": [], "tools": ["tls-scan"], "browser": []}


@dataclass(frozen=True)
class System:
    """A distribution's release: its name in image registries, its codename, and its own Docker packages."""

    family: str
    release: str
    codename: str
    docker_packages: str  # empty: its Compose is too old for Dify

    @property
    def public_image(self) -> str:
        return f"{self.family}:{self.codename if self.family == 'debian' else self.release}"


_UBUNTU_DOCKER = "docker.io docker-compose-v2 docker-buildx"
SYSTEMS = {
    "debian-12": System("debian", "12", "bookworm", ""),
    "debian-13": System("debian", "13", "trixie", "docker.io docker-cli docker-compose docker-buildx"),
    "ubuntu-22.04": System("ubuntu", "22.04", "jammy", _UBUNTU_DOCKER),
    "ubuntu-24.04": System("ubuntu", "24.04", "noble", _UBUNTU_DOCKER),
    "ubuntu-26.04": System("ubuntu", "26.04", "resolute", _UBUNTU_DOCKER),
}


def content_hash(*parts: str | Path) -> str:
    """Twelve hex digits over texts, files and directories (relative names, modes and contents)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {len(part)}\0{part}".encode())
            continue
        files = sorted(path for path in part.rglob("*") if path.is_file()) if part.is_dir() else [part]
        for path in files:
            if "__pycache__" in path.parts:
                continue
            name = path.relative_to(part.parent).as_posix()
            mode = "x" if os.access(path, os.X_OK) else "-"
            body = path.read_bytes()
            digest.update(f"file {name} {mode} {len(body)}\0".encode() + body)
    return digest.hexdigest()[:12]


def present() -> set[str]:
    """The tags of the testbed's images on the engine."""
    listed = docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    return {name for name in listed if name.startswith(f"{PREFIX}-")}


def build(tag: str, context: Path, arguments: Mapping[str, str], dockerfile: str = "Dockerfile") -> None:
    """Builds an image that is not there yet; the output is kept in a log and shown when it fails."""
    logs = CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{tag.replace(':', '-')}.log"
    command = [*docker_command(), "build", "--rm", "--force-rm", "--label", LABEL, "--tag", tag]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    command += ["--file", str(context / dockerfile), str(context)]
    with step(f"Build {tag}"), log.open("wb") as output:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise TestbedError(f"building {tag} failed with {code}; the log {log} ends with:\n{tail}")


@functools.cache
def _sources(system: System) -> tuple[list[str], list[str]]:
    """Lines of sources and apt options for a Debian root on a Debian machine; no lines anywhere else."""
    machine = apt.os_release(Path("/etc/os-release").read_text())
    if machine.get("ID") != "debian" or system.family != "debian" or "VERSION_CODENAME" not in machine:
        return [], []
    lines = apt.for_release(apt.machine_sources(), machine["VERSION_CODENAME"], system.codename)
    return lines, apt.options(run(["apt-config", "dump"]).stdout)


def base_tag(system_name: str) -> str:
    system = SYSTEMS[system_name]
    lines, options = _sources(system)
    return f"{PREFIX}-base:{system_name}-{content_hash(system.public_image, *lines, *options, 'v2')}"


def host_tag(system_name: str) -> str:
    made_from = (base_tag(system_name), TESTBED / "host" / "Dockerfile")
    return f"{PREFIX}-host:{system_name}-{content_hash(*made_from)}"


def host_docker_tag(system_name: str) -> str:
    packages = SYSTEMS[system_name].docker_packages
    if not packages:
        raise TestbedError(f"{system_name} has no Compose new enough in its own packages: use --image host")
    made_from = (host_tag(system_name), packages, TESTBED / "host" / "Dockerfile.docker")
    return f"{PREFIX}-host-docker:{system_name}-{content_hash(*made_from)}"


def services_tag() -> str:
    sources = [TESTBED / "services" / name for name in ("Dockerfile", "registry.yml", "acme.sh", "zone.sh")]
    return f"{PREFIX}-services:{content_hash(base_tag(DEFAULT_OS), *sources)}"


def client_tag(kind: str) -> str:
    """The image of a throw-away client: of the services (`plain`), or one with a Dockerfile of its own."""
    if kind == "plain":
        return services_tag()
    return f"{PREFIX}-client:{kind}-{content_hash(base_tag(DEFAULT_OS), *_client_sources(kind))}"


def _client_sources(kind: str) -> list[Path]:
    return [TESTBED / "client" / name for name in (f"Dockerfile.{kind}", *CLIENTS[kind])]


def repository_tag() -> str:
    made_from = (services_tag(), TESTBED / "upstream", TESTBED / "services" / "Dockerfile.git")
    return f"{PREFIX}-git:{content_hash(*made_from)}"


def _bootstrap(tag: str, system: System, lines: list[str], options: list[str]) -> bool:
    """Makes a Debian root file system from the machine's own mirror and imports it."""
    if shutil.which("mmdebstrap") is None:
        apt_install("mmdebstrap")
    # What images of registries do, too: no manuals and translations, and no fsync after every unpacked file.
    dpkg = [f"path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "doc")]
    dpkg += ["path-include=/usr/share/doc/*/copyright", "force-unsafe-io"]
    command = as_root(
        "env", "TMPDIR=/var/tmp", "mmdebstrap", "--variant=minbase",
        *(f"--aptopt={option}" for option in [*options, 'Acquire::Languages "none"']),
        *(f"--dpkgopt={option}" for option in dpkg),
        system.codename, "-", *lines,
    )  # fmt: skip
    log = CACHE / "logs" / f"{tag.replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with step(f"Bootstrap {tag} from this machine's package mirror"), log.open("wb") as output:
        maker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output)
        unfinished = f"{tag}-unfinished"
        imported = subprocess.run(
            [*docker_command(), "import", "--change", f"LABEL {LABEL}", "-", unfinished],
            stdin=maker.stdout, stdout=output, stderr=output, check=False,
        )  # fmt: skip
        made = maker.wait() == 0 and imported.returncode == 0
        if made:
            docker("tag", unfinished, tag)
        docker("rmi", unfinished, check=False)
    if not made:
        say(f"mmdebstrap failed (log: {log}); try the public image instead")
    return made


def docker_repository_tag() -> str:
    return f"{PREFIX}-docker-repository:{content_hash(base_tag(DEFAULT_OS), TESTBED / 'aptrepo')}"


def ensure_base(system_name: str, have: set[str]) -> None:
    """The base image of a distribution's release: bootstrapped on Debian, pulled elsewhere."""
    system, tag = SYSTEMS[system_name], base_tag(system_name)
    lines, options = _sources(system)
    if tag not in have and not (lines and _bootstrap(tag, system, lines, options)):
        with step(f"Pull {system.public_image}"):
            docker("pull", "--quiet", system.public_image)
            docker("tag", system.public_image, tag)


def ensure_host(system_name: str, have: set[str]) -> None:
    """The image of a bare target host; its base must be there."""
    if (tag := host_tag(system_name)) not in have:
        build(tag, TESTBED / "host", {"BASE": base_tag(system_name)})


def ensure_host_docker(system_name: str, have: set[str]) -> None:
    """The image of a prepared target host: Docker and Compose of the distribution are installed."""
    if (tag := host_docker_tag(system_name)) not in have:
        arguments = {"BASE": host_tag(system_name), "PACKAGES": SYSTEMS[system_name].docker_packages}
        build(tag, TESTBED / "host", arguments, "Dockerfile.docker")


def ensure_services(have: set[str]) -> None:
    """The image of the registry, the git server, the ACME server and its DNS; the base must be there."""
    if (tag := services_tag()) not in have:
        build(tag, TESTBED / "services", {"BASE": base_tag(DEFAULT_OS)})


def ensure_client(kind: str, have: set[str]) -> None:
    """The image of a throw-away client; the base must be there."""
    if (tag := client_tag(kind)) not in have:
        build(tag, TESTBED / "client", {"BASE": base_tag(DEFAULT_OS)}, f"Dockerfile.{kind}")


def ensure_docker_repository(have: set[str]) -> None:
    """The image of the stand-in for Docker's apt repository; the base must be there."""
    if (tag := docker_repository_tag()) not in have:
        build(tag, TESTBED / "aptrepo", {"BASE": base_tag(DEFAULT_OS)})


def ensure_repository(have: set[str]) -> None:
    """The image of the git server with the stand-in of Dify's repository in it."""
    if (tag := repository_tag()) in have:
        return
    with tempfile.TemporaryDirectory() as scratch:
        with step("Make the stand-in of Dify's repository"):
            run([sys.executable, str(TESTBED / "upstream" / "build.py"), f"{scratch}/dify.git"])
        shutil.copy(TESTBED / "services" / "Dockerfile.git", f"{scratch}/Dockerfile")
        build(tag, Path(scratch), {"BASE": services_tag()})
