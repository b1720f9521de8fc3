# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every release's settings, from one to the next, and one that nobody has seen yet."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from ansible_collections.selfhost.dify.tests.unit.data.releases import (
    DEFAULTS,
    PROJECT,
    RELEASES,
    RENAMED,
    ROLE,
    SECRETS,
    release,
)

TOKENS = {"DIFY_AGENT_SHELLCTL_AUTH_TOKEN", "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN"}
WANTED = {key: "x" for key in ROLE["__dify_env_defaults"] if not key.startswith("EXPOSE_")}
every_release = pytest.mark.parametrize("version", RELEASES)


def merge(
    version: str,
    values: dict[str, str] | None = None,
    host: _dotenv.Host | None = None,
    drift: str = "keep",
    **more: str,
) -> _dotenv.Merge:
    """What the role asks for."""
    known = release(version, **more)
    renamed = _dotenv.renames(RENAMED, known)
    return _dotenv.merge(known, values or {}, SECRETS, host or _dotenv.Host(), renamed, drift)


def again(merged: _dotenv.Merge, text: str | None = None) -> _dotenv.Host:
    """The host after that run, perhaps with another file."""
    return _dotenv.Host(merged.text if text is None else text, merged.memory, {}, True)


def test_there_are_all_releases() -> None:
    assert list(RELEASES)[:: len(RELEASES) - 1] == ["1.10.0", "1.17.1"]
    assert len(RELEASES) == 22
    counts = {version: len(keys.root | keys.envs) for version, keys in RELEASES.items()}
    assert (counts["1.10.0"], counts["1.12.1"], counts["1.14.2"], counts["1.16.1"]) == (617, 680, 733, 796)
    assert len(RELEASES["1.17.1"].root) == 244


@every_release
def test_a_fresh_install_has_every_secret_once_and_no_public_one(version: str) -> None:
    keys = RELEASES[version]
    merged = merge(version)
    values = _dotenv.resolve(merged.text)
    assert keys.root <= set(values)
    assert "public" not in merged.text
    known = keys.root | keys.envs | keys.compose
    for secret in SECRETS:
        if secret.key not in known or (secret.key in RENAMED and secret.key not in keys.root):
            assert secret.key not in values
            continue
        assert secret.key in merged.generated
        assert values[secret.key]
        for other, template in secret.also.items():
            assert other not in known or values[other] == template.format(values[secret.key])
    assert merged.drifted == merged.unknown == merged.public == []
    second = merge(version, host=again(merged))
    assert second.text == merged.text
    assert second.generated == []


@every_release
def test_the_token_of_the_local_sandbox_is_there_wherever_it_is_known(version: str) -> None:
    written = TOKENS & set(merge(version).generated)
    if version < "1.16.0":
        assert not written
    else:
        assert written == {
            "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN" if version >= "1.17.0" else "DIFY_AGENT_SHELLCTL_AUTH_TOKEN"
        }


@every_release
def test_every_setting_may_be_set_and_a_misspelt_one_is_found(version: str) -> None:
    keys = RELEASES[version]
    known = release(version)
    _dotenv.check_values({key: DEFAULTS.get(key, "") for key in known.known}, known, [])
    assert keys.root | keys.envs <= known.known
    with pytest.raises(_dotenv.DotenvError, match=re.escape("LOG_LEVL. Did you mean LOG_LEVEL?")):
        _dotenv.check_values({"LOG_LEVL": "INFO"}, known)


@pytest.mark.parametrize(
    ("old", "new"), list(zip(list(RELEASES), list(RELEASES)[1:], strict=False)), ids=list(RELEASES)[1:]
)
def test_each_step_keeps_secrets_and_the_operators_settings(old: str, new: str) -> None:
    own = {"LOG_LEVEL": "ERROR", "SMTP_PASSWORD": "p$ss 'w#rd\\"}
    first = merge(old, own)
    # Behind whatever the file says already: the last one counts.
    by_hand = first.text + "UPLOAD_FILE_SIZE_LIMIT=50\nPASSWORD_PEPPER='salt $1'\n"
    second = merge(new, own, again(first, by_hand))
    before, after = _dotenv.resolve(by_hand), _dotenv.resolve(second.text)
    gone = (RELEASES[old].root | RELEASES[old].envs) - (RELEASES[new].root | RELEASES[new].envs | RELEASES[new].compose)
    for key, value in before.items():
        kept = RENAMED[key] if key in second.renamed else key
        if key in own or key in ("UPLOAD_FILE_SIZE_LIMIT", "PASSWORD_PEPPER") or key in first.generated:
            assert after[kept] == value, key
        elif key in gone:
            assert key in second.unknown or key in second.renamed
    assert second.unknown[-1] == "PASSWORD_PEPPER"
    assert "UPLOAD_FILE_SIZE_LIMIT" in second.drifted
    assert set(second.generated) == {s.key for s in SECRETS} & set(after) - set(before) - set(second.renamed.values())


@pytest.mark.parametrize("adopted", [False, True], ids=["managed", "by hand"])
def test_golden_upgrades(adopted: bool) -> None:
    """An operator's file goes all the way: as one this module wrote, and as one found on the host."""
    own = {
        "LOG_LEVEL": "DEBUG",
        "SMTP_PASSWORD": "a b#c$d",
        "POSTGRES_DB": "elsewhere",
        "VIKINGDB_SCHEMA": "https",
        "SSRF_SANDBOX_HOST": "boxed",
        "DB_PASSWORD": "Chosen1",
        "PASSWORD_PEPPER": "pepper",
    }
    example = release("1.10.1").example
    text = example.replace("POSTGRES_DB=\n", "")
    for key in set(own) & RELEASES["1.10.1"].root:
        text = re.sub(rf"(?m)^{key}=.*\n", "", text)
    text += "".join(f"{key}={_dotenv.quote(value)}\n" for key, value in own.items())
    if adopted:
        first = merge("1.10.1", host=_dotenv.Host(text, None, {}, True))
        assert first.generated == ["INIT_PASSWORD"] or first.generated == []
        assert "REDIS_PASSWORD" in first.public
        assert "DB_PASSWORD" not in first.public
    else:
        managed = {key: value for key, value in own.items() if key in RELEASES["1.10.1"].root}
        first = merge("1.10.1", managed, _dotenv.Host(None, None))
        first = merge(
            "1.10.1", {}, again(first, first.text + "PASSWORD_PEPPER=pepper\n")._replace(applied=merge("1.10.1").memory)
        )
    secrets = {s.key: _dotenv.resolve(first.text)[s.key] for s in SECRETS if s.key in first.values}
    seen: dict[str, str] = {}
    merged = first
    for version in ("1.12.1", "1.14.2", "1.16.1"):
        merged = merge(version, host=again(merged))
        after = _dotenv.resolve(merged.text)
        assert {key: after[key] for key in secrets} == secrets
        seen.update(merged.renamed)
        gone = {"1.12.1": ["POSTGRES_DB"], "1.14.2": [], "1.16.1": ["SSRF_SANDBOX_HOST"]}[version]
        assert set(gone) <= set(merged.unknown)
        assert "PASSWORD_PEPPER" in merged.unknown
        for key, value in own.items():
            assert after[seen.get(key, key)] == value, (version, key)
        assert merge(version, host=again(merged)).text == merged.text
    assert seen == {"VIKINGDB_SCHEMA": "VIKINGDB_SCHEME"}
    assert set(merged.generated) == {
        "DIFY_AGENT_API_TOKEN",
        "DIFY_AGENT_SERVER_SECRET_KEY",
        "DIFY_AGENT_SHELLCTL_AUTH_TOKEN",
    }


def test_a_public_secret_stays_reported_when_a_newer_release_does_not_ship_it_any_more() -> None:
    text = release("1.12.1").example
    first = merge("1.12.1", host=_dotenv.Host(text, None, {}, True))
    quiet = release("1.14.2")
    quiet = quiet._replace(
        example=quiet.example.replace("SECRET_KEY=public\n", "SECRET_KEY=\n"),
        defaults={**quiet.defaults, "SECRET_KEY": ""},
        implicit={**quiet.implicit, "SECRET_KEY": ""},
    )
    second = _dotenv.merge(quiet, {}, SECRETS, again(first))
    assert "SECRET_KEY" in second.public
    assert second.values["SECRET_KEY"] == "public"
    own = again(second, second.text.replace("SECRET_KEY=public\n", "SECRET_KEY=own\n"))
    assert "SECRET_KEY" not in _dotenv.merge(quiet, {}, SECRETS, own).public


def test_a_setting_is_renamed_wherever_it_was_set() -> None:
    """In a variable, by hand, as a secret; what the old release had by default is not carried over."""
    first = merge("1.13.0", {"PUBSUB_REDIS_URL": "redis://elsewhere"})
    by_hand = first.text.replace("PUBSUB_REDIS_CHANNEL_TYPE=\n", "PUBSUB_REDIS_CHANNEL_TYPE=sharded\n")
    second = merge("1.13.1", host=again(first, by_hand))
    assert second.renamed == {old: new for old, new in RENAMED.items() if old.startswith("PUBSUB")}
    assert second.values["EVENT_BUS_REDIS_CHANNEL_TYPE"] == "sharded"
    assert second.values["EVENT_BUS_REDIS_URL"] == "", (
        "the operator's variable says it under the new name, or not at all"
    )
    assert second.drifted == ["EVENT_BUS_REDIS_CHANNEL_TYPE"]
    assert "PUBSUB" not in second.text

    first = merge("1.16.1")
    second = merge("1.17.0", host=again(first))
    token = first.values["DIFY_AGENT_SHELLCTL_AUTH_TOKEN"]
    assert second.values["DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN"] == token
    assert second.generated == []
    assert "DIFY_AGENT_SHELLCTL_AUTH_TOKEN" not in second.values


def test_where_both_names_were_edited_neither_is_lost() -> None:
    first = merge("1.14.0", {})
    text = first.text.replace("VIKINGDB_SCHEMA=http\n", "VIKINGDB_SCHEMA=https\n") + "VIKINGDB_SCHEME=ftp\n"
    second = merge("1.14.1", host=again(first, text))
    assert (second.values["VIKINGDB_SCHEMA"], second.values["VIKINGDB_SCHEME"]) == ("https", "ftp")
    assert "VIKINGDB_SCHEMA" in second.unknown
    assert second.renamed == {}


def test_a_release_nobody_has_seen_is_handled_without_new_code() -> None:
    """It renames a setting, drops one, knows new ones and needs a token that only its Compose file names."""
    compose = (
        "x: {a: '${SANDBOX_GATE_TOKEN:?set it}', b: '${SITE_ID:?}', c: '${DB_PASSWORD:?}', d: '${NEW_PORT:-7001}'}"
    )
    fallback, required = _dotenv.interpolated(compose)
    assert required == ["SANDBOX_GATE_TOKEN", "SITE_ID", "DB_PASSWORD"]
    old = merge("1.17.1", {"LOG_LEVEL": "ERROR"})
    base = release("1.17.1", LOGGING_LEVEL="INFO", NEW_SETTING="7")
    example = base.example.replace("LOG_LEVEL=INFO\n", "")
    defaults = {key: value for key, value in base.defaults.items() if key != "LOG_LEVEL"}
    implicit = {**{key: value for key, value in base.implicit.items() if key != "LOG_LEVEL"}, **fallback}
    newer = _dotenv.Release(example, defaults, implicit, required)
    renamed = _dotenv.renames({**RENAMED, "LOG_LEVEL": "LOGGING_LEVEL"}, newer)
    by_hand = again(old, old.text.replace("LOG_LEVEL=ERROR", "LOG_LEVEL=FATAL") + "PASSWORD_PEPPER=p\n")
    with pytest.raises(_dotenv.DotenvError, match="cannot start without SITE_ID, which has no value"):
        _dotenv.merge(newer, {}, SECRETS, by_hand, renamed)
    merged = _dotenv.merge(newer, {"SITE_ID": "4"}, SECRETS, by_hand, renamed)
    assert merged.generated == ["SANDBOX_GATE_TOKEN"]
    assert re.fullmatch("[A-Za-z0-9]{48}", merged.values["SANDBOX_GATE_TOKEN"])
    assert merged.values["LOGGING_LEVEL"] == "FATAL"
    assert merged.renamed == {"LOG_LEVEL": "LOGGING_LEVEL"}
    assert merged.values["PASSWORD_PEPPER"] == "p"
    assert merged.values["DB_PASSWORD"] == old.values["DB_PASSWORD"]
    second = _dotenv.merge(newer, {"SITE_ID": "4"}, SECRETS, again(merged), renamed)
    assert second.text == merged.text
    assert second.generated == []
    with pytest.raises(_dotenv.DotenvError, match="expected a whole number such as 7001"):
        _dotenv.check_values({"NEW_PORT": "x1"} | {"NEW_PORT": "7.5"}, newer)


def test_the_roles_tables_name_settings_that_exist() -> None:
    known = {key for keys in RELEASES.values() for key in keys.root | keys.envs | keys.compose}
    named = {*ROLE["__dify_env_any_type"], *RENAMED, *RENAMED.values()}
    named |= {key for secret in SECRETS for key in (secret.key, *secret.also)}
    assert named <= known
    assert len({secret.key for secret in SECRETS}) == len(SECRETS)
    for old, new in RENAMED.items():
        versions = [v for v, keys in RELEASES.items() if old in keys.root | keys.envs]
        following = list(RELEASES)[list(RELEASES).index(versions[-1]) + 1]
        assert new in RELEASES[following].root | RELEASES[following].envs
        assert new not in RELEASES[versions[-1]].root | RELEASES[versions[-1]].envs


def documented(item: dict[str, t.Any]) -> str:
    """The secret's line in the table of docs/configuration.md."""
    names = [version for version in RELEASES if version != "1.10.0"]
    known = [version for version in names if item["key"] in RELEASES[version].root | RELEASES[version].envs]
    formats = {"complex": "letters, digits, a dash", "base64url32": "base64url of 32 bytes"}
    cells = [
        f"`{item['key']}`",
        known[0] if known[0] != names[0] else "",
        known[-1] if known[-1] != names[-1] else "",
        f"{formats.get(item.get('format', ''), 'letters and digits')}"
        + (f", {item.get('length', 48)}" if item.get("format") != "base64url32" else ""),
        ", ".join(f"`{key}`" for key in item.get("also", {})),
        "by its data" if item.get("fixed_by") else "",
    ]
    return re.sub(" +", " ", f"| {' | '.join(cells)} |")


def test_the_table_of_secrets_is_documented() -> None:
    lines = (PROJECT / "docs/configuration.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `") and line.count("|") == 7] == [
        documented(item) for item in ROLE["__dify_secrets"]
    ]
