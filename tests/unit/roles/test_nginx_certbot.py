# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role nginx_certbot: the files it renders, and what it makes of variables, listening ports and certificates."""

from __future__ import annotations

import datetime
import json
import re
import shlex
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


CONTAINER = {"CERTBOT_EMAIL='admin@example.com'", "USE_ECDSA=1", "STAGING=0", "RENEWAL_INTERVAL='1d'"} | {
    "CERTBOT_DNS_CREDENTIALS_DIR=/etc/nginx-certbot/dns"
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, set()),
        (
            {"nginx_certbot_acme_directory": "https://acme.test/dir", "nginx_certbot_acme_ca": "/ca.pem"},
            {"CERTBOT_PRODUCTION_URL='https://acme.test/dir'", "REQUESTS_CA_BUNDLE=/etc/acme-ca/ca.pem"},
        ),
        ({"nginx_certbot_dns_propagation_seconds": 90}, {"CERTBOT_DNS_PROPAGATION_SECONDS=90"}),
    ],
)
def test_environment_of_certbot(variables: dict[str, t.Any], expected: set[str]) -> None:
    lines = {line for line in render("nginx-certbot.env.j2", **variables).splitlines() if not line.startswith("#")}
    assert lines == expected | CONTAINER


@pytest.mark.parametrize("name", ["nginx-certbot.env.j2", "compose.yml.j2", "common.conf.j2"])
def test_nothing_of_the_container_depends_on_a_site(name: str) -> None:
    """Otherwise a move to another mode, or a second site, would recreate the container and leave nobody to answer."""
    one = render(name)
    for mode in ("staging", "files", "local_ca"):
        site = {"nginx_certbot_tls": mode, "nginx_certbot_domain": "b.example.com", "nginx_certbot_key_type": "rsa"}
        assert render(name, **site, nginx_certbot_dns_authenticator="cloudflare") == one


LIVE = "/etc/letsencrypt/live"


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({}, f"{LIVE}/dify.example.com"),
        ({"nginx_certbot_tls": "staging"}, "/etc/letsencrypt/staging/live/dify.example.com"),
        ({"nginx_certbot_tls": "local_ca"}, "/etc/nginx-certbot/local_ca/dify.example.com"),
        (
            {
                "nginx_certbot_tls": "files",
                "__nginx_certbot_own": {"certificate": {"fingerprint": "0123456789abcdef" * 4}},
            },
            "/etc/nginx-certbot/files/dify.example.com/0123456789abcdef",
        ),
        ({"nginx_certbot_key_type": "rsa"}, f"{LIVE}/dify.example.com.rsa"),
        ({"nginx_certbot_dns_authenticator": "cloudflare"}, f"{LIVE}/dify.example.com.dns-cloudflare"),
        # names that the image would take for settings
        ({"nginx_certbot_domain": "dns-cloudflare.example.com"}, f"{LIVE}/dns-cloudflare.example.com.webroot"),
        ({"nginx_certbot_domain": "rsa.example.com"}, f"{LIVE}/rsa.example.com.ecdsa"),
    ],
)
def test_where_the_certificate_is(variables: dict[str, t.Any], path: str) -> None:
    found = settings(site(**variables))
    assert found["ssl_certificate"] == [[f"{path}/fullchain.pem"]]
    assert found["ssl_certificate_key"] == [[f"{path}/privkey.pem"]]


def test_all_names_of_a_site_are_served_and_certified() -> None:
    names = {"nginx_certbot_aliases": ["www.example.com", "dify.example.com"]}
    assert settings(site(**names))["server_name"] == [["dify.example.com", "www.example.com"]]
    order = derive("__nginx_certbot_order", **names)
    assert order[-4:] == ["--domain", "dify.example.com", "--domain", "www.example.com"]
    (local,) = blocks(parse(render("local_ca_site.conf.j2", **names)), "server")
    assert settings(local)["server_name"] == [["dify.example.com", "www.example.com"]]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["--server", "https://acme-v02.api.letsencrypt.org/directory"]),
        ({}, ["--key-type", "ecdsa"]),
        ({}, ["--authenticator", "webroot", "--webroot-path", "/var/www/letsencrypt"]),
        ({"nginx_certbot_tls": "staging"}, ["--server", "https://acme-staging-v02.api.letsencrypt.org/directory"]),
        ({"nginx_certbot_tls": "staging"}, ["--config-dir", "/etc/letsencrypt/staging"]),
        ({"nginx_certbot_acme_directory": "https://acme.test/dir"}, ["--server", "https://acme.test/dir"]),
        (
            {"nginx_certbot_dns_authenticator": "hetzner", "nginx_certbot_dns_propagation_seconds": 90},
            [
                "--dns-hetzner-credentials",
                "/etc/nginx-certbot/dns/hetzner.ini",
                "--dns-hetzner-propagation-seconds",
                "90",
            ],
        ),
        ({"nginx_certbot_dns_authenticator": "route53"}, ["--authenticator", "dns-route53"]),
    ],
)
def test_what_certbot_is_asked_for(variables: dict[str, t.Any], expected: list[str]) -> None:
    order = derive("__nginx_certbot_order", **variables)
    assert any(order[start : start + len(expected)] == expected for start in range(len(order))), order
    assert "--dns-route53-credentials" not in order


@pytest.mark.parametrize(("rc", "option"), [(0, "--force-renewal"), (1, "--keep-until-expiring")])
def test_a_certificate_that_is_there_meanwhile_is_not_ordered_again(rc: int, option: str) -> None:
    assert option in derive("__nginx_certbot_order", __nginx_certbot_kept={"rc": rc})


def test_credentials_of_the_dns() -> None:
    given = {"dns_cloudflare_api_token": "abc%'\""}
    lines = render("dns.ini.j2", nginx_certbot_dns_credentials=given, nginx_certbot_dns_authenticator="cloudflare")
    assert lines.splitlines()[-1] == "dns_cloudflare_api_token = abc%'\""
    aws = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    lines = render("dns.ini.j2", nginx_certbot_dns_credentials=aws, nginx_certbot_dns_authenticator="route53")
    assert lines.splitlines()[-3:] == ["[default]", "aws_access_key_id = a", "aws_secret_access_key = b"]


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
        ("nginx_certbot_staging_directory", ["", "https://acme.test/dir"], ["http://acme.test/dir", "x"]),
        ("nginx_certbot_aliases", [[], ["www.example.com"]], [["www"], ["a.example.com", "B.example.com"]]),
        ("nginx_certbot_dns_authenticator", ["", "cloudflare", "route53"], ["dns-cloudflare", "a b", "Hetzner"]),
        ("nginx_certbot_addresses", [[], ["192.0.2.1", "2001:db8::1"]], [["lb.example.com"]]),
        ("nginx_certbot_renewal_interval", ["1d", "90s"], ["", "0d", "daily", "1.5h"]),
        ("nginx_certbot_textfile_path", ["", "/var/lib/n/edge.prom"], ["edge.prom", "/var/lib/n/edge", "/a b.prom"]),
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


def test_an_email_is_asked_for_where_there_is_an_account() -> None:
    (check,) = [item for item in task("preflight", "Refuse values of the wrong shape")["loop"]
                if item["name"] == "nginx_certbot_email"]  # fmt: skip
    for mode, verdict in (("acme", False), ("staging", False), ("files", True), ("local_ca", True)):
        assert templar(nginx_certbot_tls=mode, nginx_certbot_email="").template(check["that"]) is verdict


OWN = {"nginx_certbot_tls": "files", "nginx_certbot_certificate": "/c.pem"}


@pytest.mark.parametrize(
    ("variables", "verdicts"),
    [
        ({}, [True, True, True]),
        ({"nginx_certbot_acme_ca": "/ca.pem"}, [False, True, True]),
        ({"nginx_certbot_acme_ca": "/ca.pem", "nginx_certbot_acme_directory": "https://acme.test/dir"}, [True] * 3),
        ({"nginx_certbot_dns_authenticator": "cloudflare"}, [True, False, True]),
        (OWN, [True, True, False]),
        ({**OWN, "nginx_certbot_private_key": "/k.pem"}, [True, True, True]),
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


# Orders

KEPT = {"stdout": "server = https://acme-v02.api.letsencrypt.org/directory\nkey_type = ecdsa\n"}


def judged(*names: str, problems: tuple[str, ...] = ()) -> dict[str, t.Any]:
    return {"certificate": {"names": list(names)} if names else {"names": []}, "problems": list(problems)}


@pytest.mark.parametrize(
    ("found", "variables", "due"),
    [
        (judged("dify.example.com"), {}, False),
        (judged(problems=("there is no PEM certificate in it",)), {}, True),
        (judged("dify.example.com", problems=("expired",)), {}, True),
        (judged("dify.example.com"), {"nginx_certbot_aliases": ["www.example.com"]}, True),
        (judged("www.example.com", "dify.example.com"), {}, True),
        (judged("www.example.com", "dify.example.com"), {"nginx_certbot_aliases": ["www.example.com"]}, False),
        (judged("dify.example.com"), {"nginx_certbot_acme_directory": "https://acme.test/dir"}, True),
        (judged("dify.example.com"), {"nginx_certbot_tls": "staging"}, True),
    ],
)
def test_when_an_order_is_due(found: dict[str, t.Any], variables: dict[str, t.Any], due: bool) -> None:
    assert derive("__nginx_certbot_due", __nginx_certbot_judged=found, __nginx_certbot_kept=KEPT, **variables) is due


def ago(minutes: float, failures: int, **variables: t.Any) -> dict[str, t.Any]:
    """A failure as remembered, for the site of these variables."""
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes)
    failed = {"order": derive("__nginx_certbot_wanted", **variables), "failures": failures, "reason": "no route"}
    return {"stdout": json.dumps(failed | {"at": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})}


@pytest.mark.parametrize(
    ("failure", "variables", "verdict"),
    [
        ({"stdout": "", "rc": 1}, {}, True),
        (ago(1, 1), {}, False),
        (ago(13, 1), {}, True),
        (ago(13, 2), {}, False),
        (ago(25, 2), {}, True),
        (ago(60 * 23, 20), {}, False),
        (ago(60 * 25, 20), {}, True),
        (ago(1, 1), {"nginx_certbot_retry": True}, True),
        (ago(1, 1), {"nginx_certbot_aliases": ["www.example.com"]}, True),
        (ago(1, 1), {"nginx_certbot_tls": "staging"}, True),
    ],
)
def test_failed_orders_are_not_repeated_at_once(
    failure: dict[str, t.Any], variables: dict[str, t.Any], verdict: bool
) -> None:
    check = task("order", "Wait after a failure")["ansible.builtin.assert"]
    over = templar(__nginx_certbot_failure=failure, **variables)
    assert over.evaluate_conditional(check["that"]) is verdict
    message = " ".join(over.template(check["fail_msg"]).split())
    assert verdict or ('the last with "no route"; the next try is due in ' in message and "retry=true" in message)


def test_a_failed_order_shows_what_certbot_said() -> None:
    said = {"stdout_lines": ["  Domain: a.test", "  Detail: no route to host"],
            "stderr_lines": ["Saving debug log to /var/log/x", "- - - -", "Some challenges have failed."]}  # fmt: skip
    assert derive("__nginx_certbot_words", __nginx_certbot_ordered=said).splitlines() == [
        "  Domain: a.test",
        "  Detail: no route to host",
        "Some challenges have failed.",
    ]
    assert derive("__nginx_certbot_reason", __nginx_certbot_ordered=said) == "no route to host"


def test_names_reach_shells_as_arguments() -> None:
    assert derive("__nginx_certbot_load")[-1] == "dify.example.com.conf"
    assert "example" not in derive("__nginx_certbot_load")[5]
    trial = derive("__nginx_certbot_validate | replace('NAME', 'a.conf')")
    words = shlex.split(trial)
    assert words[:2] == ["sh", "-ec"]
    assert words[-3:] == ["00-nginx-certbot.conf", "a.conf", "%s"]
    assert trial.count("%") == 1
