# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of this machine, and what the testbed keeps on it.

Every object made here carries the label `selfhost.dify.testbed=1` and a name that begins with
`selfhost-dify`; nothing else on the engine is ever touched.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.run import CACHE, TestbedError, run, say, step

PREFIX = "selfhost-dify"
LABEL = "selfhost.dify.testbed=1"
NETWORK = PREFIX
SUBNET = "10.213.0.0/24"
DYNAMIC_RANGE = "10.213.0.128/25"  # for throw-away containers; everything else has a fixed address below it
KEY_LABEL = "selfhost.dify.testbed.ssh-key"


def as_root(*command: str) -> list[str]:
    """The command, through sudo when this process is not root."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") is None:
        raise TestbedError("the testbed needs root for `" + " ".join(command) + "`: run it as root, or install sudo")
    return ["sudo", *command]


@functools.cache
def docker_command() -> list[str]:
    """How the docker client is called here; the classic builder, since it sees local images everywhere."""
    plain = ["env", "DOCKER_BUILDKIT=0", "docker"]
    if run([*plain, "info"], check=False).returncode == 0 or os.geteuid() == 0:
        return plain
    return as_root(*plain)


def docker(*arguments: str, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run([*docker_command(), *arguments], stdin=stdin, check=check)


def docker_bytes(*arguments: str) -> bytes:
    """The untouched output of a docker command, for archives."""
    done = subprocess.run([*docker_command(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise TestbedError(f"`docker {' '.join(arguments)}` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def inspect(*arguments: str) -> list[dict[str, Any]]:
    """`docker [KIND] inspect NAME…`; objects that do not exist are left out."""
    found: list[dict[str, Any]] = json.loads(
        docker(*arguments[:-1], "inspect", arguments[-1], check=False).stdout or "[]"
    )
    return found


def apt_install(*packages: str) -> None:
    with step(f"Install {', '.join(packages)} on this machine"):
        run(as_root("apt-get", "update", "-q"))
        run(as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", *packages))


def _answers() -> bool:
    return docker("info", check=False).returncode == 0


_PID_FILES = {
    "dockerd": Path("/var/run/docker.pid"),
    "containerd": Path("/var/run/docker/containerd/containerd.pid"),
}


def _program(pid: str) -> str:
    """The name of the process with this number, empty where there is none."""
    try:
        return (Path("/proc") / pid / "comm").read_text().strip() if pid.isdigit() else ""
    except OSError:
        return ""


def _start() -> None:
    if Path("/proc/1/comm").read_text().strip() == "systemd":
        run(as_root("systemctl", "start", "docker"))
        return
    # An engine that was killed leaves these; once its number belongs to another process, the next one would not start.
    for name, path in _PID_FILES.items():
        if path.exists() and _program(path.read_text().strip()) != name:
            run(as_root("rm", "--force", str(path)))
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "dockerd.log").open("ab") as log:
        subprocess.Popen(as_root("dockerd"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def ensure() -> None:
    """A Docker engine that answers: the one there is, or Debian's or Ubuntu's own, installed and started."""
    if shutil.which("docker") and _answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise TestbedError(
            f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: start it, or unset it"
        )
    if shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        if shutil.which("apt-get") is None:
            raise TestbedError("no Docker engine answers and this machine has no apt-get: install Docker Engine")
        apt_install("docker.io", "iptables")
    docker_command.cache_clear()
    if not _answers():
        with step("Start the Docker engine"):
            _start()
            deadline = time.monotonic() + 60
            while not _answers():
                docker_command.cache_clear()
                if time.monotonic() > deadline:
                    raise TestbedError(
                        f"the Docker engine did not answer within 60 s: see {CACHE / 'dockerd.log'}"
                        " or `journalctl -u docker`"
                    )
                time.sleep(0.3)


@contextlib.contextmanager
def lock(what: str = "images") -> Iterator[None]:
    """One at a time: several clones and scenarios share the engine."""
    path = Path(tempfile.gettempdir()) / f"{PREFIX}-{what}.lock"
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Wait for another testbed command on this machine")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def ensure_network() -> None:
    """The network, which also carries the throw-away SSH key pair: one for the engine, whatever the clone."""
    if inspect("network", NETWORK):
        return
    with lock("network"):
        if inspect("network", NETWORK):
            return
        if shutil.which("ssh-keygen") is None:
            apt_install("openssh-client")
        with step(f"Create the network {NETWORK} ({SUBNET})"), tempfile.TemporaryDirectory() as scratch:
            key = Path(scratch) / "key"
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PREFIX, "-f", str(key)])
            docker(
                "network", "create", "--label", LABEL,
                "--label", f"{KEY_LABEL}={base64.b64encode(key.read_bytes()).decode()}",
                "--subnet", SUBNET, "--ip-range", DYNAMIC_RANGE, NETWORK,
            )  # fmt: skip


def private_key() -> Path:
    """The file with the private key that opens every target host."""
    networks = inspect("network", NETWORK)
    if not networks:
        raise TestbedError(f"the network {NETWORK} does not exist: run `python3 tests/testbed/testbed.py up`")
    text = base64.b64decode(networks[0]["Labels"][KEY_LABEL])
    path = CACHE / "id_ed25519"
    if not path.exists() or path.read_bytes() != text:
        CACHE.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(text)
    return path


def containers() -> list[dict[str, Any]]:
    """Everything the testbed runs or has stopped, as `docker inspect` tells it."""
    names = docker("ps", "-aq", "--filter", f"label={LABEL}").stdout.split()
    return json.loads(docker("inspect", *names, check=False).stdout or "[]") if names else []


def remove_everything(images: bool) -> None:
    """Removes what carries the testbed's label: containers, volumes, the network and, if asked, the images."""
    for kind, listing, removal in (
        ("containers", ("ps", "-aq"), ("rm", "--force", "--volumes")),
        ("volumes", ("volume", "ls", "-q"), ("volume", "rm")),
        ("networks", ("network", "ls", "-q"), ("network", "rm")),
    ):
        found = docker(*listing, "--filter", f"label={LABEL}").stdout.split()
        if found:
            with step(f"Remove {len(found)} {kind}"):
                docker(*removal, *found)
    if images:
        found = docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        ours = [name for name in found if name.startswith(f"{PREFIX}-")]
        if ours:
            with step(f"Remove {len(ours)} images"):
                docker("rmi", "--force", *ours)
