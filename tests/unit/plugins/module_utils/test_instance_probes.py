# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a server is looked at: nothing hangs, nothing is raised, nothing is changed."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import socket
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _instance_probes as probes

OPTIONS = probes.Options(
    path="/nonexistent",
    url="http://127.0.0.1:1",
    domain="",
    https_port=443,
    owners=[],
    secrets={"DB_PASSWORD": "db_postgres"},
    public_ports=[],
    reference_time=None,
    timeout=2,
)
# Says what a healthy engine says of a project that nobody has started.
DOCKER = """#!/bin/sh
case "$*" in
  *config*) echo '{"name": "dify", "services": {"api": {"image": "langgenius/dify-api:1.16.1"}}}' ;;
  info*) printf '28.2.2\n/\n\n' ;;
esac
"""


def ids(path: Path, **changes: t.Any) -> list[str]:
    _facts, findings, _hidden = probes.look(OPTIONS._replace(path=str(path), **changes))
    return [one.id for one in findings]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, and a command docker of the test's own first on the path."""
    docker = tmp_path / "docker"
    docker.mkdir()
    (docker / "docker-compose.yaml").write_text("services: {api: {image: langgenius/dify-api:1.16.1}}")
    (docker / ".env.example").write_text("LOG_LEVEL=INFO\nDB_PASSWORD=difyai123456\n")
    (docker / ".env").write_text("LOG_LEVEL=DEBUG\nDB_PASSWORD=hidden-from-everybody\n")
    (docker / ".env.applied").write_text("LOG_LEVEL=INFO\nDB_PASSWORD=hidden-from-everybody\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    engine(tmp_path, DOCKER)
    return docker


def engine(tmp_path: Path, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin/docker").write_text(script)
    (tmp_path / "bin/docker").chmod(0o755)


def test_nothing_is_there() -> None:
    assert ids(Path("/nonexistent")) == ["not_installed"]


def test_no_docker(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert ids(release) == ["engine_missing"]


@pytest.mark.parametrize(
    "script",
    [
        "echo 'Cannot connect to the Docker daemon at unix:///run/docker.sock.' >&2; exit 1",
        "printf '\\n\\nCannot connect to the Docker daemon. Is it running? \\n'",  # docker info up to Docker 27
    ],
)
def test_the_engine_is_stopped(script: str, release: Path, tmp_path: Path) -> None:
    engine(tmp_path, f"#!/bin/sh\n{script}\n")
    _facts, findings, _hidden = probes.look(OPTIONS._replace(path=str(release)))
    assert findings[0].id == "engine_down"
    assert "Cannot connect to the Docker daemon" in findings[0].seen
    assert findings[0].remedy.startswith("systemctl start docker")


def test_the_engine_hangs(release: Path, tmp_path: Path) -> None:
    engine(tmp_path, "#!/bin/sh\nexec sleep 60\n")
    begun = time.monotonic()
    assert ids(release)[0] == "engine_down"
    assert time.monotonic() - begun < 30


def test_nobody_started_it(release: Path) -> None:
    facts, findings, hidden = probes.look(OPTIONS._replace(path=str(release)))
    assert {"service_missing", "env_drift", "release_newer"} == {one.id for one in findings}
    assert facts["services"]["api"]["state"] == "missing"
    assert facts["environment"] == {"edited": ["LOG_LEVEL"], "public_secrets": []}
    assert hidden == {"hidden-from-everybody"}


def test_compose_cannot_read_it(release: Path, tmp_path: Path) -> None:
    engine(tmp_path, DOCKER.replace("*config*) echo", "*config*) echo 'no such file' >&2; exit 14; echo"))
    assert "project_unreadable" in ids(release)


def test_a_broken_env_file(release: Path) -> None:
    (release / ".env").write_text("LOG_LEVEL='never closed\n")
    assert {"project_unreadable", "probe_failed"} <= set(ids(release))


def test_a_public_secret_of_a_service_that_runs(release: Path, tmp_path: Path) -> None:
    (release / ".env").write_text("DB_PASSWORD=difyai123456\n")
    assert "public_secrets" not in ids(release)
    assert "public_secrets" in ids(release, secrets={"DB_PASSWORD": "api"})


def test_no_certificate_is_served(release: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "certificate_unreachable" in ids(release, domain="dify.example.com", https_port=port)


def test_backups(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, state = tmp_path / "lock", tmp_path / "state.json"
    monkeypatch.setattr(probes, "BACKUP_LOCK", str(lock))
    monkeypatch.setattr(probes, "BACKUP_STATE", str(state))
    found = {"backup_failed", "backup_old"}
    assert not found & set(ids(release))
    state.write_text('{"backup": {"succeeded": 1000.0, "success": false, "message": "it was cut short"}}')
    assert found <= set(ids(release))
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert found & set(ids(release)) == {"backup_old"}
        assert probes.look(OPTIONS._replace(path=str(release)))[0]["backup"]["running"]


def test_the_clock(release: Path) -> None:
    assert "clock_skew" not in ids(release, reference_time=time.time())
    assert "clock_skew" in ids(release, reference_time=time.time() - 86400)


def test_all_at_once() -> None:
    """One that fails and one that hangs keep nothing from the others."""
    hang = threading.Event()

    def fails() -> None:
        raise ZeroDivisionError("nobody expects this")

    begun = time.monotonic()
    found = probes.together({"well": lambda: 1, "fails": fails, "hangs": lambda: hang.wait(60)}, 0.5)
    assert time.monotonic() - begun < 30
    hang.set()
    assert found["well"][:2] == (1, None)
    assert str(found["fails"][1]) == "nobody expects this"
    assert str(found["hangs"][1]) == "no answer within 0.5 seconds"


def test_command() -> None:
    assert probes.command(["echo", "a"], 5) == "a\n"
    for words, said in (
        (["sh", "-c", "echo one >&2; echo two >&2; exit 3"], "two"),
        (["false"], "exit code 1"),
        (["/nonexistent"], "/nonexistent is not on this host"),
        (["sleep", "60"], "sleep 60 did not end within 0.2 seconds"),
    ):
        with pytest.raises(probes.ProbeError) as caught:
            probes.command(words, 0.2 if words[0] == "sleep" else 5)
        assert str(caught.value) == said


class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"path": self.path, "key": self.headers["X-Api-Key"], "body": json.loads(body)}).encode()
        self.send_response(418)
        self.send_header("X-Version", "1.16.1")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: t.Any) -> None:
        pass


def test_ask() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/run?a=b"
        answer = probes.ask(url, 5, {"X-Api-Key": "k"}, {"code": 1})
    assert answer == probes.Answer(418, "1.16.1", {"path": "/v1/run?a=b", "key": "k", "body": {"code": 1}})


def test_walk(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    own = {"service": "api", "owner": os.getuid(), "group": os.getgid()}
    row = probes.walk(str(tmp_path), own, 5)
    assert (row["examined"], row["wrong"], row["complete"], row["missing"]) == (4, 0, True, False)
    row = probes.walk(str(tmp_path), {**own, "owner": 4711}, 5)
    assert (row["wrong"], len(row["sample"])) == (4, 3)
    assert (tmp_path / "a/b/file").stat().st_uid == os.getuid()
    assert probes.walk(str(tmp_path), own, -1)["complete"] is False
    assert probes.walk(str(tmp_path / "none"), own, 5)["missing"] is True


def test_file_systems(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = probes.file_systems([str(tmp_path), str(tmp_path / "a"), str(tmp_path / "none"), "/proc"])
    assert len(found) == 2
    disk = next(disk for disk in found if str(tmp_path) in disk["volumes"])
    assert disk["volumes"] == [str(tmp_path), str(tmp_path / "a")]
    assert os.path.ismount(disk["mount"])
    assert 0 < disk["used_percent"] <= 100
