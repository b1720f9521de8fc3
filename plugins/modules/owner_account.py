#!/usr/bin/python

# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: owner_account
short_description: Make the first account of a Dify server
version_added: 0.1.0
author:
  - selfhost.dify contributors (@selfhost-dify)
description:
  - Claims a fresh Dify server, so that nobody else can, by making its owner account through the console API.
  - Asks the server first. One that is set up already is left alone.
  - Knows the API of Dify 1.10 and later, with and without E(INIT_PASSWORD).
extends_documentation_fragment:
  - selfhost.dify._attributes
attributes:
  check_mode:
    support: full
    details:
      - Asks the server for its state and sends nothing else; O(verify_login) is left out.
  diff_mode:
    support: full
    details:
      - Shows the setup step, the e-mail and the name, never a secret.
  idempotent:
    support: full
options:
  url:
    description:
      - Address of the server without a path. The loopback port of Dify's own nginx is the place to claim it.
      - Requests to a loopback address never go through a proxy, and redirects are not followed.
    type: str
    default: http://127.0.0.1:3000
  state:
    description:
      - V(present) makes sure that the server has an owner.
      - V(validated) only judges the other options by Dify's rules. No request is sent and nothing is written.
    type: str
    choices: [present, validated]
    default: present
  email:
    description:
      - The owner's e-mail address. It is turned to lower case, as Dify does.
    type: str
    required: true
  name:
    description:
      - The owner's name, at most 30 characters.
    type: str
    default: Dify owner
  password:
    description:
      - The owner's password, at least 8 characters with a letter and a digit among them.
      - Exactly one of O(password) and O(password_file) is required.
    type: str
  password_file:
    description:
      - File on the target that holds the owner's password and nothing else.
      - It must belong to the user that the module runs as, with mode C(0600).
      - When it does not exist and the server has no owner, a password of 24 letters and digits is made and written
        there before the server is asked to use it. A missing directory is made with mode C(0700).
    type: path
  language:
    description:
      - Language of the owner's console.
    type: str
    default: en-US
  init_password:
    description:
      - Value of E(INIT_PASSWORD) in Dify's environment, at most 30 characters. Needed only where it is set there;
        empty is the same as not given.
    type: str
  ca_path:
    description:
      - File on the target with the PEM certificates of a CA to trust besides those of the system.
    type: path
  validate_certs:
    description:
      - Whether the server's certificate must be trusted.
    type: bool
    default: true
  timeout:
    description:
      - Seconds for each request. After a setup call without an answer the server is asked for its state for as long
        again.
    type: float
    default: 10
  wait:
    description:
      - Seconds to wait for the API to answer at all, asking with growing pauses.
    type: float
    default: 60
  verify_login:
    description:
      - Prove that O(email) can sign in with the password, by signing in once.
      - The server locks an account for 24 hours after five wrong passwords, so use it with care in a loop.
    type: bool
    default: false
  storage_path:
    description:
      - Directory on the target that is Dify's storage (C(docker/volumes/app/storage) of the checkout).
      - Where the server cannot write it, the error names the directory with the wrong owner.
    type: path
  storage_owner:
    description:
      - Numeric owner and group that the storage must have.
    type: str
    default: 1001:1001
seealso:
  - module: selfhost.dify.volume_ownership
"""

EXAMPLES = r"""
---
- name: Claim the server, with a password made on the host
  selfhost.dify.owner_account:
    url: http://127.0.0.1:3000
    email: owner@example.com
    password_file: /root/.config/dify/owner-password
    storage_path: /opt/dify/docker/volumes/app/storage
    wait: 300

- name: Claim a server that asks for its INIT_PASSWORD, and prove that the owner can sign in
  selfhost.dify.owner_account:
    email: owner@example.com
    password: "{{ vault_owner_password }}"
    init_password: "{{ vault_init_password }}"
    verify_login: true

- name: Judge the inputs before anything is installed
  selfhost.dify.owner_account:
    state: validated
    email: owner@example.com
    password_file: /root/.config/dify/owner-password
"""

RETURN = r"""
---
step:
  description: What the server says of its setup; in check mode, what it would say.
  returned: when O(state=present)
  type: str
  sample: finished
setup_at:
  description: When the server was set up, in the server's words. V(null) where it does not say.
  returned: when O(state=present)
  type: str
  sample: "2026-11-22T02:37:34"
email:
  description: The owner's e-mail address in lower case.
  returned: always
  type: str
  sample: owner@example.com
password_file:
  description: Where the owner's password is. V(null) when there is no such file.
  returned: always
  type: str
  sample: /root/.config/dify/owner-password
version:
  description: Version of the API. V(null) where it does not say.
  returned: when O(state=present)
  type: str
  sample: 1.16.1
initialized:
  description: Whether the server was set up before this task ran.
  returned: when O(state=present)
  type: bool
  sample: true
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils._console_api import (
    ConsoleClient,
    ConsoleError,
    Owner,
    OwnerPassword,
    Storage,
    ensure_owner,
    validate_owner,
    validate_url,
)


def judge(params: dict, owner: Owner, password: OwnerPassword) -> Storage:
    """Raise ConsoleError with every problem of the options; return where the storage is."""
    problems = validate_url(params["url"])
    problems += validate_owner(owner.email, owner.name, password.value, owner.language, owner.init_password)
    ids = re.fullmatch(r"(\d+):(\d+)", params["storage_owner"])
    if ids is None:
        problems.append(f"storage_owner is {params['storage_owner']!r}, expected numbers such as '1001:1001'.")
    if problems or ids is None:
        raise ConsoleError(" ".join(problems))
    return Storage(params["storage_path"], int(ids.group(1)), int(ids.group(2)))


def run(module: AnsibleModule, password: OwnerPassword) -> dict:
    params = module.params
    owner = Owner(params["email"].lower(), params["name"], params["language"], params["init_password"] or None)
    storage = judge(params, owner, password)
    result = {"changed": False, "email": owner.email, "password_file": password.path if password.value else None}
    if params["state"] == "validated":
        return result
    before, after = ensure_owner(
        ConsoleClient(params["url"], params["ca_path"], params["validate_certs"], params["timeout"]),
        owner,
        password,
        storage,
        wait=params["wait"],
        verify_login=params["verify_login"],
        check_mode=module.check_mode,
    )
    changed = not before.finished
    result.update(
        changed=changed,
        password_file=password.path if password.value or changed else None,
        step=after.step,
        setup_at=after.setup_at,
        version=after.version,
        initialized=before.finished,
        diff={
            "before": {"step": before.step},
            "after": {"step": after.step, **({"email": owner.email, "name": owner.name} if changed else {})},
        },
    )
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:3000"},
            "state": {"type": "str", "choices": ["present", "validated"], "default": "present"},
            "email": {"type": "str", "required": True},
            "name": {"type": "str", "default": "Dify owner"},
            "password": {"type": "str", "no_log": True},
            "password_file": {"type": "path", "no_log": False},
            "language": {"type": "str", "default": "en-US"},
            "init_password": {"type": "str", "no_log": True},
            "ca_path": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 10},
            "wait": {"type": "float", "default": 60},
            "verify_login": {"type": "bool", "default": False},
            "storage_path": {"type": "path"},
            "storage_owner": {"type": "str", "default": "1001:1001"},
        },
        mutually_exclusive=[("password", "password_file")],
        required_one_of=[("password", "password_file")],
        supports_check_mode=True,
    )
    password = None
    try:
        password = OwnerPassword(module.params["password"], module.params["password_file"])
        result = run(module, password)
    except ConsoleError as error:
        result = {"failed": True, "msg": str(error)}
    except OSError as error:
        result = {"failed": True, "msg": f"{error.filename or 'The target'}: {error.strerror or error}."}
    if password is not None and password.value:
        module.no_log_values.add(password.value)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
