#!/usr/bin/python
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dotenv
short_description: Keep a Compose .env in step with its example
version_added: 0.1.0
description:
  - Writes the C(.env) of a Compose project from the release's own C(.env.example), the operator's values and
    generated secrets.
  - Order and comments of the example are kept. A secret is generated once, on the host, and kept from then on.
  - What the module wrote last is remembered beside the file (same name with C(.applied)), so a hand edit is
    recognised. It is kept and reported as drift, unless O(values) names the setting.
  - Settings that the release no longer knows are kept in a section of their own and reported.
  - The file and its memory always have mode V(0600); the replaced file is kept as a backup.
options:
  path:
    description: The file to write, for example V(/opt/dify/docker/.env).
    type: path
    required: true
  example:
    description: The release's C(.env.example).
    type: path
    required: true
  known:
    description:
      - Further files that name settings of the release.
      - A YAML file counts with every C(${NAME}) in it, any other file with every C(NAME=).
      - Shell patterns are allowed, with C(**) for any depth; a pattern that matches nothing is no error.
    type: list
    elements: str
    default: []
  values:
    description:
      - The operator's settings, name to value. Booleans are written as V(true) and V(false), null as empty.
      - C(${NAME}) with a known C(NAME) stays a reference, every other dollar sign is literal.
    type: dict
    default: {}
  defaults:
    description: Settings to write where the release knows them, unless O(values) names them.
    type: dict
    default: {}
  secrets:
    description: Settings to generate. One that the release does not know is passed over.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: Name of the setting.
        type: str
        required: true
      also:
        description: Settings made from the same value, name to template with C({}) for the value.
        type: dict
        default: {}
      length:
        description: Number of characters of the V(alphanumeric) format.
        type: int
        default: 48
      format:
        description:
          - V(alphanumeric) holds upper case, lower case and digits, V(complex) a dash as well.
          - V(base64url32) is unpadded base64url of exactly 32 random bytes.
        type: str
        choices: [alphanumeric, complex, base64url32]
        default: alphanumeric
      fallback_file:
        description: A file that holds the value a running server already uses. Read when the C(.env) has none.
        type: path
  rotation:
    description:
      - The file of M(selfhost.dify.secret_rotation). Where it exists, the new value in it is written for its secret.
    type: path
    version_added: 0.2.0
  allow_unknown:
    description: Names in O(values) that are accepted although the release does not know them.
    type: list
    elements: str
    default: []
  any_type:
    description: Names in O(values) that may differ in type from the example's default.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - selfhost.dify._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the settings that change, for a new file against its example, with secrets hidden.
  idempotent:
    support: full
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Write Dify's environment file
  selfhost.dify.dotenv:
    path: /opt/dify/docker/.env
    example: /opt/dify/docker/.env.example
    known:
      - /opt/dify/docker/docker-compose.yaml
      - /opt/dify/docker/envs/**/*.env.example
    values:
      EXPOSE_NGINX_PORT: 127.0.0.1:3000
      LOG_LEVEL: WARNING
    any_type: [EXPOSE_NGINX_PORT]
    secrets:
      - key: REDIS_PASSWORD
        also:
          CELERY_BROKER_URL: redis://:{}@redis:6379/1
"""

RETURN = r"""
generated:
  description: Names of the secrets that were generated in this run.
  returned: success
  type: list
  elements: str
  sample: [REDIS_PASSWORD]
drifted:
  description: Names of the settings that were edited by hand since the last run.
  returned: success
  type: list
  elements: str
kept:
  description: Names of the settings that the release does not know and that were kept.
  returned: success
  type: list
  elements: str
public:
  description: Names of the secrets that still have the release's public default, because a running server uses it.
  returned: success
  type: list
  elements: str
updated:
  description: Names of the settings whose line is new, changed or gone.
  returned: success
  type: list
  elements: str
backup_file:
  description: The copy of the replaced file.
  returned: when a file was replaced
  type: str
"""

import glob
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv


def read(path: str) -> str | None:
    """The file's text, or None where there is no file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replaces the file in one step, mode 0600 from its first byte on."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".dotenv-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, 0o600)
    module.atomic_move(temporary, path, unsafe_writes=False)
    os.chmod(path, 0o600)


def known_settings(patterns: list[str]) -> set[str]:
    """Every setting named in the files that match the patterns."""
    names: set[str] = set()
    for pattern in patterns:
        for path in glob.glob(pattern, recursive=True):
            text = read(path) or ""
            names |= _dotenv.interpolated(text) if path.endswith((".yaml", ".yml")) else set(_dotenv.assignments(text))
    return names


def texts(values: dict[str, object]) -> dict[str, str]:
    """The settings as text; raises DotenvError naming the one that cannot be."""
    result = {}
    for key, value in values.items():
        try:
            result[key] = _dotenv.text_of(value)
        except _dotenv.DotenvError as error:
            raise _dotenv.DotenvError("{0} cannot be written: {1}.".format(key, error)) from error
    return result


def too_open(path: str) -> bool:
    """Whether someone else than the owner has any right on the file."""
    return os.path.exists(path) and bool(os.stat(path).st_mode & 0o077)


def run(module: AnsibleModule) -> None:
    """Works out what the file should hold and writes it where it differs."""
    params = module.params
    example = read(params["example"])
    if example is None:
        raise _dotenv.DotenvError(
            "The example {0} does not exist; check out the release first.".format(params["example"])
        )
    values = texts(params["values"])
    module.no_log_values.update(
        value for key, value in values.items() if _dotenv.is_secret(key) and len(value) >= 8 and not value.isdigit()
    )
    defaults = _dotenv.assignments(example)
    known = set(defaults) | known_settings(params["known"])
    _dotenv.check_values(values, defaults, known, params["allow_unknown"], params["any_type"])
    values = {**{key: value for key, value in texts(params["defaults"]).items() if key in known}, **values}
    rotation = (read(params["rotation"]) or "").split("\n") if params["rotation"] else []
    if len(rotation) > 2 and rotation[0] in known:
        module.no_log_values.add(rotation[2])
        values[rotation[0]] = rotation[2]
    secrets = [
        _dotenv.Secret(
            item["key"],
            item["also"],
            item["length"],
            item["format"],
            (read(item["fallback_file"]) or "").strip() if item["fallback_file"] else "",
        )
        for item in params["secrets"]
    ]

    memory = params["path"] + ".applied"
    current, applied = read(params["path"]), read(memory)
    merged = _dotenv.merge(example, values, secrets, known, current, applied)
    before, after = _dotenv.changes(example if current is None else current, merged)
    present = _dotenv.assignments(current or "")
    result: dict[str, object] = {
        "changed": False,
        "generated": merged.generated,
        "drifted": merged.drifted,
        "kept": merged.kept,
        "public": merged.public,
        "updated": [key for key in {**merged.values, **present} if present.get(key) != merged.values.get(key)],
    }
    if module._diff:
        result["diff"] = {
            "before": before,
            "after": after,
            "before_header": params["path"],
            "after_header": params["path"],
        }
    replace = current != merged.text
    result["changed"] = replace or applied != merged.memory or too_open(params["path"]) or too_open(memory)
    if result["changed"] and not module.check_mode:
        if replace and current is not None:
            os.chmod(params["path"], 0o600)
            result["backup_file"] = module.backup_local(params["path"])
        # The file first: were the memory written alone, an interrupted run would look like a hand edit.
        write(module, params["path"], merged.text)
        write(module, memory, merged.memory)
    module.exit_json(**result)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "example": {"type": "path", "required": True},
            "known": {"type": "list", "elements": "str", "default": []},
            "values": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    "key": {"type": "str", "required": True, "no_log": False},
                    "also": {"type": "dict", "default": {}},
                    "length": {"type": "int", "default": 48},
                    "format": {
                        "type": "str",
                        "choices": ["alphanumeric", "complex", "base64url32"],
                        "default": "alphanumeric",
                    },
                    "fallback_file": {"type": "path"},
                },
            },
            "rotation": {"type": "path"},
            "allow_unknown": {"type": "list", "elements": "str", "default": []},
            "any_type": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except (_dotenv.DotenvError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
