# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role dify: the settings that follow from its variables."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).resolve().parents[3] / "roles" / "dify"
LOADER = DataLoader()
PUBLIC = (
    *(
        "CONSOLE_API_URL",
        "CONSOLE_WEB_URL",
        "SERVICE_API_URL",
        "APP_API_URL",
        "APP_WEB_URL",
        "FILES_URL",
        "TRIGGER_URL",
    ),
    *("CONSOLE_CORS_ALLOW_ORIGINS", "WEB_API_CORS_ALLOW_ORIGINS"),
)


def settings(**variables: t.Any) -> dict[str, str]:
    scope: dict[str, t.Any] = {}
    for part in ("defaults", "vars"):
        scope |= LOADER.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    templar = Templar(loader=LOADER, variables=scope | {"dify_domain": "dify.example.com"} | variables)
    return t.cast("dict[str, str]", templar.template(scope["__dify_env_defaults"]))


@pytest.mark.parametrize(("port", "host"), [(443, "dify.example.com"), (8443, "dify.example.com:8443")])
def test_every_public_url_has_the_port_users_type(port: int, host: str) -> None:
    found = settings(dify_public_port=port)
    assert {key: found[key] for key in PUBLIC} == dict.fromkeys(PUBLIC, f"https://{host}")
    assert found["ENDPOINT_URL_TEMPLATE"] == f"https://{host}/e/{{hook_id}}"
    assert found["NEXT_PUBLIC_SOCKET_URL"] == f"wss://{host}"


def test_one_limit_is_the_limit_for_every_kind_of_file() -> None:
    found = settings(dify_upload_max_mb=250)
    limits = {key: str(value) for key, value in found.items() if key.startswith("UPLOAD_")}
    assert limits == {f"UPLOAD_{kind}FILE_SIZE_LIMIT": "250" for kind in ("", "IMAGE_", "AUDIO_", "VIDEO_")}
    assert found["NGINX_CLIENT_MAX_BODY_SIZE"] == "251M"
