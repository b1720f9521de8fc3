# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: each piece fails with its own message and leaves the host as it was, bare or converged."""

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from conftest import Server, run_site

# Everything a run could touch: packages, files with their owners and contents, containers with their starts.
FINGERPRINT = r"""
dpkg-query --show | sha256sum
find /etc/apt /etc/docker /opt /root /data -xdev \
  \( -path /root/.ansible -o -path '/opt/dify/docker/volumes/*' -o -path /opt/dify/.git/index \) -prune \
  -o ! -path /root ! -path /opt/dify/.git -printf '%p %u %g %m %s %T@\n' | sort
find /tmp /var/tmp -name 'dify-*'
docker ps --all --no-trunc --format '{{.ID}} {{.Names}}' 2>/dev/null | sort
"""

# The bare host is asked with these, which are judged there in ways of their own; a converged one with all.
BARE = ("unknown tag", "unknown setting", "port in use", "domain malformed", "weak password")
CASES: list[tuple[str, dict[str, t.Any], str]] = [
    ("unknown tag", {"dify_version": "1.16.99"}, 'dify_version is "1.16.99", but'),
    ("no tag at all", {"dify_version": "main"}, 'dify_version is "main", expected a tag of upstream'),
    ("moved tag", {"dify_commit": "0123456789abcdef"}, "dify_commit is 0123456789abcdef, but the tag"),
    ("unknown setting", {"dify_env": {"LOGLEVEL": "INFO"}}, "knows no setting LOGLEVEL. Did you mean LOG_LEVEL?"),
    ("wrong type", {"dify_env": {"DB_PORT": "five"}}, "DB_PORT is 'five', expected a number such as 5432."),
    ("owned setting", {"dify_env": {"EXPOSE_NGINX_PORT": "0.0.0.0:80"}}, "set dify_http_port instead"),
    ("port in use", {"dify_http_port": 22}, "dify_http_port is 22, but that port is held by sshd"),
    ("port twice", {"dify_http_port": 5003}, "expected three different port numbers"),
    ("public port without service", {"dify_public_ports": ["5003"]}, "such as plugin_daemon:5003"),
    ("public port of no service", {"dify_public_ports": ["plugin-daemon:5003"]}, "did you mean plugin_daemon"),
    ("registry with scheme", {"dify_image_registry": "https://registry.example.com"}, "without scheme"),
    ("image of no service", {"dify_images": {"ngnix": "nginx:1.30.5"}}, "did you mean nginx"),
    ("log driver missing", {"dify_logging": {"options": {"max-size": "10m"}}}, "expected Compose's logging"),
    (
        "override of no service",
        {"dify_compose_override": {"services": {"apis": {"mem_limit": "1g"}}}},
        "did you mean api",
    ),
    ("override of no section", {"dify_compose_override": {"api": {"mem_limit": "1g"}}}, "expected one of services"),
    ("domain missing", {"dify_domain": ""}, 'dify_domain is ""'),
    ("domain malformed", {"dify_domain": "https://dify.example.com/"}, 'dify_domain is "https://dify.example.com/"'),
    ("weak password", {"dify_admin_password": "onlyletters"}, "digit"),
    ("bad e-mail", {"dify_admin_email": "nobody"}, "nobody"),
    ("bad edge e-mail", {"nginx_certbot_email": "nobody"}, "nginx_certbot_email"),
    ("daemon options", {"docker_daemon_options": "log-driver"}, "docker_daemon_options"),
]


@pytest.fixture(scope="module")
def fingerprint(host: t.Any) -> t.Callable[[], list[str]]:
    return lambda: t.cast("list[str]", host.run(FINGERPRINT).stdout.splitlines())


@pytest.mark.parametrize(
    ("variables", "message"),
    [pytest.param(*case[1:], id=case[0], marks=[pytest.mark.bare] if case[0] in BARE else []) for case in CASES],
)
def test_bad_input(variables: dict[str, t.Any], message: str, fingerprint: t.Callable[[], list[str]]) -> None:
    before = fingerprint()
    run = run_site(variables)
    assert (run.code, run.changed) == (2, 0), run
    assert message in run.message
    assert fingerprint() == before


@pytest.fixture
def old_compose(host: t.Any) -> t.Iterator[None]:
    """Root's own Compose plugin: a stand-in that says it is an old version."""
    plugin = "/root/.docker/cli-plugins/docker-compose"
    metadata = json.dumps({"SchemaVersion": "0.1.0", "Vendor": "stand-in", "Version": "2.18.1"})
    script = f"#!/bin/sh\ncase $1 in docker-cli-plugin-metadata) echo '{metadata}';; *) echo 2.18.1;; esac\n"
    encoded = base64.b64encode(script.encode()).decode()
    host.check_output(f"install -D -m 0755 /dev/null {plugin} && echo {encoded} | base64 -d > {plugin}")
    yield
    host.check_output("rm -r /root/.docker")


@pytest.mark.usefixtures("old_compose")
def test_an_old_compose_is_refused(fingerprint: t.Callable[[], list[str]]) -> None:
    before = fingerprint()
    run = run_site({})
    assert (run.code, run.changed) == (2, 0), run
    assert "2.18.1" in run.message
    assert "2.24.4" in run.message
    assert fingerprint() == before


@pytest.fixture
def local_edit(host: t.Any) -> t.Iterator[str]:
    """A tracked file of the checkout that somebody edited."""
    path = "/opt/dify/docker/nginx/proxy.conf.template"
    host.check_output(f"cp --preserve {path} {path}.kept && echo '# edited' >> {path}")
    yield path
    host.check_output(f"mv {path}.kept {path}")


def test_local_edits_are_refused_by_name_and_kept(local_edit: str, host: t.Any) -> None:
    run = run_site({})
    assert (run.code, run.changed) == (2, 0), run
    assert "docker/nginx/proxy.conf.template" in run.message
    assert host.file(local_edit).content_string.endswith("# edited\n")


@pytest.fixture
def foreign_image(host: t.Any, server: Server) -> t.Iterator[str]:
    """The API's image rebuilt by somebody who prefers another user."""
    image = f"langgenius/dify-api:{server.version}"
    host.check_output(f"docker tag {image} kept")
    host.check_output(f"printf 'FROM kept\\nUSER 1002:1003\\n' | docker build --tag {image} -")
    yield image
    host.check_output(f"docker tag kept {image} && docker image rm kept")


def test_an_image_that_runs_as_somebody_else_is_refused(
    foreign_image: str, fingerprint: t.Callable[[], list[str]]
) -> None:
    before = fingerprint()
    run = run_site({})
    assert (run.code, run.changed) == (2, 0), run
    assert f"{foreign_image}, which service api would run, runs as 1002:1003" in run.message
    assert "/opt/dify/docker/volumes/app/storage has to belong to 1001:1001" in run.message
    assert fingerprint() == before
