# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: compose_override
short_description: Write the override of a Compose project
version_added: 0.1.0
description:
  - Takes a resolved project (the output of C(docker compose config --format json), with all profiles) and returns the
    text of a C(docker-compose.override.yaml). The same input gives the same text.
  - Every published port is bound to loopback, but for those in O(public_ports).
  - Needs Compose 2.24.4 or newer for C(!override) and C(!reset).
options:
  _input:
    description: The resolved project.
    type: dict
    required: true
  public_ports:
    description: Ports to publish on all addresses, a service and the port inside its container, V(plugin_daemon:5003).
    type: list
    elements: str
    default: []
  logging:
    description: Compose's C(logging) for every service. Empty leaves it to the engine.
    type: dict
    default: {}
  image_pins:
    description: Names of images to their tags, used where the project says C(latest) or nothing.
    type: dict
    default: {}
  image_registry:
    description:
      - A registry with an optional path that takes the place of every image's own.
      - What Docker Hub calls C(nginx) is asked for as C(library/nginx).
    type: str
    default: ""
  images:
    description:
      - Names of images, with or without their tag, to replacements that are used as they are, whatever
        O(image_registry) is.
      - A replacement without a tag keeps the tag of what it replaces.
    type: dict
    default: {}
  limits:
    description:
      - Names of services, or V(*) for all others, to limits for those that have none of their own.
      - C(percent) of the RAM but at least C(floor_mb), and C(pids).
    type: dict
    default: {}
  memory_mb:
    description: RAM of the host in MB, which O(limits) are shares of, in whole GiB. Without it there are no limits.
    type: int
    default: 0
  path:
    description: The project's directory.
    type: str
    default: ""
  release:
    description: A label for services that mount files below O(path), so that they are recreated when it changes.
    type: str
    default: ""
  additions:
    description: Names of services to keys for them, put in where the project has the service.
    type: dict
    default: {}
  compose_override:
    description:
      - What a Compose file holds, merged last. Values win, lists are added to, ports are replaced, and null for a
        service or for a key of a service takes it away.
    type: dict
    default: {}
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Write the override
  ansible.builtin.copy:
    content: "{{ resolved.stdout | from_json | selfhost.dify.compose_override(public_ports=['plugin_daemon:5003']) }}"
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


def compose_override(config: object, **options: t.Any) -> str:
    """The override's text; see DOCUMENTATION."""
    if not isinstance(config, dict):
        raise AnsibleFilterError(f"compose_override takes a resolved project as a dict, got a {type(config).__name__}.")
    try:
        return _compose.override(config, **options)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"compose_override": compose_override}
