# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: volume_owners
short_description: Find the directories of a Compose project that must belong to a container's user
version_added: 0.2.0
description:
  - Takes a resolved project (the output of C(docker compose config --format json)) and returns the directories of the
    host behind the bind mounts that O(owners) names, for M(selfhost.dify.volume_ownership).
  - Services that do not run in the project, and named volumes, which take their owner from the image, are left out.
options:
  _input:
    description: The resolved project.
    type: dict
    required: true
  owners:
    description: Which directory inside which service's container is written to by whom.
    type: list
    elements: dict
    required: true
    suboptions:
      service:
        description: Name of the service.
        type: str
        required: true
      target:
        description: Absolute path inside the container.
        type: str
        required: true
      owner:
        description: Number of the user the service runs as.
        type: int
        required: true
      group:
        description: Number of that user's group.
        type: int
        required: true
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Show who must own what
  ansible.builtin.debug:
    msg: "{{ resolved.stdout | from_json | selfhost.dify.volume_owners(owners) }}"
  vars:
    owners:
      - service: api
        target: /app/api/storage
        owner: 1001
        group: 1001
"""

RETURN = r"""
_value:
  description: The rows of O(owners) that apply, each with the directory on the host and the service's image.
  type: list
  elements: dict
  sample:
    - service: api
      target: /app/api/storage
      owner: 1001
      group: 1001
      path: /opt/dify/docker/volumes/app/storage
      image: langgenius/dify-api:1.16.1
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.module_utils import _compose


def volume_owners(config: object, owners: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The rows that apply, see DOCUMENTATION."""
    if not isinstance(config, dict):
        raise AnsibleFilterError(f"volume_owners takes a resolved project as a dict, got a {type(config).__name__}.")
    return _compose.volume_owners(config, owners)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"volume_owners": volume_owners}
