# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: each piece fails with its own message and leaves the host as it was, bare or converged."""

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from conftest import Run, Server, run_site, run_site_at_once

# Everything a run could touch: packages, files with their owners and contents, containers with their starts.
FINGERPRINT = r"""
dpkg-query --show | sha256sum
find /etc/apt /etc/docker /opt /root /data -xdev \
  \( -path /root/.ansible -o -path '/opt/dify/docker/volumes/*' -o -path /opt/dify/.git/index \) -prune \
  -o ! -path /root ! -path /opt/dify/.git -printf '%p %u %g %m %s %T@\n' | sort
find /tmp /var/tmp -name 'dify-*'
docker ps --all --no-trunc --format '{{.ID}} {{.Names}}' 2>/dev/null | sort
"""


class Case(t.NamedTuple):
    """Variables that are refused, and a part of the message. ``bare``: a bare host is asked as well."""

    variables: dict[str, t.Any]
    message: str
    bare: bool = False


CASES = {
    "unknown tag": Case({"dify_version": "1.16.99"}, 'dify_version is "1.16.99", but', bare=True),
    "no tag at all": Case({"dify_version": "main"}, 'dify_version is "main", expected a tag of upstream'),
    "moved tag": Case({"dify_commit": "0123456789abcdef"}, "dify_commit is 0123456789abcdef, but the tag"),
    "unknown setting": Case({"dify_env": {"LOGLEVEL": "INFO"}}, "LOGLEVEL. Did you mean LOG_LEVEL?", bare=True),
    "wrong type": Case({"dify_env": {"DB_PORT": "five"}}, "DB_PORT is 'five', expected a number such as 5432."),
    "owned setting": Case({"dify_env": {"EXPOSE_NGINX_PORT": "0.0.0.0:80"}}, "set dify_http_port instead"),
    "port in use": Case({"dify_http_port": 22}, "dify_http_port is 22, but that port is held by sshd", bare=True),
    "port twice": Case({"dify_http_port": 5003}, "expected three different port numbers"),
    "public port": Case({"dify_public_port": 70000}, 'dify_public_port is "70000", expected a whole number from 1 to'),
    "upload limit": Case({"dify_upload_max_mb": "100M"}, 'dify_upload_max_mb is "100M", expected a whole number'),
    "domain missing": Case({"dify_domain": ""}, 'dify_domain is ""'),
    "domain malformed": Case({"dify_domain": "https://dify.example.com/"}, 'dify_domain is "https://', bare=True),
    "weak password": Case({"dify_admin_password": "onlyletters"}, "digit", bare=True),
    "bad e-mail": Case({"dify_admin_email": "nobody"}, "nobody"),
    "bad edge e-mail": Case({"nginx_certbot_email": "nobody"}, "nginx_certbot_email"),
    "daemon options": Case({"docker_daemon_options": "log-driver"}, "docker_daemon_options"),
}


@pytest.fixture(scope="module")
def fingerprint(host: t.Any) -> t.Callable[[], list[str]]:
    return lambda: t.cast("list[str]", host.run(FINGERPRINT).stdout.splitlines())


@pytest.fixture(scope="module")
def refused(
    request: pytest.FixtureRequest, fingerprint: t.Callable[[], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    """All cases that were asked for, run at once; the host is the same afterwards."""
    chosen = {item.callspec.params["name"] for item in request.session.items if item.name.startswith("test_bad_input[")}
    before = fingerprint()
    runs = run_site_at_once({name: CASES[name].variables for name in chosen}, tmp_path_factory.mktemp("inventory"))
    assert fingerprint() == before
    return runs


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.bare] if case.bare else []) for name, case in CASES.items()]
)
def test_bad_input(name: str, refused: dict[str, Run]) -> None:
    assert (refused[name].failed, refused[name].changed) == (True, 0), refused[name]
    assert CASES[name].message in refused[name].message


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
    assert (run.failed, run.changed) == (True, 0), run
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
    assert (run.failed, run.changed) == (True, 0), run
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
    assert (run.failed, run.changed) == (True, 0), run
    assert f"{foreign_image}, which service api would run, runs as 1002:1003" in run.message
    assert "/opt/dify/docker/volumes/app/storage has to belong to 1001:1001" in run.message
    assert fingerprint() == before
