# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""What follows from the choice of vector store, database, Redis and storage: pure functions from data to data."""

from __future__ import annotations

import re
import typing as t
from urllib.parse import quote, urlsplit

Settings = t.Mapping[str, t.Any]
Table = t.Mapping[str, t.Mapping[str, t.Any]]

REDIS = "redis"
# Profiles that are no vector store, besides the databases'.
OTHER_PROFILES = ("certbot", "collaboration", "unstructured")
UNSTRUCTURED = {"ETL_TYPE": "Unstructured", "UNSTRUCTURED_API_URL": "http://unstructured:8000/general/v0/general"}
# Up to 1.10.0 the bundled PostgreSQL was called so.
OLD_HOSTS = ("", "db")
# What upstream's examples say where nothing was chosen yet.
PLACEHOLDERS = ("127.0.0.1", "localhost", "0.0.0.0", "host.docker.internal")  # noqa: S104
_CHOSEN = re.compile(r"\$\{(VECTOR_STORE|DB_TYPE)(?::?-[^}]*)?\}")


def plan(choice: Settings, stores: Table, databases: Table) -> dict[str, t.Any]:
    """What the operator's choice comes to.

    ``choice``: ``version`` of the release, ``store``, ``database``, ``unstructured``, ``env`` (the operator's
    settings), ``present`` (the settings of the C(.env) in place, if any), ``found`` (which of the tables' ``data`` are
    there), ``profiles`` (COMPOSE_PROFILES of the release's own example) and ``bundled`` (every profile of its compose
    file), both empty where unknown. ``stores``, ``databases``: the role's tables.

    Returns ``problems`` (sentences; nothing else holds where there are any), ``external`` (which of C(store),
    C(database), C(redis) are the operator's own), ``without`` (services to leave out that have no profile), ``values``
    (settings to write), ``explicit`` (whether COMPOSE_PROFILES is among them, or would be were it known), ``secrets``
    (more rows for the table of secrets), ``also`` (settings that hold the database's password), ``services`` (changes
    of services, by name), ``connections`` (to try before anything changes), ``map_count``, ``fixed`` (see the table).
    """
    env = {key: _text(value) for key, value in choice["env"].items()}
    present = choice["present"]
    store, database = stores.get(choice["store"], {}), databases[choice["database"]]
    external = _external(env, store, database)
    own_store, own_database = "store" not in external, "database" not in external

    values = {"VECTOR_STORE": choice["store"], "DB_TYPE": choice["database"]}
    if own_database:
        values["DB_HOST"] = database["env"]["DB_HOST"]
        values.update(_kept(database["env"], present, present.get("DB_TYPE") == choice["database"], "DB_HOST"))
    if own_store and store.get("env"):
        values[store["endpoint"]] = store["env"][store["endpoint"]]
        same = present.get("VECTOR_STORE") == choice["store"]
        values.update(_kept(store["env"], present, same, store["endpoint"]))
    else:
        values.update({key: value for key, value in store.get("env", {}).items() if key.endswith("_PORT")})
    if choice["unstructured"]:
        values.update(UNSTRUCTURED)
    if "redis" in external:
        values["CELERY_BROKER_URL"] = redis_url(env, 1)
        values["DIFY_AGENT_REDIS_URL"] = redis_url(env, 2)
    bundled = {
        "VECTOR_STORE": choice["store"] if own_store else "",
        "DB_TYPE": choice["database"] if own_database else "",
    }
    more = ["unstructured"] if choice["unstructured"] else []
    explicit = bool(more) or not all(bundled.values())
    if explicit and choice["profiles"]:
        values["COMPOSE_PROFILES"] = profiles(choice["profiles"], bundled, more)
    return {
        "problems": [
            *_problems(choice, env, external, stores, databases),
            *_moves(choice, env, external, stores, databases),
            *(_unbundled(choice, external, stores, databases) if choice["bundled"] else ()),
        ],
        "external": external,
        "without": [REDIS] if "redis" in external else [],
        "values": {key: value for key, value in values.items() if key not in env},
        "explicit": explicit,
        "secrets": list(store.get("secrets", ())) if own_store else [],
        "also": dict(database.get("also", {})) if own_database else {},
        "services": dict(store.get("services", {})) if own_store else {},
        "connections": _connections(choice, {**values, **env}, external, store),
        "map_count": own_store and bool(store.get("map_count")),
        "fixed": store.get("fixed", "") if own_store else "",
    }


def profiles(line: str, bundled: t.Mapping[str, str], more: t.Iterable[str]) -> str:
    """COMPOSE_PROFILES made from the release's own line.

    ``bundled``: profile to start for C(VECTOR_STORE) and C(DB_TYPE), empty for none.

    >>> profiles("${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql},new", {"VECTOR_STORE": "qdrant", "DB_TYPE": ""}, [])
    'qdrant,new'
    """
    names = _CHOSEN.sub(lambda found: bundled[found.group(1)], line).split(",")
    return ",".join(dict.fromkeys(name.strip() for name in [*names, *more] if name.strip()))


def override(config: Settings, changes: Settings, without: t.Collection[str]) -> dict[str, t.Any]:
    """Services of a Compose override: ``changes`` of those the project has, and nothing that starts ``without``.

    ``config``: the resolved project, with every profile. A service left out gets a profile nobody asks for, and those
    that wait for it no longer need it.
    """
    services: dict[str, dict[str, t.Any]] = {
        name: dict(change) for name, change in changes.items() if name in config["services"]
    }
    for name, service in config["services"].items():
        if name in without:
            services.setdefault(name, {})["profiles"] = ["external"]
        for needed, condition in (service.get("depends_on") or {}).items():
            if needed in without:
                waits = services.setdefault(name, {}).setdefault("depends_on", {})
                waits[needed] = {"condition": condition["condition"], "required": False}
    return services


def redis_url(env: t.Mapping[str, str], number: int) -> str:
    """Address of a database of the operator's own Redis.

    >>> redis_url({"REDIS_HOST": "cache", "REDIS_PASSWORD": "a/b", "REDIS_USE_SSL": "true"}, 1)
    'rediss://:a%2Fb@cache:6379/1'
    """
    user, password = quote(env.get("REDIS_USERNAME", ""), safe=""), quote(env.get("REDIS_PASSWORD", ""), safe="")
    account = "{0}:{1}@".format(user, password) if user or password else ""
    scheme = "rediss" if _true(env.get("REDIS_USE_SSL", "")) else "redis"
    return "{0}://{1}{2}:{3}/{4}".format(scheme, account, env["REDIS_HOST"], env.get("REDIS_PORT", "6379"), number)


def _external(env: t.Mapping[str, str], store: Settings, database: Settings) -> list[str]:
    """Which services are the operator's own: those whose address in ``env`` is not the bundled service's."""
    found = []
    own = store.get("env", {}).get(store.get("endpoint"), "")
    if store and _host(env.get(store["endpoint"], own)) != _host(own):
        found.append("store")
    if env.get("DB_HOST", database["env"]["DB_HOST"]) != database["env"]["DB_HOST"]:
        found.append("database")
    if env.get("REDIS_HOST", REDIS) != REDIS:
        found.append("redis")
    return found


def _kept(wanted: Settings, present: Settings, same: bool, endpoint: str) -> dict[str, str]:
    """Accounts and databases: as the server in place has them, since its data do; else as the table says."""
    return {key: (same and present.get(key)) or value for key, value in wanted.items() if key != endpoint}


def _problems(
    choice: Settings, env: t.Mapping[str, str], external: list[str], stores: Table, databases: Table
) -> list[str]:
    found = []
    store, database = choice["store"], choice["database"]
    row = stores.get(store, {})
    if not _since(choice["version"], row.get("since", "0")):
        found.append(
            "dify_vector_store is {0}, which Dify knows from {1} on, but dify_version is {2}; choose another store or "
            "release.".format(store, row["since"], choice["version"])
        )
    if not row.get("bundled", True) and not env.get(row["endpoint"]):
        found.append(
            "dify_vector_store is {0}, which no release brings a service for; say in dify_env where yours is: "
            "{1}.".format(store, row["endpoint"])
        )
    both = {"oceanbase", "seekdb"}
    if not external and {store, database} == both:
        found.append(
            "dify_vector_store is {0} and dify_db_type is {1}, which share one port and one password; set both to the "
            "same one.".format(store, database)
        )
    needed = {"database": ("DB_HOST", ["DB_USERNAME", "DB_PASSWORD"]), "redis": ("REDIS_HOST", ["REDIS_PASSWORD"])}
    for service, (address, settings) in needed.items():
        missing = [key for key in settings if key not in env]
        if service in external and missing:
            found.append(
                "dify_env sets {0} to {1}, a server of your own, but not {2}; name its account there too.".format(
                    address, env[address], " and ".join(missing)
                )
            )
        if service in external and env[address] in ("127.0.0.1", "::1", "localhost"):
            found.append(
                "dify_env sets {0} to {1}, which inside a container is the container itself; name an address of this "
                "server that containers reach.".format(address, env[address])
            )
    foreign = {entry["env"]["DB_HOST"]: name for name, entry in databases.items() if name != database}
    if env.get("DB_HOST") in foreign:
        found.append(
            "dify_env sets DB_HOST to {0}, but dify_db_type is {1}; set dify_db_type to {2}, DB_HOST follows.".format(
                env["DB_HOST"], database, foreign[env["DB_HOST"]]
            )
        )
    return found


def _moves(
    choice: Settings, env: t.Mapping[str, str], external: list[str], stores: Table, databases: Table
) -> list[str]:
    """Why the choice would leave data behind; empty where it would not."""
    present, found = choice["present"], choice["found"]
    if not present or not found:
        return []
    reasons = []
    store, database = stores.get(choice["store"], {}), databases[choice["database"]]

    old, new = present.get("VECTOR_STORE") or "weaviate", choice["store"]
    if old != new:
        reasons.append(
            "The server's knowledge is in {0}{1}, but dify_vector_store is {2}, which would start empty while Dify's "
            "database still points to the old vectors; set dify_vector_store to {0}. To move, back up, set "
            "VECTOR_STORE={2} in .env by hand, run again and index every knowledge base anew.".format(
                old, _where(stores, old, found), new
            )
        )
    elif store:
        was, now = present.get(store["endpoint"], ""), env.get(store["endpoint"], "")
        own = store.get("env", {}).get(store["endpoint"], "")
        elsewhere = _host(was) not in ("", _host(own), *PLACEHOLDERS)
        if ("store" in external) != elsewhere and (elsewhere or _data(stores, old, found)):
            reasons.append(
                "The server's knowledge is in {0} at {1}, but {2} would point to {3}; name {1} in dify_env, or, when "
                "the data were moved, {3} in .env by hand.".format(
                    old, _host(was or own), store["endpoint"], _host(now or own)
                )
            )

    old, new = present.get("DB_TYPE") or "postgresql", choice["database"]
    hosts = {entry["env"]["DB_HOST"] for entry in databases.values()} | set(OLD_HOSTS)
    was = present.get("DB_HOST", "")
    elsewhere = was not in hosts
    if old != new and (elsewhere or _data(databases, old, found)):
        reasons.append(
            "The server's accounts and apps are in {0}{1}, but dify_db_type is {2}, and Dify cannot move them; set "
            "dify_db_type to {0}.".format(old, _where(databases, old, found), new)
        )
    elif old == new and elsewhere != ("database" in external) and (elsewhere or _data(databases, old, found)):
        reasons.append(
            "The server's accounts and apps are in {0} at {1}, but DB_HOST would be {2}; set DB_HOST to {1} in "
            "dify_env, or, when the data were moved, DB_HOST={2} in .env by hand.".format(
                old, was or database["env"]["DB_HOST"], env.get("DB_HOST", database["env"]["DB_HOST"])
            )
        )
    return reasons


def _unbundled(choice: Settings, external: list[str], stores: Table, databases: Table) -> list[str]:
    """Why the release cannot start what was chosen."""
    found = []
    known, store, database = choice["bundled"], choice["store"], choice["database"]
    no_stores = {*(set(databases) - set(stores)), *OTHER_PROFILES}
    bundled = sorted(
        name for name in set(known) - no_stores if _since(choice["version"], stores.get(name, {}).get("since", "0"))
    )
    others = sorted(name for name, row in stores.items() if not row.get("bundled", True))
    if "store" not in external and store not in [*bundled, *others]:
        found.append(
            "dify_vector_store is {0}, which Dify {1} does not bundle; it bundles {2}, and knows {3} as servers of "
            "your own.".format(store, choice["version"], ", ".join(bundled), ", ".join(others))
        )
    if "database" not in external and database not in known:
        found.append(
            "dify_db_type is {0}, which Dify {1} does not bundle; it bundles {2}.".format(
                database, choice["version"], ", ".join(sorted(set(databases) & set(known)))
            )
        )
    return found


def _connections(
    choice: Settings, env: t.Mapping[str, str], external: list[str], store: Settings
) -> list[dict[str, t.Any]]:
    """Where to knock first: ``name``, ``protocol``, ``host``, ``port``, ``tls``, ``verify`` and the account."""
    found = []
    if "database" in external:
        postgresql = choice["database"] == "postgresql"
        mode = re.search(r"sslmode=([a-z-]+)", env.get("DB_EXTRAS", ""))
        found.append(
            {
                "name": "DB_HOST",
                "protocol": "postgresql" if postgresql else "mysql",
                "host": env["DB_HOST"],
                "port": int(env.get("DB_PORT", "5432" if postgresql else "3306")),
                "tls": bool(mode and mode.group(1) in ("require", "verify-ca", "verify-full")),
                "verify": bool(mode and mode.group(1) == "verify-full" and "sslrootcert" not in env["DB_EXTRAS"]),
                "user": env.get("DB_USERNAME", ""),
                "password": env.get("DB_PASSWORD", ""),
                "database": env.get("DB_DATABASE", "dify"),
            }
        )
    if "redis" in external:
        required = env.get("REDIS_SSL_CERT_REQS") == "CERT_REQUIRED" and not env.get("REDIS_SSL_CA_CERTS")
        found.append(
            {
                "name": "REDIS_HOST",
                "protocol": "redis",
                "host": env["REDIS_HOST"],
                "port": int(env.get("REDIS_PORT", "6379")),
                "tls": _true(env.get("REDIS_USE_SSL", "")),
                "verify": required,
                "user": env.get("REDIS_USERNAME", ""),
                "password": env.get("REDIS_PASSWORD", ""),
            }
        )
    if env.get("STORAGE_TYPE") == "s3" and env.get("S3_ENDPOINT"):
        found.append(_address("S3_ENDPOINT", env["S3_ENDPOINT"], "http", 443))
    if "store" in external:
        port = env.get(re.sub(r"_HOSTS?$", "_PORT", store["endpoint"]), "")
        found.append(_address(store["endpoint"], env[store["endpoint"]], "tcp", int(port) if port.isdigit() else 0))
    return [connection for connection in found if connection["host"] and connection["port"]]


def _host(address: str) -> str:
    """The host in a URL, in C(host:port) or alone."""
    return urlsplit(address if "://" in address else "//" + address).hostname or ""


def _address(name: str, value: str, protocol: str, default: int) -> dict[str, t.Any]:
    """An address given as a URL, as C(host:port) or as a host alone; only a URL says what is spoken there."""
    parts = urlsplit(value if "://" in value else "//" + value)
    secure = parts.scheme in ("https", "grpcs")
    spoken = "http" if parts.scheme in ("http", "https") else "tcp"
    standard = {"http": 80, "https": 443}.get(parts.scheme, 0)
    return {
        "name": name,
        "protocol": protocol if protocol == "http" else spoken,
        "host": parts.hostname or "",
        "port": parts.port or standard or default,
        "tls": secure,
        "verify": secure,
    }


def _data(table: Table, name: str, found: t.Collection[str]) -> list[str]:
    return [path for path in table.get(name, {}).get("data", ()) if path in found]


def _where(table: Table, name: str, found: t.Collection[str]) -> str:
    paths = _data(table, name, found)
    return " ({0})".format(", ".join(paths)) if paths else ""


def _since(version: str, oldest: str) -> bool:
    """Whether a release is not older than another; a fix release is as old as what it fixes."""
    return _numbers(version) >= _numbers(oldest)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("-")[0].split("+")[0])]


def _true(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "t", "yes", "y", "on")


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
