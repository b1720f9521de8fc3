# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics in Prometheus' text format, and the program that a timer runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml
from ansible_collections.selfhost.dify.plugins.module_utils import _instance_metrics
from ansible_collections.selfhost.dify.plugins.module_utils._instance import Finding

ROOT = Path(__file__).resolve().parents[4]
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')
FACTS = {
    "release": {"checked_out": "1.16.1", "commit": "6f8e"},
    "services": {
        "api": {"expected": True, "one_shot": False, "state": "running", "restarts": 2},
        "worker": {"expected": True, "one_shot": False, "state": "missing", "restarts": 0},
        "old": {"expected": False, "one_shot": False, "state": "exited", "restarts": 0},
        "init_permissions": {"expected": True, "one_shot": True, "state": "exited", "restarts": 0},
    },
    "certificate": {"expires": 1795478400.0, "days_left": 60},
    "backup": {"last_success": 1795373950.5},
    "storage": [{"path": '/srv/"a\\b', "wrong": 3}],
    "logs_bytes": 1,
    "images_unused_bytes": 2,
}


def parse(text: str) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found.setdefault(match[1], []).append((match[2] or "", float(match[3])))
    return found


def test_metrics() -> None:
    findings = [Finding("worker_silent", "s", "r", "worker"), Finding("release_newer", "s", "r")]
    found = parse(_instance_metrics.metrics(FACTS, findings, 1795000000.5, 1.25))
    assert found["dify_healthy"] == [("", 0)]
    assert found["dify_finding"] == [
        ('id="worker_silent",severity="error",service="worker"', 1),
        ('id="release_newer",severity="info",service=""', 1),
    ]
    assert found["dify_service_running"] == [('service="api"', 1), ('service="worker"', 0)]
    assert found["dify_release_info"] == [('version="1.16.1",commit="6f8e"', 1)]
    assert found["dify_certificate_expires_timestamp_seconds"] == [("", 1795478400)]
    assert found["dify_backup_last_success_timestamp_seconds"] == [("", 1795373950.5)]
    assert found["dify_storage_wrong_owner_entries"] == [('path="/srv/\\"a\\\\b"', 3)]
    assert found["dify_status_timestamp_seconds"] == [("", 1795000000.5)]
    assert set(found) == set(_instance_metrics.HELP)


def test_nothing_was_there_to_see() -> None:
    found = parse(_instance_metrics.metrics({}, [Finding("not_installed", "s", "r")], 1.0, 0.0))
    assert found["dify_healthy"] == [("", 0)]
    assert parse(_instance_metrics.metrics({}, [], 1.0, 0.0))["dify_healthy"] == [("", 1)]


def test_the_program(tmp_path: Path) -> None:
    """As the role installs it: the private utils alone, and no Ansible."""
    options = {"path": "/nonexistent", "url": "http://127.0.0.1:1", "domain": "", "https_port": 443, "owners": []}
    options |= {"secrets": {}, "public_ports": [], "reference_time": None, "timeout": 2}
    (tmp_path / "options.json").write_text(json.dumps(options))
    package = "ansible_collections/selfhost/dify/plugins/module_utils"
    (tmp_path / package).mkdir(parents=True)
    utils = yaml.safe_load((ROOT / "roles/dify/vars/main.yml").read_text(encoding="utf-8"))["__dify_monitoring_utils"]
    for name in utils:
        (tmp_path / package / name).write_text((ROOT / "plugins/module_utils" / name).read_text(encoding="utf-8"))
    words = [sys.executable, "-I", "-S", "-c", PROGRAM, str(tmp_path), str(tmp_path / "dify.prom")]
    subprocess.run(words, check=True, env={"PATH": os.environ["PATH"]})
    assert parse((tmp_path / "dify.prom").read_text())["dify_healthy"] == [("", 0)]
    assert not (tmp_path / "dify.prom.partial").exists()


PROGRAM = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv = ["metrics", sys.argv[1] + "/options.json", sys.argv[2]]
runpy.run_module("ansible_collections.selfhost.dify.plugins.module_utils._instance_metrics", run_name="__main__")
"""


def test_examples_name_metrics_that_are_written() -> None:
    examples = ROOT / "examples/monitoring"
    rules = yaml.safe_load((examples / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    board: dict[str, t.Any] = json.loads((examples / "dashboard.json").read_text(encoding="utf-8"))
    asked = [rule["expr"] for group in rules for rule in group["rules"]]
    asked += [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(asked) > 5
    assert {name for expression in asked for name in re.findall(r"dify_[a-z_]+", expression)} <= set(
        _instance_metrics.HELP
    )
