# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server consists of, from its resolved Compose project. Pure."""

from __future__ import annotations

import dataclasses
import typing as t
import urllib.parse

from dify_backup.basics import Json, Problem

# Kinds of databases that can be saved, with the port each listens on unless told otherwise.
KINDS = {"postgresql": "5432", "mysql": "3306"}
# They speak MySQL's language, but mysqldump makes no consistent copy of them.
FOREIGN = ("oceanbase", "seekdb")


@dataclasses.dataclass(frozen=True)
class Database:
    """A database of the project; ``service`` runs its server, and is empty for a server elsewhere."""

    kind: str  # one of KINDS
    name: str
    service: str
    host: str
    port: str
    user: str
    password: str = dataclasses.field(repr=False)
    encryption: dict[str, str]  # parameters of the connection, as libpq and PyMySQL call them: sslmode, ssl_ca, …

    @property
    def part(self) -> str:
        return "database-" + self.name

    @property
    def address(self) -> str:
        return self.service or f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a server consists of. Paths are absolute and of the host."""

    project: str
    environment: dict[str, str] = dataclasses.field(repr=False)  # of the API
    mounts: dict[str, str]  # where the API sees directories, with where they are
    databases: list[Database]
    cache: str  # the service, or host, of Redis
    writers: list[str]  # services that use the vector store
    store: list[str]  # services that are the vector store
    store_paths: list[str]
    files: list[str]
    excluded: list[str]  # below ``files``, but saved by other means or not worth it
    volumes: dict[str, str]  # named volumes of the project, with where they are
    fresh: list[str]  # named volumes that a restored server starts without
    owned: list[str]  # directories that containers write to
    images: dict[str, str]  # by service
    order: list[str]  # all services, each after those it waits for
    elsewhere: list[str]  # what belongs to the server, but is kept where no backup of it reaches


def plan(config: Json, path: str, mountpoints: t.Mapping[str, str]) -> Plan:
    """What is to be saved, from the resolved project of the services that run.

    ``path``: the project's directory. ``mountpoints``: named volume to its directory, as Docker tells it. All below
    ``path`` is saved, so that nothing an operator put there is missed, but for what the databases' dumps hold and for
    Redis, whose queues and sessions are of the moment. What the vector store writes is a part of its own, since it has
    to be stopped for it.
    """
    services: dict[str, Json] = config["services"]
    if "api" not in services:
        raise Problem(f"The project in {path} has no service api; is it Dify's?")
    environment = services["api"].get("environment") or {}
    databases = _databases(services)
    servers = {database.service for database in databases if database.service}
    cache = environment.get("REDIS_HOST", "")
    chosen = environment.get("VECTOR_STORE", "")
    store = sorted(
        name
        for name, service in services.items()
        if chosen and chosen in (service.get("profiles") or []) and name not in servers
    )
    image = services["api"]["image"]
    files, excluded, store_paths, owned = [path], set(), set(), set()
    volumes: dict[str, str] = {}
    fresh: set[str] = set()
    for name, service in services.items():
        for volume in service.get("volumes") or []:
            source = source_of(config, volume, mountpoints)
            if not source:
                continue
            if name in servers or name == cache:
                excluded.add(source)
                if volume["type"] == "volume":
                    fresh.add(config["volumes"][volume["source"]]["name"])
                continue
            if volume["type"] == "volume":
                volumes[config["volumes"][volume["source"]]["name"]] = source
            elif volume.get("read_only") and not below(source, path):
                continue
            if name in store:
                store_paths.add(source)
            elif not below(source, path):
                files.append(source)
            owned.add(source)
    return Plan(
        project=config["name"],
        environment=environment,
        mounts={
            volume["target"]: source_of(config, volume, mountpoints) for volume in services["api"].get("volumes") or []
        },
        databases=databases,
        cache=cache,
        writers=sorted(name for name, service in services.items() if service.get("image") == image),
        store=store,
        store_paths=roots(store_paths),
        files=roots(files),
        excluded=roots(excluded | store_paths),
        volumes=volumes,
        fresh=sorted(fresh),
        owned=sorted(owned),
        images={name: service["image"] for name, service in sorted(services.items()) if "image" in service},
        elsewhere=_elsewhere(environment, bool(store), servers),
        order=_ordered({name: set(service.get("depends_on") or {}) for name, service in services.items()}),
    )


def _ordered(needs: t.Mapping[str, t.Collection[str]]) -> list[str]:
    """The names, each after those it needs.

    >>> _ordered({"nginx": ["api"], "api": ["redis", "external"], "redis": []})
    ['redis', 'api', 'nginx']
    """
    found: list[str] = []

    def visit(name: str) -> None:
        if name in needs and name not in found and name not in visiting:
            visiting.add(name)
            for needed in sorted(needs[name]):
                visit(needed)
            found.append(name)

    visiting: set[str] = set()
    for name in sorted(needs):
        visit(name)
    return found


def _elsewhere(environment: t.Mapping[str, str], store: bool, servers: t.Collection[str]) -> list[str]:
    """What the API is told to keep where this project does not reach.

    >>> _elsewhere({"VECTOR_STORE": "qdrant", "STORAGE_TYPE": "s3"}, False, [])
    ['the vectors in qdrant', 'the uploaded files and keys in s3']
    """
    found = []
    chosen = environment.get("VECTOR_STORE", "")
    if chosen and not store and environment.get("PGVECTOR_HOST", "") not in servers:
        found.append(f"the vectors in {chosen}")
    if storage_elsewhere(environment):
        found.append(f"the uploaded files and keys in {storage_elsewhere(environment)}")
    return found


def storage_elsewhere(environment: t.Mapping[str, str]) -> str:
    """Where uploaded files and the keys of workspaces are, if not in a directory of the API's.

    >>> (
    ...     storage_elsewhere({"STORAGE_TYPE": "opendal", "OPENDAL_SCHEME": "fs"}),
    ...     storage_elsewhere({"STORAGE_TYPE": "s3"}),
    ... )
    ('', 's3')
    """
    kind = environment.get("STORAGE_TYPE", "")
    if kind == "opendal":
        kind = environment.get("OPENDAL_SCHEME", "")
    return "" if kind in ("", "local", "fs") else kind


def _databases(services: t.Mapping[str, Json]) -> list[Database]:
    """The databases of the services that have one, from what the services themselves are told."""
    found: dict[str, Database] = {}
    for name in ("api", "plugin_daemon"):
        environment = (services.get(name) or {}).get("environment") or {}
        if not environment.get("DB_DATABASE"):
            continue
        kind, host = environment.get("DB_TYPE") or "postgresql", environment.get("DB_HOST", "")
        image = services[host].get("image", "") if host in services else ""
        if kind not in KINDS or any(word in image for word in FOREIGN):
            raise Problem(
                f"The database of {name} (DB_TYPE {kind}, DB_HOST {host}) cannot be backed up; only PostgreSQL and "
                "MySQL can. Save it by the means of its maker."
            )
        database = Database(
            kind=kind,
            name=environment["DB_DATABASE"],
            service=host if host in services else "",
            host=host,
            port=environment.get("DB_PORT") or KINDS[kind],
            user=environment.get("DB_USERNAME", ""),
            password=environment.get("DB_PASSWORD", ""),
            encryption=_encryption(environment),
        )
        other = found.setdefault(database.part, database)
        if (other.host, other.port) != (database.host, database.port):
            raise Problem(
                f"There is a database {database.name} at {other.address} and another one at {database.address}; "
                "they cannot be told apart in a backup. Rename one of them."
            )
    if not found:
        raise Problem("The services api and plugin_daemon name no database (DB_DATABASE).")
    return list(found.values())


def _encryption(environment: Json) -> dict[str, str]:
    """What a service is told of encryption to its database.

    The API takes parameters of its driver's by DB_EXTRAS, and libpq's own variables; the plugin daemon DB_SSL_MODE.

    >>> _encryption({"DB_EXTRAS": "keepalives=1&sslmode=verify-full", "PGSSLROOTCERT": "/ca.pem", "PGUSER": "x"})
    {'sslrootcert': '/ca.pem', 'sslmode': 'verify-full'}
    >>> _encryption({"DB_SSL_MODE": "require"})
    {'sslmode': 'require'}
    """
    told = {name[2:].lower(): value for name, value in environment.items() if name.startswith("PGSSL") and value}
    if environment.get("DB_SSL_MODE"):
        told["sslmode"] = environment["DB_SSL_MODE"]
    extras = urllib.parse.parse_qsl(environment.get("DB_EXTRAS") or "")
    return {**told, **{name: value for name, value in extras if name.startswith("ssl")}}


def source_of(config: Json, volume: Json, mountpoints: t.Mapping[str, str]) -> str:
    """The directory or file of the host behind a mount; empty for what has none."""
    if volume["type"] == "bind":
        return t.cast("str", volume["source"])
    if volume["type"] == "volume" and volume.get("source"):
        return mountpoints.get(config["volumes"][volume["source"]]["name"], "")
    return ""


def below(path: str, parent: str) -> bool:
    """Whether a path is another one, or below it.

    >>> below("/a/b", "/a"), below("/ab", "/a"), below("/a", "/a")
    (True, False, True)
    """
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def roots(paths: t.Iterable[str]) -> list[str]:
    """The paths that lie below no other one, sorted.

    >>> roots(["/b/c", "/a", "/b", "/b-c"])
    ['/a', '/b', '/b-c']
    """
    found: list[str] = []
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if not found or not below(path, found[-1]):
            found.append(path)
    return found
