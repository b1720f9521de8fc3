# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it: options, results, diff, messages, and what it leaves alone."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from ansible_collections.selfhost.dify.plugins.modules import dotenv

Run = t.Callable[..., "dict[str, t.Any]"]
EXAMPLE = """\
# An example
LOG_LEVEL=INFO
PORT=5001
RATE=0.5
DEBUG=false
SECRET_KEY=public-key
DB_PASSWORD=public-password
AGENT_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY
OLD_NAME=1
"""
COMPOSE = """\
services:
  api:
    environment:
      TOKEN: ${GATE_TOKEN:?set a token}
      WORKERS: ${WORKERS:-4}
      NAME: ${NEW_NAME:-1}
"""
SECRETS = [{"key": "SECRET_KEY"}, {"key": "DB_PASSWORD"}, {"key": "AGENT_KEY", "format": "base64url32"}]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "envs/core").mkdir(parents=True)
    (tmp_path / ".env.example").write_text(EXAMPLE)
    (tmp_path / "docker-compose.yaml").write_text(COMPOSE)
    (tmp_path / "envs/core/shared.env.example").write_text("SMTP_PASSWORD=\nBATCH=7\nUSE_TLS=true\n")
    return tmp_path


@pytest.fixture
def run(project: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def module(check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        arguments = {
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "path": str(project / ".env"),
            "example": str(project / ".env.example"),
            "known": [str(project / "docker-compose.yaml"), str(project / "envs/**/*.env.example")],
            "env_files": [str(project / "envs/**/*.env")],
            "data": [str(project / "volumes")],
            "secrets": SECRETS,
            **options,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            dotenv.main()
        said = capsys.readouterr().out
        assert "Traceback" not in said
        return t.cast("dict[str, t.Any]", json.loads(said))

    return module


def settings(project: Path) -> dict[str, str]:
    return _dotenv.resolve((project / ".env").read_text())


def everything(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mode) for path in directory.rglob("*") if path.is_file()}


def test_check_run_run_again_and_change(run: Run, project: Path) -> None:
    before = everything(project)
    assert run(check=True)["changed"]
    assert everything(project) == before
    first = run()
    assert first["changed"]
    assert first["generated"] == ["SECRET_KEY", "DB_PASSWORD", "AGENT_KEY", "GATE_TOKEN"]
    assert {path.name: path.stat().st_mode & 0o777 for path in project.glob(".env*")} == {
        ".env": 0o600,
        ".env.applied": 0o600,
        ".env.example": (project / ".env.example").stat().st_mode & 0o777,
    }
    written = everything(project)
    for check in (True, False):
        again = run(check=check)
        assert not again["changed"]
        assert again["added"] == again["updated"] == again["generated"] == again["drifted"] == []
    assert everything(project) == written
    changed = run(values={"LOG_LEVEL": "ERROR", "SMTP_PASSWORD": "hunter2hunter2"})
    assert changed["added"] == ["SMTP_PASSWORD"]
    assert changed["updated"] == ["LOG_LEVEL", "SMTP_PASSWORD"]
    assert Path(changed["backup_file"]).stat().st_mode & 0o777 == 0o600
    assert changed["diff"]["after"] == "LOG_LEVEL=ERROR\nSMTP_PASSWORD=(hidden, new)\n"
    assert "hunter2" not in json.dumps(changed)


def test_secrets_never_leave_the_host(run: Run, project: Path) -> None:
    """Not those that were in place, not those made anew, whatever their setting is called."""
    (project / ".env").write_text(
        "DB_PASSWORD=in-place-1\nLOG_SINK=https://user:in-place-2@example.com/\nOPERATORS_KEY=in-place-3\n"
    )
    said = json.dumps([run(check=True), run(), run(values={"DEBUG": True}), run(drift="overwrite")])
    for value in [*settings(project).values(), "in-place-1", "in-place-2", "in-place-3"]:
        assert len(value) < 12 or value not in said
    assert "in-place" not in said


def test_an_open_file_is_closed_and_so_is_its_backup(run: Run, project: Path) -> None:
    (project / ".env").write_text("LOG_LEVEL=INFO\n")
    (project / ".env").chmod(0o644)
    first = run()
    assert (project / ".env").stat().st_mode & 0o777 == 0o600
    assert Path(first["backup_file"]).stat().st_mode & 0o777 == 0o600
    (project / ".env").chmod(0o644)
    (project / ".env.applied").chmod(0o640)
    assert run(check=True)["changed"]
    assert run()["changed"]
    assert not run()["changed"]


def test_a_linked_file_stays_linked(run: Run, project: Path) -> None:
    (project / "vault").mkdir()
    (project / "vault/dify.env").write_text("LOG_LEVEL=ERROR\n")
    (project / ".env").symlink_to("vault/dify.env")
    run()
    assert (project / ".env").is_symlink()
    assert settings(project)["LOG_LEVEL"] == "ERROR"
    assert not run()["changed"]


def test_an_installation_made_by_hand_is_adopted(run: Run, project: Path) -> None:
    (project / "volumes").mkdir()
    (project / "envs/core/shared.env").write_text("AGENT_KEY=MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI\n")
    (project / "made").write_text("made-by-the-server\n")
    (project / ".env").write_text("DB_PASSWORD=public-password\nGATE_TOKEN='its own'\nMINE=1\n")
    secrets = [{"key": "SECRET_KEY", "fallback_file": str(project / "made")}, *SECRETS[1:]]
    result = run(secrets=secrets)
    assert result["generated"] == []
    assert result["public"] == ["DB_PASSWORD"]
    assert result["removed_upstream"] == ["MINE"]
    found = settings(project)
    assert found["SECRET_KEY"] == "made-by-the-server"
    assert found["AGENT_KEY"] == "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"
    assert found["GATE_TOKEN"] == "its own"
    assert not run(secrets=secrets)["changed"]


def test_a_file_beside_which_nothing_has_run_yet_gets_secrets(run: Run, project: Path) -> None:
    (project / ".env").write_text(EXAMPLE.replace("LOG_LEVEL=INFO", "LOG_LEVEL=ERROR"))
    result = run()
    assert result["generated"] == ["SECRET_KEY", "DB_PASSWORD", "AGENT_KEY", "GATE_TOKEN"]
    assert result["public"] == []
    assert settings(project)["LOG_LEVEL"] == "ERROR"


def test_renamed_settings_are_carried_over_from_variables_and_the_file(run: Run, project: Path) -> None:
    renamed = {"OLD_NAME": "NEW_NAME"}
    run()
    (project / ".env").write_text((project / ".env").read_text().replace("OLD_NAME=1", "OLD_NAME=2"))
    (project / ".env.example").write_text(EXAMPLE.replace("OLD_NAME=1\n", ""))
    assert run(check=True, renamed=renamed, values={"OLD_NAME": 3})["renamed"] == renamed
    result = run(renamed=renamed)
    assert result["renamed"] == renamed
    assert settings(project)["NEW_NAME"] == "2"
    assert "OLD_NAME" not in settings(project)
    result = run(renamed=renamed, values={"OLD_NAME": 3})
    assert (result["renamed"], settings(project)["NEW_NAME"]) == (renamed, "3")
    assert not run(renamed=renamed, values={"OLD_NAME": 3})["changed"]


def test_a_secret_is_replaced_while_its_rotation_is_under_way(run: Run, project: Path) -> None:
    (project / "volumes").mkdir()
    (project / ".env").write_text("DB_PASSWORD=old\nGATE_TOKEN=x\n")
    fixed = [{"key": "DB_PASSWORD", "fixed_by": [str(project / "volumes")]}]
    options = {"secrets": fixed, "rotation": str(project / ".env.rotation")}
    run(**options)
    (project / ".env.rotation").write_text("DB_PASSWORD\nold\nnew-new-new\n")
    assert "new-new-new" not in json.dumps(run(**options))
    assert settings(project)["DB_PASSWORD"] == "new-new-new"
    (project / ".env.rotation").unlink()
    assert not run(**options)["changed"]


VALUES: list[tuple[dict[str, t.Any], str]] = [
    ({"LOGLEVEL": "INFO"}, "This release knows no setting LOGLEVEL. Did you mean LOG_LEVEL? List it in allow_unknown"),
    ({"log_level": "INFO"}, "This release knows no setting log_level. Did you mean LOG_LEVEL?"),
    ({"ZZZZ": "1"}, "This release knows no setting ZZZZ. List it in allow_unknown"),
    (
        {"LOG LEVEL": "INFO"},
        "'LOG LEVEL' is no setting's name, expected letters, digits and underscores, no digit first.",
    ),
    ({"": "INFO"}, "'' is no setting's name"),
    ({"8080": "x"}, "'8080' is no setting's name"),
    ({"LOG_LEVEL=INFO": None}, "'LOG_LEVEL=INFO' is no setting's name"),
    ({"${LOG_LEVEL}": "x"}, "'${LOG_LEVEL}' is no setting's name"),
    ({"export LOG_LEVEL": "x"}, "'export LOG_LEVEL' is no setting's name"),
    ({"LOG-LEVEL": "x"}, "'LOG-LEVEL' is no setting's name"),
    ({"LOG_LEVEL\n": "x"}, "'LOG_LEVEL\\n' is no setting's name"),
    ({"LOG_LEVEL": ["INFO"]}, "LOG_LEVEL cannot be written: expected text, a number or a boolean, got a list."),
    ({"LOG_LEVEL": {"a": 1}}, "LOG_LEVEL cannot be written: expected text, a number or a boolean, got a dict."),
    ({"LOG_LEVEL": "a\0b"}, "LOG_LEVEL cannot be written: a control character cannot be written to a .env file."),
    ({"LOG_LEVEL": "\x1b[31m"}, "LOG_LEVEL cannot be written: a control character"),
    ({"PORT": "127.0.0.1:5001"}, "PORT is '127.0.0.1:5001', expected a number such as 5001."),
    ({"PORT": ""}, "PORT is '', expected a number such as 5001."),
    ({"PORT": None}, "PORT is '', expected a number such as 5001."),
    ({"PORT": "50O1"}, "PORT is '50O1', expected a number such as 5001."),
    ({"PORT": " 5001"}, "PORT is ' 5001', expected a number such as 5001."),
    ({"PORT": True}, "PORT is 'true', expected a number such as 5001."),
    ({"PORT": 5001.5}, "PORT is '5001.5', expected a whole number such as 5001."),
    ({"PORT": "1e4"}, "PORT is '1e4', expected a number such as 5001."),
    ({"RATE": "half"}, "RATE is 'half', expected a number such as 0.5."),
    ({"RATE": float("inf")}, "RATE is 'inf', expected a number such as 0.5."),
    ({"WORKERS": "four"}, "WORKERS is 'four', expected a number such as 4."),
    ({"BATCH": "seven"}, "BATCH is 'seven', expected a number such as 7."),
    ({"DEBUG": "perhaps"}, "DEBUG is 'perhaps', expected true or false."),
    ({"DEBUG": 1}, "DEBUG is '1', expected true or false."),
    ({"DEBUG": "True"}, "DEBUG is 'True', expected true or false."),
    ({"DEBUG": None}, "DEBUG is '', expected true or false."),
    ({"USE_TLS": "yes"}, "USE_TLS is 'yes', expected true or false."),
    (
        {"AGENT_KEY": "too-short"},
        "AGENT_KEY is (hidden), expected unpadded base64url of exactly 32 bytes, which is 43 characters.",
    ),
    ({"AGENT_KEY": "+" * 43}, "AGENT_KEY is (hidden), expected unpadded base64url"),
    ({"GATE_TOKEN": ""}, "GATE_TOKEN is empty, but this release cannot start without it."),
    ({"LOG_LEVEL": "${PORT}", "PORT": "${LOG_LEVEL}"}, "LOG_LEVEL, PORT refer to each other in a circle."),
]


@pytest.mark.parametrize("converged", [False, True], ids=["bare", "converged"])
@pytest.mark.parametrize(("values", "message"), VALUES, ids=lambda item: str(item)[:40])
def test_bad_values_fail_with_one_sentence_and_change_nothing(
    run: Run, project: Path, values: dict[str, t.Any], message: str, converged: bool
) -> None:
    if converged:
        run()
    before = everything(project)
    result = run(values=values)
    assert result["failed"]
    assert message in result["msg"]
    assert "\n" not in result["msg"]
    assert everything(project) == before


FILES: list[tuple[str, bytes, str]] = [
    (".env", b"LOG_LEVEL='INFO\n", "/.env cannot be read: line 1: the quote behind LOG_LEVEL= is never closed."),
    (".env", b"# x\nLOG LEVEL=x\n", "/.env cannot be read: line 2 is neither a comment nor NAME=value."),
    (".env", b"LOG_LEVEL=\xff\n", "/.env cannot be read: it is not UTF-8 text."),
    (".env.example", b"- a list\n", "/.env.example cannot be read: line 1 is neither a comment nor NAME=value."),
    (
        "envs/core/shared.env",
        b'A="\n',
        "/envs/core/shared.env cannot be read: line 1: the quote behind A= is never closed.",
    ),
    ("envs/core/shared.env.example", b"{}\n", "/envs/core/shared.env.example cannot be read: line 1 is neither"),
    (".env.applied", b"A='\n", "/.env.applied cannot be read: line 1: the quote behind A= is never closed."),
    ("docker-compose.yaml", b"\xff", "/docker-compose.yaml cannot be read: it is not UTF-8 text."),
    (
        "docker-compose.yaml",
        b"${SITE_NUMBER:?}",
        "This release cannot start without SITE_NUMBER, which has no value; set it",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), FILES)
def test_bad_files_fail_with_one_sentence_and_change_nothing(
    run: Run, project: Path, name: str, content: bytes, message: str
) -> None:
    (project / name).write_bytes(content)
    before = everything(project)
    result = run()
    assert result["failed"]
    assert message in result["msg"]
    assert everything(project) == before


def test_bad_options_fail_with_one_sentence(run: Run, project: Path) -> None:
    assert "does not exist; check out the release first." in run(example=str(project / "none"))["msg"]
    assert "/none does not exist; check out the release first." in run(path=str(project / "none/.env"))["msg"]
    assert "one of: keep, overwrite, fail" in run(drift="ignore")["msg"]
    (project / ".env").write_text("LOG_LEVEL=ERROR\n")
    assert "Edited by hand since the last run: LOG_LEVEL." in run(drift="fail")["msg"]
    (project / "volumes").mkdir()
    fixed = [{"key": "DB_PASSWORD", "fixed_by": [str(project / "volumes")]}]
    message = run(values={"DB_PASSWORD": "another"}, secrets=fixed)["msg"]
    assert message.startswith("DB_PASSWORD in values is another than the one in place")
    assert "another," not in message
    assert not list(project.glob(".env.*[!e]"))
