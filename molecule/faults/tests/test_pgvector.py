# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgvector behind the stack: reached as the API reaches it, and no other store beside it."""

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from conftest import DOCKER_PATH, PROJECT, Run, run_at_once

# Runs in the API's container with what its environment says, as the API itself does.
SEARCH = """
import os, psycopg
connection = psycopg.connect(
    host=os.environ["PGVECTOR_HOST"], port=os.environ["PGVECTOR_PORT"], dbname=os.environ["PGVECTOR_DATABASE"],
    user=os.environ["PGVECTOR_USER"], password=os.environ["PGVECTOR_PASSWORD"], connect_timeout=5)
with connection:
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("CREATE TEMPORARY TABLE pieces (name text, embedding vector(3))")
    connection.execute("CREATE INDEX ON pieces USING hnsw (embedding vector_cosine_ops)")
    for name, embedding in (("near", "[1,0.1,0]"), ("far", "[0,0,1]"), ("middle", "[1,1,0]")):
        connection.execute("INSERT INTO pieces VALUES (%s, %s)", [name, embedding])
    found = connection.execute("SELECT name FROM pieces ORDER BY embedding <=> '[1,0,0]' LIMIT 2").fetchall()
print(os.environ["VECTOR_STORE"], *[name for name, in found])
"""


def in_container(host: t.Any, service: str, *command: str) -> t.Any:
    words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in command)
    return host.run(f"cd {DOCKER_PATH} && docker compose exec -T {service} {words}")


@pytest.mark.parametrize("service", ["api", "worker"])
def test_the_nearest_neighbours_are_found_with_the_generated_password(host: t.Any, service: str) -> None:
    done = in_container(host, service, "python3", "-c", SEARCH)
    assert done.rc == 0, done.stderr
    assert done.stdout.split() == ["pgvector", "near", "middle"]


@pytest.mark.standin
@pytest.mark.parametrize("password", ["difyai123456", ""])
def test_the_public_password_is_refused(host: t.Any, password: str) -> None:
    script = SEARCH.replace('os.environ["PGVECTOR_PASSWORD"]', repr(password))
    done = in_container(host, "api", "python3", "-c", script)
    assert done.rc != 0
    assert "password" in done.stderr


def test_no_other_store_is_there(host: t.Any) -> None:
    services = host.check_output(f"cd {DOCKER_PATH} && docker compose config --services").split()
    assert "pgvector" in services
    assert "weaviate" not in services
    assert not host.file(f"{DOCKER_PATH}/volumes/weaviate").exists
    assert "weaviate" not in host.check_output("docker ps --all --format '{{.Image}}'")


def test_data_belong_to_the_image_and_nobody_else(host: t.Any) -> None:
    data = host.file(f"{DOCKER_PATH}/volumes/pgvector/data/pgdata")
    assert (data.uid, data.mode) == (999, 0o700)


def knock(host: t.Any, service: str, **target: t.Any) -> str:
    """What connection_info says of a service when the host itself knocks."""
    source = (PROJECT / "plugins/module_utils/_connection.py").read_text(encoding="utf-8")
    template = "'{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'"
    address = host.check_output(
        f"cd {DOCKER_PATH} && docker inspect --format {template} $(docker compose ps -q {service})"
    )
    options = json.dumps({**target, "host": address.split()[0]})
    script = base64.b64encode(f"{source}\nprint(knock(Connection(**{options}), 10))".encode()).decode()
    return t.cast("str", host.check_output(f"echo {script} | base64 -d | python3 -")).strip()


def test_signing_in_to_a_real_postgresql_is_tried(host: t.Any, environment: dict[str, str]) -> None:
    target = {"protocol": "postgresql", "port": 5432, "user": "postgres", "database": "dify"}
    password = environment["PGVECTOR_PASSWORD"]
    assert knock(host, "pgvector", **target, password=password) == ""
    assert "password authentication failed" in knock(host, "pgvector", **target, password="difyai123456")
    assert 'database "nope"' in knock(host, "pgvector", **{**target, "database": "nope"}, password=password)


def test_signing_in_to_a_real_redis_is_tried(host: t.Any, environment: dict[str, str]) -> None:
    target = {"protocol": "redis", "port": 6379}
    assert knock(host, "redis", **target, password=environment["REDIS_PASSWORD"]) == ""
    assert "WRONGPASS" in knock(host, "redis", **target, password="difyai123456")
    assert "NOAUTH" in knock(host, "redis", **target)


REFUSED: dict[str, tuple[dict[str, t.Any], str]] = {
    "another store": ({"dify_vector_store": "weaviate"}, "knowledge is in pgvector (volumes/pgvector/data), but"),
    "a database elsewhere": (
        {"dify_env": {"DB_HOST": "10.213.0.1", "DB_USERNAME": "dify", "DB_PASSWORD": "S3cret-of-mine"}},
        "accounts and apps are in postgresql at db_postgres, but DB_HOST would be 10.213.0.1",
    ),
    "a missing Redis": (
        {"dify_env": {"REDIS_HOST": "127.0.0.2", "REDIS_PORT": 6399, "REDIS_PASSWORD": "S3cret-of-mine"}},
        "dify_env sets REDIS_HOST, but 127.0.0.2:6399 cannot be used from a missing Redis: Connection refused.",
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return run_at_once("site", {name: case[0] for name, case in REFUSED.items()}, tmp_path_factory.mktemp("inventory"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_leave_data_behind_is_refused(name: str, refused: dict[str, Run]) -> None:
    assert (refused[name].failed, refused[name].changed) == (True, 0), refused[name]
    assert REFUSED[name][1] in refused[name].message
