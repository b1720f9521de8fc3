# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.selfhost.dify.plugins.module_utils import _compose

CONFIG = {
    "services": {
        "api": {"restart": "always"},
        "init_permissions": {"restart": "no"},
        "nginx": {"ports": [{"host_ip": "127.0.0.1", "published": "3000", "target": 80, "protocol": "tcp"}]},
        "plugin_daemon": {"ports": [{"published": "5003", "target": 5003, "protocol": "tcp"}]},
        "milvus": {
            "ports": [
                {"host_ip": "0.0.0.0", "published": "19530", "target": 19530, "protocol": "tcp"},
                {"published": "9091", "target": 9091, "protocol": "udp"},
            ]
        },
    }
}


def test_every_public_port_moves_to_loopback_and_nothing_else_is_named() -> None:
    assert _compose.override(CONFIG) == (
        "services:\n"
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
