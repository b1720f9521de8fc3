# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server under test: reached over SSH as its operator does, and over HTTPS as its users do."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra
import yaml

PROJECT = Path(__file__).resolve().parents[1]
TESTBED = [sys.executable, str(PROJECT / "tests/testbed/testbed.py")]
DOCKER_PATH = "/opt/dify/docker"


class Answer(t.NamedTuple):
    """An HTTP answer; ``headers`` in order, names as sent."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> t.Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def cookies(self) -> dict[str, str]:
        pairs = [value.split(";")[0].split("=", 1) for key, value in self.headers if key.lower() == "set-cookie"]
        return {pair[0]: pair[1] for pair in pairs}


@dataclass(frozen=True)
class Server:
    """What the tests know of the server: how to reach it and what the scenario asked for."""

    address: str
    user: str
    private_key: str
    domain: str
    version: str
    email: str
    acme_root: str
    variables: dict[str, t.Any]

    def connection(self, scheme: str = "https") -> http.client.HTTPConnection:
        """A connection to the server's public port; HTTPS trusts nothing but the ACME server's root."""
        if scheme == "http":
            return http.client.HTTPConnection(self.address, 80, timeout=30)
        plain = http.client.HTTPSConnection(self.domain, 443, timeout=60, context=self.tls())
        plain._create_connection = lambda _name, *rest: socket.create_connection((self.address, 443), *rest)  # type: ignore[attr-defined]
        return plain

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.acme_root)

    def roots(self) -> list[str]:
        """The ACME server's roots as PEM, without its intermediates: those must come from the server."""
        context = self.tls()
        found = zip(context.get_ca_certs(), context.get_ca_certs(binary_form=True), strict=True)
        return [ssl.DER_cert_to_PEM_cert(body) for fields, body in found if fields["subject"] == fields["issuer"]]

    def request(
        self, method: str, path: str, body: t.Any = None, headers: dict[str, str] | None = None, scheme: str = "https"
    ) -> Answer:
        connection = self.connection(scheme)
        try:
            sent = {"Host": self.domain, **(headers or {})}
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
                sent["Content-Type"] = "application/json"
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def sign_in(self, password: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        """Headers of a signed-in session; ``headers`` are sent along when signing in."""
        encoded = tuple(int(part) for part in self.version.split("-")[0].split(".")) >= (1, 11, 2)
        secret = base64.b64encode(password.encode()).decode() if encoded else password
        body = {"email": self.email, "password": secret, "remember_me": True}
        answer = self.request("POST", "/console/api/login", body, headers)
        assert answer.status == 200, answer.body
        cookies = answer.cookies()
        csrf = next(value for name, value in cookies.items() if name.endswith("csrf_token"))
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "X-CSRF-Token": csrf}


class Run(t.NamedTuple):
    """How a playbook ended for a host: whether it failed, the failed task's message, the number of changed tasks.

    ``output``: all that the playbook said, of every host.
    """

    failed: bool
    message: str
    changed: int
    output: str


def run_site(variables: dict[str, t.Any]) -> Run:
    """Runs site.yml on the scenario's host with these variables on top."""
    return run_playbook("site", variables)


def run_at_once(playbook: str, cases: dict[str, dict[str, t.Any]], directory: Path) -> dict[str, Run]:
    """Runs a playbook once for several sets of variables, each as a host of its own name that is the scenario's host.

    For runs that change nothing: they are all on the host at the same time.
    """
    name = _read(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]))[0]["instance"]
    command = [_tool("ansible-inventory"), "-i", str(_ephemeral() / "inventory"), "--host", name]
    host = json.loads(subprocess.run(command, env=_environment(), capture_output=True, check=True).stdout)
    inventory = directory / "inventory.json"
    hosts = {case: {**host, **variables} for case, variables in cases.items()}
    inventory.write_text(json.dumps({"dify": {"hosts": hosts}}), encoding="utf-8")
    return _run(playbook, "-i", str(inventory), "--forks", "8")


def run_playbook(playbook: str, variables: dict[str, t.Any], *options: str) -> Run:
    """Runs a playbook of the collection on the scenario's host with these variables on top."""
    inventory = str(_ephemeral() / "inventory")
    return next(iter(_run(playbook, "-i", inventory, "-e", json.dumps(variables), *options).values()))


def playbook_command(playbook: str, variables: dict[str, t.Any], *options: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs a playbook of the collection on the scenario's host, and its environment."""
    inventory = str(_ephemeral() / "inventory")
    return _command(playbook, "-i", inventory, "-e", json.dumps(variables), *options), _environment()


def _ephemeral() -> Path:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(_ephemeral() / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_FORCE_COLOR": "false",
    }


def _command(playbook: str, *arguments: str) -> list[str]:
    return [_tool("ansible-playbook"), *arguments, str(PROJECT / f"playbooks/{playbook}.yml")]


def _run(playbook: str, *arguments: str) -> dict[str, Run]:
    done = subprocess.run(
        _command(playbook, *arguments), env=_environment(), capture_output=True, text=True, timeout=1800, check=False
    )
    report = json.loads(done.stdout[done.stdout.index("{") :])
    runs = {}
    for host, stats in report["stats"].items():
        results = [task["hosts"].get(host, {}) for play in report["plays"] for task in play["tasks"]]
        messages: list[str] = []
        for failed in (result for result in results if result.get("failed")):
            messages += [item["msg"] for item in failed.get("results", []) if item.get("failed")] or [failed["msg"]]
        broken = bool(stats["failures"] or stats["unreachable"])
        runs[host] = Run(broken, "\n".join(map(str, messages)), stats["changed"], done.stdout + done.stderr)
    return runs


def _read(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def server() -> Server:
    instance = _read(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]))[0]
    testbed = _read(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "testbed.json")
    variables = _read(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "host_vars" / f"{instance['instance']}.yml")
    defaults = _read(PROJECT / "roles/dify/defaults/main.yml")
    return Server(
        address=instance["address"],
        user=instance["user"],
        private_key=instance["identity_file"],
        domain=variables["dify_domain"],
        version=variables.get("dify_version", defaults["dify_version"]),
        email="owner@example.com",
        acme_root=testbed["acme_root"],
        variables=variables,
    )


@pytest.fixture(scope="session")
def host(server: Server) -> t.Any:
    """The host over SSH, as root through sudo."""
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    return testinfra.get_host(
        f"ssh://{server.user}@{server.address}",
        ssh_identity_file=server.private_key,
        ssh_extra_args=f"{options} -o ControlMaster=auto -o ControlPersist=60",
        sudo=True,
    )


@pytest.fixture(scope="session")
def password(server: Server, host: t.Any) -> str:
    """The owner's password: the scenario's, or the one generated on the host."""
    given = server.variables.get("dify_admin_password")
    return given or host.check_output("cat /root/.dify/owner_password").strip()


@pytest.fixture(scope="module")
def session(server: Server, password: str) -> dict[str, str]:
    return server.sign_in(password)


@pytest.fixture(scope="session")
def project(host: t.Any) -> dict[str, t.Any]:
    """The Compose project as Compose resolves it, with every profile."""
    text = host.check_output(f"cd {DOCKER_PATH} && docker compose --profile '*' config --format json")
    return t.cast("dict[str, t.Any]", json.loads(text))


@pytest.fixture(scope="session")
def environment(host: t.Any) -> dict[str, str]:
    """The settings in Dify's .env, as written."""
    lines = host.check_output(f"cat {DOCKER_PATH}/.env").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def neighbour_command(*command: str, image: str = "plain") -> list[str]:
    """What runs a command in another container on the host's network."""
    return [*TESTBED, "client", "--image", image, "--", *command]


@pytest.fixture(scope="session")
def neighbour() -> t.Callable[..., str]:
    """Runs a command in another container on the host's network and returns what it prints."""

    def run(*command: str, image: str = "plain", given: str = "") -> str:
        done = subprocess.run(
            neighbour_command(*command, image=image),
            input=given,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
