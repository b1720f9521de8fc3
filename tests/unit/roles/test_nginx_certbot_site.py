# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role nginx_certbot: what nginx's files say, and whether nginx takes them. How it acts is the scenario's to prove."""

from __future__ import annotations

import re
import shutil
import subprocess
import typing as t

import pytest
from test_nginx_certbot import Block, blocks, derive, parse, render, settings, site, task, templar

ID = derive("__nginx_certbot_id")
EVERYTHING: dict[str, t.Any] = {
    "nginx_certbot_http3": True,
    "nginx_certbot_upstream": "http://[::1]:8080",
    "nginx_certbot_keepalive_seconds": 0,
    "nginx_certbot_trusted_proxies": ["192.0.2.0/24", "2001:db8::1"],
    "nginx_certbot_trusted_header": "CF-Connecting-IP",
    "nginx_certbot_headers": {"X-Quoted": 'say "so"'},
    "nginx_certbot_embeddable_ancestors": "https://www.example.com",
    "nginx_certbot_allow": {"/console/api": ["10.0.0.0/8", "2001:db8::/32"], "/console/api/system-features": ["all"]},
    "nginx_certbot_basic_auth_users": {"ops": "$6$salt$hash"},
    "nginx_certbot_rate_limits": [{"path": "/console/api/login", "rate": "10r/m", "burst": 5}],
    "nginx_certbot_extra_server_conf": "location /own {\n    return 200 own;\n}\n",
}


def maps(text: str) -> dict[str, dict[str, str]]:
    """The maps of a configuration: the variable each sets, and what it sets it to."""
    found = {words[2]: inner for words, inner in parse(text) if words[0] == "map" and inner is not None}
    return {name: {unquoted(words[0]): unquoted(words[1]) for words, _block in inner} for name, inner in found.items()}


def unquoted(word: str) -> str:
    return word[1:-1] if word[0] in "'\"" else word


def looked_up(table: dict[str, str], value: str) -> str:
    patterns = [key for key in table if key.startswith("~") and re.search(key[1:], value)]
    return table[value if value in table else patterns[0] if patterns else "default"]


def located(server: Block, path: str) -> list[dict[str, list[list[str]]]]:
    """The path's own locations: for itself, and for what is below it."""
    return [
        settings(block) for words in (["=", path], ["^~", path + "/"]) for block in blocks(server, "location", *words)
    ]


def test_the_site_serves_its_name_with_its_certificate() -> None:
    server = settings(site())
    assert server["server_name"] == [["dify.example.com"]]
    assert server["ssl_certificate"] == [["/etc/letsencrypt/live/dify.example.com/fullchain.pem"]]
    assert server["ssl_certificate_key"] == [["/etc/letsencrypt/live/dify.example.com/privkey.pem"]]
    assert server["listen"] == [["443", "ssl"], ["[::]:443", "ssl"]]
    assert not {"ssl_dhparam", "ssl_stapling"} & set(server)


def test_every_server_offers_modern_tls_only() -> None:
    common = blocks(parse(render("common.conf.j2")), "server")
    for found in map(settings, (site(), common[0])):
        assert found["ssl_protocols"] == [["TLSv1.2", "TLSv1.3"]]
        assert all(re.match(r"ECDHE-.*(GCM|CHACHA20)", cipher) for cipher in found["ssl_ciphers"][0][0].split(":"))
    assert settings(parse(render("common.conf.j2")))["server_tokens"] == [["off"]]


def test_unknown_names_get_nothing_and_no_certificate_is_ordered_for_them() -> None:
    secure, plain = blocks(parse(render("common.conf.j2")), "server")
    assert [words[-1] for words in settings(secure)["listen"]] == ["default_server", "default_server"]
    assert settings(secure)["ssl_reject_handshake"] == [["on"]]
    assert settings(secure)["return"] == [["444"]]
    assert settings(plain)["server_name"] == [["~."]]
    # The image orders a certificate for every server_name of a file that names a key.
    assert "ssl_certificate" not in render("common.conf.j2")


def test_nothing_is_buffered_and_nothing_times_out_early() -> None:
    found = settings(site())
    for name in ("proxy_buffering", "proxy_request_buffering", "proxy_cache"):
        assert found[name] == [["off"]]
    for name in ("proxy_send_timeout", "proxy_read_timeout"):
        assert found[name] == [["3600s"]]


def test_every_location_says_the_same_to_the_service() -> None:
    server = site(**EVERYTHING)
    names = [name for name, _value in settings(server)["proxy_set_header"]]
    assert {
        "CF-Connecting-IP",
        "True-Client-IP",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Real-IP",
    } <= set(names)
    assert len(names) == len({name.lower() for name in names})
    # One header of a location's own would make nginx forget those of the server.
    own = [words for words, block in server if block is not None and "proxy_set_header" in settings(block)]
    assert own == [["location", "=", "/.nginx-certbot/claimed"]]


@pytest.mark.parametrize(
    ("upstream", "address"),
    [
        ("http://127.0.0.1:3000", "127.0.0.1:3000"),
        ("http://localhost", "localhost"),
        ("https://localhost", "localhost:443"),
        ("https://[::1]", "[::1]:443"),
        ("https://[::1]:8443", "[::1]:8443"),
    ],
)
def test_upstream_is_the_service(upstream: str, address: str) -> None:
    (group,) = blocks(parse(render("site.conf.j2", nginx_certbot_upstream=upstream)), "upstream")
    assert settings(group)["server"] == [[address]]
    (catch_all,) = blocks(site(nginx_certbot_upstream=upstream), "location", "/")
    assert settings(catch_all)["proxy_pass"] == [[upstream.split("//")[0] + f"//{ID}"]]


def test_port_and_body_limit_follow_the_collection() -> None:
    text = render("site.conf.j2", dify_http_port=8300, dify_upload_max_mb=250)
    assert settings(blocks(parse(text), "upstream")[0])["server"] == [["127.0.0.1:8300"]]
    assert settings(site(dify_upload_max_mb=250))["client_max_body_size"] == [["251m"]]


def test_connections_to_the_service_are_kept_unless_that_is_off() -> None:
    kept, closed = (
        settings(blocks(parse(render("site.conf.j2", nginx_certbot_keepalive_seconds=seconds)), "upstream")[0])
        for seconds in (9, 0)
    )
    assert kept["keepalive_timeout"] == [["9s"]]
    assert "keepalive" not in closed


def test_sites_of_one_host_share_no_names() -> None:
    names = ["a-b.example.com", "a.b.example.com", "ab.example.com"]
    assert len({derive("__nginx_certbot_id", nginx_certbot_domain=name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("paths", "upgraded", "plain"),
    [
        (["/socket.io/"], ["/socket.io/", "/socket.io/x"], ["/", "/socket.io", "/x/socket.io/", "/socketXio/"]),
        (["/ws"], ["/ws", "/ws/x"], ["/wsx", "/a/ws"]),
        (["/"], ["/", "/x"], []),
        ([], [], ["/"]),
    ],
)
def test_only_named_paths_upgrade(paths: list[str], upgraded: list[str], plain: list[str]) -> None:
    table = maps(render("site.conf.j2", nginx_certbot_websocket_paths=paths))[f"${ID}_upgrade"]
    assert {looked_up(table, path) for path in upgraded} <= {"$http_upgrade"}
    assert {looked_up(table, path) for path in plain} <= {""}


def test_framing_is_for_the_embeddable_paths() -> None:
    text = render("site.conf.j2", nginx_certbot_embeddable_ancestors="https://www.example.com")
    table = maps(text)[f"${ID}_framing"]
    for path in (
        "/chatbot/token",
        "/chat/token",
        "/completion/token",
        "/workflow/token",
        "/agent/token",
        "/webapp-signin",
    ):
        assert looked_up(table, path) == "frame-ancestors https://www.example.com"
    for path in ("/", "/apps", "/chatbots", "/x/chat/y", "/signin"):
        assert looked_up(table, path) == "frame-ancestors 'self'"
    # What the service says of it itself, holds.
    assert maps(text)[f"${ID}_frame_ancestors"] == {"default": "", "": f"${ID}_framing"}


def test_guarded_paths_ask_and_refuse_to_be_written_to() -> None:
    server = site()
    for path in ("/install", "/init", "/console/api/setup", "/console/api/init"):
        assert len(located(server, path)) == 2
        for found in located(server, path):
            assert found["auth_request"] == [["/.nginx-certbot/claimed"]]
            assert found["proxy_pass"] == [[f"${ID}_guarded$request_uri"]]
    table = maps(render("site.conf.j2"))[f"${ID}_guarded"]
    assert table == {"default": "", "403": f"http://{ID}"}
    assert "auth_request" not in render("site.conf.j2", nginx_certbot_guarded_paths=[])


def test_what_is_refused_on_a_path_is_refused_below_it_by_the_longest() -> None:
    server = site(**EVERYTHING)
    for path in ("/console/api", "/console/api/setup", "/console/api/login"):
        for found in located(server, path):
            assert found["allow"] == [["10.0.0.0/8"], ["2001:db8::/32"]]
            assert found["deny"] == [["all"]]
    for found in located(server, "/console/api/system-features"):
        assert found["allow"] == [["all"]]
    for found in located(server, "/console/api/login"):
        assert found["limit_req"] == [[f"zone={ID}_1", "burst=5", "nodelay"]]
    for found in located(server, "/install"):
        assert found["auth_basic_user_file"] == [["/etc/nginx/user_conf.d/dify.example.com.users"]]
    assert "auth_basic" not in render("site.conf.j2")


def test_headers_of_the_edge_take_the_place_of_the_service_s() -> None:
    found = settings(site(nginx_certbot_http3=True))
    added = {words[0]: words[1] for words in found["add_header"]}
    assert added["Strict-Transport-Security"] == '"max-age=31536000"'
    assert added["X-Content-Type-Options"] == '"nosniff"'
    assert ["Strict-Transport-Security"] in found["proxy_hide_header"]
    assert "Alt-Svc" in added
    assert "Strict-Transport-Security" not in render("site.conf.j2", nginx_certbot_hsts="")


@pytest.mark.parametrize(
    ("listener", "verdict", "holder"),
    [
        ('UNCONN 0 0 0.0.0.0:443 0.0.0.0:* users:(("nginx",pid=812,fd=6))', True, ""),
        ('UNCONN 0 0 *:443 *:* users:(("caddy",pid=5,fd=7))', False, "held by caddy, but HTTP/3 needs it"),
        ("UNCONN 0 0 127.0.0.1:443 0.0.0.0:*", False, "held by a program that could not be named, but"),
    ],
)
def test_a_held_udp_port_is_refused(listener: str, verdict: bool, holder: str) -> None:
    check = task("preflight", "Refuse HTTP/3 on a port that another program holds")["ansible.builtin.assert"]
    over = templar(__nginx_certbot_listener=listener)
    assert over.evaluate_conditional(check["that"]) is verdict
    assert holder in " ".join(over.template(check["fail_msg"]).split())


@pytest.fixture(scope="module")
def image() -> str:
    """The testbed's stand-in of the image, in whose nginx the files are tried."""
    name = "selfhost-dify-stand-in"
    listing = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", name]
    done = subprocess.run(listing, capture_output=True, text=True, check=False) if shutil.which("docker") else None
    found = [line for line in done.stdout.split() if ":nginx-certbot-" in line] if done else []
    if not found:
        pytest.skip("no stand-in of nginx-certbot on this machine")
    return found[0]


def nginx_says(image: str, **variables: t.Any) -> tuple[int, str]:
    """What nginx makes of the two files, with a certificate made for the occasion."""
    directory = derive("__nginx_certbot_certificate_path", **variables)
    script = f"""
    mkdir -p {directory}
    cd {directory}
    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout privkey.pem -out fullchain.pem 2>/dev/null
    cd /etc/nginx/conf.d
    awk '$1 == "####" {{ file = $2; next }} {{ print >file }}'
    exec nginx -t
    """
    files = "".join(f"#### {name}\n{render(name + '.j2', **variables)}\n" for name in ("common.conf", "site.conf"))
    command = [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network",
        "none",
        "--entrypoint",
        "sh",
        image,
        "-ec",
        script,
    ]
    done = subprocess.run(command, input=files, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        EVERYTHING,
        {"nginx_certbot_guarded_paths": [], "nginx_certbot_frame_ancestors": ""},
        {"nginx_certbot_domain": ".".join([63 * "a", 63 * "b", 63 * "c", "example.com"]), **EVERYTHING},
    ],
)
def test_nginx_takes_it_without_a_warning(image: str, variables: dict[str, t.Any]) -> None:
    status, said = nginx_says(image, **variables)
    assert status == 0, said
    assert "[warn]" not in said
