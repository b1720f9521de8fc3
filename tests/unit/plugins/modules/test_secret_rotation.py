# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old and new value are written down once, for root alone, and never shown."""

from __future__ import annotations

import base64
import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selfhost.dify.plugins.modules import dotenv, secret_rotation

ENVIRONMENT = """\
DB_PASSWORD=old-password
REDIS_PASSWORD=public
CELERY_BROKER_URL=redis://:public@redis:6379/1
TOKEN=
"""

Run = t.Callable[..., "dict[str, t.Any]"]


def run_module(module: t.Any, capsys: pytest.CaptureFixture[str], options: dict[str, t.Any]) -> dict[str, t.Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(ENVIRONMENT)
    return path


@pytest.fixture
def rotate(env: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def module(key: str, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        options = {"_ansible_check_mode": check, "service": "redis", "also": [key], **options}
        return run_module(secret_rotation, capsys, {"path": str(env), "key": key, **options})

    return module


def lines(env: Path) -> list[str]:
    return Path(f"{env}.rotation").read_text().splitlines()


def test_check_run_and_run_again(rotate: Run, env: Path) -> None:
    check = rotate("DB_PASSWORD", check=True)
    assert not Path(f"{env}.rotation").exists()
    first = rotate("DB_PASSWORD")
    assert (check["changed"], first["changed"], first["resumed"], first["empty"]) == (True, True, False, False)
    key, old, new = lines(env)
    assert (key, old, len(new)) == ("DB_PASSWORD", "old-password", 48)
    assert Path(f"{env}.rotation").stat().st_mode & 0o7777 == 0o600
    assert env.read_text() == ENVIRONMENT
    again = rotate("DB_PASSWORD")
    assert (again["changed"], again["resumed"]) == (False, True)
    assert lines(env) == [key, old, new]
    for outcome in (check, first, again):
        assert old not in json.dumps(outcome)
        assert new not in json.dumps(outcome)


def test_a_given_value_is_taken_also_by_a_rotation_under_way(rotate: Run, env: Path) -> None:
    rotate("DB_PASSWORD")
    outcome = rotate("DB_PASSWORD", value="chosen-value")
    assert (outcome["changed"], outcome["resumed"]) == (True, True)
    assert lines(env) == ["DB_PASSWORD", "old-password", "chosen-value"]
    assert "chosen-value" not in json.dumps(outcome)


def test_the_format_is_kept(rotate: Run, env: Path) -> None:
    assert rotate("TOKEN", format="base64url32")["empty"] is True
    assert len(base64.urlsafe_b64decode(lines(env)[2] + "=")) == 32


def test_one_rotation_at_a_time(rotate: Run) -> None:
    rotate("DB_PASSWORD")
    outcome = rotate("REDIS_PASSWORD")
    assert outcome["msg"] == (
        "The rotation of DB_PASSWORD was cut short and comes first; rotate DB_PASSWORD, then REDIS_PASSWORD."
    )


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("DB_PASSWORD", {"value": "old-password"}, "The new value of DB_PASSWORD is the one in use"),
        ("DB_PASSWORD", {"value": "tiny"}, "is too short or unfit for URLs and shells"),
        ("DB_PASSWORD", {"value": "with space in it"}, "is too short or unfit for URLs and shells"),
        ("DB_PASSWORD", {"value": "quote'quote'"}, "is too short or unfit for URLs and shells"),
        ("REDIS_PASSWORD", {}, "CELERY_BROKER_URL in {env} holds the value of REDIS_PASSWORD too and would keep it"),
    ],
)
def test_bad_input(rotate: Run, env: Path, key: str, options: dict[str, t.Any], message: str) -> None:
    outcome = rotate(key, **options)
    assert outcome["failed"] is True
    assert message.format(env=env) in outcome["msg"]
    assert not Path(f"{env}.rotation").exists()


def test_the_environment_file_takes_the_new_value_and_what_agrees_with_it(
    rotate: Run, env: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = env.with_name(".env.example")
    example.write_text(ENVIRONMENT)
    options = {
        "_ansible_diff": True,
        "path": str(env),
        "example": str(example),
        "rotation": f"{env}.rotation",
        "secrets": [{"key": "REDIS_PASSWORD", "also": {"CELERY_BROKER_URL": "redis://:{}@redis:6379/1"}}],
    }
    run_module(dotenv, capsys, options)
    before = env.read_text()
    rotate("REDIS_PASSWORD", also=["CELERY_BROKER_URL"])
    _key, old, new = lines(env)
    for check in (True, False):
        outcome = run_module(dotenv, capsys, {**options, "_ansible_check_mode": check})
        assert outcome["updated"] == ["REDIS_PASSWORD", "CELERY_BROKER_URL"]
        assert new not in json.dumps(outcome)
        assert old not in json.dumps(outcome["diff"])
    assert env.read_text() == before.replace("public", new)
    assert run_module(dotenv, capsys, options)["changed"] is False
    Path(f"{env}.rotation").unlink()
    outcome = run_module(dotenv, capsys, options)
    assert (outcome["changed"], outcome["drifted"]) == (False, [])
