#!/usr/bin/python

# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: certificate_info
short_description: Read and judge a TLS certificate
version_added: 0.4.0
author:
  - selfhost.dify contributors (@selfhost-dify)
description:
  - >-
    Reads the certificate of a file, of a text, or of a server, and says what is wrong with it. Needs nothing installed
    on the target. Signatures are not checked.
extends_documentation_fragment:
  - selfhost.dify._attributes
  - selfhost.dify._attributes.info_module
options:
  path:
    description:
      - File on the target with PEM certificates, the server's own first.
    type: path
  content:
    description:
      - The PEM certificates themselves.
    type: str
  server_name:
    description:
      - The name to ask a server for, whose certificate is read.
    type: str
  address:
    description:
      - Where that server is.
    type: str
    default: 127.0.0.1
  port:
    description:
      - Its port.
    type: int
    default: 443
  timeout:
    description:
      - Seconds to wait for it.
    type: float
    default: 5
  private_key_path:
    description:
      - File on the target with the PEM private key that must belong to the certificate.
    type: path
  private_key_content:
    description:
      - The PEM private key itself.
    type: str
  names:
    description:
      - Names that the certificate must be for.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
---
- name: Judge a certificate before a server uses it
  selfhost.dify.certificate_info:
    path: /etc/ssl/app.example.com.pem
    private_key_path: /etc/ssl/private/app.example.com.key
    names: [app.example.com]
  register: own

- name: Require a good one
  ansible.builtin.assert:
    that: own.problems | length == 0
    fail_msg: "{{ own.problems | join('; ') }}"

- name: Ask for the certificate that is served
  selfhost.dify.certificate_info:
    server_name: app.example.com
  register: served
"""

RETURN = r"""
certificate:
  description: The first certificate; empty when there is none.
  returned: success
  type: dict
  contains:
    subject:
      description: Whom it was issued for, the most particular part first.
      type: str
    issuer:
      description: Who issued it.
      type: str
    names:
      description: The names and addresses it is for.
      type: list
      elements: str
    not_before:
      description: When it becomes valid, in UTC.
      type: str
    not_after:
      description: When it ends, in UTC.
      type: str
    days_left:
      description: Whole days until then, negative afterwards.
      type: int
    fingerprint:
      description: SHA-256 of it, in hexadecimal digits.
      type: str
  sample:
    subject: CN=app.example.com
    issuer: CN=R11,O=Let's Encrypt,C=US
    names: [app.example.com]
    not_before: "2026-11-01T00:00:00Z"
    not_after: "2027-01-30T00:00:00Z"
    days_left: 69
    fingerprint: 6f1ed002ab5595859014ebf0951522d9ab0fbad0c5a2ef9ca2f6ee9cd4bfa2b1
length:
  description: The number of certificates that stand there.
  returned: success
  type: int
  sample: 2
problems:
  description: Why clients would not believe a server with it, or it could not start.
  returned: success
  type: list
  elements: str
  sample:
    - CN=app.example.com expired at 2026-11-01T00:00:00Z
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils import _certificate


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise _certificate.CertificateError(f"{path} cannot be read ({error.strerror})") from error


def _judge(module: AnsibleModule) -> dict[str, object]:
    options, now = module.params, time.time()
    if options["server_name"]:
        text = _certificate.served(options["address"], options["port"], options["server_name"], options["timeout"])
    else:
        text = _read(options["path"]) if options["path"] else options["content"]
    chain = _certificate.split(text)
    if not chain:
        what = "the server shows no certificate" if options["server_name"] else "there is no PEM certificate in it"
        return {"certificate": {}, "length": 0, "problems": [what]}
    problems = _certificate.misordered(chain, now)
    ordered = not problems
    if ordered:
        problems = _certificate.problems(chain, options["names"], now)
    key = _read(options["private_key_path"]) if options["private_key_path"] else options["private_key_content"]
    if ordered and key is not None:
        refusal = _certificate.key_problem("\n".join(chain), key, module.tmpdir)
        problems += [f"of its private key: {refusal}"] if refusal else []
    return {"certificate": _certificate.describe(chain[0], now), "length": len(chain), "problems": problems}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "content": {"type": "str"},
            "server_name": {"type": "str"},
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 443},
            "timeout": {"type": "float", "default": 5},
            "private_key_path": {"type": "path", "no_log": False},
            "private_key_content": {"type": "str", "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        required_one_of=[("path", "content", "server_name")],
        mutually_exclusive=[("path", "content", "server_name"), ("private_key_path", "private_key_content")],
        supports_check_mode=True,
    )
    try:
        found = _judge(module)
    except _certificate.CertificateError as error:
        found = {"certificate": {}, "length": 0, "problems": [str(error)]}
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
