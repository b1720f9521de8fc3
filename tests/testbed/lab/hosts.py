# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Target hosts: containers that boot systemd and are reached over SSH, like the servers they stand for."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab import engine
from lab.engine import LABEL, NETWORK, PREFIX, docker
from lab.run import TESTBED, TestbedError, run, say, step

USER = "operator"
RESERVED = ("registry", "git", "acme", "dns", "docker-repository")
_ADDRESSES = [f"10.213.0.{number}" for number in range(10, 128)]
_HOST, _IMAGE, _SYSTEM, _DOMAINS = (f"selfhost.dify.testbed.{key}" for key in ("host", "image", "os", "domains"))


def container_name(name: str) -> str:
    return name if name.startswith(f"{PREFIX}-") else f"{PREFIX}-{name}"


def check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) or container_name(name) in map(
        container_name, RESERVED
    ):
        raise TestbedError(
            f"{name!r} cannot name a host: use lower-case letters, digits and dashes, and none of {', '.join(RESERVED)}"
        )


def free_address(taken: Iterable[str]) -> str:
    """The lowest address of the subnet's part for hosts that nobody has."""
    used = set(taken)
    for address in _ADDRESSES:
        if address not in used:
            return address
    raise TestbedError(f"all {len(_ADDRESSES)} addresses for hosts are taken: destroy some with `host destroy NAME`")


def cgroup_flags(version: str, unified: bool) -> tuple[list[str], list[str]]:
    """Flags and command with which systemd gets its control groups, by the engine's version of them.

    With version 2 the container's own tree is enough once it is writable. With version 1 systemd is given the
    version 2 tree that stands beside it, where it works without controllers.
    """
    if version == "2":
        return ["--cgroupns=private"], [
            "/bin/sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec /lib/systemd/systemd",
        ]  # fmt: skip
    if not unified:
        raise TestbedError(
            "this engine has control groups version 1 and no version 2 tree at /sys/fs/cgroup/unified: "
            "mount one there, or boot the machine with systemd.unified_cgroup_hierarchy=1"
        )
    return ["--cgroupns=host", "--volume", "/sys/fs/cgroup/unified:/sys/fs/cgroup:rw"], ["/lib/systemd/systemd"]


def capability_flags(engine_version: str) -> list[str]:
    """All the machine has. Engines before 23 insist on those it lacks, too: often SYS_RESOURCE, which nothing needs."""
    older = int(engine_version.split(".")[0]) < 23
    return ["--cap-add=ALL", *(["--cap-drop=SYS_RESOURCE"] if older else [])]


def _start_flags() -> tuple[list[str], list[str]]:
    engine_version, cgroups = docker("info", "--format", "{{.ServerVersion}} {{.CgroupVersion}}").stdout.split()
    mounts = Path("/proc/mounts").read_text()
    flags, command = cgroup_flags(cgroups, " /sys/fs/cgroup/unified cgroup2 " in mounts)
    return [*capability_flags(engine_version), *flags], command


# What --privileged would give, of which systemd and a Docker engine inside need this much; some machines forbid it.
_ISOLATION = [
    "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--tmpfs=/run:exec", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec",
]  # fmt: skip


def _volumes(container: str) -> dict[str, str]:
    """The engine inside needs real file systems: overlay on overlay does not work."""
    return {f"{container}-docker": "/var/lib/docker", f"{container}-containerd": "/var/lib/containerd"}


def facts(container: dict[str, Any]) -> dict[str, Any]:
    """What is known of a host, from `docker inspect`."""
    labels = container["Config"]["Labels"]
    return {
        "name": labels[_HOST],
        "address": container["NetworkSettings"]["Networks"][NETWORK]["IPAMConfig"]["IPv4Address"],
        "user": USER,
        "port": 22,
        "private_key": str(engine.private_key()),
        "domains": labels[_DOMAINS].split(),
        "image": labels[_IMAGE],
        "os": labels[_SYSTEM],
        "running": container["State"]["Running"],
    }


def all_facts() -> list[dict[str, Any]]:
    hosts = [facts(found) for found in engine.containers() if _HOST in found["Config"]["Labels"]]
    return sorted(hosts, key=lambda host: host["name"])


def find(name: str) -> dict[str, Any] | None:
    return next((host for host in all_facts() if host["name"] == name), None)


def ssh(host: dict[str, Any], *command: str) -> subprocess.CompletedProcess[str]:
    return run(
        [
            "ssh", "-i", host["private_key"], "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            "-o", "ConnectTimeout=3", "-p", str(host["port"]), f"{host['user']}@{host['address']}", *command,
        ],
        check=False,
    )  # fmt: skip


def _put(container: str, directory: str, files: dict[str, bytes], mode: int, owner: int) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.size = mode, owner, len(content)
            tar.addfile(entry, io.BytesIO(content))
    docker("cp", "-", f"{container}:{directory}", stdin=archive.getvalue())


def _install_key(container: str, host: dict[str, Any]) -> None:
    public = run(["ssh-keygen", "-y", "-f", host["private_key"]]).stdout.encode()
    _put(container, f"/home/{USER}/.ssh", {"authorized_keys": public}, 0o600, 1000)


def _install_compile_once(container: str) -> None:
    files = {
        "compile_once.py": (TESTBED / "host/compile_once.py").read_bytes(),
        "compile_once.pth": b"import compile_once; compile_once.install()\n",
    }
    _put(container, "/usr/lib/python3/dist-packages", files, 0o644, 0)


def _wait(host: dict[str, Any]) -> None:
    """Until sshd lets the operator in and systemd has finished booting."""
    deadline = time.monotonic() + 90
    while True:
        answer = ssh(host, "systemctl is-system-running --wait")
        state = answer.stdout.strip()
        if state in ("running", "degraded"):
            break
        if time.monotonic() > deadline:
            raise TestbedError(
                f"host {host['name']} at {host['address']} did not come up within 90 s: systemd says {state!r}, "
                f"ssh says {answer.stderr.strip()!r}; look at `docker logs {container_name(host['name'])}`"
            )
        time.sleep(0.2)
    if state == "degraded":
        failed = ssh(host, "systemctl --failed --plain --no-legend").stdout.split("\n")
        say(f"{host['name']}: failed units: {', '.join(line.split()[0] for line in failed if line.strip())}")


def create(name: str, image: str, system: str, tag: str, domains: Sequence[str], compile_once: bool) -> dict[str, Any]:
    """A running host of that name; one that exists already is started if need be and left as it is."""
    check_name(name)
    container = container_name(name)
    existing = find(name)
    if existing is None:
        flags, command = _start_flags()
        with engine.lock("addresses"):
            address = free_address(
                endpoint["IPAMConfig"]["IPv4Address"]
                for found in engine.containers()
                for endpoint in found["NetworkSettings"]["Networks"].values()
                if (endpoint.get("IPAMConfig") or {}).get("IPv4Address")
            )
            with step(f"Create host {name} at {address}"):
                for volume in _volumes(container):
                    docker("volume", "create", "--label", LABEL, volume)
                docker(
                    "create", "--name", container, "--hostname", name, "--label", LABEL,
                    "--label", f"{_HOST}={name}", "--label", f"{_IMAGE}={image}", "--label", f"{_SYSTEM}={system}",
                    "--label", f"{_DOMAINS}={' '.join(domains)}",
                    "--network", NETWORK, "--ip", address,
                    *(f"--network-alias={alias}" for alias in [name, *domains]),
                    *(f"--volume={volume}:{path}" for volume, path in _volumes(container).items()),
                    *_ISOLATION, *flags, tag, *command,
                )  # fmt: skip
        existing = find(name)
        assert existing is not None
        _install_key(container, existing)
        if compile_once:
            _install_compile_once(container)
    else:
        wanted = {"image": image, "os": system, "domains": list(domains)}
        different = [f"{key} {existing[key]!r}" for key, value in wanted.items() if existing[key] != value]
        if different:
            raise TestbedError(f"host {name} exists with {', '.join(different)}: run `host destroy {name}` first")
    if not existing["running"]:
        with step(f"Start host {name}"):
            docker("start", container)
            _wait(existing)
        existing["running"] = True
    return existing


def restart(name: str) -> dict[str, Any]:
    """Restarts the whole host and waits until it is up again."""
    host = find(name)
    if host is None:
        raise TestbedError(f"there is no host {name}: `host list` shows those there are")
    with step(f"Restart host {name}"):
        docker("restart", "--time", "60", container_name(name))
        _wait(host)
    return host


def destroy(name: str) -> None:
    """Removes a host with its volumes; one that does not exist is no error."""
    check_name(name)
    container = container_name(name)
    if engine.inspect("container", container):
        with step(f"Destroy host {name}"):
            docker("rm", "--force", "--volumes", container)
    for volume in _volumes(container):
        if engine.inspect("volume", volume):
            docker("volume", "rm", volume)
