# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = """\
# A release's example
LOG_LEVEL=INFO
DEBUG=false
PORT=5001
SECRET_KEY=public-default
REDIS_PASSWORD=difyai123456
CELERY_BROKER_URL=redis://:difyai123456@redis:6379/1
LOG_DATEFORMAT=%Y-%m-%d %H:%M:%S

# Profiles
COMPOSE_PROFILES=${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql}
"""
SECRETS = [
    _dotenv.Secret("SECRET_KEY"),
    _dotenv.Secret("REDIS_PASSWORD", {"CELERY_BROKER_URL": "redis://:{}@redis:6379/1"}, 32),
    _dotenv.Secret("NOT_IN_THIS_RELEASE"),
]


def release(example: str = EXAMPLE, **implicit: str) -> _dotenv.Release:
    """A release with that example, and settings its Compose file interpolates."""
    defaults = {key: _dotenv.unquote(raw) for key, raw in _dotenv.assignments(example).items()}
    return _dotenv.Release(example, defaults, {"SMTP_PASSWORD": "", "VECTOR_STORE": "", "DB_TYPE": "", **implicit}, [])


RELEASE = release()


def merge(
    values: dict[str, str] | None = None,
    secrets: list[_dotenv.Secret] | None = None,
    current: str | None = None,
    applied: str | None = None,
    drift: str = "keep",
    example: str = EXAMPLE,
) -> _dotenv.Merge:
    """On a host where a server has run whenever it has a file."""
    host = _dotenv.Host(current, applied, {}, current is not None)
    return _dotenv.merge(release(example), values or {}, secrets or [], host, drift=drift)


def test_a_file_that_changes_nothing_is_reproduced_but_for_the_header() -> None:
    merged = merge()
    assert merged.text == _dotenv.HEADER + "\n" + EXAMPLE


def test_secrets_are_generated_once_and_agree() -> None:
    first = merge({}, SECRETS)
    assert first.generated == ["SECRET_KEY", "REDIS_PASSWORD"]
    assert "NOT_IN_THIS_RELEASE" not in first.values
    assert first.values["CELERY_BROKER_URL"] == f"redis://:{first.values['REDIS_PASSWORD']}@redis:6379/1"
    assert "difyai123456" not in first.text
    second = merge({}, SECRETS, first.text, first.memory)
    assert second.text == first.text
    assert second.generated == second.drifted == second.unknown == second.public == []


def test_an_operators_secret_reaches_the_settings_made_from_it() -> None:
    merged = merge({"REDIS_PASSWORD": "MyOwn1"}, SECRETS)
    assert merged.values["CELERY_BROKER_URL"] == "redis://:MyOwn1@redis:6379/1"


def test_a_running_servers_secrets_are_adopted_and_public_ones_reported() -> None:
    current = EXAMPLE.replace("SECRET_KEY=public-default", "SECRET_KEY=").replace("REDIS_PASSWORD=difyai123456\n", "")
    secrets = [SECRETS[0]._replace(fallback="from-storage"), SECRETS[1]]
    merged = merge({}, secrets, current, None)
    assert merged.values["SECRET_KEY"] == "from-storage"
    assert merged.values["REDIS_PASSWORD"] == "difyai123456"
    assert merged.generated == []
    assert merged.public == ["REDIS_PASSWORD"]


def test_a_hand_edit_is_kept_and_reported_on_every_run_and_across_a_release() -> None:
    first = merge({}, SECRETS)
    edited = first.text.replace("DEBUG=false", "DEBUG=true")
    second = merge({}, SECRETS, edited, first.memory)
    assert second.drifted == ["DEBUG"]
    assert second.values["DEBUG"] == "true"
    newer = EXAMPLE.replace("LOG_LEVEL=INFO", "LOG_LEVEL=WARNING")
    third = merge({}, SECRETS, second.text, second.memory, example=newer)
    assert third.drifted == ["DEBUG"]
    assert third.values["DEBUG"] == "true"
    assert third.values["LOG_LEVEL"] == "WARNING", "a default of the old release must not be pinned"


def test_a_variable_wins_over_a_hand_edit() -> None:
    first = merge({"LOG_LEVEL": "ERROR"})
    edited = first.text.replace("LOG_LEVEL=ERROR", "LOG_LEVEL=DEBUG")
    second = merge({"LOG_LEVEL": "ERROR"}, [], edited, first.memory)
    assert second.values["LOG_LEVEL"] == "ERROR"
    assert second.drifted == ["LOG_LEVEL"]


def test_settings_the_new_release_dropped_are_kept_and_reported() -> None:
    first = merge()
    newer = EXAMPLE.replace("DEBUG=false\n", "")
    second = merge({}, [], first.text, first.memory, example=newer)
    assert second.unknown == ["DEBUG"]
    assert second.text.endswith(f"{_dotenv.KEPT}\nDEBUG=false\n")


def test_a_value_taken_back_returns_to_the_releases_default() -> None:
    first = merge({"SMTP_PASSWORD": "s3cret"})
    assert first.text.endswith(f"{_dotenv.EXTRA}\nSMTP_PASSWORD=s3cret\n")
    second = merge({}, [], first.text, first.memory)
    assert "SMTP_PASSWORD" not in second.text
    assert second.unknown == second.drifted == []


def test_an_interrupted_first_run_is_not_a_hand_edit() -> None:
    first = merge({"LOG_LEVEL": "ERROR"}, SECRETS)
    again = merge({"LOG_LEVEL": "ERROR"}, SECRETS, first.text, None)
    assert again.text == first.text
    assert again.drifted == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"LOGLEVEL": "INFO"}, "knows no setting LOGLEVEL. Did you mean LOG_LEVEL?"),
        ({"PORT": "127.0.0.1:5001"}, "PORT is '127.0.0.1:5001', expected a number such as 5001."),
        ({"DEBUG": "perhaps"}, "DEBUG is 'perhaps', expected true or false."),
    ],
)
def test_bad_values_are_refused_with_a_remedy(values: dict[str, str], message: str) -> None:
    with pytest.raises(_dotenv.DotenvError, match=re.escape(message)):
        _dotenv.check_values(values, RELEASE)


def test_exceptions_are_let_through() -> None:
    values = {"PORT": "127.0.0.1:5001", "PASSWORD_PEPPER": "x", "LOG_LEVEL": "${DB_TYPE}"}
    _dotenv.check_values(values, RELEASE, [], ["PASSWORD_PEPPER"], ["PORT"])


@pytest.mark.parametrize(
    ("secret_format", "length", "pattern"),
    [
        ("alphanumeric", 30, r"^(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9]{30}$"),
        ("complex", 30, r"^(?=.*[A-Za-z0-9])(?=.*-)[A-Za-z0-9-]{30}$"),
        ("base64url32", 48, r"^[A-Za-z0-9_-]{43}$"),
    ],
)
def test_generated_secrets_have_their_format_and_differ(secret_format: str, length: int, pattern: str) -> None:
    secret = _dotenv.Secret("X", {}, length, secret_format)
    drawn = {_dotenv.generate(secret) for _unused in range(200)}
    assert len(drawn) == 200
    assert all(re.match(pattern, value) for value in drawn)


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"], blacklist_characters="\x85"), max_size=60))
def test_a_quoted_value_reads_back(value: str) -> None:
    raw = _dotenv.quote(value)
    assert "\n" not in raw
    assert _dotenv.unquote(_dotenv.assignments(f"X={raw}\n")["X"]) == value


def test_only_known_references_stay_references() -> None:
    assert _dotenv.quote("redis://:${REDIS_PASSWORD}@redis", {"REDIS_PASSWORD"}) == "redis://:${REDIS_PASSWORD}@redis"
    assert _dotenv.quote("a${B}c", ()) == "'a${B}c'"
    assert _dotenv.quote("${DB_TYPE:-x} costs $5", {"DB_TYPE"}) == '"${DB_TYPE:-x} costs \\$5"'


def test_a_diff_shows_settings_and_hides_secrets() -> None:
    first = merge()
    second = merge({"REDIS_PASSWORD": "topsecret", "LOG_LEVEL": "ERROR"})
    before, after = _dotenv.changes(first.text, second)
    assert before == "LOG_LEVEL=INFO\nREDIS_PASSWORD=(hidden)\n"
    assert after == "LOG_LEVEL=ERROR\nREDIS_PASSWORD=(hidden, new)\n"
