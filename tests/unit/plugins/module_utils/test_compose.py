# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.filter.compose_override import compose_override
from ansible_collections.selfhost.dify.plugins.filter.override_problems import override_problems
from ansible_collections.selfhost.dify.plugins.module_utils import _compose


def port(target: int, published: str, host_ip: str = "", protocol: str = "tcp") -> dict[str, t.Any]:
    """A published port as `docker compose config` prints it."""
    found = {"mode": "ingress", "target": target, "published": published, "protocol": protocol}
    return {**found, "host_ip": host_ip} if host_ip else found


def bind(source: str, target: str) -> dict[str, t.Any]:
    return {"type": "bind", "source": source, "target": target, "bind": {"create_host_path": True}}


# What Compose makes of a release, as far as it matters here.
CONFIG: dict[str, t.Any] = {
    "name": "dify",
    "services": {
        "api": {"image": "langgenius/dify-api:1.16.1", "restart": "always", "networks": {"default": None}},
        "elasticsearch": {
            "image": "docker.elastic.co/elasticsearch/elasticsearch:8.14.3",
            "deploy": {"resources": {"limits": {"memory": "2147483648"}}, "placement": {}},
            "ports": [port(9200, "9200")],
        },
        "couchbase-server": {"build": {"context": "/opt/dify/docker/couchbase-server", "dockerfile": "Dockerfile"}},
        "init_permissions": {"image": "busybox:latest", "restart": "no"},
        "milvus": {
            "image": "quay.io/milvus/milvus",
            "ports": [port(19530, "19530", "0.0.0.0"), port(9091, "9091", protocol="udp")],
        },
        "nginx": {
            "image": "nginx:latest",
            "ports": [port(80, "3000", "127.0.0.1"), port(443, "42743", "127.0.0.1")],
            "volumes": [bind("/opt/dify/docker/nginx/conf.d", "/etc/nginx/conf.d")],
        },
        "plugin_daemon": {
            "image": "langgenius/dify-plugin-daemon:0.6.3-local",
            "ports": [port(5003, "5003")],
            "volumes": [bind("/opt/dify/docker/volumes/plugin_daemon", "/app/storage")],
        },
        "sandbox": {
            "image": "langgenius/dify-sandbox:0.2.15",
            "volumes": [bind("/opt/dify/docker/volumes/sandbox/conf", "/conf")],
        },
    },
}


class Loader(yaml.SafeLoader):
    """Reads Compose's tags: what is replaced shows as {"!override": value}."""


for tag in ("!override", "!reset"):
    Loader.add_constructor(
        tag,
        lambda loader, node: {
            node.tag: loader.construct_sequence(node, deep=True)
            if isinstance(node, yaml.SequenceNode)
            else loader.construct_scalar(node)
            if isinstance(node, yaml.ScalarNode)
            else loader.construct_mapping(node, deep=True)
        },
    )


def written(**options: t.Any) -> dict[str, t.Any]:
    """The override, read again as Compose would."""
    return t.cast("dict[str, t.Any]", yaml.load(_compose.override(CONFIG, **options), Loader))


def services(**options: t.Any) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", written(**options)["services"])


def test_every_public_port_moves_to_loopback_and_nothing_else_is_named() -> None:
    assert _compose.override(CONFIG) == (
        "services:\n"
        "  elasticsearch:\n"
        "    ports: !override\n"
        '      - "127.0.0.1:9200:9200"\n'
        "  milvus:\n"
        "    ports: !override\n"
        '      - "127.0.0.1:19530:19530"\n'
        '      - "127.0.0.1:9091:9091/udp"\n'
        "  plugin_daemon:\n"
        "    ports: !override\n"
        '      - "127.0.0.1:5003:5003"\n'
    )


def test_a_project_without_public_ports_needs_no_override() -> None:
    assert _compose.override({"services": {"api": {}}}) == "services: {}\n"


@pytest.mark.parametrize(
    ("public", "service", "ports"),
    [
        (["plugin_daemon:5003"], "plugin_daemon", None),  # stays as the release has it
        (["nginx:443"], "nginx", ["127.0.0.1:3000:80", "42743:443"]),
        (["milvus:9091"], "milvus", ["127.0.0.1:19530:19530", "9091:9091/udp"]),
    ],
)
def test_listed_ports_are_public_and_their_neighbours_are_not(
    public: list[str], service: str, ports: list[str] | None
) -> None:
    found = services(public_ports=public).get(service, {}).get("ports")
    assert found == (None if ports is None else {"!override": ports})


def test_every_service_rotates_its_logs_the_operators_own_too() -> None:
    logging = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    theirs = {"services": {"mine": {"image": "x"}, "api": {"logging": {"driver": "local"}}, "nginx": {"logging": {}}}}
    found = services(logging=logging, compose_override=theirs)
    assert {name: service["logging"] for name, service in found.items()} == {
        **dict.fromkeys([*CONFIG["services"], "mine"], logging),
        "api": {"driver": "local"},
    }


@pytest.mark.parametrize(
    ("original", "registry", "images", "expected"),
    [
        ("nginx:latest", "", {}, "nginx:1.30.5"),
        ("nginx", "", {}, "nginx:1.30.5"),
        ("nginx:1.27", "", {}, "nginx:1.27"),
        ("other/nginx:latest", "", {}, "other/nginx:latest"),
        ("nginx:latest", "reg.example.com/mirror", {}, "reg.example.com/mirror/library/nginx:1.30.5"),
        ("ubuntu/squid:latest", "reg:5000", {}, "reg:5000/ubuntu/squid:6.6"),
        (
            "cr.weaviate.io/semitechnologies/weaviate:1.39.2",
            "reg:5000",
            {},
            "reg:5000/semitechnologies/weaviate:1.39.2",
        ),
        ("localhost:5000/a/b", "reg.example.com", {}, "reg.example.com/a/b"),
        ("a/b:1@sha256:ab12", "reg.example.com", {}, "reg.example.com/a/b:1@sha256:ab12"),
        ("a/b@sha256:ab12", "reg.example.com", {}, "reg.example.com/a/b@sha256:ab12"),
        ("nginx:latest", "reg.example.com", {"nginx": "mine/nginx"}, "mine/nginx:1.30.5"),
        ("nginx:latest", "reg.example.com", {"nginx:latest": "mine/nginx:1"}, "mine/nginx:1"),
        ("nginx:latest", "", {"nginx:1.27": "mine/nginx:1"}, "nginx:1.30.5"),
        ("a/b:1", "", {"a/b": "reg:5000/b@sha256:ab12"}, "reg:5000/b@sha256:ab12"),
        ("a/b:1", "", {"a/b": "reg:5000/b"}, "reg:5000/b:1"),
    ],
)
def test_images_are_pinned_replaced_or_taken_from_the_registry(
    original: str, registry: str, images: dict[str, str], expected: str
) -> None:
    pins = {"nginx": "1.30.5", "ubuntu/squid": "6.6"}
    assert _compose.image(original, pins, registry, images) == expected


def test_only_images_that_change_are_written() -> None:
    found = services(image_pins={"nginx": "1.30.5", "busybox": "1.37.0"}, images={"quay.io/milvus/milvus": "m:1"})
    images = {name: service["image"] for name, service in found.items() if "image" in service}
    assert images == {"nginx": "nginx:1.30.5", "init_permissions": "busybox:1.37.0", "milvus": "m:1"}


LIMITS = {"*": {"percent": 50, "floor_mb": 1024, "pids": 2048}, "api": {"percent": 10, "floor_mb": 512, "pids": 100}}


@pytest.mark.parametrize(
    ("memory", "api", "others"),
    [(3915, "512m", "2048m"), (4096, "512m", "2048m"), (900, "512m", "1024m"), (64000, "6348m", "31744m")],
)
def test_limits_grow_with_the_ram_in_whole_gib(memory: int, api: str, others: str) -> None:
    found = services(limits=LIMITS, memory_mb=memory)
    assert found["api"] == {"mem_limit": api, "pids_limit": 100}
    assert found["sandbox"] == {"mem_limit": others, "pids_limit": 2048}


def test_limits_respect_those_that_are_there_and_their_form() -> None:
    theirs = {"services": {"api": {"mem_limit": "1g"}, "sandbox": {"deploy": {"replicas": 2}}}}
    found = services(limits=LIMITS, memory_mb=4096, compose_override=theirs)
    assert found["elasticsearch"]["deploy"] == {"resources": {"limits": {"pids": 2048}}}
    assert found["api"] == {"mem_limit": "1g", "pids_limit": 100}
    assert found["sandbox"] == {"deploy": {"replicas": 2, "resources": {"limits": {"memory": "2048m", "pids": 2048}}}}


def test_without_ram_there_are_no_limits() -> None:
    assert written(limits=LIMITS) == written()


def test_services_that_mount_files_of_the_release_follow_it() -> None:
    found = services(path="/opt/dify/docker", release="1.16.1")
    labelled = {name for name, service in found.items() if service.get("labels") == {"selfhost.dify.release": "1.16.1"}}
    assert labelled == {"nginx", "sandbox"}


def test_additions_reach_the_services_that_are_there() -> None:
    found = services(additions={"api": {"stop_grace_period": "5m"}, "weaviate": {"stop_grace_period": "5m"}})
    assert found["api"] == {"stop_grace_period": "5m"}
    assert "weaviate" not in found


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (
            {"services": {"api": {"cpus": 2, "environment": {"A": "1"}}}},
            {"api": {"cpus": 2, "environment": {"A": "1", "O": "o"}}},
        ),
        (
            {"services": {"api": {"environment": ["A=1=2", "B"]}}},
            {"api": {"environment": {"A": "1=2", "B": None, "O": "o"}}},
        ),
        ({"services": {"api": {"environment": {"O": "mine"}}}}, {"api": {"environment": {"O": "mine"}}}),
        ({"services": {"api": {"environment": None}}}, {"api": {"environment": {"!reset": "null"}}}),
        (
            {"services": {"api": {"networks": {"default": None}}}},
            {"api": {"networks": {"default": None}, "environment": {"O": "o"}}},
        ),
        ({"services": {"api": None}}, {"api": {"!reset": "null"}}),
        ({"services": {"plugin_daemon": {"ports": []}}}, {"plugin_daemon": {"ports": {"!override": []}}}),
        (
            {"services": {"nginx": {"ports": ["8080:80"]}}},
            {"nginx": {"volumes": ["a:/a"], "ports": {"!override": ["8080:80"]}}},
        ),
        ({"services": {"nginx": {"volumes": ["b:/b"]}}}, {"nginx": {"volumes": ["a:/a", "b:/b"]}}),
        (
            {"services": {"mine": {"image": "x", "ports": ["9:9"]}}},
            {"mine": {"image": "x", "ports": {"!override": ["9:9"]}}},
        ),
        ({}, {}),
    ],
)
def test_the_operators_override_is_merged_last(theirs: dict[str, t.Any], expected: dict[str, t.Any]) -> None:
    additions = {"api": {"environment": {"O": "o"}}, "nginx": {"volumes": ["a:/a"]}}
    found = services(additions=additions, compose_override=theirs)
    assert {name: found[name] for name in expected} == expected


def test_sections_besides_services_are_written_as_they_are() -> None:
    theirs = {"volumes": {"own": None}, "networks": {"own": {"internal": True}}, "x-on": ["a\u0085\u20ac", 1.5]}
    found = written(compose_override=theirs)
    assert {key: found[key] for key in theirs} == theirs


def test_the_same_input_gives_the_same_text_whatever_its_order() -> None:
    forwards = {"services": {"api": {"a": 1, "on": 2}, "nginx": {"c": "1"}}}
    backwards = {"services": {"nginx": {"c": "1"}, "api": {"on": 2, "a": 1}}}
    assert _compose.override(CONFIG, compose_override=forwards) == _compose.override(CONFIG, compose_override=backwards)
    assert '"on": 2' in _compose.override(CONFIG, compose_override=forwards)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"public_ports": ["5003"]}, 'dify_public_ports holds "5003", expected a list of services with a port'),
        ({"public_ports": "nginx"}, 'dify_public_ports holds "nginx"'),
        ({"public_ports": [{"nginx": 80}]}, 'dify_public_ports holds {"nginx": 80}'),
        ({"public_ports": ["ngnix:80"]}, 'the release has no service "ngnix", did you mean nginx'),
        ({"public_ports": ["nginx:3000"]}, "nginx publishes 80, 443; expected a port inside its container"),
        ({"public_ports": ["api:5001"]}, "api publishes nothing"),
        ({"logging": ["json-file"]}, "dify_logging is"),
        ({"logging": {"options": {}}}, "expected Compose's logging with a driver"),
        ({"image_registry": "https://reg.example.com"}, "without scheme or trailing slash"),
        ({"image_registry": "reg.example.com/"}, 'dify_image_registry is "reg.example.com/"'),
        ({"image_registry": "mirror"}, 'dify_image_registry is "mirror"'),
        ({"images": ["nginx"]}, "dify_images is"),
        ({"images": {"nginx": "Nginx:1"}}, "dify_images replaces nginx by"),
        ({"images": {"nginx": None}}, "dify_images replaces nginx by null"),
        ({"images": {"ngnix": "nginx:1"}}, 'does not use: "ngnix", did you mean nginx'),
        ({"compose_override": ["x"]}, "dify_compose_override is"),
        ({"compose_override": {"api": {}}}, 'dify_compose_override has a key "api", expected one of services'),
        ({"compose_override": {"services": ["api"]}}, "dify_compose_override.services is"),
        ({"compose_override": {"services": None}}, "dify_compose_override.services is null"),
        ({"compose_override": {"services": {"api": "x"}}}, "dify_compose_override.services.api is"),
        ({"compose_override": {"services": {"apy": {"cpus": 1}}}}, 'does not have: "apy", did you mean api'),
        ({"compose_override": {"services": {"apy": None}}}, 'does not have: "apy"'),
    ],
)
def test_what_cannot_be_written_is_named(options: dict[str, t.Any], message: str) -> None:
    (problem,) = override_problems(CONFIG, **options)
    assert message in problem
    with pytest.raises(AnsibleFilterError) as failed:
        compose_override(CONFIG, **options)
    assert str(failed.value) == problem


@pytest.mark.parametrize(
    "options",
    [
        {"public_ports": ["nginx:80", "plugin_daemon:5003"]},
        {"logging": {}},
        {"logging": {"driver": "journald"}},
        *(
            {"image_registry": name}
            for name in ("", "localhost", "localhost:5000", "reg:5000/a_b/c", "1.2.3.4:5000", "a.b/c-d")
        ),
        *(
            {"images": {"nginx": name}}
            for name in ("nginx", "reg:5000/a/b:1.0_x", "a/b@sha256:0a", "a.b/c/d:1@sha256:0a")
        ),
        {"compose_override": {"services": {"api": None, "mine": {"build": "."}}, "x-any": 1, "volumes": {}}},
    ],
)
def test_what_can_be_written_is_not_refused(options: dict[str, t.Any]) -> None:
    assert override_problems(CONFIG, **options) == []
    assert compose_override(CONFIG, **options)


def test_a_release_is_judged_by_its_file_where_nothing_is_resolved_yet() -> None:
    as_written = {
        "services": {"nginx": {"image": "nginx:latest", "ports": ["${A:-80}:${B:-80}"]}, "db": {"ports": ["1:2/udp"]}}
    }
    assert override_problems(as_written, public_ports=["nginx:8080", "db:2"]) == []
    assert override_problems(as_written, public_ports=["db:1"]) != []
    assert override_problems(None, public_ports=["nowhere:1"], images={"nothing": "x"}) == []


OWNERS = [
    {"service": "api", "target": "/app/api/storage", "owner": 1001, "group": 1001},
    {"service": "opensearch", "target": "/usr/share/opensearch/data", "owner": 1000, "group": 1000},
]
STORAGE = {"type": "bind", "source": "/data/storage", "target": "/app/api/storage"}


def test_owners_follow_the_services_that_run_to_the_directories_they_mount() -> None:
    busybox = {"image": "busybox:latest", "volumes": [STORAGE]}
    named = {"type": "volume", "source": "data", "target": "/usr/share/opensearch/data"}
    config = {
        "services": {
            "init_permissions": busybox,
            "api": {"image": "langgenius/dify-api:1.16.1", "volumes": [{**STORAGE, "target": "/other"}, STORAGE]},
            "web": {"image": "langgenius/dify-web:1.16.1", "volumes": None},
            "opensearch": {"image": "opensearchproject/opensearch:latest", "volumes": [named]},
        }
    }
    storage = {**OWNERS[0], "path": "/data/storage", "image": "langgenius/dify-api:1.16.1"}
    assert _compose.volume_owners(config, OWNERS) == [storage]
    config["services"]["opensearch"]["volumes"] = [{**named, "type": "bind", "source": "/data/opensearch"}]
    assert [row["path"] for row in _compose.volume_owners(config, OWNERS)] == ["/data/storage", "/data/opensearch"]
    del config["services"]["api"]
    assert [row["owner"] for row in _compose.volume_owners(config, OWNERS)] == [1000]
