# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What crosses the edge and what does not, in front of a service that says what reached it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import ssl
import time
import typing as t

import pytest
from conftest import Answer, Run, Server, run_playbook

FORGED = {
    "CF-Connecting-IP": "192.0.2.61",
    "True-Client-IP": "192.0.2.62",
    "X-Real-IP": "192.0.2.63",
    "X-Forwarded-For": "192.0.2.64, 192.0.2.65",
    "Forwarded": "for=192.0.2.66;proto=http",
    "X-Client-IP": "192.0.2.67",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Port": "99",
    "X-Forwarded-Host": "elsewhere.example.com",
    "X-Forwarded-Prefix": "/elsewhere",
    "X-Original-URL": "/elsewhere",
    "X_Forwarded_For": "192.0.2.68",
}
IDLE = 121  # seconds, of the 120 that a stream must survive


def told(answer: Answer) -> dict[str, str]:
    """The headers that reached the service."""
    return {name.lower(): value for name, value in answer.json()["headers"]}


def wait_until(condition: t.Callable[[], bool]) -> None:
    """Asks for 30 seconds; a connection that fails is a no."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module", autouse=True)
def idle_stream(server: Server) -> t.Iterator[tuple[http.client.HTTPResponse, float]]:
    """A stream that says something at once and then nothing for a long time, opened before all other tests."""
    connection = server.connection()
    connection.timeout = IDLE + 30
    asked = time.monotonic()
    connection.request("GET", f"/events?idle={IDLE}", headers={"Host": server.domain})
    response = connection.getresponse()
    assert response.readline() == b"data: 0\n"
    yield response, time.monotonic() - asked
    connection.close()


# Who the client is


def test_the_service_is_told_the_client_and_nothing_that_a_client_claims(server: Server) -> None:
    connection = server.connection()
    connection.request("GET", "/", headers={"Host": server.domain, **FORGED})
    own_address = connection.sock.getsockname()[0]
    response = connection.getresponse()
    headers = told(Answer(response.status, response.getheaders(), response.read()))
    connection.close()
    assert headers == {
        "host": server.domain,
        "x-real-ip": own_address,
        "x-forwarded-for": own_address,
        "x-forwarded-host": server.domain,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        "accept-encoding": "identity",
    }


def test_connections_to_the_service_are_kept(server: Server) -> None:
    ports = {server.request("GET", "/").json()["port"] for _try in range(12)}
    assert len(ports) < 12


# Which names are served


def test_plain_http_leads_to_https(server: Server) -> None:
    answer = server.request("GET", "/a?b=c", scheme="http")
    assert (answer.status, answer.header("Location")) == (301, f"https://{server.domain}/a?b=c")


@pytest.mark.parametrize("name", ["elsewhere.example.com", "ADDRESS"])
def test_a_foreign_name_gets_no_answer_over_http(name: str, server: Server) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        server.request("GET", "/", headers={"Host": name.replace("ADDRESS", server.address)}, scheme="http")


def test_a_challenge_is_looked_for_under_any_name(server: Server) -> None:
    headers = {"Host": "elsewhere.example.com"}
    answer = server.request("GET", "/.well-known/acme-challenge/none", headers=headers, scheme="http")
    assert answer.status == 404


@pytest.mark.parametrize("name", ["elsewhere.example.com", None])
def test_a_foreign_name_gets_no_handshake(name: str | None, server: Server) -> None:
    context = ssl._create_unverified_context()
    with socket.create_connection((server.address, 443)) as raw, pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        context.wrap_socket(raw, server_hostname=name)


def test_a_foreign_name_behind_a_known_handshake_gets_no_answer(server: Server) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        server.request("GET", "/", headers={"Host": "elsewhere.example.com"})


# What every answer says


def test_http_2_is_offered(server: Server) -> None:
    context = server.tls()
    context.set_alpn_protocols(["h2", "http/1.1"])
    raw = socket.create_connection((server.address, 443))
    with context.wrap_socket(raw, server_hostname=server.domain) as stream:
        assert stream.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_version_is_nobodys_business(scheme: str, server: Server) -> None:
    assert server.request("GET", "/", scheme=scheme).header("Server") == "nginx"
    with socket.create_connection((server.address, 80)) as stream:
        stream.sendall(b"nonsense\r\n\r\n")
        assert b"nginx/" not in stream.recv(4096)


def test_headers_that_protect(server: Server) -> None:
    answer = server.request("GET", "/")
    assert answer.header("Strict-Transport-Security") == "max-age=31536000"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Referrer-Policy") == "strict-origin-when-cross-origin"


@pytest.mark.parametrize(
    ("path", "policy", "options"),
    [
        ("/", "frame-ancestors 'self'", None),
        ("/apps", "frame-ancestors 'self'", None),
        ("/chatbot/token", None, None),
        ("/chat/token", None, None),
        ("/chat/%2e%2e/apps", "frame-ancestors 'self'", None),
        ("/own-rule", None, "DENY"),
    ],
)
def test_framing(path: str, policy: str | None, options: str | None, server: Server) -> None:
    answer = server.request("GET", path)
    assert (answer.header("Content-Security-Policy"), answer.header("X-Frame-Options")) == (policy, options)


# Bodies and streams


def test_a_websocket_crosses_on_its_path(server: Server) -> None:
    connection = server.connection()
    connection.connect()
    stream = connection.sock
    stream.settimeout(20)
    lines = [
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1",
        f"Host: {server.domain}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
    ]
    stream.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += stream.recv(4096)
    assert head.startswith(b"HTTP/1.1 101 ")
    stream.sendall(b"there and back")
    assert stream.recv(4096) == b"there and back"
    connection.close()


def test_nothing_upgrades_on_other_paths(server: Server) -> None:
    headers = told(server.request("GET", "/chat", headers={"Connection": "Upgrade", "Upgrade": "websocket"}))
    assert not {"upgrade", "connection"} & set(headers)


def test_an_upload_arrives_while_it_is_sent(server: Server) -> None:
    half = 4 << 20
    connection = server.connection()
    connection.putrequest("POST", "/upload", skip_host=True)
    connection.putheader("Host", server.domain)
    connection.putheader("Content-Length", str(2 * half))
    connection.endheaders()
    connection.send(bytes(half))
    wait_until(lambda: server.request("GET", "/received").json()["received"] == half)
    connection.send(bytes(half))
    response = connection.getresponse()
    assert Answer(response.status, response.getheaders(), response.read()).json()["received"] == 2 * half
    connection.close()


def test_a_body_above_the_limit_is_refused(server: Server) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        assert server.request("POST", "/upload", bytes(102 << 20)).status == 413


# A service that nobody owns

GUARDED = ["/install", "/install/x", "/init", "/console/api/setup", "/console/api//setup", "/console/api/s%65tup"]


@pytest.fixture
def owned(server: Server) -> t.Iterator[None]:
    """An owner, for the length of a test."""
    assert server.request("PUT", "/owner").status == 200
    yield
    server.request("POST", "/owner")


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
def test_an_unowned_service_shows_nothing_of_its_setup(method: str, path: str, server: Server) -> None:
    assert server.request(method, path).status == 403


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.usefixtures("owned")
def test_an_owned_service_can_be_asked_but_not_set_up(path: str, server: Server) -> None:
    answer = server.request("GET", f"{path}?a=%2f")
    assert (answer.status, answer.json()["path"]) == (200, f"{path}?a=%2f")
    assert server.request("HEAD", path).status == 200
    for method in ("POST", "PUT", "OPTIONS"):
        assert server.request(method, path).status == 403


@pytest.mark.parametrize("path", ["/", "/installed", "/console/api/setups", "/console/api/login"])
def test_what_only_resembles_a_guarded_path_is_not_guarded(path: str, server: Server) -> None:
    assert server.request("POST", path).status == 200


# What an operator may add


def run_one(variables: dict[str, t.Any]) -> Run:
    """Runs the role for the scenario's first site."""
    return run_playbook("../molecule/edge/site", {"nginx_certbot_aliases": ["www.edge.test"], **variables})


@pytest.fixture(scope="class")
def options(server: Server, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[None]:
    page = tmp_path_factory.mktemp("page") / "page.html"
    page.write_text("<p>Our own page</p>", encoding="utf-8")
    with socket.create_connection((server.address, 443)) as connection:
        own_address = connection.getsockname()[0]
    run = run_one(
        {
            "nginx_certbot_http3": True,
            "nginx_certbot_allow": {"/closed": ["192.0.2.0/24"], "/closed/open": ["all"], "/friend": ["198.51.100.7"]},
            "nginx_certbot_basic_auth_users": {"ops": "$apr1$abcdefgh$P7ojtXM3SXvs.8zpdoqUv1"},
            "nginx_certbot_basic_auth_paths": ["/install", "/secret"],
            "nginx_certbot_rate_limits": [{"path": "/console/api/login", "rate": "1r/m", "burst": 2}],
            "nginx_certbot_trusted_proxies": [own_address],
            "nginx_certbot_embeddable_ancestors": "https://www.example.com",
            "nginx_certbot_hsts": "",
            "nginx_certbot_unavailable_page": str(page),
            "nginx_certbot_extra_server_conf": "location = /own {\n    return 200 own;\n}",
        }
    )
    assert not run.failed, run.message
    yield
    back = run_one({})
    assert not back.failed, back.message


@pytest.mark.usefixtures("options")
class TestOptions:
    def test_a_path_is_open_to_the_addresses_it_names(self, server: Server) -> None:
        assert server.request("GET", "/closed").status == server.request("GET", "/closed/below").status == 403
        assert server.request("GET", "/closed/open").status == server.request("GET", "/closedx").status == 200

    def test_a_trusted_proxy_names_the_client_and_its_client_names_nobody(self, server: Server) -> None:
        friend = {"X-Forwarded-For": "198.51.100.7"}
        assert told(server.request("GET", "/friend", headers=friend))["x-forwarded-for"] == "198.51.100.7"
        forged = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
        assert server.request("GET", "/friend", headers=forged).status == 403
        assert told(server.request("GET", "/", headers=forged))["x-forwarded-for"] == "203.0.113.9"

    @pytest.mark.usefixtures("owned")
    def test_a_password_is_asked_for(self, server: Server) -> None:
        for path in ("/secret", "/install"):
            assert server.request("GET", path).status == 401
            for word, status in (("open-sesame", 200), ("guess", 401)):
                credentials = base64.b64encode(f"ops:{word}".encode()).decode()
                assert server.request("GET", path, headers={"Authorization": f"Basic {credentials}"}).status == status
        assert server.request("GET", "/console/api/setup").status == 200

    def test_a_password_does_not_open_an_unowned_service(self, server: Server) -> None:
        credentials = base64.b64encode(b"ops:open-sesame").decode()
        assert server.request("GET", "/install", headers={"Authorization": f"Basic {credentials}"}).status == 403

    def test_requests_above_the_rate_are_refused(self, server: Server) -> None:
        statuses = [server.request("POST", "/console/api/login").status for _try in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert server.request("POST", "/console/api/logout").status == 200

    def test_answers_say_what_was_asked_for(self, server: Server) -> None:
        assert server.request("GET", "/own").body == b"own"
        answer = server.request("GET", "/chatbot/token")
        assert answer.header("Content-Security-Policy") == "frame-ancestors https://www.example.com"
        assert answer.header("Strict-Transport-Security") is None
        assert answer.header("Alt-Svc") == 'h3=":443"; ma=86400'

    def test_http_3_is_spoken(self, server: Server, host: t.Any) -> None:
        fetch = "curl -sk --http3-only --resolve %s:443:%s -o /dev/null -w '%%{http_version} %%{http_code}' https://%s/"
        assert host.check_output(fetch, server.domain, server.address, server.domain) == "3 200"

    def test_an_operators_own_page_is_in_place(self, server: Server, host: t.Any) -> None:
        page = host.file(f"/data/nginx/user_conf.d/{server.domain}.unavailable.html")
        assert page.content_string == "<p>Our own page</p>"


# Late, so that the stream was idle meanwhile, and before what ends it


def test_a_stream_starts_at_once_and_survives_two_idle_minutes(
    idle_stream: tuple[http.client.HTTPResponse, float],
) -> None:
    response, first_byte = idle_stream
    assert first_byte < 1
    assert response.read() == b"\ndata: %d\n\n" % IDLE


def test_a_stopped_service_has_a_page_and_stays_guarded(server: Server, host: t.Any) -> None:
    host.check_output("systemctl stop service")
    try:
        for method in ("GET", "POST"):
            answer = server.request(method, "/anything")
            assert (answer.status, answer.header("Retry-After")) == (503, "30")
            assert b"Back soon" in answer.body
        assert server.request("GET", "/install").status == 403
    finally:
        host.check_output("systemctl start service")
    wait_until(lambda: server.request("GET", "/").status == 200)


def test_lines_that_nginx_refuses_change_nothing(server: Server, host: t.Any) -> None:
    site = f"/data/nginx/user_conf.d/{server.domain}.conf"
    before = host.check_output(f"cat {site}")
    run = run_one({"nginx_certbot_extra_server_conf": "no_such_directive on;"})
    assert run.failed
    assert 'unknown directive "no_such_directive" in ' in run.message
    assert host.check_output(f"cat {site}") == before
    host.check_output("docker restart nginx-certbot")
    wait_until(lambda: server.request("GET", "/").status == 200)
