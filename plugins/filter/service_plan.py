# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: service_plan
short_description: Work out what a choice of vector store, database, Redis and storage comes to
version_added: 0.3.0
description:
  - Used by the role P(selfhost.dify.dify#role), whose tables it takes. Input and result can change at any
    time.
  - Says what is wrong with the choice, which settings to write, which services to leave out or to change, and which
    connections to try first.
options:
  _input:
    description: The choice, with what is known of the release and of the host.
    type: dict
    required: true
  stores:
    description: The role's table of vector stores.
    type: dict
    required: true
  databases:
    description: The role's table of databases.
    type: dict
    required: true
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Refuse what cannot be
  ansible.builtin.assert:
    that: __dify_plan.problems | length == 0
    fail_msg: "{{ __dify_plan.problems | join(' ') }}"
"""

RETURN = r"""
_value:
  description: What the choice comes to.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.module_utils import _services


def service_plan(choice: object, stores: dict[str, t.Any], databases: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the choice comes to, see DOCUMENTATION."""
    if not isinstance(choice, dict):
        raise AnsibleFilterError(f"service_plan takes a choice as a dict, got a {type(choice).__name__}.")
    return _services.plan(choice, stores, databases)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"service_plan": service_plan}
