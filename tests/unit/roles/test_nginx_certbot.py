# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role nginx_certbot: the files it renders, and what it makes of variables, listening ports and certificates."""

from __future__ import annotations

import datetime
import re
import typing as t
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles" / "nginx_certbot"
LOADER = DataLoader()
Block = list[tuple[list[str], t.Optional["Block"]]]


def templar(**variables: t.Any) -> Templar:
    """Ansible's own templating over the role's defaults and vars."""
    scope: dict[str, t.Any] = {}
    for part in ("defaults", "vars"):
        scope |= LOADER.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    scope |= {"dify_domain": "dify.example.com", "nginx_certbot_email": "admin@example.com"}
    return Templar(loader=LOADER, variables=scope | {"ansible_managed": "Managed"} | variables)


def derive(expression: str, **variables: t.Any) -> t.Any:
    return templar(**variables).template(trust_as_template("{{ " + expression + " }}"))


def render(name: str, **variables: t.Any) -> str:
    return str(derive(f"lookup('template', '{ROLE / 'templates' / name}')", **variables))


def task(file: str, name: str) -> dict[str, t.Any]:
    tasks = LOADER.load_from_file(str(ROLE / "tasks" / f"{file}.yml"), trusted_as_template=True)
    return next(found for found in tasks if found["name"] == f"{file} | {name}")


def parse(text: str) -> Block:
    """An nginx configuration as directives, each with its words and, where it has one, its block."""
    tokens = re.findall(r"\"[^\"]*\"|'[^']*'|[{};]|[^\s{};]+", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE))

    def block(depth: int) -> Block:
        found: Block = []
        words: list[str] = []
        while tokens:
            token = tokens.pop(0)
            if token == ";":
                found.append((words, None))
                words = []
            elif token == "{":
                found.append((words, block(depth + 1)))
                words = []
            elif token == "}":
                assert depth > 0 and not words
                return found
            else:
                words.append(token)
        assert depth == 0 and not words
        return found

    return block(0)


def blocks(parent: Block, *words: str) -> list[Block]:
    return [inner for found, inner in parent if inner is not None and found[: len(words)] == list(words)]


def settings(parent: Block) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for words, inner in parent:
        if inner is None:
            found.setdefault(words[0], []).append(words[1:])
    return found


def site(**variables: t.Any) -> Block:
    """The site's server on port 443."""
    servers = blocks(parse(render("site.conf.j2", **variables)), "server")
    (found,) = [server for server in servers if "ssl_certificate" in settings(server)]
    return found


# Compose and certbot


def test_compose_project() -> None:
    project = LOADER.load(render("compose.yml.j2"))
    assert project["name"] == "nginx"
    service = project["services"]["nginx-certbot"]
    assert service["image"] == "docker.io/jonasal/nginx-certbot:6.2.0-nginx1.31.2"
    assert service["container_name"] == "nginx-certbot"
    assert service["network_mode"] == "host"
    assert service["restart"] == "always"
    assert "nginx_secrets:/etc/letsencrypt" in service["volumes"]
    assert "/data/nginx/user_conf.d:/etc/nginx/user_conf.d:ro" in service["volumes"]
    assert project["volumes"] == {"nginx_secrets": {"name": "nginx_secrets"}}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"STAGING=0"}),
        ({"nginx_certbot_staging": True}, {"STAGING=1"}),
        (
            {"nginx_certbot_acme_directory": "https://acme.test/dir", "nginx_certbot_acme_ca": "/ca.pem"},
            {"STAGING=0", "CERTBOT_PRODUCTION_URL='https://acme.test/dir'", "REQUESTS_CA_BUNDLE=/etc/acme-ca/ca.pem"},
        ),
    ],
)
def test_environment_of_certbot(variables: dict[str, t.Any], expected: set[str]) -> None:
    lines = {line for line in render("nginx-certbot.env.j2", **variables).splitlines() if not line.startswith("#")}
    assert lines == expected | {"CERTBOT_EMAIL='admin@example.com'", "USE_ECDSA=1"}


# Preflight


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "nginx_certbot_domain",
            ["dify.example.com", "a.io", "xn--bcher-kva.example", "1.dify.example.com"],
            ["", "dify", "Dify.example.com", "-a.example.com", "a..com", "10.0.0.1", "a.com.", "https://a.com"],
        ),
        (
            "nginx_certbot_email",
            ["admin@example.com", "a.b+c@x.example"],
            ["", "admin", "admin@host", "a'b@example.com", "a b@c.de"],
        ),
        (
            "nginx_certbot_upstream",
            ["http://127.0.0.1:3000", "https://[::1]:8443", "http://localhost"],
            ["127.0.0.1:3000", "http://127.0.0.1:3000/", "http://x;y", "unix:/run/x.sock"],
        ),
        ("nginx_certbot_image", ["docker.io/jonasal/nginx-certbot", "registry.test:5000/a/b"], ["", "a b"]),
        ("nginx_certbot_version", ["6.2.0-nginx1.31.2", "latest"], ["", "a:b"]),
        (
            "nginx_certbot_acme_directory",
            ["", "https://acme.test:14000/dir"],
            ["http://acme.test/dir", "https://a b", "x"],
        ),
        ("nginx_certbot_acme_ca", ["", __file__], ["/nonexistent.pem", "/"]),
        ("nginx_certbot_project_path", ["/root/nginx"], ["", "/", "nginx", "/a b", "/a/../$x"]),
        ("nginx_certbot_conf_path", ["/data/nginx/user_conf.d"], ["", "relative"]),
        ("nginx_certbot_volume", ["nginx_secrets"], ["", "a/b"]),
        ("nginx_certbot_container", ["nginx-certbot"], ["", "-x"]),
        ("nginx_certbot_client_max_body_size", ["100m", "0", "1G"], ["", "100 MB", "1.5g", "m"]),
        *(
            (
                f"nginx_certbot_{kind}_paths",
                [[], ["/"], ["/a.b/", "/c-d"]],
                [["ws"], ["/a b"], ["/a{"], ["/ok", "/x;y"]],
            )
            for kind in ("websocket", "embeddable", "guarded", "basic_auth")
        ),
        ("nginx_certbot_probe_path", ["/console/api/init"], ["", "init", "/a b"]),
        ("nginx_certbot_probe_body", ['{"password": "x"}', ""], ["it's", "$uri", "\\", "a\nb"]),
        (
            "nginx_certbot_basic_auth_users",
            [{}, {"ops": "$6$salt$hash/."}, {"a@b.c": "$apr1$salt$hash"}],
            [{"ops": "secret"}, {"o:p": "$6$salt$hash"}, {"ops": "$6$salt$hash\nroot:$6$salt$hash"}],
        ),
        (
            "nginx_certbot_allow",
            [{}, {"/console": ["192.0.2.1", "2001:db8::/32"], "/": ["all"]}],
            [{"console": ["all"]}, {"/console": "192.0.2.1"}, {"/console": []}, {"/console": ["office.example.com"]}],
        ),
        (
            "nginx_certbot_trusted_proxies",
            [[], ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"]],
            [["all"], ["0.0.0.0/0"], ["::/0"], ["lb.example.com"]],
        ),
        ("nginx_certbot_trusted_header", ["X-Forwarded-For", "CF-Connecting-IP"], ["", "X Y", "a;b"]),
        (
            "nginx_certbot_rate_limits",
            [[], [{"path": "/login", "rate": "10r/m"}, {"path": "/", "rate": "5r/s", "burst": 9}]],
            [
                [{"path": "/login"}],
                [{"rate": "10r/m"}],
                [{"path": "/login", "rate": "10"}],
                [{"path": "/a", "rate": "1r/s"}, {"path": "/a", "rate": "2r/s"}],
            ],
        ),
        ("nginx_certbot_headers", [{}, {"X-A": "b"}], [{"X A": "b"}, {"a;b": "c"}]),
        ("nginx_certbot_unavailable_page", ["", __file__], ["/nonexistent.html"]),
    ],
)
def test_values_of_the_wrong_shape_are_refused(name: str, good: list[t.Any], bad: list[t.Any]) -> None:
    (check,) = [item for item in task("preflight", "Refuse values of the wrong shape")["loop"] if item["name"] == name]
    for values, verdict in ((good, True), (bad, False)):
        for value in values:
            assert templar(**{name: value}).template(check["that"]) is verdict, value


@pytest.mark.parametrize(
    ("variables", "verdicts"),
    [
        ({}, [True, True]),
        ({"nginx_certbot_staging": True}, [True, True]),
        ({"nginx_certbot_staging": True, "nginx_certbot_acme_directory": "https://acme.test/dir"}, [False, True]),
        ({"nginx_certbot_acme_ca": "/ca.pem"}, [True, False]),
        ({"nginx_certbot_acme_ca": "/ca.pem", "nginx_certbot_acme_directory": "https://acme.test/dir"}, [True, True]),
    ],
)
def test_settings_that_exclude_each_other_are_refused(variables: dict[str, t.Any], verdicts: list[bool]) -> None:
    checks = task("preflight", "Refuse settings that exclude each other")["loop"]
    assert [templar(**variables).template(check["that"]) for check in checks] == verdicts


LISTENERS = {
    "nginx": 'LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=812,fd=6),("nginx",pid=811,fd=6))',
    "apache2": 'LISTEN 0 511 *:80 *:* users:(("apache2",pid=700,fd=4))',
    "docker-proxy": 'LISTEN 0 4096 [::]:443 [::]:* users:(("docker-proxy",pid=5,fd=7))',
    "unnamed": "LISTEN 0 511 127.0.0.1:443 0.0.0.0:*",
}


@pytest.mark.parametrize(
    ("listener", "state", "verdict", "words"),
    [
        ("nginx", "running", True, ""),
        ("nginx", "", False, "Port 80 of this host is held by nginx (process 812)"),
        ("nginx", "exited", False, "stop and disable that program"),
        ("apache2", "running", False, "Port 80 of this host is held by apache2 (process 700)"),
        ("docker-proxy", "", False, "docker ps --filter publish=443"),
        ("unnamed", "", False, "Port 443 of this host is held by a program that could not be named, but"),
    ],
)
def test_held_ports_are_refused(listener: str, state: str, verdict: bool, words: str) -> None:
    check = task("preflight", "Refuse ports that another program holds")
    over = templar(
        **check["vars"], __nginx_certbot_listener=LISTENERS[listener], __nginx_certbot_state={"stdout": state}
    )
    assert over.evaluate_conditional(check["ansible.builtin.assert"]["that"]) is verdict
    assert words in " ".join(over.template(check["ansible.builtin.assert"]["fail_msg"]).split())


# The certificate


@pytest.mark.parametrize("day", ["Feb  3", "Nov 22"])
def test_certificate_is_understood(day: str) -> None:
    year = datetime.datetime.now(datetime.timezone.utc).year + 1
    out = f"issuer=CN=R11,O=Let's Encrypt,C=US\nnotAfter={day} 04:12:44 {year} GMT\nHostname x does match certificate"
    remember = task("certificate", "Remember issuer and days left")
    over = templar(**remember["vars"], __nginx_certbot_served={"stdout": out})
    found = over.template(remember["ansible.builtin.set_fact"]["__nginx_certbot_certificate"])
    assert found["issuer"] == "CN=R11,O=Let's Encrypt,C=US"
    assert found["not_after"] == f"{day} 04:12:44 {year} GMT"
    left = datetime.datetime.strptime(f"{day} {year}", "%b %d %Y").date() - datetime.date.today()
    assert abs(found["days_left"] - left.days) <= 1


def test_failed_order_shows_what_certbot_said() -> None:
    (wait,) = [found for found in LOADER.load_from_file(str(ROLE / "tasks" / "order.yml"), trusted_as_template=True)
               if "rescue" in found]  # fmt: skip
    fail = wait["rescue"][-1]
    said = {
        "stdout_lines": ["\x1b[1m\x1b[31m2026/11/22 [error] Certbot failed for 'dify.example.com'\x1b[0m"],
        "stderr_lines": ["Some challenges have failed.", "2026/11/22 [notice] 8#8: start worker process 9"],
    }
    message = templar(**fail["vars"], __nginx_certbot_log=said).template(fail["ansible.builtin.fail"]["msg"])
    assert message.splitlines()[-2:] == [
        "2026/11/22 [error] Certbot failed for 'dify.example.com'",
        "Some challenges have failed.",
    ]


def test_domain_reaches_the_shell_as_an_argument() -> None:
    probe = derive("__nginx_certbot_probe", nginx_certbot_domain="dify.example.com")
    assert probe[:4] == ["docker", "exec", "nginx-certbot", "sh"]
    assert probe[-1] == "dify.example.com"
    assert "dify.example.com" not in probe[5]
