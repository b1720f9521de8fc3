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
    recognised and treated as O(drift) says. Settings that O(values) or O(defaults) name follow these in any case.
  - Settings that the release no longer knows are kept in a section of their own and reported, renamed ones are
    carried over.
  - A setting that refers to another one is moved below it, since Compose sees only what stands above a reference.
  - A setting without which the Compose file cannot start, C(${NAME:?}), is generated where its name says that it is a
    secret, and must have a value otherwise.
  - The file and its memory always have mode V(0600); the replaced file is kept as a backup.
notes:
  - Ansible writes a module's options to the target's log. Where O(values) holds secrets, set
    C(ansible_no_target_syslog) for the task, which hides nothing else.
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
      - A YAML file counts with every C(${NAME}) in it and what that falls back to, any other file with every C(NAME=).
      - Shell patterns are allowed, with C(**) for any depth; a pattern that matches nothing is no error.
    type: list
    elements: str
    default: []
  env_files:
    description:
      - Files that Compose reads before the C(.env), where the operator may have put secrets a running server uses.
      - Shell patterns are allowed as in O(known).
    type: list
    elements: str
    default: []
  data:
    description:
      - Paths of which one exists once a server has run with the settings in O(path). Then its secrets are kept whatever
        they are, those it has from the Compose file's own defaults, too; before that, public ones are replaced.
      - Without this option a server is taken to have run where O(path) exists.
    type: list
    elements: path
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
    description:
      - Settings to generate where neither O(values) nor the host has a value. One that the release does not know is
        passed over.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: Name of the setting.
        type: str
        required: true
      also:
        description:
          - Settings made from the same value, name to template with C({}) for the value, percent-encoded in a URL.
          - One in place that has another shape, such as the URL of another server, is kept.
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
      fixed_by:
        description:
          - Paths of which one exists once a service has made its data with the value. From then on another one in
            O(values) is refused, since it would lock the server out.
        type: list
        elements: path
        default: []
  rotation:
    description:
      - The file of M(selfhost.dify.secret_rotation), with the name of a secret, its old and its new value.
      - Where the file exists, the new value is written.
    type: path
  renamed:
    description:
      - Settings that have another name in newer releases, old name to new.
      - It applies where the release knows the new name and no example assigns the old one.
    type: dict
    default: {}
  drift:
    description:
      - What becomes of settings that were edited by hand. All of them are reported.
      - V(keep) keeps them, V(overwrite) undoes them, V(fail) fails and changes nothing.
      - Where the module has not written before, everything that differs from the example counts as edited by hand.
    type: str
    choices: [keep, overwrite, fail]
    default: keep
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
added:
  description: Names of the settings that are new in the file.
  returned: success
  type: list
  elements: str
updated:
  description: Names of the settings whose line is new, changed or gone.
  returned: success
  type: list
  elements: str
removed_upstream:
  description: Names of the settings in the file that the release does not know, or no longer, and that were kept.
  returned: success
  type: list
  elements: str
renamed:
  description: Settings in the file that the release knows under another name, old name to new.
  returned: success
  type: dict
  sample: {VIKINGDB_SCHEMA: VIKINGDB_SCHEME}
drifted:
  description: Names of the settings that were edited by hand since the last run.
  returned: success
  type: list
  elements: str
generated:
  description: Names of the secrets that were generated in this run.
  returned: success
  type: list
  elements: str
  sample: [REDIS_PASSWORD]
public:
  description: Names of the secrets that still have the release's public default, because a running server uses it.
  returned: success
  type: list
  elements: str
backup_file:
  description: The copy of the replaced file.
  returned: when a file was replaced
  type: str
"""

import os
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from ansible_collections.selfhost.dify.plugins.module_utils._dotenv_files import (
    matching,
    read,
    read_dotenv,
    read_release,
)


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replaces the file in one step, mode 0600 from its first byte on."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise _dotenv.DotenvError("The directory {0} does not exist; check out the release first.".format(directory))
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".dotenv-")
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
    os.chmod(temporary, 0o600)
    module.atomic_move(temporary, path, unsafe_writes=False)
    os.chmod(path, 0o600)


def read_host(params: dict[str, t.Any]) -> _dotenv.Host:
    """What the host holds already."""
    current = read_dotenv(params["path"])
    beside: dict[str, str] = {}
    for path in matching(params["env_files"]):
        beside.update(_dotenv.resolve(read_dotenv(path) or ""))
    running = current is not None and (params["data"] is None or any(map(os.path.exists, params["data"])))
    return _dotenv.Host(current, read_dotenv(params["path"] + ".applied"), beside, running)


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
    values = texts(params["values"])
    module.no_log_values.update(
        value for key, value in values.items() if _dotenv.is_secret(key) and len(value) >= 8 and not value.isdigit()
    )
    release = read_release(params["example"], params["known"])
    host = read_host(params)
    rotation = ((params["rotation"] and read(params["rotation"])) or "").split("\n")
    secrets = [
        _dotenv.Secret(
            item["key"],
            item["also"],
            item["length"],
            item["format"],
            (read(item["fallback_file"]) or "").strip() if item["fallback_file"] else "",
            item["key"] != rotation[0] and any(map(os.path.exists, item["fixed_by"])),
        )
        for item in params["secrets"]
    ]
    renamed = _dotenv.renames(params["renamed"], release)
    values = {**{renamed[key]: value for key, value in values.items() if key in renamed}, **values}
    values = {key: value for key, value in values.items() if key not in renamed}
    _dotenv.check_values(values, release, secrets, params["allow_unknown"], params["any_type"])
    defaults = {key: value for key, value in texts(params["defaults"]).items() if key in release.known}
    if rotation[0] in release.known and len(rotation) > 2:
        module.no_log_values.add(rotation[2])
        values[rotation[0]] = rotation[2]
    merged = _dotenv.merge(release, {**defaults, **values}, secrets, host, renamed, params["drift"])

    present = _dotenv.assignments(host.current or "")
    result: dict[str, object] = {
        "added": [key for key in merged.values if key not in present],
        "updated": [key for key in {**merged.values, **present} if present.get(key) != merged.values.get(key)],
        "removed_upstream": merged.unknown,
        "renamed": {**{key: renamed[key] for key in params["values"] if key in renamed}, **merged.renamed},
        "drifted": merged.drifted,
        "generated": merged.generated,
        "public": merged.public,
    }
    if module._diff:
        before, after = _dotenv.changes(release.example if host.current is None else host.current, merged)
        result["diff"] = {
            "before": before,
            "after": after,
            "before_header": params["path"],
            "after_header": params["path"],
        }
    path, memory = os.path.realpath(params["path"]), params["path"] + ".applied"
    replace = host.current != merged.text
    result["changed"] = replace or host.applied != merged.memory or too_open(path) or too_open(memory)
    if result["changed"] and not module.check_mode:
        if replace and host.current is not None:
            os.chmod(path, 0o600)
            result["backup_file"] = module.backup_local(path)
        # The file first: were the memory written alone, an interrupted run would look like a hand edit.
        write(module, path, merged.text)
        write(module, memory, merged.memory)
    module.exit_json(**result)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "example": {"type": "path", "required": True},
            "known": {"type": "list", "elements": "str", "default": []},
            "env_files": {"type": "list", "elements": "str", "default": []},
            "data": {"type": "list", "elements": "path"},
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
                    "fixed_by": {"type": "list", "elements": "path", "default": []},
                },
            },
            "rotation": {"type": "path"},
            "renamed": {"type": "dict", "default": {}},
            "drift": {"type": "str", "choices": ["keep", "overwrite", "fail"], "default": "keep"},
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
