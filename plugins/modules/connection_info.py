#!/usr/bin/python

# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: connection_info
short_description: Try connections to databases and other services
version_added: 0.3.0
author:
  - selfhost.dify contributors (@selfhost-dify)
description:
  - Connects from the target to services and says which of them cannot be used, and why. Needs nothing installed.
  - PostgreSQL and Redis are signed in to. MySQL is only asked whether it lets the target connect, and HTTP whether it
    answers at all.
extends_documentation_fragment:
  - selfhost.dify._attributes
  - selfhost.dify._attributes.info_module
options:
  connections:
    description:
      - The connections to try.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What to call it in the result.
        type: str
        required: true
      protocol:
        description:
          - What is spoken there.
        type: str
        choices: [tcp, http, redis, mysql, postgresql]
        default: tcp
      host:
        description:
          - Name or address.
        type: str
        required: true
      port:
        description:
          - Port.
        type: int
        required: true
      tls:
        description:
          - Whether to speak TLS. Without effect for V(mysql). A V(postgresql) that offers TLS is spoken to with TLS in
            any case.
        type: bool
        default: false
      verify:
        description:
          - Whether the system must trust the certificate, and the certificate name O(connections[].host).
        type: bool
        default: true
      user:
        description:
          - The account, for V(redis) and V(postgresql).
        type: str
        default: ""
      password:
        description:
          - The account's password.
        type: str
        default: ""
      database:
        description:
          - The database, for V(postgresql).
        type: str
        default: ""
  timeout:
    description:
      - Seconds to wait for a connection, and for each answer.
    type: float
    default: 10
"""

EXAMPLES = r"""
---
- name: Try the database and Redis
  selfhost.dify.connection_info:
    connections:
      - name: database
        protocol: postgresql
        host: db.example.com
        port: 5432
        user: dify
        password: "{{ database_password }}"
        database: dify
      - name: cache
        protocol: redis
        host: cache.example.com
        port: 6380
        tls: true
        password: "{{ cache_password }}"
  register: tried

- name: Require both
  ansible.builtin.assert:
    that: tried.refused | length == 0
    fail_msg: "{{ tried.refused | map(attribute='reason') | join(', ') }}"
"""

RETURN = r"""
refused:
  description: The connections that cannot be used.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: As given.
      type: str
    host:
      description: As given.
      type: str
    port:
      description: As given.
      type: int
    reason:
      description: Why not, in the words of the service or the system.
      type: str
  sample:
    - name: database
      host: db.example.com
      port: 5432
      reason: Connection refused
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils import _connection


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connections": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "protocol": {
                        "type": "str",
                        "choices": ["tcp", "http", "redis", "mysql", "postgresql"],
                        "default": "tcp",
                    },
                    "host": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "tls": {"type": "bool", "default": False},
                    "verify": {"type": "bool", "default": True},
                    "user": {"type": "str", "default": ""},
                    "password": {"type": "str", "default": "", "no_log": True},
                    "database": {"type": "str", "default": ""},
                },
            },
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    refused = []
    for row in module.params["connections"]:
        name = row.pop("name")
        reason = _connection.knock(_connection.Connection(**row), module.params["timeout"])
        if reason:
            refused.append({"name": name, "host": row["host"], "port": row["port"], "reason": reason})
    module.exit_json(changed=False, refused=refused)


if __name__ == "__main__":
    main()
