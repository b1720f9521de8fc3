#!/usr/bin/python
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_rotation
short_description: Begin to replace a secret of a Compose .env
version_added: 0.2.0
description:
  - Writes down a secret's old and new value, on the host and for root alone, before anything learns the new one.
  - The file stands beside the C(.env), has the same name with C(.rotation), mode V(0600) and three lines,
    the secret's name, the old and the new value. The C(.env) itself is not touched.
  - As long as the file is there the rotation is under way. It is removed by whoever has proven the new value.
  - Run again for the same secret, the module keeps both values, so that every later step can be repeated.
options:
  path:
    description: The C(.env).
    type: path
    required: true
  key:
    description: Name of the secret.
    type: str
    required: true
  value:
    description: The new value. Without it one is generated.
    type: str
  format:
    description: How to generate it, as in M(selfhost.dify.dotenv).
    type: str
    choices: [alphanumeric, complex, base64url32]
    default: alphanumeric
  length:
    description: Number of characters of the V(alphanumeric) and V(complex) formats.
    type: int
    default: 48
  also:
    description: Settings that are rewritten together with the secret.
    type: list
    elements: str
    default: []
  service:
    description:
      - The host that asks for the secret. Another setting than those in O(also) that holds the secret in an URL of
        this host is refused, since it would keep the old value.
    type: str
    required: true
extends_documentation_fragment:
  - selfhost.dify._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to show but secrets.
  idempotent:
    support: full
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Write down the old and the new password
  selfhost.dify.secret_rotation:
    path: /opt/dify/docker/.env
    key: DB_PASSWORD
    service: db_postgres
"""

RETURN = r"""
resumed:
  description: Whether the rotation was under way already.
  returned: success
  type: bool
empty:
  description: Whether the old value is empty, so that nothing was asked for until now.
  returned: success
  type: bool
"""

import os
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv

# Survives URLs, shell health checks and SQL as it is.
_FIT = re.compile(r"^[A-Za-z0-9._~-]{8,}$")


def pending(path: str) -> tuple[str, str, str]:
    """Name, old and new value of the rotation under way; three empty strings when there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            name, old, new = stream.read().split("\n")[:3]
    except FileNotFoundError:
        return "", "", ""
    return name, old, new


def value_in_use(module: AnsibleModule) -> str:
    """The secret's value in the .env; refuses one that other settings hold as well and would keep."""
    params = module.params
    with open(params["path"], encoding="utf-8") as stream:
        settings = {name: _dotenv.unquote(raw) for name, raw in _dotenv.assignments(stream.read()).items()}
    old = settings.get(params["key"], "")
    part = ":{0}@{1}".format(old, params["service"])
    keeping = [name for name, value in settings.items() if old and part in value and name not in params["also"]]
    if keeping:
        raise _dotenv.DotenvError(
            "{0} in {1} holds the value of {2} too and would keep it; write ${{{2}}} there instead.".format(
                ", ".join(keeping), params["path"], params["key"]
            )
        )
    return old


def run(module: AnsibleModule) -> None:
    """Works out old and new value and writes them down unless that was done."""
    params = module.params
    key, path = params["key"], params["path"] + ".rotation"
    under_way, old, before = pending(path)
    if under_way and under_way != key:
        raise _dotenv.DotenvError(
            "The rotation of {0} was cut short and comes first; rotate {0}, then {1}.".format(under_way, key)
        )
    if not under_way:
        old = value_in_use(module)
    secret = _dotenv.Secret(key, {}, params["length"], params["format"], "")
    new = params["value"] or before or _dotenv.generate(secret)
    if new == old:
        raise _dotenv.DotenvError(
            "The new value of {0} is the one in use; choose another one, or none to have it generated.".format(key)
        )
    if not _FIT.match(new):
        raise _dotenv.DotenvError(
            "The new value of {0} is too short or unfit for URLs and shells, expected at least 8 characters out of "
            "letters, digits and any of . _ ~ -".format(key)
        )
    if new != before and not module.check_mode:
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".rotation-")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write("{0}\n{1}\n{2}\n".format(key, old, new))
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    module.exit_json(changed=new != before, resumed=bool(under_way), empty=not old)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "value": {"type": "str", "no_log": True},
            "format": {"type": "str", "choices": ["alphanumeric", "complex", "base64url32"], "default": "alphanumeric"},
            "length": {"type": "int", "default": 48},
            "also": {"type": "list", "elements": "str", "default": []},
            "service": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except (_dotenv.DotenvError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
