# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dify's releases as their lists of settings tell them, with defaults of our own where a test needs one."""

from __future__ import annotations

import typing as t
from pathlib import Path

import yaml
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv

PROJECT = Path(__file__).resolve().parents[3]
ROLE = yaml.safe_load((PROJECT / "roles/dify/vars/main.yml").read_text(encoding="utf-8"))
RENAMED = t.cast("dict[str, str]", ROLE["__dify_env_renamed"])
SECRETS = [
    _dotenv.Secret(item["key"], item.get("also", {}), item.get("length", 48), item.get("format", "alphanumeric"))
    for item in ROLE["__dify_secrets"]
]
DEFAULTS = {
    "LOG_LEVEL": "INFO",
    "DEBUG": "false",
    "UPLOAD_FILE_SIZE_LIMIT": "15",
    "EXPOSE_NGINX_PORT": "80",
    "VECTOR_STORE": "weaviate",
    "DB_TYPE": "postgresql",
    "DB_USERNAME": "postgres",
    "VIKINGDB_SCHEMA": "http",
    "VIKINGDB_SCHEME": "http",
    "COMPOSE_PROFILES": "${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql}",
    "POSTGRES_USER": "${DB_USERNAME}",
    "POSTGRES_PASSWORD": "${DB_PASSWORD}",
    **{key: template.format("public") for secret in SECRETS for key, template in secret.also.items()},
    **{secret.key: "public" for secret in SECRETS if secret.key != "INIT_PASSWORD"},
}


class Settings(t.NamedTuple):
    """Names of a release's settings: in .env.example, in further examples, in docker-compose.yaml as ${NAME}."""

    root: frozenset[str]
    envs: frozenset[str]
    compose: frozenset[str]


def read() -> dict[str, Settings]:
    """Every release, oldest first."""
    found: dict[str, Settings] = {}
    names: dict[str, set[str]] = {"root": set(), "envs": set(), "compose": set()}
    for line in (Path(__file__).parent / "dify_settings.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            version = line.strip("[]")
        elif line[0] in "+-":
            change, *keys = line[1:].split()
            (names[change].update if line[0] == "+" else names[change].difference_update)(keys)
        else:
            continue
        if names["root"]:
            found[version] = Settings(*(frozenset(names[kind]) for kind in ("root", "envs", "compose")))
    # Up to 1.14.0 the Compose file interpolates every setting; after that its list is known from 1.16.1 on.
    last = found["1.16.1"].compose
    return {
        version: keys
        if keys.compose
        else keys._replace(compose=last & (keys.root | keys.envs) if keys.envs else keys.root)
        for version, keys in found.items()
    }


RELEASES = read()


def release(version: str, **more: str) -> _dotenv.Release:
    """The release with our defaults, and further lines of its .env.example."""
    keys = RELEASES[version]
    lines = {**{key: DEFAULTS.get(key, "") for key in sorted(keys.root)}, **more}
    example = f"# Dify {version}\n" + "".join(f"{key}={value}\n" for key, value in lines.items())
    defaults = {**lines, **{key: DEFAULTS.get(key, "") for key in keys.envs}}
    implicit = {key: "" if "$" in DEFAULTS.get(key, "") else DEFAULTS.get(key, "") for key in keys.compose}
    return _dotenv.Release(example, defaults, implicit, [])
