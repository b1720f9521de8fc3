# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases other than the release's PostgreSQL, saved, lost and restored.

Dify itself is not needed for that: the project beside it, in its own directory and repository, says as Dify's does
where the databases are, and does nothing else. MySQL is Debian's MariaDB here, as everywhere in the testbed.
"""

from __future__ import annotations

import json
import typing as t

import pytest

HERE = "/srv/databases"
PROJECT = f"{HERE}/docker"

COMPOSE = """
x-idle: &idle
  image: busybox:1.37.0
  command: sleep infinity
  stop_grace_period: 0s
  networks: [default, databases]
  volumes: ["./tls:/tls:ro"]
services:
  api:
    <<: *idle
    environment: &database
      DB_TYPE: ${DB_TYPE}
      DB_HOST: ${DB_HOST}
      DB_PORT: ${DB_PORT:-}
      DB_USERNAME: ${DB_USERNAME}
      DB_PASSWORD: ${DB_PASSWORD}
      DB_DATABASE: dify
      DB_EXTRAS: ${DB_EXTRAS:-}
  plugin_daemon:
    <<: *idle
    environment:
      <<: *database
      DB_TYPE: ${PLUGIN_DB_TYPE:-mysql}
      DB_HOST: ${PLUGIN_DB_HOST:-db_mysql}
      DB_DATABASE: dify_plugin
      DB_EXTRAS: ""
  db_postgres:
    image: postgres:15-alpine
    profiles: [postgresql]
  db_mysql:
    image: mysql:8.0
    profiles: [mysql]
    environment: {MYSQL_ROOT_PASSWORD: "${DB_PASSWORD}", MYSQL_DATABASE: dify}
    command: [--innodb-buffer-pool-size=64M, "--max-allowed-packet=${PACKET:-64M}"]
    volumes: ["./volumes/mysql/data:/var/lib/mysql"]
    healthcheck: {test: [CMD, mysqladmin, ping, -uroot, "-p${DB_PASSWORD}"], interval: 1s, retries: 60}
networks:
  databases: {name: databases, external: true}
"""

PASSWORD = 'p$a"s`w\\o rd'  # a shell's, YAML's and SQL's own characters
INSIDE = {
    "COMPOSE_PROFILES": "mysql",
    "DB_TYPE": "mysql",
    "DB_HOST": "db_mysql",
    "DB_USERNAME": "root",
}
ELSEWHERE = {
    "DB_TYPE": "postgresql",
    "DB_HOST": "postgres.elsewhere",
    "DB_USERNAME": "dify",
    "DB_EXTRAS": "sslmode=verify-full&sslrootcert=/tls/ca.pem",
    "PLUGIN_DB_HOST": "mysql.elsewhere",
}

MYSQL = r"""
ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
SET foreign_key_checks = 0;
CREATE TABLE awkward (
  id INT PRIMARY KEY, body LONGTEXT, `od``d name` VARBINARY(40), bits BIT(9),
  twice INT GENERATED ALWAYS AS (id * 2) STORED, parent INT, at TIMESTAMP NULL, amount DECIMAL(30, 10), doc JSON,
  CONSTRAINT self FOREIGN KEY (parent) REFERENCES awkward (id)
);
INSERT INTO awkward (id, body, `od``d name`, bits, parent, at, amount, doc) VALUES
  (1, 'one\nINSERT INTO `awkward` VALUES (1);\n-- Dump completed\nDELIMITER ;;\n', 0x00ff0a0d275c, b'101010101', 2,
   '2026-11-22 01:02:03', 12345678901234567890.0123456789, '{"a": "\\u0000 \\" 😀"}'),
  (2, 'tab\t backslash \\ quote \' null \0 return \r end \Z 😀 资料', NULL, NULL, NULL, NULL, NULL, NULL),
  (0, '', '', b'0', NULL, '1970-01-02 00:00:00', -1, '[]');
CREATE TABLE `zero rows, and a ``name` (id INT PRIMARY KEY);
CREATE TABLE a_child (id INT PRIMARY KEY AUTO_INCREMENT, owner INT, FOREIGN KEY (owner) REFERENCES z_parent (id));
CREATE TABLE z_parent (id INT PRIMARY KEY, child INT);
INSERT INTO z_parent VALUES (1, 7), (2, NULL);
INSERT INTO a_child VALUES (7, 1), (900, 2);
ALTER TABLE z_parent ADD FOREIGN KEY (child) REFERENCES a_child (id);
CREATE TABLE z_large (id INT PRIMARY KEY, body LONGTEXT);
INSERT INTO z_large VALUES (1, REPEAT('0123456789abcdef', 130000));
INSERT INTO z_large
  WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, MD5(i) FROM n;
CREATE VIEW a_view AS SELECT id, body FROM awkward WHERE id > 0;
CREATE FUNCTION two() RETURNS INT DETERMINISTIC RETURN 2;
CREATE EVENT yearly ON SCHEDULE EVERY 1 YEAR DISABLE DO DELETE FROM z_parent WHERE id < 0;
DELIMITER ;;
CREATE TRIGGER noted AFTER DELETE ON a_child FOR EACH ROW BEGIN
INSERT INTO `z_parent` VALUES (OLD.id, NULL);
END;;
DELIMITER ;
"""
MYSQL_ROWS = {"awkward": 3, "zero rows, and a `name": 0, "a_child": 2, "z_parent": 2, "z_large": 900}

POSTGRESQL = r"""
CREATE EXTENSION "uuid-ossp";
CREATE TABLE awkward (
  id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), body text, bytes bytea,
  twice int GENERATED ALWAYS AS (number * 2) STORED, number int, doc jsonb, list text[]
);
INSERT INTO awkward (body, bytes, number, doc, list) VALUES
  (E'tab\t backslash \\ quote \' line\n\\.\nreturn \r 😀 资料', '\x00ff0a0d275c', 21, '{"a": "😀"}', '{a,NULL,"b,c"}'),
  (NULL, '', NULL, NULL, NULL);
CREATE TABLE "zero rows" (id int PRIMARY KEY);
CREATE TABLE a_child (id serial PRIMARY KEY, of int);
CREATE TABLE z_parent (id int PRIMARY KEY, child int REFERENCES a_child);
ALTER TABLE a_child ADD FOREIGN KEY (of) REFERENCES z_parent;
INSERT INTO z_parent VALUES (1, NULL);
INSERT INTO a_child VALUES (7, 1);
UPDATE z_parent SET child = 7;
CREATE VIEW a_view AS SELECT body FROM awkward;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER noted AFTER INSERT ON a_child FOR EACH ROW EXECUTE FUNCTION noted();
COMMENT ON TABLE awkward IS 'Übersicht';
SELECT lo_from_bytea(4711, '\x00ff00ff');
"""
POSTGRESQL_ROWS = {"public.awkward": 2, "public.zero rows": 0, "public.a_child": 1, "public.z_parent": 1}

CHECKSUMS = """
SELECT CONCAT('CHECKSUM TABLE `', REPLACE(table_name, '`', '``'), '`;') FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' ORDER BY table_name
"""


RESTIC = (
    f"RESTIC_PASSWORD_FILE=/etc/selfhost-dify-backup/password restic -r {HERE}/repository --cache-dir {HERE}/cache_path"
)


# MySQL's own image writes a binary log, and then lets only administrators make triggers.
OTHERS = "--log-bin-trust-function-creators=1"


class Beside:
    """The project beside Dify's, and the servers of its databases."""

    def __init__(self, host: t.Any) -> None:
        self.host = host

    def sh(self, script: str, given: str = "") -> str:
        """What a script prints, given something to read."""
        done = self.host.run("printf %%s %s | sh -ec %s", given, script)
        assert done.rc == 0, done.stderr
        return t.cast("str", done.stdout)

    def write(self, path: str, text: str) -> None:
        self.sh(f"cat >{path}", text)

    def settings(self, **settings: str) -> None:
        lines = [f"{name}='{value}'" for name, value in settings.items()]
        self.write(f"{PROJECT}/.env", "\n".join(lines) + "\n")

    def compose(self, words: str) -> None:
        self.sh(f"cd {PROJECT} && docker compose {words}")

    def lose(self) -> None:
        self.compose("down --timeout 0")
        self.sh(f"rm -rf {PROJECT}/volumes {PROJECT}/.env")

    def program(self, words: str, environment: str = "") -> t.Any:
        return self.host.run(f"env {environment} dify-backup --config {HERE}/config.json {words}")

    def good(self, words: str) -> dict[str, t.Any]:
        done = self.program(words)
        assert done.rc == 0, done.stderr
        return t.cast("dict[str, t.Any]", json.loads(done.stdout))

    def bad(self, words: str, environment: str = "") -> str:
        done = self.program(words, environment)
        assert done.rc == 1, done.stdout
        return t.cast("str", done.stderr)

    def await_mysql(self, container: str) -> None:
        """By its address: over its socket also the server answers that only makes the data directory."""
        self.sh(f"until docker exec {container} mysqladmin -h127.0.0.1 ping >/dev/null 2>&1; do sleep 0.2; done")

    def mysql(self, container: str, database: str, text: str, user: str = "root") -> str:
        words = f"docker exec -i --env MYSQL_PWD {container} mysql -h127.0.0.1 -u{user} -BN --binary-mode {database}"
        return self.sh(f"{self.key} {words}", text)

    def mysql_truth(self, container: str, database: str) -> list[str]:
        """All of a database, by its server's own checksums and as text."""
        sums = self.mysql(container, database, self.mysql(container, database, CHECKSUMS))
        words = f"mysqldump -h127.0.0.1 -uroot --skip-dump-date --routines --events --hex-blob {database}"
        text = self.sh(f"{self.key} docker exec --env MYSQL_PWD {container} {words}")
        # Of columns that were made with their collation alone MySQL does not say this.
        return (sums + text.replace(" CHARACTER SET utf8mb4 COLLATE", " COLLATE")).splitlines()

    def postgresql(self, database: str, text: str) -> str:
        return self.sh(f"docker exec -i databases-postgresql psql -qAtXU dify -v ON_ERROR_STOP=1 {database}", text)

    def postgresql_truth(self, database: str) -> list[str]:
        text = self.sh(f"docker exec databases-postgresql pg_dump -U dify {database}")
        return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]

    @property
    def key(self) -> str:
        """A shell's assignment of the password."""
        return f"MYSQL_PWD='{PASSWORD}'"


@pytest.fixture(scope="module")
def beside(host: t.Any) -> t.Iterator[Beside]:
    beside = Beside(host)
    written = json.loads(host.check_output("cat /etc/selfhost-dify-backup/config.json"))
    own = {name: f"{HERE}/{name}" for name in ("state_path", "cache_path", "repository")}
    none = {
        "paths": [],
        "edge_paths": [],
        "edge_volumes": [],
        "alert_command": [],
        "textfile_path": "",
        "restic_options": [],
    }
    beside.sh(f"mkdir -p {PROJECT}/tls {own['state_path']}; git init -q {HERE}; docker network create databases")
    config = {**written, **own, **none, "name": "databases", "project_path": PROJECT, "environment_file": ""}
    beside.write(f"{HERE}/config.json", json.dumps(config))
    beside.write(f"{PROJECT}/docker-compose.yaml", COMPOSE)
    beside.sh(f"cd {HERE}; git add docker; git -c user.name=x -c user.email=x commit -qm x")
    beside.good("init")
    yield beside
    beside.sh("docker rm -fv databases-postgresql databases-mysql >/dev/null 2>&1 || true")
    beside.sh(f"cd {PROJECT}; docker compose --profile '*' down -v --timeout 0 || true; docker network rm databases")
    beside.sh(f"rm -rf {HERE}")


def test_mysql_of_the_project(beside: Beside) -> None:
    beside.settings(**INSIDE, DB_PASSWORD=PASSWORD)
    server = "docker-db_mysql-1"
    beside.compose("up --detach --wait --quiet-pull")
    beside.await_mysql(server)
    beside.mysql(server, "", "CREATE DATABASE dify_plugin;")
    beside.mysql(server, "dify", MYSQL)
    beside.mysql(server, "dify_plugin", "CREATE TABLE plugins (id INT PRIMARY KEY); INSERT INTO plugins VALUES (1);")

    def truth() -> list[str]:
        return beside.mysql_truth(server, "dify") + beside.mysql_truth(server, "dify_plugin")

    before = truth()

    beside.good("backup")
    parts = beside.good("show")["parts"]
    assert parts["database-dify"]["rows"] == MYSQL_ROWS
    assert parts["database-dify_plugin"]["rows"] == {"plugins": 1}

    # mysqldump waits for a table of the last database until it is killed.
    ask = f"{beside.key} docker exec --env MYSQL_PWD {server} mysql -h127.0.0.1 -uroot dify_plugin -e"
    beside.sh(
        f"""
        {ask} 'LOCK TABLES plugins WRITE; DO SLEEP(600)' >/dev/null 2>&1 &
        until {ask} 'SHOW PROCESSLIST' | grep -q 'DO SLEEP'; do sleep 0.1; done
        dify-backup --config {HERE}/config.json backup >{HERE}/said 2>&1 &
        backup=$!
        until docker exec {server} pkill -9 -f 'dump.* dify_plugin$'; do sleep 0.1; done
        ! wait $backup
        """
    )
    assert "failed with 137" in beside.sh(f"cat {HERE}/said")
    assert len(json.loads(beside.sh(f"{RESTIC} snapshots --json --tag part=database-dify_plugin"))) == 1

    # Half of it fits, then a row does not: the restore goes on where it was cut short.
    beside.lose()
    assert "max_allowed_packet" in beside.bad("restore", "PACKET=1M")
    assert beside.good("restore")["rows"] == {"dify": sum(MYSQL_ROWS.values()), "dify_plugin": 1}
    assert truth() == before

    beside.settings(**INSIDE, DB_PASSWORD="wrong")
    assert "Access denied" in beside.bad("backup")
    beside.lose()


CERTIFICATES = f"""
cd {PROJECT}/tls
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=ca -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=postgres.elsewhere -keyout key.pem -out csr.pem 2>/dev/null
openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -days 1 -out cert.pem 2>/dev/null
chown 70 key.pem; chmod 0600 key.pem
"""


def test_databases_elsewhere(beside: Beside) -> None:
    beside.sh(CERTIFICATES)
    run = f"docker run --detach --network databases --volume {PROJECT}/tls:/tls:ro --env PASSWORD"
    tls = "-c ssl=on -c ssl_cert_file=/tls/cert.pem -c ssl_key_file=/tls/key.pem"
    postgresql = f"{run} --name databases-postgresql --network-alias postgres.elsewhere --env POSTGRES_PASSWORD=x"
    beside.sh(f"{postgresql} postgres:15-alpine {tls}")
    mysql = f"{run} --name databases-mysql --network-alias mysql.elsewhere --env MYSQL_ROOT_PASSWORD mysql:8.0 {OTHERS}"
    beside.sh(beside.key.replace("MYSQL_PWD", "MYSQL_ROOT_PASSWORD") + " " + mysql)
    beside.sh("until docker exec databases-postgresql pg_isready -qh 127.0.0.1; do sleep 0.2; done")
    beside.await_mysql("databases-mysql")
    escaped = PASSWORD.replace("\\", "\\\\")
    create = f"CREATE ROLE dify LOGIN CREATEDB PASSWORD '{PASSWORD}'; CREATE DATABASE dify OWNER dify;"
    beside.sh("docker exec -i databases-postgresql psql -qU postgres", create)
    beside.mysql(
        "databases-mysql",
        "",
        f"CREATE USER dify IDENTIFIED BY '{escaped}'; CREATE DATABASE dify_plugin; GRANT ALL ON dify_plugin.* TO dify;",
    )
    beside.postgresql("dify", POSTGRESQL)
    beside.mysql("databases-mysql", "dify_plugin", MYSQL, "dify")

    def truth() -> list[str]:
        return beside.postgresql_truth("dify") + beside.mysql_truth("databases-mysql", "dify_plugin")

    before = truth()
    beside.settings(**ELSEWHERE, DB_PASSWORD=PASSWORD)
    beside.good("backup --mode cold")
    parts = beside.good("show")["parts"]
    assert parts["database-dify"]["rows"] == POSTGRESQL_ROWS
    assert parts["database-dify_plugin"]["rows"] == MYSQL_ROWS
    assert not [name for name in parts if name.startswith("roles")]

    # What is there is not touched. The first database is filled already when the second one is refused.
    beside.lose()
    beside.sh("docker exec databases-postgresql dropdb -U dify dify")
    assert "dify_plugin at mysql.elsewhere:3306 is not empty" in beside.bad("restore")
    assert truth() == before
    beside.mysql("databases-mysql", "", "DROP DATABASE dify_plugin;")
    beside.good("restore")
    assert truth() == before

    beside.settings(**{**ELSEWHERE, "DB_EXTRAS": "sslmode=verify-full&sslrootcert=/tls/cert.pem"}, DB_PASSWORD=PASSWORD)
    assert "certificate" in beside.bad("backup")
    assert beside.sh("docker ps --all --quiet --filter name=docker-backup-") == ""
