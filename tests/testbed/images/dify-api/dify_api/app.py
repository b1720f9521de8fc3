# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WSGI application: `gunicorn dify_api.app:application`."""

from __future__ import annotations

from dify_api import console, release, service
from dify_api.database import OUTAGES
from dify_api.web import ApiApp

application = ApiApp(release.current(), OUTAGES)
console.add_routes(application)
service.add_routes(application)
