# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the API's stand-in that need neither database nor Redis."""

from __future__ import annotations

import base64
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

TESTBED = Path(__file__).resolve().parents[2] / "testbed"
for directory in ("images/python", "images/dify-api", "images/dify-agent-backend", "upstream"):
    sys.path.insert(0, str(TESTBED / directory))

import build as upstream  # noqa: E402
from agent_backend import secret_complaint  # noqa: E402
from dify_api import addresses, multipart, service, settings, storage, websocket  # noqa: E402
from dify_api.release import Release  # noqa: E402
from dify_api.web import ApiApp  # noqa: E402
from standin import HttpError, Request, Response  # noqa: E402


class Outage(Exception):
    pass


def application(version: str) -> ApiApp:
    app = ApiApp(Release(version), (Outage,))
    service.add_routes(app)

    @app.route("GET", "/console/api/setup")
    @app.route("GET", "/console/api/account/profile")
    def broken(request: Request) -> Response:
        raise Outage("no database")

    @app.route("POST", "/console/api/setup")
    def claimed(request: Request) -> Response:
        raise HttpError(403, "already_setup", "Set up already.")

    return app


def get(app: ApiApp, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.url_scheme": "http", "HTTP_HOST": "dify.test"}
    answer: list[Any] = []
    environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
    body = b"".join(app(environ, lambda status, found: answer.extend([status, found])))
    return int(answer[0].split()[0]), dict(answer[1]), body


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.10.1", (False, False, False, False, False)),
        ("1.10.1-fix.1", (False, False, False, False, False)),
        ("1.11.2", (True, False, False, False, False)),
        ("1.12.1", (True, True, False, False, False)),
        ("1.14.0", (True, True, True, True, False)),
        ("1.16.1", (True, True, True, True, True)),
    ],
)
def test_releases_differ_where_the_real_ones_do(version: str, expected: tuple[bool, ...]) -> None:
    release = Release(version)
    assert expected == (
        release.encoded_login_password,
        release.typed_console_api,
        release.failed_migration_is_fatal,
        release.has_socket_io,
        release.generates_secret_key,
    )


def test_health_has_the_recorded_form() -> None:
    status, headers, body = get(application("1.12.1"), "/health")
    assert (status, headers["Content-Type"], headers["X-Version"]) == (200, "application/json", "1.12.1")
    assert body.startswith(b'{"pid": ')
    assert body.endswith(b', "status": "ok", "version": "1.12.1"}')


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("1.10.1", b'{"code":"already_setup","message":"Set up already.","status":403}\n'),
        ("1.12.1", b'{"error":{"type":"authorization_error","message":"Forbidden","status":403}}'),
    ],
)
def test_setup_errors_have_the_shape_of_their_release(version: str, body: bytes) -> None:
    status, headers, answered = get(application(version), "/console/api/setup", "POST")
    assert (status, answered) == (403, body)
    assert (headers["Content-Type"], headers["X-Version"]) == ("application/json", version)
    assert "WWW-Authenticate" not in headers


@pytest.mark.parametrize("path", ["/console/api/setup", "/console/api/account/profile"])
def test_an_outage_is_answered_with_500(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert get(application("1.12.1"), path)[0] == 500
    assert "no database" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/", "GET", 404),
        ("/v1/chat-messages", "GET", 405),
        ("/v1/chat-messages", "POST", 401),
        ("/api/passport", "GET", 401),
        ("/files/x", "GET", 404),
        ("/mcp/server/x/mcp", "GET", 405),
        ("/socket.io/", "GET", 400),
    ],
)
def test_routes_without_a_session_answer_as_measured(path: str, method: str, status: int) -> None:
    assert get(application("1.16.1"), path, method)[0] == status


@pytest.mark.parametrize(
    ("respect", "headers", "location"),
    [
        ("false", {"x_forwarded_proto": "https", "x_forwarded_port": "443"}, "http://dify.test/v1/"),
        ("true", {"x_forwarded_proto": "https", "x_forwarded_port": "443"}, "https://dify.test/v1/"),
        ("true", {"x_forwarded_proto": "http", "x_forwarded_port": "80"}, "http://dify.test/v1/"),
        ("true", {"x_forwarded_proto": "http, https", "x_forwarded_port": "80, 443"}, "https://dify.test/v1/"),
        ("true", {"x_forwarded_proto": "https", "x_forwarded_port": "8443"}, "https://dify.test:8443/v1/"),
        ("true", {}, "http://dify.test/v1/"),
    ],
)
def test_redirect_believes_proxies_only_when_told_to(
    respect: str, headers: dict[str, str], location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESPECT_XFORWARD_HEADERS_ENABLED", respect)
    status, answered, _body = get(application("1.16.1"), "/v1", **headers)
    assert (status, answered["Location"]) == (308, location)


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, "192.0.2.1"),
        ({"x_forwarded_for": "192.0.2.2, 192.0.2.3"}, "192.0.2.2, 192.0.2.3"),
        ({"x_forwarded_for": "192.0.2.2", "cf_connecting_ip": "192.0.2.4"}, "192.0.2.4"),
    ],
)
def test_the_client_s_address_is_what_a_header_says(headers: dict[str, str], address: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "REMOTE_ADDR": "192.0.2.1"}
    environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
    assert addresses.client_address(Request(environ)) == address


@pytest.mark.parametrize(("given", "status"), [("right", 400), ("wrong", 404), ("", 404)])
def test_the_inner_api_is_not_there_without_its_key(given: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNER_API_KEY_FOR_PLUGIN", "right")
    answer = get(application("1.16.1"), "/inner/api/invoke/encrypt", "POST", X_INNER_API_KEY=given)
    assert answer[0] == status


def test_events_come_one_by_one() -> None:
    found = list(service.events(3, 0))
    assert [json.loads(event.removeprefix(b"data: "))["number"] for event in found] == [0, 1, 2]
    assert all(event.endswith(b"\n\n") for event in found)


def test_a_wrong_setting_is_reported_like_the_real_api_does() -> None:
    found = settings.problems({"PLUGIN_REMOTE_INSTALL_PORT": "127.0.0.1:5003", "DB_PORT": "5432", "DEBUG": "maybe"})
    assert settings.report(found) == (
        "pydantic_core._pydantic_core.ValidationError: 2 validation errors for DifyConfig\n"
        "PLUGIN_REMOTE_INSTALL_PORT\n"
        "  Input should be a valid integer, unable to parse string as an integer "
        "[type=int_parsing, input_value='127.0.0.1:5003', input_type=str]\n"
        "DEBUG\n"
        "  Input should be a valid boolean, unable to interpret input "
        "[type=bool_parsing, input_value='maybe', input_type=str]"
    )


@pytest.mark.parametrize("release", upstream.releases(), ids=lambda release: release.version)
def test_no_default_of_a_release_is_refused(release: upstream.Release) -> None:
    assert settings.problems(upstream.defaults(release)) == []


def test_uploads_keep_every_byte() -> None:
    content = bytes(range(256)) + b"\r\n--edge\r\n" + b"\r\n"
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="source"\r\n\r\ndatasets\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a b.mp4"\r\n'
        b"Content-Type: video/mp4\r\n\r\n" + content + b"\r\n--XX--\r\n"
    )
    source, file = multipart.parse("multipart/form-data; boundary=XX", body)
    assert (source.name, source.content) == ("source", b"datasets")
    assert file == multipart.Part("file", "a b.mp4", "video/mp4", content)


def test_a_body_of_another_type_has_no_parts() -> None:
    assert list(multipart.parse("application/json", b"{}")) == []


def test_storage_failure_has_the_recorded_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_ignored: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("OPENDAL_FS_ROOT", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", deny)
    with pytest.raises(storage.StorageError) as caught:
        storage.save("privkeys/x/private.pem", b"")
    assert str(caught.value) == (
        "PermissionDenied (persistent) at write => permission denied\n\nContext:\n   service: fs\n"
        "   path: privkeys/x/private.pem\n\nSource:\n   Permission denied (os error 13)\n"
    )


def masked(opcode: int, payload: bytes, final: bool = True) -> bytes:
    """A frame as a client sends it."""
    mask = b"\x01\x02\x03\x04"
    size = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
    data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([(0x80 if final else 0) | opcode]) + size + mask + data


def test_websocket_key_of_the_standard() -> None:
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_websocket_echoes_pongs_and_closes() -> None:
    sent = masked(websocket.TEXT, b"hel", final=False) + masked(websocket.PING, b"?")
    sent += masked(websocket.CONTINUATION, b"lo") + masked(websocket.BINARY, bytes(300)) + masked(websocket.CLOSE, b"")
    answered = io.BytesIO()
    websocket.echo(io.BytesIO(sent), answered)
    assert answered.getvalue() == b"\x8a\x01?" + b"\x81\x05hello" + b"\x82\x7e\x01\x2c" + bytes(300) + b"\x88\x00"


@pytest.mark.parametrize(
    ("secret", "accepted"),
    [
        (base64.urlsafe_b64encode(bytes(32)).decode().rstrip("="), True),
        (base64.urlsafe_b64encode(bytes(32)).decode(), False),
        (base64.urlsafe_b64encode(bytes(31)).decode().rstrip("="), False),
        ("+" * 43, False),
        ("", False),
    ],
)
def test_agent_backend_wants_32_unpadded_bytes(secret: str, accepted: bool) -> None:
    assert (secret_complaint(secret) == "") is accepted
