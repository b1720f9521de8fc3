# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for Dify's repository: what each tag holds, and that the same data give the same commits."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.dify.tests.unit.data.releases import RELEASES as SETTINGS

UPSTREAM = Path(__file__).resolve().parents[2] / "testbed" / "upstream"
spec = importlib.util.spec_from_file_location("testbed_upstream_build", UPSTREAM / "build.py")
assert spec is not None and spec.loader is not None
upstream = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = upstream
spec.loader.exec_module(upstream)

RELEASES = {release.version: release for release in upstream.releases()}
EXAMPLES = {"1.14.2": 35, "1.16.1": 37}  # files, where it is not one
MOUNTED_FILES = {".sh", ".template", ".txt", ".script", ".yml", ".xml"}
# Read by the compose file although no env example of the release names them.
UNLISTED = {"NEXT_TELEMETRY_DISABLED", "PM2_INSTANCES", "PGUSER", "DB_SSL_MODE", "MARKETPLACE_URL"}

every_release = pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "--git-dir", str(repository), *arguments], check=True, capture_output=True, text=True
    ).stdout


def keys(text: str) -> list[str]:
    return re.findall(r"^([A-Za-z_]\w*)=", text, re.MULTILINE)


def compose_text(release: Any) -> str:
    text: str = upstream.files(release)["docker/docker-compose.yaml"][1]
    return text


@cache
def compose(version: str) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load(compose_text(RELEASES[version]))
    return result


def services(release: Any) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = compose(release.version)["services"]
    return result


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    out = tmp_path_factory.mktemp("upstream") / "dify.git"
    return out, upstream.build(out)


def test_tags_name_the_reported_commits(repository: tuple[Path, dict[str, str]]) -> None:
    out, commits = repository
    assert list(commits) == ["1.10.1", "1.10.1-fix.1", "1.12.1", "1.14.2", "1.16.1"]
    for tag, commit in commits.items():
        assert git(out, "rev-parse", f"refs/tags/{tag}^{{commit}}").strip() == commit
    assert git(out, "rev-parse", "HEAD").strip() == commits["1.16.1"]
    assert git(out, "cat-file", "-t", "1.10.1").strip() == "tag"
    assert git(out, "cat-file", "-t", "1.16.1").strip() == "commit"


def test_same_data_give_the_same_commits(
    repository: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_AUTHOR_DATE", "1999-01-01T00:00:00Z")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert upstream.build(tmp_path / "again.git") == repository[1]


def test_build_replaces_a_stand_in_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first = upstream.build(out)
    assert upstream.build(out) == first
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="holds something else"):
        upstream.build(other)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


def test_modes_in_the_repository(repository: tuple[Path, dict[str, str]]) -> None:
    listing = git(repository[0], "ls-tree", "-r", "1.16.1").splitlines()
    tree = {path: mode for mode, _type, _id, path in map(str.split, listing)}
    assert tree["docker/nginx/docker-entrypoint.sh"] == "100755"
    assert tree["docker/ssrf_proxy/docker-entrypoint.sh"] == "100755"
    assert tree["docker/ssrf_proxy/docker-agent-entrypoint.sh"] == "100644"
    assert tree["docker/docker-compose.yaml"] == "100644"


def test_data_name_files_that_exist() -> None:
    newest = upstream.files(RELEASES["1.16.1"])
    data = upstream.load()
    assert set(data["executable"]) | set(data["only"]) <= set(newest)


@pytest.mark.parametrize(
    ("version", "condition", "expected"),
    [
        ("1.10.1", "<1.10.1", False),
        ("1.10.1-fix.1", ">=1.10.1", True),
        ("1.10.1-fix.1", "<1.11.0", True),
        ("1.12.1", ">=1.9.2", True),
        ("1.16.1", "<1.16.1", False),
    ],
)
def test_conditions_order_versions_by_number(version: str, condition: str, expected: bool) -> None:
    assert RELEASES[version].satisfies(condition) is expected


def test_an_unreadable_condition_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("'=1.12' is no condition")):
        list(upstream.select(["x #? =1.12"], RELEASES["1.12.1"]))


@every_release
def test_nothing_of_the_template_language_is_left(release: Any) -> None:
    for path, (_mode, text) in upstream.files(release).items():
        assert not re.search(r"#[?@] |@(version|plugin_daemon|sandbox|milvus)@|\$\{\}", text), path


@every_release
def test_keys_are_exactly_the_release_s(release: Any) -> None:
    known = SETTINGS[release.version]
    examples = upstream.env_files(release)
    assert set(keys(examples[".env.example"])) == known.root
    assert {key for text in examples.values() for key in keys(text)} == known.root | known.envs
    assert set(upstream.defaults(release)) == known.root | known.envs
    assert len(examples) == EXAMPLES.get(release.version, 1)
    assert all("not upstream's file" in text.lower() for text in examples.values())


@every_release
def test_references_in_env_see_keys_above(release: Any) -> None:
    examples = upstream.env_files(release)
    order = keys(examples[".env.example"])
    assert order.index("REDIS_PASSWORD") < order.index("CELERY_BROKER_URL")
    assert order.index("CODE_EXECUTION_API_KEY") < order.index("SANDBOX_API_KEY")
    for key, default in upstream.defaults(release).items():
        for reference in re.findall(r"\$\{(\w+)", default):
            if key in order and reference != key:
                assert order.index(reference) < order.index(key), key


@every_release
def test_defaults_that_roles_and_checks_rely_on(release: Any) -> None:
    defaults = upstream.defaults(release)
    expected = {
        "DB_PASSWORD": "difyai123456",
        "REDIS_PASSWORD": "difyai123456",
        "SANDBOX_API_KEY": "dify-sandbox",
        "EXPOSE_NGINX_PORT": "80",
        "EXPOSE_NGINX_SSL_PORT": "443",
        "EXPOSE_PLUGIN_DEBUGGING_PORT": "5003",
        "NGINX_HTTPS_ENABLED": "false",
        "WEAVIATE_AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
        "COMPOSE_PROFILES": "${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql}" + ",collaboration" * release.split,
    }
    assert {key: defaults[key] for key in expected} == expected
    assert bool(defaults["SECRET_KEY"]) is not release.split
    assert "NGINX_SSL_PORT" in keys(upstream.env_files(release)[".env.example"])


@every_release
def test_compose_reads_only_keys_of_the_release(release: Any) -> None:
    read = set(re.findall(r"(?<!\$)\$\{(\w+)", compose_text(release)))
    assert read - set(upstream.defaults(release)) <= UNLISTED
    assert not re.search(r"(?<![-$])\$\{\w+\}", compose_text(release)), "a reference without a default"


@every_release
def test_services(release: Any) -> None:
    found = services(release)
    count = {"1.10.1": 33, "1.10.1-fix.1": 33, "1.12.1": 35, "1.14.2": 36, "1.16.1": 39}
    assert len(found) == count[release.version]
    assert found["api"]["image"] == found["worker"]["image"] == f"langgenius/dify-api:{release.version}"
    assert ("api_websocket" in found) is release.split
    agents = {"agent_backend", "local_sandbox", "agent_ssrf_proxy"}
    assert agents & set(found) == (agents if release.version == "1.16.1" else set())
    for name, service in found.items():
        for needed in service.get("depends_on", []):
            assert needed in found, f"{name} depends on {needed}"
        for network in service.get("networks", []):
            assert network in {"default", *compose(release.version)["networks"]}, name


@every_release
def test_storage_gets_its_owner_from_1_11_on(release: Any) -> None:
    found = services(release)
    waits = [name for name, service in found.items() if "init_permissions" in service.get("depends_on", [])]
    if release.version.startswith("1.10."):
        assert "init_permissions" not in found and waits == []
    else:
        assert found["init_permissions"]["restart"] == "no"
        assert waits == ["api", "worker", "worker_beat"]


@every_release
def test_mounted_files_are_in_the_repository(release: Any) -> None:
    tracked = {path.removeprefix("docker/") for path in upstream.files(release)}
    for name, service in services(release).items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and Path(source).suffix in MOUNTED_FILES:
                assert source[2:] in tracked, f"{name} mounts {source}"
    assert "volumes/sandbox/conf/config.yaml" in tracked
    assert "volumes/oceanbase/init.d/vec_memory.sql" in tracked


@every_release
def test_containers_get_their_environment_the_release_s_way(release: Any) -> None:
    examples = {f"./{path.removesuffix('.example')}" for path in upstream.env_files(release)}
    api = services(release)["api"]
    if release.split:
        *optional, last = api["env_file"]
        assert last == "./.env"
        assert [entry["path"] for entry in optional][:2] == [
            "./envs/core-services/shared.env",
            "./envs/core-services/api.env",
        ]
        assert {entry["path"] for entry in optional} <= examples
        assert not any(entry["required"] for entry in optional)
        assert len(optional) == 29
    else:
        assert "env_file" not in api
        assert set(upstream.defaults(release)) - {"COMPOSE_PROFILES"} <= set(api["environment"])


def test_routes_of_the_inner_nginx() -> None:
    path = "docker/nginx/conf.d/default.conf.template"
    old, middle, new = (upstream.files(RELEASES[version])[path][1] for version in ("1.12.1", "1.14.2", "1.16.1"))
    for route in ("console/api", "v1", "files", "mcp", "triggers", "/e/"):
        assert route in old and route in middle and route in new
    assert ["/socket.io/" in text for text in (old, middle, new)] == [False, True, True]
    assert ["openapi" in text for text in (old, middle, new)] == [False, False, True]
