# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the target hosts find on their network: image registry, git server, ACME server and its DNS."""

from __future__ import annotations

import functools
import io
import json
import os
import ssl
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import engine, hosts, images
from lab.engine import LABEL, NETWORK, PREFIX, docker
from lab.run import CACHE, TestbedError, step

REGISTRY, GIT, ACME, DNS, DOCKER_REPOSITORY, ZONE = (f"10.213.0.{number}" for number in (2, 3, 4, 5, 6, 7))
REGISTRY_URL = f"http://{REGISTRY}:5000"
REPO_URL = f"git://{GIT}/dify.git"
ACME_DIRECTORY = f"https://{ACME}:14000/dir"
ACME_STAGING_DIRECTORY = f"https://{ACME}:14001/dir"
ACME_ZONE_DIRECTORY = f"https://{ACME}:14002/dir"
# The key that may change the zone, in bind's words and for certbot. It opens nothing else.
ZONE_KEY = {"name": "certbot.", "algorithm": "HMAC-SHA256", "secret": "b3BlbnMgbm90aGluZyBidXQgdGhlIHRlc3RiZWQ="}
_ACME_MANAGEMENT = f"https://{ACME}:15000"
_DNS_MANAGEMENT = f"http://{DNS}:8055"
_CONTENT = "selfhost.dify.testbed.content"
UPSTREAM_REPO_URL = "https://github.com/langgenius/dify.git"


def upstream_mode() -> bool:
    """Whether Dify's own repository and images are used instead of the stand-ins."""
    return os.environ.get("DIFY_TEST_UPSTREAM", "") not in ("", "0")


@dataclass(frozen=True)
class Service:
    """A container with a fixed address."""

    name: str
    address: str
    tag: str
    command: Sequence[str]
    options: Sequence[str] = ()

    @property
    def container(self) -> str:
        return f"{PREFIX}-{self.name}"


def registry() -> Service:
    return Service(
        "registry", REGISTRY, images.services_tag(), ["docker-registry", "serve", "/etc/testbed/registry.yml"],
        ["--publish=127.0.0.1::5000", f"--volume={PREFIX}-registry:/var/lib/registry"],
    )  # fmt: skip


def git() -> Service:
    return Service(
        "git", GIT, images.repository_tag(),
        ["git", "daemon", "--reuseaddr", "--export-all", "--base-path=/srv/git", "/srv/git"],
    )  # fmt: skip


def docker_repository() -> Service:
    """The stand-in for Docker's apt repository, for hosts that install the engine from there."""
    command = ["python3", "-m", "http.server", "--directory", "/srv/repository", "80"]
    return Service("docker-repository", DOCKER_REPOSITORY, images.docker_repository_tag(), command)


def dns() -> Service:
    return Service(
        "dns", DNS, images.services_tag(),
        ["pebble-challtestsrv", "-defaultIPv4=", "-defaultIPv6=", "-http01=", "-https01=", "-tlsalpn01=", "-doh="],
    )  # fmt: skip


def zone() -> Service:
    """The DNS server of the domain zone.test, whose TXT records a holder of ZONE_KEY may change."""
    return Service(
        "zone", ZONE, images.services_tag(),
        ["/etc/testbed/zone.sh", "zone.test", ZONE_KEY["name"], ZONE_KEY["algorithm"].lower(), ZONE_KEY["secret"]],
    )  # fmt: skip


def acme() -> Service:
    return Service(
        "acme", ACME, images.services_tag(), ["/etc/testbed/acme.sh", ACME, f"{DNS}:8053", f"{ZONE}:53"],
        [f"--volume={PREFIX}-acme:/srv/acme",
         "--env=PEBBLE_VA_NOSLEEP=1", "--env=PEBBLE_WFE_NONCEREJECT=0", "--env=PEBBLE_AUTHZREUSE=0"],
    )  # fmt: skip


def ensure(service: Service) -> None:
    """Runs the service; one that runs with the same content is left alone."""
    content = images.content_hash(service.tag, service.address, *service.command, *service.options)
    found = engine.inspect("container", service.container)
    if found and found[0]["Config"]["Labels"].get(_CONTENT) == content:
        if not found[0]["State"]["Running"]:
            with step(f"Start the service {service.name}"):
                docker("start", service.container)
        return
    with step(f"Run the service {service.name} at {service.address}"):
        if found:
            docker("rm", "--force", service.container)
        for option in service.options:
            if option.startswith("--volume="):
                docker("volume", "create", "--label", LABEL, option.removeprefix("--volume=").split(":")[0])
        docker(
            "run", "--detach", "--init", "--name", service.container, "--hostname", service.name,
            "--label", LABEL, "--label", f"{_CONTENT}={content}",
            "--network", NETWORK, "--ip", service.address, "--network-alias", service.name,
            *service.options, service.tag, *service.command,
        )  # fmt: skip


def running(service: str) -> bool:
    found = engine.inspect("container", f"{PREFIX}-{service}")
    return bool(found) and bool(found[0]["State"]["Running"])


def _fetch(url: str, body: dict[str, Any] | None = None, trusted: Path | None = None) -> bytes:
    """A request that goes straight to a service, whatever proxy the machine uses."""
    context = ssl.create_default_context(cafile=str(trusted)) if trusted else None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.build_opener(*handlers).open(urllib.request.Request(url, data), timeout=10) as answer:
        body_read: bytes = answer.read()
    return body_read


def _until(what: str, attempt: Callable[[], bytes]) -> bytes:
    """Repeats an attempt until the service behind it has started."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return attempt()
        except (OSError, urllib.error.URLError, TestbedError) as error:
            if time.monotonic() > deadline:
                raise TestbedError(f"{what} did not answer within 30 s: {error}") from error
            time.sleep(0.1)


def await_registry() -> None:
    _until("the registry", lambda: _fetch(f"{REGISTRY_URL}/v2/"))


def _file_of(container: str, path: str) -> bytes:
    """The content of a file in a container."""
    done = engine.docker_bytes("cp", f"{container}:{path}", "-")
    with tarfile.open(fileobj=io.BytesIO(done)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file is not None
        return file.read()


def _write(name: str, body: bytes) -> Path:
    path = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != body:
        path.write_bytes(body)
    return path


def acme_ca() -> Path:
    """The certificate that signs the ACME server's own listener."""
    return _write("acme-ca.pem", _until("the ACME server", lambda: _file_of(f"{PREFIX}-acme", "/srv/acme/ca.pem")))


def acme_root() -> Path:
    """The roots and intermediates of every certificate the ACME server has issued: it makes new ones at each start."""
    ca = acme_ca()
    newest = _until("the ACME server", lambda: _fetch(f"{_ACME_MANAGEMENT}/roots/0", trusted=ca)).strip()

    def kept() -> bytes:
        all_of_them = _file_of(f"{PREFIX}-acme", "/srv/acme/issued.pem")
        if newest not in all_of_them:
            raise TestbedError("it has not written down its newest root")
        return all_of_them

    return _write("acme-root.pem", _until("the ACME server", kept))


def publish_domains(all_hosts: Sequence[dict[str, Any]]) -> None:
    """Tells the DNS server where the hosts' domains are."""
    for host in all_hosts:
        for domain in host["domains"]:
            _until("the DNS server", functools.partial(_fetch, f"{_DNS_MANAGEMENT}/clear-a", {"host": domain}))
            record = {"host": domain, "addresses": [host["address"]]}
            _until("the DNS server", functools.partial(_fetch, f"{_DNS_MANAGEMENT}/add-a", record))


def info() -> dict[str, Any]:
    """What a playbook needs to know of the testbed."""
    if not running("acme"):
        raise TestbedError("the testbed is not up: run `python3 tests/testbed/testbed.py up`")
    return {
        "registry_mirror": None if upstream_mode() else REGISTRY_URL,
        "repo_url": UPSTREAM_REPO_URL if upstream_mode() else REPO_URL,
        "docker_repository_url": f"http://{DOCKER_REPOSITORY}"
        if running("docker-repository") and not upstream_mode()
        else "",
        "acme_directory": ACME_DIRECTORY,
        "acme_staging_directory": ACME_STAGING_DIRECTORY,
        "acme_zone_directory": ACME_ZONE_DIRECTORY,
        "zone": {"address": ZONE, **ZONE_KEY},
        "dns": f"{DNS}:8053",
        "dns_management": _DNS_MANAGEMENT,
        "acme_ca": str(acme_ca()),
        "acme_root": str(acme_root()),
        "network": NETWORK,
        "subnet": engine.SUBNET,
        "stand_ins": not upstream_mode(),
        "hosts": hosts.all_facts(),
    }
