# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module as a program, the way a target does, against a server that replays recorded answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.selfhost.dify.plugins.modules import owner_account
from ansible_collections.selfhost.dify.tests.unit.recorded.replay import Replay, recorded

SECRET = "Passw0rd123"
FRESH = (
    recorded("1.12.1", "fresh instance", "GET", "setup"),
    recorded("1.12.1", "after setup", "GET", "setup"),
    recorded("1.12.1", "fresh instance, INIT_PASSWORD empty", "GET", "init"),
    recorded("1.12.1", "success", "POST", "setup"),
)


@pytest.fixture
def run(tmp_path):
    def run(**options):
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(
            [sys.executable, "-m", owner_account.__name__, str(arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr + done.stdout
        result = json.loads(done.stdout)
        assert done.returncode == int(result.get("failed", False))
        del result["invocation"]
        return result

    return run


def test_claim_with_a_password_made_on_the_host(run, tmp_path):
    path = tmp_path / "secrets" / "owner-password"
    with Replay(*FRESH) as replay:
        result = run(url=replay.url, email="Owner@Example.com", password_file=str(path), _ansible_diff=True)
    password = replay.asked_for("POST", "setup")[0].body["password"]
    assert path.read_text() == password + "\n"
    assert password not in json.dumps(result)
    assert result == {
        "changed": True,
        "step": "finished",
        "setup_at": "2026-11-22T02:37:34",
        "email": "owner@example.com",
        "password_file": str(path),
        "version": "1.12.1",
        "initialized": False,
        "diff": {
            "before": {"step": "not_started"},
            "after": {"step": "finished", "email": "owner@example.com", "name": "Dify owner"},
        },
    }


def test_check_mode_predicts_and_leaves_no_trace(run, tmp_path):
    path = tmp_path / "secrets" / "owner-password"
    with Replay(FRESH[0], FRESH[2]) as replay:
        result = run(url=replay.url, email="owner@example.com", password_file=str(path), _ansible_check_mode=True)
    assert (result["changed"], result["step"], result["password_file"]) == (True, "finished", str(path))
    assert not path.parent.exists()


def test_claimed_server_is_unchanged(run, tmp_path):
    with Replay(FRESH[1]) as replay:
        result = run(url=replay.url, email="owner@example.com", password_file=str(tmp_path / "none"))
    assert (result["changed"], result["initialized"], result["password_file"]) == (False, True, None)
    assert result["diff"]["before"] == result["diff"]["after"]


def test_validated_touches_nothing(run, tmp_path):
    path = tmp_path / "secrets" / "owner-password"
    with Replay() as replay:
        options = {"email": "owner@example.com", "password_file": str(path), "init_password": ""}
        result = run(url=replay.url, state="validated", **options)
    assert result == {"changed": False, "email": "owner@example.com", "password_file": None}
    assert replay.asked == []
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"password": "Sesam-offen"}, "password is refused by Dify"),
        ({"password": SECRET, "name": "N" * 31}, "name has 31 characters"),
        ({"password": SECRET, "storage_owner": "dify:dify"}, "storage_owner is 'dify:dify'"),
        ({"password": SECRET, "url": "127.0.0.1:3000"}, "url is '127.0.0.1:3000'"),
        ({"password": SECRET, "password_file": "/root/x"}, "mutually exclusive"),
        ({}, "one of the following is required: password, password_file"),
    ],
)
def test_bad_options_fail_before_anything_is_sent(run, options, message):
    with Replay() as replay:
        result = run(**{"url": replay.url, "email": "owner@example.com", **options})
    assert message in result["msg"]
    assert "Sesam-offen" not in result["msg"]
    assert replay.asked == []


@pytest.mark.parametrize("path", ["{tmp_path}/file/owner-password", "/proc/dify/owner-password"])
def test_file_that_cannot_be_made_is_told(run, tmp_path, path):
    (tmp_path / "file").write_text("")
    with Replay(*FRESH) as replay:
        result = run(url=replay.url, email="owner@example.com", password_file=path.format(tmp_path=tmp_path))
    assert result["failed"]
    assert not replay.asked_for("POST", "setup")
