# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: service_override
short_description: Change services of a Compose project, and leave others out
version_added: 0.3.0
description:
  - Takes a resolved project (the output of C(docker compose --profile '*' config --format json)) and returns the
    services of a C(docker-compose.override.yaml).
  - A service that is left out gets a profile nobody asks for; services that wait for it no longer need it.
options:
  _input:
    description: The resolved project.
    type: dict
    required: true
  services:
    description: Changes by service. Those of services that the project does not have are passed over.
    type: dict
    default: {}
  without:
    description: Names of the services to leave out.
    type: list
    elements: str
    default: []
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Show what leaving Redis out takes
  ansible.builtin.debug:
    msg: "{{ resolved.stdout | from_json | selfhost.dify.service_override(without=['redis']) }}"
"""

RETURN = r"""
_value:
  description: Name of a service to its changes.
  type: dict
  sample:
    redis:
      profiles: [external]
    api:
      depends_on:
        redis:
          condition: service_started
          required: false
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.module_utils import _services


def service_override(
    config: object, services: dict[str, t.Any] | None = None, without: list[str] | None = None
) -> dict[str, t.Any]:
    """Changes by service, see DOCUMENTATION."""
    if not isinstance(config, dict):
        raise AnsibleFilterError(f"service_override takes a resolved project as a dict, got a {type(config).__name__}.")
    return _services.override(config, services or {}, without or [])


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"service_override": service_override}
