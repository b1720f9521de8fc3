# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: each piece fails with its own message and leaves the host as it was, bare or converged."""

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from conftest import Run, Server, run_at_once, run_site

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
    "branch": Case({"dify_version": "main"}, 'dify_version is "main", expected a tag of upstream'),
    "leading v": Case({"dify_version": "v1.16.1"}, 'dify_version is "v1.16.1", expected a tag of upstream'),
    "release too old": Case({"dify_version": "1.9.2"}, "expected a tag of upstream from 1.10.1 on"),
    "moved tag": Case({"dify_commit": "0123456789abcdef"}, "dify_commit is 0123456789abcdef, but the tag"),
    "no commit": Case({"dify_commit": "newest"}, 'dify_commit is "newest", expected 7 to 40 hexadecimal digits'),
    "repository malformed": Case({"dify_repo_url": "github"}, 'dify_repo_url is "github", expected the address'),
    "repository gone": Case({"dify_repo_url": "/srv/nowhere.git"}, 'dify_repo_url "/srv/nowhere.git" could not'),
    "unknown setting": Case({"dify_env": {"LOGLEVEL": "INFO"}}, "LOGLEVEL. Did you mean LOG_LEVEL?", bare=True),
    "number wanted": Case({"dify_env": {"DB_PORT": "five"}}, "DB_PORT is 'five', expected a number such as 5432."),
    "boolean wanted": Case({"dify_env": {"NGINX_HTTPS_ENABLED": "maybe"}}, "expected true or false"),
    "list as a value": Case({"dify_env": {"LOG_LEVEL": ["INFO"]}}, "LOG_LEVEL cannot be written: expected text"),
    "mapping as a value": Case({"dify_env": {"LOG_LEVEL": {"a": 1}}}, "LOG_LEVEL cannot be written: expected text"),
    "control character": Case({"dify_env": {"LOG_TZ": "U\u0007TC"}}, "control character"),
    "malformed name": Case({"dify_env": {"LOG-LEVEL": "INFO"}}, "dify_env holds LOG-LEVEL, expected names of Dify's"),
    "settings as a list": Case({"dify_env": ["LOG_LEVEL=INFO"]}, "argument 'dify_env' is of type list"),
    "owned port": Case({"dify_env": {"EXPOSE_NGINX_PORT": "0.0.0.0:80"}}, "set dify_http_port instead"),
    "owned project": Case({"dify_env": {"COMPOSE_PROJECT_NAME": "x"}}, "set dify_project_name instead"),
    "unknown names as text": Case({"dify_env_allow_unknown": "MINE"}, "dify_env_allow_unknown is "),
    "port in use": Case({"dify_http_port": 22}, "dify_http_port is 22, but that port is held by sshd", bare=True),
    "port twice": Case({"dify_http_port": 5003}, "expected three different port numbers"),
    "port as a word": Case({"dify_http_port": "http"}, "argument 'dify_http_port' is of type str"),
    "public port": Case({"dify_public_port": 70000}, "dify_public_port is 70000, expected a port number"),
    "upload limit": Case({"dify_upload_max_mb": "100M"}, "argument 'dify_upload_max_mb' is of type str"),
    "timeout": Case({"dify_start_timeout": 0}, "dify_start_timeout is 0, expected 1 or more seconds"),
    "path relative": Case({"dify_path": "dify"}, 'dify_path is "dify", expected an absolute path'),
    "path of the system": Case({"dify_path": "/opt"}, 'dify_path is "/opt", expected an absolute path'),
    "project name": Case({"dify_project_name": "Our Dify"}, 'dify_project_name is "Our Dify", expected lower-case'),
    "domain missing": Case({"dify_domain": ""}, 'dify_domain is "", expected the full name'),
    "domain malformed": Case({"dify_domain": "https://dify.example.com/"}, 'dify_domain is "https://', bare=True),
    "domain is an address": Case({"dify_domain": "10.0.0.1"}, 'dify_domain is "10.0.0.1", expected the full name'),
    "weak password": Case({"dify_admin_password": "onlyletters"}, "digit", bare=True),
    "password file": Case({"dify_admin_password_file": "owner"}, 'dify_admin_password_file is "owner", expected'),
    "bad e-mail": Case({"dify_admin_email": "nobody"}, "nobody"),
    "bad language": Case({"dify_admin_language": "english"}, "language is 'english', expected a form such as 'en-US'"),
    "bad edge e-mail": Case({"nginx_certbot_email": "nobody"}, 'nginx_certbot_email is "nobody", but'),
    "edge upstream": Case({"nginx_certbot_upstream": "localhost"}, 'nginx_certbot_upstream is "localhost", but scheme'),
    "plain ACME": Case({"nginx_certbot_acme_directory": "http://ca/"}, "nginx_certbot_acme_directory is "),
    "daemon options": Case({"docker_daemon_options": "log-driver"}, "docker_daemon_options"),
    "package source": Case(
        {"docker_package_source": "snap"}, "docker_package_source must be one of: docker, distribution"
    ),
    "public port without service": Case({"dify_public_ports": ["5003"]}, "such as plugin_daemon:5003"),
    "public port of no service": Case({"dify_public_ports": ["plugin-daemon:5003"]}, "did you mean plugin_daemon"),
    "registry with scheme": Case({"dify_image_registry": "https://registry.example.com"}, "without scheme"),
    "image of no service": Case({"dify_images": {"ngnix": "nginx:1.30.5"}}, "did you mean nginx"),
    "log driver missing": Case({"dify_logging": {"options": {"max-size": "10m"}}}, "expected Compose's logging"),
    "override of no service": Case(
        {"dify_compose_override": {"services": {"apis": {"mem_limit": "1g"}}}}, "did you mean api"
    ),
    "override of no section": Case({"dify_compose_override": {"api": {"mem_limit": "1g"}}}, "expected one of services"),
}


@pytest.fixture(scope="module")
def fingerprint(host: t.Any) -> t.Callable[[], list[str]]:
    return lambda: t.cast("list[str]", host.run(FINGERPRINT).stdout.splitlines())


@pytest.fixture(scope="module")
def refused(
    request: pytest.FixtureRequest, fingerprint: t.Callable[[], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    """All cases that were asked for, run at once; the host is the same afterwards."""
    tests = [item for item in request.session.items if item.path == request.path and "refused" in item.fixturenames]
    chosen = {item.callspec.params["name"] for item in tests}
    before = fingerprint()
    cases = {name: CASES[name].variables for name in chosen}
    runs = run_at_once("site", cases, tmp_path_factory.mktemp("inventory"))
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
    # Said after the checkout, which fetches: git's own files may differ, the commit is the tag's all the same.
    def outside_git() -> list[str]:
        return [line for line in fingerprint() if not line.startswith("/opt/dify/.git/")]

    before = outside_git()
    run = run_site({})
    assert (run.failed, run.changed) == (True, 0), run
    assert f"{foreign_image}, which service api would run, runs as 1002:1003" in run.message
    assert "/opt/dify/docker/volumes/app/storage has to belong to 1001:1001" in run.message
    assert outside_git() == before
