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
    """Variables that are refused together, with a part of each message. ``bare``: on a bare host, not a converged one.

    Each case costs a run, so what one task judges is one case; what a module judges is for its unit tests.
    """

    variables: dict[str, t.Any]
    messages: tuple[str, ...]
    bare: bool = False


CASES = {
    "unknown tag": Case({"dify_version": "1.16.99"}, ('dify_version is "1.16.99", but',), bare=True),
    "branch": Case({"dify_version": "main"}, ('dify_version is "main", expected a tag of upstream',)),
    "release too old": Case({"dify_version": "1.9.2"}, ("expected a tag of upstream from 1.10.1 on",)),
    "moved tag": Case({"dify_commit": "0123456789abcdef"}, ("dify_commit is 0123456789abcdef, but the tag",)),
    "repository gone": Case({"dify_repo_url": "/srv/nowhere.git"}, ('dify_repo_url "/srv/nowhere.git" could not',)),
    "unknown setting": Case({"dify_env": {"LOGLEVEL": "INFO"}}, ("LOGLEVEL. Did you mean LOG_LEVEL?",), bare=True),
    "number wanted": Case({"dify_env": {"DB_PORT": "five"}}, ("DB_PORT is 'five', expected a number such as 5432.",)),
    "mapping as a value": Case({"dify_env": {"LOG_LEVEL": {"a": 1}}}, ("LOG_LEVEL cannot be written: expected text",)),
    "malformed name": Case(
        {"dify_env": {"LOG-LEVEL": "INFO"}}, ("dify_env holds LOG-LEVEL, expected names of Dify's",)
    ),
    "owned settings": Case(
        {"dify_env": {"EXPOSE_NGINX_PORT": "0.0.0.0:80", "COMPOSE_PROJECT_NAME": "x"}},
        ("dify_env names ", "EXPOSE_NGINX_PORT", "COMPOSE_PROJECT_NAME", "dify_http_port", "dify_project_name"),
    ),
    "wrong types": Case(
        {"dify_env": ["LOG_LEVEL=INFO"], "dify_http_port": "http", "dify_upload_max_mb": "100M"},
        (
            "argument 'dify_env' is of type list",
            "argument 'dify_http_port' is of type str",
            "argument 'dify_upload_max_mb' is of type str",
        ),
    ),
    "port in use": Case({"dify_http_port": 22}, ("dify_http_port is 22, but that port is held by sshd",), bare=True),
    "port twice": Case({"dify_http_port": 5003}, ("expected three different port numbers",)),
    "malformed values": Case(
        {
            "dify_domain": "https://dify.example.com/",
            "dify_public_port": 70000,
            "dify_start_timeout": 0,
            "dify_path": "dify",
            "dify_project_name": "Our Dify",
            "dify_repo_url": "github",
            "dify_commit": "newest",
            "dify_env_allow_unknown": "MINE",
            "dify_admin_password_file": "owner",
        },
        (
            'dify_domain is "https://dify.example.com/", expected the full name',
            "dify_public_port is 70000, expected a port number",
            "dify_start_timeout is 0, expected 1 or more seconds",
            'dify_path is "dify", expected an absolute path',
            'dify_project_name is "Our Dify", expected lower-case',
            'dify_repo_url is "github", expected the address',
            'dify_commit is "newest", expected 7 to 40 hexadecimal digits',
            "dify_env_allow_unknown is ",
            'dify_admin_password_file is "owner", expected',
        ),
        bare=True,
    ),
    "values missing or out of place": Case(
        {"dify_domain": "", "dify_path": "/opt"},
        ('dify_domain is "", expected the full name', 'dify_path is "/opt", expected an absolute path'),
    ),
    "domain is an address": Case({"dify_domain": "10.0.0.1"}, ('dify_domain is "10.0.0.1", expected the full name',)),
    "owner": Case(
        {"dify_admin_password": "onlyletters", "dify_admin_email": "nobody", "dify_admin_language": "english"},
        ("digit", "email is 'nobody'", "language is 'english', expected a form such as 'en-US'"),
        bare=True,
    ),
    "edge": Case(
        {
            "nginx_certbot_email": "nobody",
            "nginx_certbot_upstream": "localhost",
            "nginx_certbot_acme_directory": "http://ca/",
        },
        (
            'nginx_certbot_email is "nobody", but',
            'nginx_certbot_upstream is "localhost", but scheme',
            "nginx_certbot_acme_directory is ",
        ),
    ),
    "engine": Case(
        {"docker_daemon_options": "log-driver", "docker_package_source": "snap"},
        ("docker_daemon_options", "docker_package_source must be one of: docker, distribution"),
    ),
    "override": Case(
        {
            "dify_public_ports": ["5003"],
            "dify_image_registry": "https://registry.example.com",
            "dify_logging": {"options": {"max-size": "10m"}},
            "dify_compose_override": {"api": {"mem_limit": "1g"}},
        },
        ("such as plugin_daemon:5003", "without scheme", "expected Compose's logging", "expected one of services"),
    ),
    "services that the release does not have": Case(
        {
            "dify_public_ports": ["plugin-daemon:5003"],
            "dify_images": {"ngnix": "nginx:1.30.5"},
            "dify_compose_override": {"services": {"apis": {"mem_limit": "1g"}}},
        },
        ("did you mean plugin_daemon", "did you mean nginx", "did you mean api"),
    ),
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
    assert [part for part in CASES[name].messages if part not in refused[name].message] == []


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
