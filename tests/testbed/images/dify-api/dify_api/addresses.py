# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks, and under which address: what the API makes of a proxy's headers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from standin import Request


def client_address(request: Request) -> str:
    """What the real API takes, whole and as it came: Cloudflare's header, or X-Forwarded-For, or the peer."""
    named = request.header("CF-Connecting-IP") or request.header("X-Forwarded-For")
    return named or str(request.environ.get("REMOTE_ADDR", ""))


def base_url(request: Request, environ: Mapping[str, str] | None = None) -> str:
    """Scheme and host that a redirect names; proxies are believed with RESPECT_XFORWARD_HEADERS_ENABLED only."""
    scheme = str(request.environ.get("wsgi.url_scheme", "http"))
    host = request.header("Host")
    environ = os.environ if environ is None else environ
    if environ.get("RESPECT_XFORWARD_HEADERS_ENABLED", "false").lower() == "true":
        scheme = last(request.header("X-Forwarded-Proto")) or scheme
        if port := last(request.header("X-Forwarded-Port")):
            host = f"{host.rsplit(':', 1)[0] if not host.endswith(']') else host}:{port}"
    return f"{scheme}://{host.removesuffix(':443' if scheme == 'https' else ':80')}"


def last(values: str) -> str:
    return values.split(",")[-1].strip()
