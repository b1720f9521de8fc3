# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: compose_override
short_description: Bind every published port of a Compose project to one address
version_added: 0.1.0
description:
  - Takes a resolved project (the output of C(docker compose config --format json)) and returns the text of a
    C(docker-compose.override.yaml) that binds every published port which is not on loopback to O(address).
  - Needs Compose 2.24.4 or newer for C(!override).
options:
  _input:
    description: The resolved project.
    type: dict
    required: true
  address:
    description: The address to bind to.
    type: str
    default: 127.0.0.1
  additions:
    description: Names of services to keys for them, put in where the project has the service.
    type: dict
    default: {}
    version_added: 0.3.0
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Write the override
  ansible.builtin.copy:
    content: "{{ resolved.stdout | from_json | selfhost.dify.compose_override }}"
    dest: /opt/dify/docker/docker-compose.override.yaml
    mode: "0644"
"""

RETURN = r"""
_value:
  description: YAML text of the override.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.module_utils import _compose


def compose_override(config: object, address: str = "127.0.0.1", additions: dict[str, t.Any] | None = None) -> str:
    """The override's text; see DOCUMENTATION."""
    if not isinstance(config, dict):
        raise AnsibleFilterError(f"compose_override takes a resolved project as a dict, got a {type(config).__name__}.")
    return _compose.override(config, address, additions)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"compose_override": compose_override}
