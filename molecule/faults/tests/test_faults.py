# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A live server broken in every way the status knows: it names each fault, and the remedy it prints heals it.

Faults that do not hide each other are made together and seen by one look. After each remedy the timer's program looks
again, at the end the playbook.
"""

from __future__ import annotations

import base64
import time
import typing as t

from asked import errors, status
from conftest import DOCKER_PATH, Server, run_playbook, run_site

COMPOSE = f"docker compose --project-directory {DOCKER_PATH}"
STORAGE = f"{DOCKER_PATH}/volumes/app/storage"
METRICS = "/var/lib/prometheus/node-exporter/dify.prom"
TOMORROW = "/usr/local/lib/tomorrow"
SITE = "ansible-playbook selfhost.dify.site"
# Small, so that it can be used up without harm; it stays so until the end.
OWN_FILE_SYSTEM = f"""
cp -a {STORAGE} /srv/storage
mount -t tmpfs -o size=8m none {STORAGE}
cp -a /srv/storage/. {STORAGE}/
"""
# What openssl needs to be told to sign what has expired.
AUTHORITY = """[ca]
default_ca = one
[one]
database = /tmp/index
new_certs_dir = /tmp
default_md = sha256
rand_serial = yes
policy = any
[any]
commonName = supplied
"""
SQL = "docker compose exec -T db_postgres psql --username postgres --dbname dify --quiet --tuples-only --no-align"


class Fault(t.NamedTuple):
    """What the status must say, and ``act``: its command, after the operator's hand where it leaves a choice."""

    id: str
    remedy: str
    act: str
    service: str = ""


def inject(host: t.Any, script: str) -> None:
    done = host.run(f"set -eu\ncd {DOCKER_PATH}\n{script}")
    assert done.rc == 0, done.stderr


def assert_found(seen: tuple[int, dict[str, t.Any]], *faults: Fault) -> None:
    code, facts = seen
    assert (code, facts["healthy"]) == (2, False)
    rows = {row["id"]: row for row in facts["findings"]}
    assert {fault.id for fault in faults} <= rows.keys(), facts["findings"]
    for fault in faults:
        row = rows[fault.id]
        assert (row["severity"], row["service"], row["remedy"]) == ("error", fault.service, fault.remedy), row["seen"]


def assert_healed(host: t.Any, *faults: Fault) -> None:
    """Each fault goes away by its own remedy, and with the last one everything is well."""
    for fault in faults:
        inject(host, fault.act)
        wait(host, lambda found, fault=fault: fault.id not in found, fault.id)
    wait(host, lambda found: not found, "a healthy server")
    code, facts = status()
    assert (code, facts["healthy"], errors(facts)) == (0, True, set()), facts["findings"]


def wait(host: t.Any, well: t.Callable[[set[str]], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        host.check_output("systemctl start selfhost-dify-status.service")
        text = host.check_output(f"cat {METRICS}")
        lines = [line for line in text.splitlines() if line.startswith("dify_finding{") and 'severity="error"' in line]
        found = {line.split('id="')[1].split('"')[0] for line in lines}
        if well(found):
            return
        assert time.monotonic() < deadline, f"waiting for {what}, there is {lines}"
        time.sleep(1)  # systemd refuses more than 5 starts in 10 seconds


def compose_remedy(*words: str) -> str:
    return " ".join((COMPOSE, *words))


def test_faults_beside_each_other(host: t.Any, server: Server) -> None:
    revision = host.check_output(f"cd {DOCKER_PATH} && {SQL} --command 'SELECT version_num FROM alembic_version'")
    renewal = "docker exec nginx-certbot sh -c 'kill -HUP 1'"
    proxy = compose_remedy("up --detach --force-recreate --no-deps nginx")
    worker = compose_remedy("up --detach --force-recreate worker")
    key = compose_remedy("up --detach --force-recreate api worker plugin_daemon nginx")
    redis = compose_remedy("restart redis")
    chown = f"chown --recursive 1001:1001 {STORAGE}"
    inject(
        host,
        f"""
        {OWN_FILE_SYSTEM}
        image=$(docker inspect --format '{{{{.Image}}}}' dify-api-1)

        # Another container takes the address at which nginx knows the API.
        docker compose rm --stop --force api
        docker run --detach --rm --name squatter --network dify_default --entrypoint sleep $image infinity
        docker compose up --detach --no-deps --force-recreate api worker

        docker compose exec --detach --user root worker sh -c 'echo exit 3 >/entrypoint.sh; kill 1'
        PLUGIN_DAEMON_KEY=another docker compose up --detach --no-deps plugin_daemon
        {SQL} --command "UPDATE alembic_version SET version_num = 'ffffffffffff'"
        docker compose exec -T redis redis-cli config set maxmemory 1

        docker exec nginx-certbot sh -euc '
          cd /etc/letsencrypt/live/{server.domain}
          openssl req -new -key privkey.pem -subj /CN={server.domain} -out /tmp/csr
          echo "{AUTHORITY}" >/tmp/authority
          : >/tmp/index
          openssl ca -batch -selfsign -config /tmp/authority -keyfile privkey.pem -in /tmp/csr \\
            -startdate 20260101000000Z -enddate 20260201000000Z -notext -out /tmp/expired
          cat /tmp/expired >cert.pem
          cat /tmp/expired >fullchain.pem
          nginx -s reload'

        until docker exec $(docker compose ps --quiet api) python3 -c \\
          'import urllib.request; urllib.request.urlopen("http://localhost:5001/health")'; do sleep 0.2; done
        chown --recursive root:root {STORAGE}
        touch {STORAGE}/.init_permissions
        if head --bytes 64M /dev/zero >{STORAGE}/full; then echo 'the disk took it all' >&2; exit 1; fi
        until [ $(docker inspect --format '{{{{.RestartCount}}}}' dify-worker-1) -ge 3 ]; do sleep 0.2; done
        """,
    )
    faults = [
        Fault(
            "disk_full",
            f"Free some, or enlarge it: old images go with docker image prune, then look with du -x -d2 {STORAGE}",
            f"du -x -d2 {STORAGE}; rm {STORAGE}/full",
        ),
        Fault(
            "migrations_unknown",
            f"Run the release that made it ({SITE} with its dify_version), or restore a backup of this release; "
            "a database cannot be moved back.",
            f"{SQL} --command \"UPDATE alembic_version SET version_num = '{revision}'\"",
            "api",
        ),
        Fault(
            "redis_refuses_writes",
            f"Raise its maxmemory or take the limit away (CONFIG SET maxmemory 0); or as it was configured: {redis}",
            redis,
            "redis",
        ),
        Fault(
            "service_restarting",
            f"{worker}; if it goes on, read why: {COMPOSE} logs --tail 100 worker",
            worker,
            "worker",
        ),
        Fault("storage_owner", f"{SITE}, or by hand: {chown}", chown, "api"),
        Fault("proxy_stale", proxy, proxy, "nginx"),
        Fault(
            "plugin_daemon_key",
            f"{key}; if it stays so, look for PLUGIN_DAEMON_KEY in {DOCKER_PATH}/.env and in what overrides it",
            key,
            "plugin_daemon",
        ),
        Fault(
            "certificate_expired",
            f"{renewal}, then read: docker logs --tail 100 nginx-certbot",
            renewal,
        ),
    ]
    assert_found(status(), *faults)
    assert_healed(host, *faults)
    inject(host, "docker rm --force squatter")


def test_a_password_changed_in_one_place_and_a_clock_that_is_off(host: t.Any) -> None:
    redis = compose_remedy("restart redis")
    up = compose_remedy("up --detach")
    inject(
        host,
        f"""
        cp -p .env .env.before
        sed -i 's/^DB_PASSWORD=.*/DB_PASSWORD=ChangedByHand1/' .env
        docker compose up --detach --no-deps api
        docker compose exec -T redis redis-cli replicaof 127.0.0.1 1

        # All containers of a machine have one clock: only the program that looks sees this one.
        mkdir -p {TOMORROW}
        echo 'import time; now = time.time; time.time = lambda: now() + 86400' >{TOMORROW}/sitecustomize.py
        printf '#!/bin/sh\\nPYTHONPATH={TOMORROW} exec /usr/bin/python3 "$@"\\n' >{TOMORROW}/python3
        chmod 755 {TOMORROW}/python3
        """,
    )
    password = Fault(
        "database_refuses_password",
        f"Put the former DB_PASSWORD back into {DOCKER_PATH}/.env (dated copies lie beside it) and run {up}; "
        "to change it for good: ansible-playbook selfhost.dify.rotate_secrets -e secret=DB_PASSWORD",
        f"mv .env.before .env; {up}",
        "db_postgres",
    )
    writes = Fault(
        "redis_refuses_writes",
        f"It is a replica: make it the master again (REPLICAOF NO ONE); or as it was configured: {redis}",
        redis,
        "redis",
    )
    clock = Fault(
        "clock_skew",
        "timedatectl set-ntp true, after apt install systemd-timesyncd where there is none; then look at: timedatectl",
        "",
    )
    assert_found(status(ansible_python_interpreter=f"{TOMORROW}/python3"), password, writes, clock)
    assert_healed(host, password, writes)


def test_a_stopped_database_and_a_lost_profile(host: t.Any) -> None:
    database = compose_remedy("up --detach db_postgres")
    up = compose_remedy("up --detach")
    inject(
        host,
        """
        sed -i 's/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=postgresql,collaboration/' .env
        docker compose stop db_postgres
        docker rm --force dify-pgvector-1
        """,
    )
    dropped = Fault(
        "service_dropped",
        f"Add pgvector to COMPOSE_PROFILES in {DOCKER_PATH}/.env, then run: {up}; "
        f"or undo every edit of that file: {SITE} -e dify_env_drift=overwrite",
        f"sed -i 's/^COMPOSE_PROFILES=/&pgvector,/' .env; {up}",
        "pgvector",
    )
    stopped = Fault("service_stopped", database, database, "db_postgres")
    assert_found(status(), dropped, stopped)
    assert_healed(host, dropped, stopped)


def test_a_stopped_engine(host: t.Any) -> None:
    inject(host, "systemctl stop docker.socket docker.service")
    remedy = "systemctl start docker; if it does not stay up: journalctl --unit docker --lines 50"
    stopped = Fault("engine_down", remedy, "systemctl start docker")
    code, facts = status()
    assert_found((code, facts), stopped)
    assert errors(facts) == {"engine_down"}
    assert_healed(host, stopped)


def test_a_run_heals_what_configuration_can_heal(host: t.Any) -> None:
    inject(
        host,
        f"""
        {SQL} --command 'TRUNCATE dify_setups, accounts, tenants CASCADE'
        sed -i 's/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=postgresql,collaboration/' .env
        docker rm --force dify-pgvector-1 dify-sandbox-1
        docker stop dify-web-1
        chown --recursive root:root {STORAGE}
        printf 'services:\\n  redis:\\n    ports: ["6379:6379"]\\n' >opened.yaml
        export COMPOSE_FILE=docker-compose.yaml:docker-compose.override.yaml:opened.yaml
        docker compose up --detach --no-deps redis
        """,
    )
    opened = Fault(
        "port_open",
        f"Take it out of the Compose files, or allow it with dify_public_ports: [redis:6379]; then {SITE}",
        "",
        "redis",
    )
    faults = [
        Fault("service_missing", compose_remedy("up --detach sandbox"), "", "sandbox"),
        Fault("service_stopped", compose_remedy("up --detach web"), "", "web"),
        Fault("unclaimed", f"{SITE}; it claims the server for dify_admin_email", ""),
    ]
    seen = status()
    assert_found(seen, opened, *faults)
    assert {"service_dropped", "storage_owner"} <= errors(seen[1])

    # An edit of .env is kept, so the first run mends all but that, and says so without waiting for it to go away.
    refused = run_site({})
    assert refused.failed
    assert refused.message.startswith("The server is not well.\npgvector does not run"), refused.message
    wait(host, lambda found: found == {"service_dropped"}, "no other error")
    run = run_site({"dify_env_drift": "overwrite"})
    assert not run.failed, run.message
    again = run_site({})
    assert (again.failed, again.changed) == (False, 0), again.message
    code, facts = status()
    assert (code, errors(facts)) == (0, set()), facts["findings"]


def test_a_locked_owner_is_let_in_again(host: t.Any, server: Server) -> None:
    wrong, right = (
        {"email": server.email, "password": base64.b64encode(text.encode()).decode()}
        for text in ("Wrong-one-1", host.check_output("cat /root/.dify/owner_password").strip())
    )
    for _attempt in range(6):
        server.request("POST", "/console/api/login", wrong)
    assert server.request("POST", "/console/api/login", right).status != 200
    run = run_playbook("reset_owner", {})
    assert not run.failed, run.message
    secret = host.check_output("cat /root/.dify/owner_password").strip()
    assert secret not in run.output
    assert server.sign_in(secret)
