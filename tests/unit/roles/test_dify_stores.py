# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role dify: what a choice of vector store, database, Redis and storage comes to, for every stand-in release."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv, _services
from ansible_collections.selfhost.dify.plugins.modules import dotenv

PROJECT = Path(__file__).resolve().parents[3]
ROLE = PROJECT / "roles" / "dify"
sys.path.insert(0, str(PROJECT / "tests" / "testbed" / "upstream"))

import build as upstream  # noqa: E402

STORES: dict[str, t.Any] = yaml.safe_load((ROLE / "vars/stores.yml").read_text())["__dify_stores"]
DATABASES: dict[str, t.Any] = yaml.safe_load((ROLE / "vars/stores.yml").read_text())["__dify_databases"]
BUNDLED = [name for name, row in STORES.items() if row.get("bundled", True)]
RELEASES = {release.version: release for release in upstream.releases()}

# The services of a stack without vector store and database, and those of each store, as upstream names them.
ALWAYS = {"api", "worker", "worker_beat", "web", "redis", "sandbox", "plugin_daemon", "ssrf_proxy", "nginx"}
LATER = {"1.11.0": {"init_permissions"}, "1.14.1": {"api_websocket"}, "1.16.0": {"agent_backend", "local_sandbox"}}
SERVICES = {
    "milvus": {"etcd", "minio", "milvus-standalone"},
    "opensearch": {"opensearch", "opensearch-dashboards"},
    "elasticsearch": {"elasticsearch", "kibana"},
    "elasticsearch-ja": {"elasticsearch"},
    "couchbase": {"couchbase-server"},
    "postgresql": {"db_postgres"},
    "mysql": {"db_mysql"},
}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> t.Callable[[str], Path]:
    """The files of a stand-in release."""
    made: dict[str, Path] = {}

    def path(version: str) -> Path:
        if version not in made:
            made[version] = tmp_path_factory.mktemp(version)
            for name, (_mode, text) in upstream.files(RELEASES[version]).items():
                file = made[version] / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        return made[version]

    return path


LOADER = DataLoader()


@functools.cache
def compose_text(path: Path) -> str:
    """A compose file as JSON, which is read faster than YAML."""
    return json.dumps(yaml.load(path.read_text(), Loader=yaml.CSafeLoader))


def project(path: Path) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(compose_text(path)))


@functools.cache
def role_variables() -> dict[str, t.Any]:
    files = ("defaults/main.yml", "vars/main.yml", "vars/stores.yml")
    return {
        key: value
        for file in files
        for key, value in LOADER.load_from_file(str(ROLE / file), trusted_as_template=True).items()
    }


class Role:
    """The role's variables for a release that is checked out, and what its tasks would do with them."""

    def __init__(self, path: Path, version: str, **variables: t.Any) -> None:
        self.docker = path / "docker"
        compose = project(self.docker / "docker-compose.yaml")
        example = _dotenv.assignments((self.docker / ".env.example").read_text())
        scope = role_variables() | {
            "inventory_hostname": "host",
            "ansible_facts": {},
            "ansible_check_mode": False,
            "dify_path": str(path),
            "dify_version": version,
            "dify_domain": "dify.example.com",
            "dify_admin_email": "owner@example.com",
            "__dify_ls": {"stdout_lines": []},
            "__dify_release_bundled": [
                name for service in compose["services"].values() for name in service.get("profiles", [])
            ],
            "__dify_release_profiles": example["COMPOSE_PROFILES"],
        }
        self.templar = Templar(loader=LOADER, variables={**scope, **variables})

    def value(self, name: str) -> t.Any:
        return self.templar.template(trust_as_template("{{ " + name + " }}"))

    def task(self, file: str, module: str) -> dict[str, t.Any]:
        """Arguments of a task, as Ansible hands them to the module."""
        tasks = LOADER.load_from_file(str(ROLE / "tasks" / file), trusted_as_template=True)
        arguments = next(task[module] for task in tasks if module in task)
        return t.cast("dict[str, t.Any]", self.templar.template(arguments))

    def settings(self) -> dict[str, str]:
        """The .env that the role writes, each setting as Compose reads it, references as they are."""
        environment = self.docker / ".env"
        for leftover in (environment, self.docker / ".env.applied"):
            leftover.unlink(missing_ok=True)
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": self.task("configure.yml", "selfhost.dify.dotenv")})
        paths = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run(
            [sys.executable, "-m", dotenv.__name__],
            input=arguments, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return {key: _dotenv.unquote(raw) for key, raw in _dotenv.assignments(environment.read_text()).items()}


def base(version: str) -> set[str]:
    """The services of a stack without vector store and database."""
    stand_in = {"1.16.1": {"agent_ssrf_proxy"}}
    return ALWAYS.union(*(names for since, names in {**LATER, **stand_in}.items() if _services._since(version, since)))


def started(role: Role) -> tuple[set[str], dict[str, t.Any]]:
    """The services Compose would start by the role's settings, and the project with the role's changes."""
    plan = role.value("__dify_plan")
    assert plan["problems"] == []
    line = plan["values"].get("COMPOSE_PROFILES", role.value("__dify_release_profiles"))
    active = set(_services.profiles(line, plan["values"], []).split(","))
    services = project(role.docker / "docker-compose.yaml")["services"]
    for service in services.values():
        needed = service.get("depends_on", {})
        service["depends_on"] = needed if isinstance(needed, dict) else {name: {"condition": ""} for name in needed}
    for name, change in _services.override({"services": services}, plan["services"], plan["without"]).items():
        for key, value in change.items():
            old = services[name].get(key)
            merged = {**(old or {}), **value} if isinstance(value, dict) else [*(old or ["default"]), *value]
            services[name][key] = merged if key != "profiles" else value
    names = {name for name, row in services.items() if active & set(row.get("profiles", [])) or "profiles" not in row}
    for name in names:
        required = {key for key, row in services[name]["depends_on"].items() if row.get("required", True)}
        assert required <= names, name
    return names, services


releases = pytest.mark.parametrize("version", RELEASES)


@releases
@pytest.mark.parametrize("store", BUNDLED)
def test_a_bundled_store_runs_and_the_api_reaches_it(
    checkout: t.Callable[[str], Path], version: str, store: str
) -> None:
    row = STORES[store]
    if not _services._since(version, row.get("since", "0")):
        pytest.skip(f"Dify {version} does not know {store}")
    names, services = started(Role(checkout(version), version, dify_vector_store=store))
    assert names == base(version) | {"db_postgres"} | SERVICES.get(store, {store})
    host = services[_services._host(row["env"][row["endpoint"]])]
    assert set(services["api"]["networks"]) & set(host.get("networks", ["default"]))


@releases
@pytest.mark.parametrize("database", DATABASES)
def test_exactly_one_database_runs(checkout: t.Callable[[str], Path], version: str, database: str) -> None:
    names, _services_there = started(Role(checkout(version), version, dify_db_type=database))
    assert names == base(version) | {"weaviate"} | SERVICES.get(database, {database})


@releases
@pytest.mark.parametrize("store", STORES)
def test_what_is_written_for_a_store_is_known_to_the_release(version: str, store: str) -> None:
    row = STORES[store]
    if _services._since(version, row.get("since", "0")):
        known = set(upstream.defaults(RELEASES[version]))
        written = {*row.get("env", {}), row["endpoint"], *(secret["key"] for secret in row.get("secrets", []))}
        assert written <= known


def test_the_password_of_a_bundled_service_stands_in_the_settings() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps({name: row.get("services", {}) for name, row in STORES.items()})))
    table = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__dify_secrets"]
    table += [secret for row in STORES.values() for secret in row.get("secrets", [])]
    secrets = {key for row in table for key in (row["key"], *row.get("also", {}))}
    assert used - secrets == {"PGVECTO_RS_DATABASE"}


OWN = {
    "DB_HOST": "db.example.com", "DB_USERNAME": "dify", "DB_PASSWORD": "S3cret",
    "REDIS_HOST": "cache.example.com", "REDIS_PORT": 6380, "REDIS_PASSWORD": "a/b", "REDIS_USE_SSL": True,
    "STORAGE_TYPE": "s3", "S3_ENDPOINT": "https://s3.example.com",
}  # fmt: skip


@releases
def test_services_of_the_operators_own_are_not_started(checkout: t.Callable[[str], Path], version: str) -> None:
    env = {**OWN, "QDRANT_URL": "https://qdrant.example.com:6333"}
    role = Role(checkout(version), version, dify_vector_store="qdrant", dify_env=env)
    names, services = started(role)
    assert names == base(version) - {"redis"}
    assert services["redis"]["profiles"] == ["external"]
    settings = role.settings()
    assert settings["CELERY_BROKER_URL"] == "rediss://:a%2Fb@cache.example.com:6380/1"
    assert settings["DB_HOST"] == "db.example.com"
    assert "QDRANT_API_KEY" in settings
    found = [(row["name"], row["protocol"], row["port"], row["tls"]) for row in role.value("__dify_plan.connections")]
    assert found == [
        ("DB_HOST", "postgresql", 5432, False),
        ("REDIS_HOST", "redis", 6380, True),
        ("S3_ENDPOINT", "http", 443, True),
        ("QDRANT_URL", "http", 6333, True),
    ]


@releases
def test_settings_say_where_everything_is(checkout: t.Callable[[str], Path], version: str) -> None:
    settings = Role(checkout(version), version, dify_vector_store="chroma", dify_db_type="mysql").settings()
    wanted = {**STORES["chroma"]["env"], **DATABASES["mysql"]["env"], "VECTOR_STORE": "chroma", "DB_TYPE": "mysql"}
    assert {key: settings.get(key) for key in wanted} == wanted
    assert settings["CHROMA_AUTH_CREDENTIALS"] == settings["CHROMA_SERVER_AUTHN_CREDENTIALS"] != ""
    assert settings["COMPOSE_PROFILES"].startswith("${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql}")


@releases
def test_one_password_where_database_and_vectors_share_a_server(
    checkout: t.Callable[[str], Path], version: str
) -> None:
    settings = Role(checkout(version), version, dify_vector_store="oceanbase", dify_db_type="oceanbase").settings()
    assert settings["DB_PASSWORD"] == settings["OCEANBASE_VECTOR_PASSWORD"] != ""


@releases
def test_unstructured_runs_beside_what_the_release_starts(checkout: t.Callable[[str], Path], version: str) -> None:
    role = Role(checkout(version), version, dify_unstructured=True)
    names, _there = started(role)
    assert names == base(version) | {"db_postgres", "weaviate", "unstructured"}
    settings = role.settings()
    assert settings["ETL_TYPE"] == "Unstructured"
    assert settings["UNSTRUCTURED_API_URL"].startswith("http://unstructured:8000/")


def plan(**given: t.Any) -> dict[str, t.Any]:
    choice = {
        "version": "1.16.1", "store": "weaviate", "database": "postgresql", "unstructured": False, "env": {},
        "present": {}, "found": [], "profiles": "", "bundled": [],
    }  # fmt: skip
    return _services.plan({**choice, **given}, STORES, DATABASES)


HERE = {"VECTOR_STORE": "weaviate", "DB_TYPE": "postgresql", "DB_HOST": "db_postgres"}
DATA = ["volumes/weaviate", "volumes/db/data/pgdata"]
RELEASE = ["weaviate", "qdrant", "postgresql", "certbot"]
ACCOUNT = {"DB_USERNAME": "dify", "DB_PASSWORD": "S3cret"}
REFUSED: list[tuple[str, dict[str, t.Any], str]] = [
    ("store before its time", {"store": "iris", "version": "1.10.1"}, "which Dify knows from 1.11.2 on"),
    ("store without an address", {"store": "tencent"}, "say in dify_env where yours is: TENCENT_VECTOR_DB_URL."),
    ("no such store", {"store": "tidb", "bundled": RELEASE}, "tidb, which Dify 1.16.1 does not bundle; it bundles"),
    ("store not bundled", {"store": "milvus", "bundled": RELEASE}, "it bundles qdrant, weaviate, and knows ali"),
    ("database not bundled", {"database": "seekdb", "bundled": ["weaviate", "mysql"]}, "it bundles mysql."),
    ("two on one port", {"store": "seekdb", "database": "oceanbase"}, "share one port"),
    ("database without account", {"env": {"DB_HOST": "db.example.com"}}, "but not DB_USERNAME and DB_PASSWORD"),
    ("Redis without password", {"env": {"REDIS_HOST": "cache"}}, "but not REDIS_PASSWORD"),
    ("the container itself", {"env": {"DB_HOST": "localhost", **ACCOUNT}}, "is the container itself"),
    ("host of another type", {"env": {"DB_HOST": "db_mysql", **ACCOUNT}}, "set dify_db_type to mysql"),
    ("another store", {"store": "qdrant", "present": HERE, "found": DATA}, "is in weaviate (volumes/weaviate), but"),
    ("another type", {"database": "mysql", "present": HERE, "found": DATA}, "accounts and apps are in postgresql"),
    (
        "database leaves the server",
        {"env": {"DB_HOST": "db.example.com", **ACCOUNT}, "present": HERE, "found": DATA},
        "are in postgresql at db_postgres, but DB_HOST would be db.example.com",
    ),
    (
        "database comes to the server",
        {"present": {**HERE, "DB_HOST": "db.example.com"}, "found": ["volumes/weaviate"]},
        "are in postgresql at db.example.com, but DB_HOST would be db_postgres",
    ),
    (
        "store leaves the server",
        {"env": {"WEAVIATE_ENDPOINT": "https://w.example.com"}, "present": HERE, "found": DATA},
        "is in weaviate at weaviate, but WEAVIATE_ENDPOINT would point to w.example.com",
    ),
    (
        "store comes to the server",
        {"present": {**HERE, "WEAVIATE_ENDPOINT": "https://w.example.com"}, "found": ["volumes/db/data/pgdata"]},
        "is in weaviate at w.example.com, but WEAVIATE_ENDPOINT would point to weaviate",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_refused(given: dict[str, t.Any], message: str) -> None:
    problems = plan(**given)["problems"]
    assert len(problems) == 1, problems
    assert message in problems[0]
    assert problems[0].endswith(".")


ACCEPTED: list[tuple[str, dict[str, t.Any]]] = [
    ("nothing there yet", {"store": "qdrant", "present": HERE}),
    ("the same again", {"present": HERE, "found": DATA}),
    ("the database of 1.10.0", {"present": {**HERE, "DB_HOST": "db"}, "found": DATA}),
    ("a file without the choice", {"present": {"SECRET_KEY": "x"}, "found": DATA}),
    ("a store that only a newer release knows", {"store": "newstore", "bundled": ["newstore", "postgresql"]}),
    (
        "an old server's address of the bundled store",
        {
            "store": "elasticsearch",
            "present": {**HERE, "VECTOR_STORE": "elasticsearch", "ELASTICSEARCH_HOST": "elasticsearch"},
            "found": [*DATA, "volume:dify_es01_data/_data"],
        },
    ),
    (
        "an example's address that nobody set",
        {
            "store": "chroma",
            "present": {**HERE, "VECTOR_STORE": "chroma", "CHROMA_HOST": "127.0.0.1"},
            "found": DATA,
        },
    ),
    (
        "moved by hand",
        {"store": "qdrant", "present": {**HERE, "VECTOR_STORE": "qdrant", "QDRANT_URL": ""}, "found": DATA},
    ),
]


@pytest.mark.parametrize("given", [pytest.param(case[1], id=case[0]) for case in ACCEPTED])
def test_accepted(given: dict[str, t.Any]) -> None:
    assert plan(**given)["problems"] == []


def test_accounts_and_databases_stay_what_the_server_has() -> None:
    present = {**HERE, "DB_USERNAME": "owner", "DB_DATABASE": "old"}
    values = plan(present=present, found=DATA)["values"]
    assert (values["DB_USERNAME"], values["DB_DATABASE"], values["DB_PORT"]) == ("owner", "old", "5432")
    assert plan(database="mysql", present=present)["values"]["DB_USERNAME"] == "root"


def test_a_profile_that_only_a_newer_release_starts_is_kept() -> None:
    line = "${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql},collaboration,newer"
    values = plan(env={"DB_HOST": "db", **ACCOUNT}, profiles=line, unstructured=True)["values"]
    assert values["COMPOSE_PROFILES"] == "weaviate,collaboration,newer,unstructured"
    assert "COMPOSE_PROFILES" not in plan(store="qdrant", profiles=line)["values"]
