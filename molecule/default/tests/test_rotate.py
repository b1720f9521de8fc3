# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of a running server replaced: the old value is refused, the new one accepted, cut-short runs are finished."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import typing as t

import pytest
import yaml
from conftest import DOCKER_PATH, PROJECT, Run, Server, playbook_command, run_at_once, run_playbook, run_site

ROTATION = f"{DOCKER_PATH}/.env.rotation"
TABLE = yaml.safe_load((PROJECT / "roles/dify/vars/main.yml").read_text(encoding="utf-8"))
# Keys to stores and to a newer release's sandbox, which this server does not have.
UNUSED = {"DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN", "QDRANT_API_KEY", "PGVECTOR_PASSWORD"}
ACCEPTED_LOSS = {"dify_rotate_accept_loss": TABLE["__dify_rotations"]["SECRET_KEY"]["loses"]}


def rotate(secret: str, *options: str, **variables: t.Any) -> Run:
    return run_playbook("rotate_secrets", {"secret": secret, **variables}, *options)


def settings(host: t.Any) -> dict[str, str]:
    lines = host.check_output(f"cat {DOCKER_PATH}/.env").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def agreeing(secret: str) -> set[str]:
    """The secret and the settings made from it."""
    row = next(row for row in TABLE["__dify_secrets"] if row["key"] == secret)
    return {secret, *row.get("also", {})}


def postgres(host: t.Any, password: str, database: str) -> int:
    """How a client of the network with this password fares: psql's exit code."""
    psql = f"psql -w -h db_postgres -U postgres -d {database} -c 'SELECT 1' </dev/null"
    script = f"read -r PGPASSWORD; export PGPASSWORD; {psql}"
    command = f'docker compose exec -T db_postgres sh -c "{script}"'
    return t.cast("int", host.run(f"cd {DOCKER_PATH} && echo {password} | {command}").rc)


def redis(host: t.Any, password: str) -> str:
    command = "sh -c 'read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli ping </dev/null 2>&1'"
    return t.cast(
        "str", host.run(f"cd {DOCKER_PATH} && echo {password} | docker compose exec -T redis {command}").stdout
    )


def assert_replaced(run: Run, secret: str, before: dict[str, str], after: dict[str, str]) -> None:
    """The run ended well, changed nothing but the secret and what agrees with it, and told nobody."""
    assert not run.failed, run.message
    known = agreeing(secret) & before.keys()
    assert {key for key in before if before[key] != after[key]} == known
    assert before.keys() == after.keys()
    for value in (before[secret], after[secret]):
        assert value not in run.output


def test_the_database_password_is_replaced_with_a_chosen_value(server: Server, host: t.Any, password: str) -> None:
    before, chosen = settings(host), "chosen-by-the-operator"
    variables = {"dify_env": {"LOG_LEVEL": "WARNING", "DB_PASSWORD": chosen}}
    check = rotate("DB_PASSWORD", "--check", "--diff", **variables)
    assert not check.failed, check.message
    assert "DB_PASSWORD would be replaced" in check.output
    assert settings(host) == before
    assert not host.file(ROTATION).exists
    run = rotate("DB_PASSWORD", "--diff", "-v", **variables)
    assert chosen not in host.check_output("journalctl --no-pager --output cat")
    after = settings(host)
    assert_replaced(run, "DB_PASSWORD", before, after)
    assert after["DB_PASSWORD"] == chosen
    for database in ("dify", "dify_plugin"):
        assert postgres(host, chosen, database) == 0
        assert postgres(host, before["DB_PASSWORD"], database) != 0
    assert not host.file(ROTATION).exists
    assert host.file(f"{DOCKER_PATH}/.env").mode == 0o600
    assert server.sign_in(password)


def test_a_secret_of_which_others_are_made_is_replaced(host: t.Any) -> None:
    before = settings(host)
    run = rotate("REDIS_PASSWORD", "--diff", "-v")
    after = settings(host)
    assert_replaced(run, "REDIS_PASSWORD", before, after)
    assert after["CELERY_BROKER_URL"] == f"redis://:{after['REDIS_PASSWORD']}@redis:6379/1"
    assert "PONG" in redis(host, after["REDIS_PASSWORD"])
    assert "PONG" not in redis(host, before["REDIS_PASSWORD"])


def test_a_key_between_services_is_replaced(host: t.Any) -> None:
    before = settings(host)
    run = rotate("SANDBOX_API_KEY", "--diff", "-v")
    assert_replaced(run, "SANDBOX_API_KEY", before, settings(host))


@pytest.mark.parametrize("secret", [secret for secret in TABLE["__dify_rotations"] if secret not in UNUSED])
def test_every_question_tells_the_right_value_from_a_wrong_one(secret: str, host: t.Any) -> None:
    row, value = TABLE["__dify_rotations"][secret], settings(host)[secret]
    program = (PROJECT / "roles/dify/files/rotate" / row["program"]).read_text(encoding="utf-8")
    interpreter = "python3" if row["program"].endswith(".py") else "sh"
    command = shlex.join(
        ["docker", "compose", "exec", "-T", row["client"], interpreter, "-c", program, "rotate", *row["arguments"]]
    )
    ask = f"cd {DOCKER_PATH} && printf '\\n%s\\n%s\\n' {{}} {{}} | " + command.replace("{", "{{").replace("}", "}}")
    right = host.run("sh -c %s", ask.format("never-a-value", value))
    wrong = host.run("sh -c %s", ask.format(value, "never-a-value"))
    assert (right.rc, wrong.rc) == (0, 1), right.stderr + wrong.stderr


def test_the_secret_key_is_replaced_and_signs_everybody_out(server: Server, host: t.Any, password: str) -> None:
    session, before = server.sign_in(password), settings(host)
    assert server.request("GET", "/console/api/account/profile", headers=session).status == 200
    run = rotate("SECRET_KEY", "--diff", "-v", **ACCEPTED_LOSS)
    assert_replaced(run, "SECRET_KEY", before, settings(host))
    assert server.request("GET", "/console/api/account/profile", headers=session).status == 401
    assert server.sign_in(password)


def kill_at(task: str, secret: str) -> None:
    """Kills a rotation as soon as it announces the task."""
    command, environment = playbook_command("rotate_secrets", {"secret": secret})
    environment |= {"ANSIBLE_STDOUT_CALLBACK": "default", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("TASK [") and task in line:
                os.killpg(run.pid, signal.SIGKILL)
                return
    pytest.fail(f"rotate_secrets ended with {run.returncode} before {task!r}")


def test_cut_short_runs_are_finished(server: Server, host: t.Any, password: str) -> None:
    """Between PostgreSQL and .env, then between .env and the containers, then while they are recreated."""
    before = settings(host)
    kill_at("rotate | Configure Dify", "DB_PASSWORD")
    assert settings(host) == before
    assert host.file(ROTATION).mode == 0o600
    site = run_site({})
    assert (site.failed, site.changed) == (True, 0)
    assert "rotate_secrets -e secret=DB_PASSWORD" in site.message
    other = rotate("REDIS_PASSWORD")
    assert (other.failed, other.changed) == (True, 0)
    assert "rotate_secrets -e secret=DB_PASSWORD" in other.message
    kill_at("rotate | Recreate the containers", "DB_PASSWORD")
    kill_at("start | Wait for Dify to answer", "DB_PASSWORD")
    run = rotate("DB_PASSWORD", "--diff", "-v")
    after = settings(host)
    assert_replaced(run, "DB_PASSWORD", before, after)
    assert postgres(host, after["DB_PASSWORD"], "dify") == 0
    assert postgres(host, before["DB_PASSWORD"], "dify") != 0
    assert server.sign_in(password)
    assert run_site({}).changed == 0


REFUSED: dict[str, tuple[dict[str, t.Any], str]] = {
    "no name": ({}, "No secret was named; give -e secret=NAME with one of SECRET_KEY, DB_PASSWORD,"),
    "misspelt": ({"secret": "DB_PASWORD"}, '"DB_PASWORD" is no secret that can be replaced; give -e secret=NAME with'),
    "loss": ({"secret": "SECRET_KEY"}, "adds -e dify_rotate_accept_loss=sessions,file-urls,oauth-credentials"),
    "yes to a loss": (
        {"secret": "SECRET_KEY", "dify_rotate_accept_loss": "yes"},
        "are lost: sessions,file-urls,oauth-credentials",
    ),
    "another release's": (
        {"secret": "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN"},
        "knows no DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN",
    ),
    "another store's": (
        {"secret": "QDRANT_API_KEY"},
        "not to the service qdrant of this server, which does not run it",
    ),
    "another setting": (
        {"secret": "DB_PASSWORD", "dify_env": {"LOG_LEVEL": "INFO"}},
        "does not hold what the variables say (LOG_LEVEL)",
    ),
    "a setting that must agree": (
        {"secret": "REDIS_PASSWORD", "dify_env": {"LOG_LEVEL": "WARNING", "CELERY_BROKER_URL": "redis://redis"}},
        "dify_env names CELERY_BROKER_URL, which must agree with REDIS_PASSWORD",
    ),
    "an unfit value": (
        {"secret": "DB_PASSWORD", "dify_env": {"LOG_LEVEL": "WARNING", "DB_PASSWORD": "it's unfit"}},
        "The new value of DB_PASSWORD is too short or unfit for URLs and shells",
    ),
}


@pytest.fixture(scope="module")
def refused(host: t.Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All of them at once; the secrets are the same afterwards."""
    before = settings(host)
    cases = {name: case[0] for name, case in REFUSED.items()}
    runs = run_at_once("rotate_secrets", cases, tmp_path_factory.mktemp("inventory"))
    assert settings(host) == before
    assert not host.file(ROTATION).exists
    return runs


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replaced_is_refused(name: str, refused: dict[str, Run]) -> None:
    # The number of changes is not asked for: it counts what the configuration on trial would change.
    assert refused[name].failed, refused[name]
    assert REFUSED[name][1] in refused[name].message


@pytest.fixture
def trusting(host: t.Any) -> t.Iterator[None]:
    """A cluster that lets everybody in: nothing could be proven there."""
    data = f"{DOCKER_PATH}/volumes/db/data/pgdata"
    reload = f"cd {DOCKER_PATH} && docker compose exec -T db_postgres psql -U postgres -c 'SELECT pg_reload_conf()'"
    host.check_output(
        f"cp -p {data}/pg_hba.conf /root/pg_hba.kept && sed -i '1i host all all all trust' {data}/pg_hba.conf"
    )
    host.check_output(reload)
    yield
    host.check_output(f"mv /root/pg_hba.kept {data}/pg_hba.conf && {reload}")


@pytest.mark.usefixtures("trusting")
def test_a_service_that_accepts_anything_is_refused(host: t.Any) -> None:
    before = settings(host)
    run = rotate("DB_PASSWORD")
    assert run.failed
    assert "db_postgres does not tell the value in .env from a wrong one" in run.message
    assert settings(host) == before
    assert not host.file(ROTATION).exists


@pytest.fixture
def stopped(host: t.Any) -> t.Iterator[None]:
    host.check_output(f"cd {DOCKER_PATH} && docker compose stop worker")
    yield
    host.check_output(f"cd {DOCKER_PATH} && docker compose start worker")


@pytest.mark.usefixtures("stopped")
def test_a_server_that_does_not_run_is_refused() -> None:
    run = rotate("DB_PASSWORD")
    assert (run.failed, run.changed) == (True, 0)
    assert "Not running on" in run.message
    assert "worker" in run.message


@pytest.fixture
def elsewhere(host: t.Any) -> t.Iterator[str]:
    """The sandbox's address edited by hand, which a run keeps."""
    address = "http://sandbox.example.com:8194"
    host.check_output(
        f"sed -i.kept s,^CODE_EXECUTION_ENDPOINT=.*,CODE_EXECUTION_ENDPOINT={address}, {DOCKER_PATH}/.env"
    )
    yield address
    host.check_output(f"mv {DOCKER_PATH}/.env.kept {DOCKER_PATH}/.env")


def test_a_service_elsewhere_is_refused(elsewhere: str) -> None:
    run = rotate("SANDBOX_API_KEY")
    assert (run.failed, run.changed) == (True, 0)
    expected = f"SANDBOX_API_KEY is the key to CODE_EXECUTION_ENDPOINT={elsewhere}, not to the service sandbox"
    assert expected in run.message
