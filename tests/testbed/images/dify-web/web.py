# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of Dify's web application: its addresses, with pages that say what they are, and the way to sign in."""

from __future__ import annotations

import os
from pathlib import Path
from string import Template

from standin import App, HttpError, Request, Response, html_response, serve

PAGES = ("/apps", "/explore/apps", "/init", "/install", "/signin")
PAGE = Template("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Dify (stand-in)</title></head>
<body><h1>$title</h1>
<p>This page is a stand-in of Dify's web application, $version, made for the testbed of selfhost.dify.</p>
$content</body>
</html>
""")
# What pages do; the others only say what they are.
CONTENTS = {f"/{name}": Template(Path(__file__).with_name(f"{name}.html").read_text()) for name in ("apps", "signin")}


class Web(App):
    def error_response(self, request: Request, error: HttpError) -> Response:
        return page(request.path, error.status)

    def respond(self, request: Request) -> Response:
        response = super().respond(request)
        if not request.path.startswith(EMBEDDABLE):
            response.headers.append(("X-Frame-Options", "DENY"))
        return response


def page(path: str, status: int = 200) -> Response:
    version = os.environ["STANDIN_VERSION"]
    # As the release's API wants it, the password travels Base64-encoded.
    encoded = "yes" if [int(part) for part in version.split("-")[0].split(".")] >= [1, 11, 2] else ""
    content = CONTENTS[path].substitute(encoded=encoded) if path in CONTENTS else ""
    title = path.strip("/") if path in PAGES else "This page could not be found."
    return html_response(status, PAGE.substitute(title=title, version=version, content=content))


application = Web()


@application.route("GET", "/")
def home(request: Request) -> Response:
    return Response(307, b"", [("Location", "/apps")])


for address in PAGES:
    application.route("GET", address)(lambda request: page(request.path))

# Published apps, which other sites may show in a frame; nothing else may be shown in one.
APPS = ("chat", "chatbot", "completion", "workflow")
EMBEDDABLE = ("/chat", "/workflow", "/completion", "/webapp-signin")
for app in APPS:
    application.route("GET", f"/{app}/<token>")(lambda request, token: page(request.path))

if __name__ == "__main__":
    serve("web:application", 3000)
