# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Reads what the tools of a host print about a Dify server: pure functions from text to data."""

from __future__ import annotations

import calendar
import datetime
import ipaddress
import json
import re
import typing as t

Row = t.Mapping[str, t.Any]

LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
# Weaviate has a second address, which stays as it is where the first one names a server of the operator's.
_ENDPOINT = re.compile(r"(?<!_GRPC)_(HOSTS?|URL|URI|ENDPOINT|UPSTREAM)$")
_HOST = re.compile(r"(?:^|//|@|,)(?:[^/@,]*@)?([A-Za-z0-9_.-]+)(?=[:/,]|$)")
_REVISION = re.compile(r"^(down_)?revision\b[^=\n]*=(.*)$", re.MULTILINE)
_COMPLAINT = re.compile(
    r"error|fatal|panic|exception|denied|refused|failed|cannot|can't|could not|invalid|unable|no space", re.IGNORECASE
)


class Container(t.NamedTuple):
    """A service's container. ``addresses``: by network. ``ports``: published ones, host address, host port, target.

    Times are seconds since 1970, 0 where there was none yet.
    """

    service: str
    name: str
    id: str
    image: str
    image_id: str
    state: str
    health: str
    restarts: int
    exit_code: int
    out_of_memory: bool
    error: str
    started: float
    addresses: t.Mapping[str, str]
    environment: t.Mapping[str, str]
    ports: t.Sequence[tuple[str, str, str]]
    log_path: str

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def address(self) -> str:
        """Where the host reaches it, empty where it has no address."""
        return next(iter(self.addresses.values()), "")


class Service(t.NamedTuple):
    """A service as Compose resolves it."""

    image: str
    profiles: frozenset[str]
    one_shot: bool
    environment: t.Mapping[str, str]
    binds: t.Sequence[tuple[str, str]]


class Project(t.NamedTuple):
    """The Compose project with all its profiles. ``active``: names of the services that are to run.

    ``dropped``: those that the settings of an active service point at, although their profile is not asked for, with
    that profile.
    """

    name: str
    services: t.Mapping[str, Service]
    active: frozenset[str]
    dropped: t.Mapping[str, str]


def project(text: str, settings: t.Mapping[str, str]) -> Project:
    """From C(docker compose --profile '*' config --format json) and the settings of C(.env)."""
    config = json.loads(text)
    services = {name: _service(service) for name, service in (config.get("services") or {}).items()}
    asked = {name.strip() for name in settings.get("COMPOSE_PROFILES", "").split(",") if name.strip()}
    active = frozenset(
        name for name, service in services.items() if not service.profiles or service.profiles & asked or "*" in asked
    )
    chosen = {settings.get(key) for key in ("VECTOR_STORE", "DB_TYPE")} | {"collaboration"}
    pointed_at = {
        host
        for name in active
        for key, value in services[name].environment.items()
        if _ENDPOINT.search(key)
        for host in _HOST.findall(value)
    }
    dropped = {
        name: sorted(service.profiles & chosen)[0]
        for name, service in services.items()
        if name not in active and name in pointed_at and service.profiles & chosen
    }
    return Project(config.get("name", ""), services, active, dropped)


def _service(service: Row) -> Service:
    environment = {
        key: "" if value is None else str(value) for key, value in (service.get("environment") or {}).items()
    }
    binds = [
        (volume["source"], volume["target"])
        for volume in service.get("volumes") or []
        if volume.get("type") == "bind" and volume.get("source")
    ]
    return Service(
        service.get("image", ""),
        frozenset(service.get("profiles") or ()),
        service.get("restart") == "no",
        environment,
        binds,
    )


def containers(text: str) -> dict[str, Container]:
    """Service to container, from C(docker inspect). Where a service has several, the one that is worst off."""
    found: dict[str, Container] = {}
    for row in json.loads(text):
        labels = row["Config"].get("Labels") or {}
        if labels.get("com.docker.compose.oneoff") == "True" or "com.docker.compose.service" not in labels:
            continue
        container = _container(row, labels["com.docker.compose.service"])
        other = found.get(container.service)
        if other is None or (other.running and not container.running):
            found[container.service] = container
    return found


def _container(row: Row, service: str) -> Container:
    state, network = row["State"], row.get("NetworkSettings") or {}
    pairs = [pair.partition("=") for pair in row["Config"].get("Env") or []]
    networks = network.get("Networks") or {}
    return Container(
        service=service,
        name=row["Name"].lstrip("/"),
        id=row["Id"],
        image=row["Config"]["Image"],
        image_id=row["Image"],
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        restarts=row.get("RestartCount", 0),
        exit_code=state.get("ExitCode", 0),
        out_of_memory=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
        started=moment(state.get("StartedAt", "")),
        addresses={name: ends["IPAddress"] for name, ends in networks.items() if ends.get("IPAddress")},
        environment={name: value for name, _equals, value in pairs},
        ports=[
            (binding["HostIp"] or "0.0.0.0", binding["HostPort"], target.split("/")[0])  # noqa: S104
            for target, bindings in (network.get("Ports") or {}).items()
            for binding in bindings or ()
        ],
        log_path=row.get("LogPath", ""),
    )


def moment(text: str) -> float:
    """Seconds since 1970 of Docker's time in UTC; 0 for its "never"."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", text)
    if not found or text.startswith("0001"):
        return 0.0
    return float(calendar.timegm(datetime.datetime.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S").timetuple()))


def tag(image: str) -> str:
    """An image's tag, empty where it has none."""
    found = re.search(r":([^:/@]+)(?:@.*)?$", image)
    return found.group(1) if found else ""


def checked_out(compose_file: str) -> str:
    """The release that a Compose file belongs to, which is the tag of its API's image; empty where there is none."""
    found = re.search(r"image:\s*[\"']?\S*dify-api:([A-Za-z0-9_.-]+)", compose_file)
    return found.group(1) if found else ""


def revisions(text: str) -> tuple[set[str], set[str]]:
    """All of Alembic's revisions, and of them the heads: those that no other one follows.

    ``text``: the lines of its files that assign C(revision) and C(down_revision).
    """
    known: set[str] = set()
    followed: set[str] = set()
    for down, value in _REVISION.findall(text):
        (followed if down else known).update(re.findall(r"[\"']([^\"']+)[\"']", value.split("#")[0]))
    return known, known - followed


def listening(text: str) -> set[tuple[str, int]]:
    """Addresses and ports on which somebody waits for connections, from /proc/net/tcp or tcp6."""
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == "0A":
            address, port = fields[1].split(":")
            found.add((_address(address), int(port, 16)))
    return found


def _address(digits: str) -> str:
    """An address as the kernel writes it: words of four bytes, each the other way round."""
    raw = b"".join(bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8))
    if len(raw) == 4:
        return ".".join(str(byte) for byte in raw)
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return "::ffff:" + ".".join(str(byte) for byte in raw[12:])
    return str(ipaddress.IPv6Address(raw))


def is_loopback(address: str) -> bool:
    return bool(LOOPBACK.match(address))


def validity(der: bytes) -> tuple[float, float]:
    """From when to when a certificate holds, in seconds since 1970. Raises ValueError for what is none."""
    try:
        body = _der(_der(der)[0][1])[0][1]  # Certificate, TBSCertificate
        fields = [field for field in _der(body) if field[0] != 0xA0]  # without the version
        first, last = (_time(kind, value) for kind, value in _der(fields[3][1]))
    except (IndexError, ValueError) as error:
        raise ValueError("the certificate cannot be read") from error
    return first, last


def _der(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and content of the values that follow each other."""
    found = []
    position = 0
    while position < len(data):
        kind, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        found.append((kind, data[position : position + length]))
        position += length
    return found


def _time(kind: int, value: bytes) -> float:
    text = value.decode("ascii")
    if kind == 0x17:  # UTCTime: years 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return float(calendar.timegm(datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").timetuple()))


def last_complaint(log: str) -> str:
    """The last line of a log that sounds like trouble, or else the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _COMPLAINT.search(line)), lines[-1] if lines else "")[:500]
