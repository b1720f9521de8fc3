# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role dify: what a choice of vector store, database, Redis and storage comes to, for every stand-in release."""

from __future__ import annotations

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
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.selfhost.dify.plugins.module_utils import _compose, _dotenv, _services
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


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    init_plugin_loader([str(PROJECT / ".collections")])


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


class Role:
    """The role's variables for a release that is checked out, and what its tasks would do with them."""

    def __init__(self, path: Path, version: str, **variables: t.Any) -> None:
        self.docker = path / "docker"
        loader = DataLoader()
        scope: dict[str, t.Any] = {}
        for part in ("defaults/main.yml", "vars/main.yml", "vars/stores.yml"):
            scope |= loader.load_from_file(str(ROLE / part), trusted_as_template=True)
        compose = yaml.safe_load((self.docker / "docker-compose.yaml").read_text())
        example = _dotenv.assignments((self.docker / ".env.example").read_text())
        scope |= {
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
        self.templar = Templar(loader=loader, variables={**scope, **variables})

    def value(self, name: str) -> t.Any:
        return self.templar.template(trust_as_template("{{ " + name + " }}"))

    def task(self, file: str, module: str) -> dict[str, t.Any]:
        """Arguments of a task, as Ansible hands them to the module."""
        tasks = DataLoader().load_from_file(str(ROLE / "tasks" / file), trusted_as_template=True)
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
