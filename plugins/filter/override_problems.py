# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: override_problems
short_description: Judge the options of an override before it is written
version_added: 0.2.0
description:
  - Returns what P(selfhost.dify.compose_override#filter) would refuse, a sentence each, in the names of the variables
    of the role P(selfhost.dify.dify#role).
options:
  _input:
    description:
      - A Compose project, resolved or as it stands in its file.
      - Where it is null, only the form of the options is judged.
    type: dict
    required: true
  public_ports:
    description: As in P(selfhost.dify.compose_override#filter).
    type: list
    elements: str
    default: []
  logging:
    description: As in P(selfhost.dify.compose_override#filter).
    type: dict
    default: {}
  image_registry:
    description: As in P(selfhost.dify.compose_override#filter).
    type: str
    default: ""
  images:
    description: As in P(selfhost.dify.compose_override#filter).
    type: dict
    default: {}
  compose_override:
    description: As in P(selfhost.dify.compose_override#filter).
    type: dict
    default: {}
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Require an override that can be written
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join(' ') }}"
  vars:
    problems: "{{ lookup('ansible.builtin.file', 'docker-compose.yaml') | from_yaml
      | selfhost.dify.override_problems(public_ports=['plugin_daemon:5003']) }}"
"""

RETURN = r"""
_value:
  description: What is wrong. Empty where nothing is.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.module_utils import _compose


def override_problems(config: object, **options: t.Any) -> list[str]:
    """What is wrong; see DOCUMENTATION."""
    if config is not None and not (isinstance(config, dict) and isinstance(config.get("services"), dict)):
        raise AnsibleFilterError(f"override_problems takes a Compose project or null, got a {type(config).__name__}.")
    return _compose.problems(config, **options)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"override_problems": override_problems}
