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
