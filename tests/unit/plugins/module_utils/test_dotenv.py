# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from ansible_collections.selfhost.dify.tests.testbed.upstream import build
from hypothesis import example, given
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


@pytest.mark.parametrize(
    ("current", "host", "implicit", "expected", "public"),
    [
        pytest.param("REDIS_PASSWORD=own", {}, {}, "own", False, id="set"),
        pytest.param("MY=own\nREDIS_PASSWORD=${MY}", {}, {}, "own", False, id="by reference"),
        pytest.param("export REDIS_PASSWORD='o$n'", {}, {}, "o$n", False, id="exported and quoted"),
        pytest.param("REDIS_PASSWORD=difyai123456", {}, {}, "difyai123456", True, id="public"),
        pytest.param("", {}, {"REDIS_PASSWORD": "fallback"}, "fallback", True, id="missing, so Compose's own"),
        pytest.param(
            "REDIS_PASSWORD=", {}, {"REDIS_PASSWORD": "fallback"}, "fallback", True, id="empty, so Compose's own"
        ),
        pytest.param("", {}, {}, "difyai123456", True, id="missing everywhere"),
        pytest.param("", {"beside": {"REDIS_PASSWORD": "beside"}}, {}, "beside", False, id="in an env file"),
        pytest.param("REDIS_PASSWORD=own", {"running": False}, {}, "own", False, id="set, nothing has run"),
        pytest.param("REDIS_PASSWORD=difyai123456", {"running": False}, {}, None, False, id="public, nothing has run"),
        pytest.param(
            "REDIS_PASSWORD=fallback", {"running": False}, {"REDIS_PASSWORD": "fallback"}, None, False, id="as Compose"
        ),
        pytest.param(
            "", {"running": False}, {"REDIS_PASSWORD": "fallback"}, None, False, id="missing, nothing has run"
        ),
        pytest.param(None, {"running": False}, {"REDIS_PASSWORD": "fallback"}, None, False, id="fresh"),
    ],
)
def test_secrets_in_force_are_adopted_and_others_generated(
    current: str | None, host: dict[str, t.Any], implicit: dict[str, str], expected: str | None, public: bool
) -> None:
    found = _dotenv.Host(current, None, **{"running": True, **host})
    merged = _dotenv.merge(release(EXAMPLE, **implicit), {}, SECRETS[1:], found)
    value = _dotenv.resolve(merged.text)["REDIS_PASSWORD"]
    assert (value == expected) == (expected is not None)
    assert merged.generated == ([] if expected else ["REDIS_PASSWORD"])
    assert merged.public == (["REDIS_PASSWORD"] if public else [])
    assert _dotenv.resolve(merged.text)["CELERY_BROKER_URL"] == f"redis://:{value.replace('$', '%24')}@redis:6379/1"
    again = _dotenv.merge(
        release(EXAMPLE, **implicit), {}, SECRETS[1:], _dotenv.Host(merged.text, merged.memory, {}, True)
    )
    assert again.text == merged.text


@pytest.mark.parametrize("implicit", [{}, {"SECRET_KEY": "of-compose"}])
def test_the_key_upstream_made_for_itself_is_taken_where_compose_names_none(implicit: dict[str, str]) -> None:
    made = [SECRETS[0]._replace(fallback="from-storage")]
    host = _dotenv.Host("SECRET_KEY=\n", None, {}, True)
    merged = _dotenv.merge(release(EXAMPLE, **implicit), {}, made, host)
    assert merged.values["SECRET_KEY"] == implicit.get("SECRET_KEY", "from-storage")


def test_what_agrees_with_a_secret_is_mended_and_another_servers_address_kept() -> None:
    mended = merge({}, SECRETS, "REDIS_PASSWORD=own\nCELERY_BROKER_URL=redis://:difyai123456@redis:6379/1\n")
    assert mended.values["CELERY_BROKER_URL"] == "redis://:own@redis:6379/1"
    kept = merge({}, SECRETS, "REDIS_PASSWORD=own\nCELERY_BROKER_URL=rediss://:other@elsewhere:6380/1\n")
    assert kept.values["CELERY_BROKER_URL"] == "rediss://:other@elsewhere:6380/1"
    assert "CELERY_BROKER_URL" in kept.drifted


def test_a_secret_whose_line_was_deleted_comes_back() -> None:
    first = merge({}, SECRETS)
    second = merge({}, SECRETS, re.sub("(?m)^REDIS_PASSWORD=.*\n", "", first.text), first.memory)
    assert second.text == first.text
    assert second.generated == []


def test_a_secret_that_data_was_made_with_is_not_replaced_by_a_variable() -> None:
    fixed = [SECRETS[1]._replace(fixed=True)]
    merge({"REDIS_PASSWORD": "own"}, fixed, "REDIS_PASSWORD=own\n")
    merge({"REDIS_PASSWORD": "new"}, fixed)
    merge({"REDIS_PASSWORD": "new"}, [SECRETS[1]], "REDIS_PASSWORD=own\n")
    with pytest.raises(_dotenv.DotenvError, match="REDIS_PASSWORD in values is another than the one in place"):
        merge({"REDIS_PASSWORD": "new"}, fixed, "REDIS_PASSWORD=own\n")


@pytest.mark.parametrize("where", ["DEBUG=false", "REDIS_PASSWORD=.*", "LOG_LEVEL=ERROR"])
def test_drift_is_kept_or_overwritten_or_fails(where: str) -> None:
    key = where.split("=", maxsplit=1)[0]
    values = {"LOG_LEVEL": "ERROR"}
    first = merge(values, SECRETS)
    edited = re.sub(where, f"{key}=by-hand", first.text)
    kept = merge(values, SECRETS, edited, first.memory)
    assert kept.drifted == [key]
    assert kept.values[key] == ("ERROR" if key in values else "by-hand")
    undone = merge(values, SECRETS, edited, first.memory, "overwrite")
    assert undone.drifted == [key]
    assert undone.text == first.text
    with pytest.raises(_dotenv.DotenvError, match=f"Edited by hand since the last run: {key}. Move"):
        merge(values, SECRETS, edited, first.memory, "fail")
    assert merge(values, SECRETS, first.text, first.memory, "fail").text == first.text


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
@example("'$")
def test_a_quoted_value_reads_back(value: str) -> None:
    raw = _dotenv.quote(value)
    assert "\n" not in raw
    assert _dotenv.unquote(_dotenv.assignments(f"X={raw}\n")["X"], {}) == value


def test_only_known_references_stay_references() -> None:
    assert _dotenv.quote("redis://:${REDIS_PASSWORD}@redis", {"REDIS_PASSWORD"}) == "redis://:${REDIS_PASSWORD}@redis"
    assert _dotenv.quote("a${B}c", ()) == "'a${B}c'"
    assert _dotenv.quote("${DB_TYPE:-x} costs $5", {"DB_TYPE"}) == '"${DB_TYPE:-x} costs $$5"'


def test_a_diff_shows_settings_and_hides_secrets() -> None:
    first = merge()
    second = merge({"REDIS_PASSWORD": "topsecret", "LOG_LEVEL": "ERROR"})
    before, after = _dotenv.changes(first.text, second)
    assert before == "LOG_LEVEL=INFO\nREDIS_PASSWORD=(hidden)\n"
    assert after == "LOG_LEVEL=ERROR\nREDIS_PASSWORD=(hidden, new)\n"


def test_settings_that_refer_to_one_below_are_moved_below_it() -> None:
    merged = merge({"LOG_LEVEL": "${PORT}-${DB_TYPE}", "DEBUG": "${LOG_LEVEL}", "DB_TYPE": "x"})
    assert _dotenv.resolve(merged.text)["DEBUG"] == "5001-x"
    assert merged.text.endswith(f"{_dotenv.MOVED}\nLOG_LEVEL=${{PORT}}-${{DB_TYPE}}\nDEBUG=${{LOG_LEVEL}}\n")
    assert merged.text.count("LOG_LEVEL=") == merged.text.count("DEBUG=") == 1
    assert (
        merge(
            {"LOG_LEVEL": "${PORT}-${DB_TYPE}", "DEBUG": "${LOG_LEVEL}", "DB_TYPE": "x"}, [], merged.text, merged.memory
        )
        == merged
    )
    with pytest.raises(_dotenv.DotenvError, match="LOG_LEVEL, PORT refer to each other in a circle"):
        merge({"LOG_LEVEL": "${PORT}", "PORT": "${LOG_LEVEL}"})


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ("A=1 # why\n", "A=new # why\n"),
        ("A='1'# why\n", "A=new # why\n"),
        ('A="1"\t\n', "A=new\t\n"),
        ("A='1' B=2\n", "A=new\n B=2\n"),
        ("A: 1\r\nB=2\r\n", "A=new\r\nB=2\r\n"),
        ("\ufeffexport A=1", "A=new"),
        ("A='1\n2'\n\n# end", "A=new\n\n# end"),
        ("A=1\nA=2\n", "A=new\nA=new\n"),
    ],
)
def test_only_the_value_is_replaced(example: str, expected: str) -> None:
    unmarked = example.lstrip("\ufeff")  # a byte order mark is one at the very beginning only
    assert _dotenv.merge(release(example), {}).text == f"{_dotenv.HEADER}\n{unmarked}"
    merged = _dotenv.merge(release(example), {"A": "new"})
    assert merged.text == f"{_dotenv.HEADER}\n{expected}"
    assert _dotenv.resolve(merged.text)["A"] == "new"


@pytest.mark.parametrize("version", [item.version for item in build.releases()])
def test_the_stand_ins_examples_are_reproduced_byte_for_byte(version: str) -> None:
    (wanted,) = [item for item in build.releases() if item.version == version]
    examples = {path: text for path, (_mode, text) in build.files(wanted).items() if path.endswith(".env.example")}
    assert examples
    for path, text in examples.items():
        assert _dotenv.merge(release(text), {}).text == f"{_dotenv.HEADER}\n{text}", path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nfoo bar\n", "line 2 is neither a comment nor NAME=value"),
        ("# x\n\nA='1\n", "line 3: the quote behind A= is never closed"),
        ('A=1\nB="x\\"\n', "line 2: the quote behind B= is never closed"),
        ("A+=1\n", "line 1 is neither a comment nor NAME=value"),
    ],
)
def test_a_file_that_compose_would_refuse_is_refused(text: str, message: str) -> None:
    with pytest.raises(_dotenv.DotenvError, match=re.escape(message)):
        _dotenv.assignments(text)


def test_what_a_compose_file_takes_from_the_environment() -> None:
    text = "a: ${A} $${NOT} ${B:-b} ${B} ${C:-${D:-d}} ${E:?say why} ${F?} ${A:+x} ${G-{g}}"
    fallback, required = _dotenv.interpolated(text)
    assert fallback == {"A": "", "B": "b", "C": "d", "D": "d", "E": "", "F": "", "G": "{g"}
    assert required == ["E", "F"]


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        *(
            (key, True)
            for key in (
                "DB_PASSWORD",
                "ORACLE_PWD",
                "SECRET_KEY",
                "PLUGIN_DAEMON_KEY",
                "MINIO_ACCESS_KEY",
                "API_SENTRY_DSN",
            )
        ),
        *(
            (key, True)
            for key in ("CELERY_BROKER_URL", "DIFY_AGENT_REDIS_URL", "PASSWORD_PEPPER", "UPSTASH_VECTOR_TOKEN")
        ),
        *(
            (key, False)
            for key in ("ACCESS_TOKEN_EXPIRE_MINUTES", "REDIS_KEY_PREFIX", "NGINX_SSL_CERT_KEY_FILENAME", "LOG_LEVEL")
        ),
        *(
            (key, False)
            for key in ("PLUGIN_BASED_TOKEN_COUNTING_ENABLED", "CODE_GENERATION_MAX_TOKENS", "KEYCLOAK_URL")
        ),
    ],
)
def test_secrets_are_known_by_their_names(key: str, secret: bool) -> None:
    assert _dotenv.is_secret(key) == secret


def test_what_somebody_edited() -> None:
    release = _dotenv.Release("A=1\nB=2\nC=3\n", {"A": "1", "B": "2", "C": "3"}, {"D": ""}, [])
    applied = "A=1\nB=5\nC=3\n"
    assert _dotenv.edited(release, "A=1\nB=5\nC=3\n", applied) == []
    assert _dotenv.edited(release, "A=9\nB=5\nD=x\nOWN=y\n", applied) == ["A", "D", "C"]


def test_what_everybody_knows() -> None:
    release = _dotenv.Release("A=public\nB=${A}\n", {"A": "public", "B": "${A}"}, {"C": "known"}, [])
    assert _dotenv.still_public(release, "A=public\n", "", ["A", "B", "C"]) == ["A", "C"]
    assert _dotenv.still_public(release, "A=own\nC=own\n", "", ["A", "C"]) == []
    # A newer release may not tell any more what an older one shipped.
    assert _dotenv.still_public(release, "A=older\n", "A=older\n# A is public\n", ["A"]) == ["A"]
