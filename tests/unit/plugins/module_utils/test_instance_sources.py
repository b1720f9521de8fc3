# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of the output of real tools: recorded ones of Docker, and Compose itself in every version found here."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from ansible_collections.selfhost.dify.plugins.module_utils import _instance_sources as sources
from ansible_collections.selfhost.dify.tests.unit.data.composes import every_compose

PROJECT = Path(__file__).resolve().parents[4]
RECORDED = PROJECT / "tests/unit/recorded"
sys.path.insert(0, str(PROJECT / "tests" / "testbed" / "upstream"))

import build  # noqa: E402

INSPECTED = sorted(RECORDED.glob("docker-inspect-compose-*.json"))
NAMES = {release.version: release for release in build.releases()}


def resolve(binary: Path, version: str, directory: Path, **changes: str) -> sources.Project:
    """The project of one of the testbed's releases as this Compose resolves it."""
    for name, (_mode, text) in build.files(NAMES[version]).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    docker = directory / "docker"
    text = (docker / ".env.example").read_text(encoding="utf-8")
    text += "".join(f"\n{key}={value}" for key, value in changes.items()) + "\n"
    (docker / ".env").write_text(text, encoding="utf-8")
    words = ["--project-directory", str(docker), "--profile", "*", "config", "--format", "json"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run([binary, *words], env=environment, capture_output=True, text=True, check=False, cwd=docker)
    assert done.returncode == 0, done.stderr
    return sources.project(done.stdout, _dotenv.resolve(text))


@every_compose
@pytest.mark.parametrize("version", ["1.10.1", "1.12.1", "1.16.1"])
def test_project(binary: Path, version: str, tmp_path: Path) -> None:
    project = resolve(binary, version, tmp_path)
    assert {"api", "worker", "web", "nginx", "redis", "sandbox", "db_postgres", "weaviate"} <= project.active
    assert not {"db_mysql", "qdrant", "milvus-standalone", "certbot"} & project.active
    assert project.dropped == {}
    assert project.services["api"].image == f"langgenius/dify-api:{version}"
    assert "/app/api/storage" in {target for _source, target in project.services["api"].binds}
    assert ("api_websocket" in project.active) == (version == "1.16.1")
    assert {name for name in project.active if project.services[name].one_shot} == (
        set() if version == "1.10.1" else {"init_permissions"}
    )


@every_compose
def test_a_profile_that_got_lost(binary: Path, tmp_path: Path) -> None:
    project = resolve(binary, "1.16.1", tmp_path, COMPOSE_PROFILES="postgresql")
    assert project.dropped == {"weaviate": "weaviate", "api_websocket": "collaboration"}
    project = resolve(binary, "1.16.1", tmp_path, COMPOSE_PROFILES="weaviate,collaboration")
    assert project.dropped == {"db_postgres": "postgresql"}


@every_compose
def test_services_of_ones_own_are_not_missed(binary: Path, tmp_path: Path) -> None:
    own = {"DB_HOST": "db.example.com", "WEAVIATE_ENDPOINT": "https://vectors.example.com"}
    assert resolve(binary, "1.16.1", tmp_path, COMPOSE_PROFILES="collaboration", **own).dropped == {}


@pytest.mark.parametrize("path", INSPECTED, ids=lambda path: path.stem[-6:])
def test_containers(path: Path) -> None:
    found = sources.containers(path.read_text(encoding="utf-8"))
    assert set(found) == {"redis", "worker", "sandbox", "init_permissions"}
    redis = found["redis"]
    assert (redis.state, redis.health, redis.running, redis.restarts) == ("running", "healthy", True, 0)
    assert redis.environment["REDISCLI_AUTH"] == "example-password"
    assert ("127.0.0.1", "16379", "6379") in redis.ports
    assert ("0.0.0.0", "16380", "6380") in redis.ports
    assert redis.address.count(".") == 3
    assert redis.started > 1.7e9
    worker = found["worker"]
    assert worker.restarts >= 3
    # Between two starts Docker calls it restarting, and running for the moment that it takes to end again.
    assert (worker.state, worker.exit_code, bool(worker.address)) in [("restarting", 3, False), ("running", 0, True)]
    assert (found["sandbox"].state, found["sandbox"].exit_code) == ("exited", 137)


def test_there_are_recordings_of_every_generation_of_compose() -> None:
    assert [path.stem[-6:] for path in INSPECTED] == ["2.26.1", "2.40.3", "-5.6.1"]


def test_of_several_containers_the_one_that_is_worst_off_counts() -> None:
    rows = json.loads(INSPECTED[0].read_text(encoding="utf-8"))
    worker = next(row for row in rows if row["Name"] == "/dify-worker-1")
    worker["State"]["Status"] = "restarting"
    well = json.loads(json.dumps(worker))
    well["State"]["Status"] = "running"
    one_off = json.loads(json.dumps(worker))
    one_off["Config"]["Labels"]["com.docker.compose.oneoff"] = "True"
    for order in ([worker, well, one_off], [well, worker], [one_off, well, worker]):
        assert sources.containers(json.dumps(order))["worker"].state == "restarting"


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("langgenius/dify-api:1.16.1", "1.16.1"),
        ("registry.example.com:5000/langgenius/dify-api", ""),
        ("registry.example.com:5000/dify-api:1.10.1-fix.1@sha256:0a", "1.10.1-fix.1"),
        ("nginx", ""),
    ],
)
def test_tag(image: str, tag: str) -> None:
    assert sources.tag(image) == tag


def test_checked_out() -> None:
    text = build.files(NAMES["1.12.1"])["docker/docker-compose.yaml"][1]
    assert sources.checked_out(text) == "1.12.1"
    assert sources.checked_out("services: {}") == ""


def test_revisions() -> None:
    text = "\n".join(
        [
            "revision = 'a1'\ndown_revision = None",
            "revision = \"b1\"\ndown_revision = 'a1'",
            "revision = 'b2'\ndown_revision = 'a1' # HEAD OF PLUGIN BRANCH",
            "revision: str = 'c1'\ndown_revision: Union[str, None] = ('b1', 'b2')",
        ]
    )
    assert sources.revisions(text) == ({"a1", "b1", "b2", "c1"}, {"c1"})
    assert sources.revisions("") == (set(), set())


def test_listening() -> None:
    ipv4 = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
        "   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
        "   2: 0200000A:0016 0100000A:C350 01 00000000:00000000 00:00000000 00000000     0\n"
    )
    ipv6 = (
        "  sl  local_address                         remote_address                        st tx_queue rx_queue\n"
        "   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000\n"
        "   1: 00000000000000000000000001000000:14EB 00000000000000000000000000000000:0000 0A 00000000:00000000\n"
        "   2: 0000000000000000FFFF00000100007F:0BB9 00000000000000000000000000000000:0000 0A 00000000:00000000\n"
    )
    assert sources.listening(ipv4) == {("127.0.0.1", 3000), ("0.0.0.0", 22)}
    assert sources.listening(ipv6) == {("::", 443), ("::1", 5355), ("::ffff:127.0.0.1", 3001)}
    found = sources.listening(ipv4) | sources.listening(ipv6)
    assert {port for address, port in found if not sources.is_loopback(address)} == {22, 443}


@pytest.mark.parametrize(("days", "kind"), [("20", "UTC"), ("20000", "generalized")])
def test_validity(days: str, kind: str, tmp_path: Path) -> None:
    """Certificates of OpenSSL's making; from 2050 on their times are written in another way."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", days, "-subj", "/CN=dify.example.com", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    first, last = sources.validity(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    assert last - first == int(days) * 86400
    assert 0 <= certificate.stat().st_mtime - first < 60


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x03abc", b"not a certificate at all"])
def test_no_certificate(der: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        sources.validity(der)


def test_last_complaint() -> None:
    log = "starting\npsycopg: FATAL:  password authentication failed\n  retry in 3 s\n\n"
    assert sources.last_complaint(log) == "psycopg: FATAL:  password authentication failed"
    assert sources.last_complaint("one\ntwo\n") == "two"
    assert sources.last_complaint("\n") == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("2026-11-22T10:00:00.5Z", 1795341600), ("0001-01-01T00:00:00Z", 0), ("", 0)]
)
def test_moment(text: str, seconds: int) -> None:
    assert sources.moment(text) == seconds
