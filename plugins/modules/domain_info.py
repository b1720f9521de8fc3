#!/usr/bin/python

# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: domain_info
short_description: Say whether names lead to a host and may get certificates
version_added: 0.4.0
author:
  - selfhost.dify contributors (@selfhost-dify)
description:
  - >-
    Asks DNS servers for the addresses and the CAA records of names and compares them with the host and the certificate
    authority. Needs nothing installed on the target, and does not look into C(/etc/hosts).
extends_documentation_fragment:
  - selfhost.dify._attributes
  - selfhost.dify._attributes.info_module
options:
  names:
    description:
      - The names.
    type: list
    elements: str
    required: true
  own:
    description:
      - Whether the names must lead to O(addresses).
    type: bool
    default: true
  addresses:
    description:
      - Where the names may lead to. Empty means the addresses of the target's interfaces.
    type: list
    elements: str
    default: []
  issuer:
    description:
      - The name by which CAA records permit the certificate authority. Empty means that they are not asked for.
    type: str
    default: ""
  resolvers:
    description:
      - DNS servers to ask, as addresses with or without a port. Empty means those in C(/etc/resolv.conf).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
---
- name: Ask where the names lead to and whether Let's Encrypt may certify them
  selfhost.dify.domain_info:
    names: [app.example.com, www.app.example.com]
    issuer: letsencrypt.org
  register: domain

- name: Require both
  ansible.builtin.assert:
    that: domain.problems | length == 0
    fail_msg: "{{ domain.problems | join(' ') }}"
"""

RETURN = r"""
addresses:
  description: The addresses of each name.
  returned: success
  type: dict
  sample:
    app.example.com: [192.0.2.1]
problems:
  description: Why a certificate would not be had, one sentence each, with the remedy.
  returned: success
  type: list
  elements: str
  sample:
    - app.example.com has no address in the DNS; make an A or AAAA record that leads to this host.
notes:
  description: What could not be told.
  returned: success
  type: list
  elements: str
  sample:
    - Whether 192.0.2.1 (app.example.com) leads here cannot be told, since this host has no public address of its own.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.dify.plugins.module_utils import _dns


class _Judge:
    """Gathers what speaks against certificates for names, and what could not be told."""

    def __init__(self, servers: list[str]) -> None:
        self.servers = servers
        self.addresses: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def leads_to(self, name: str, own: list[str]) -> None:
        self.addresses[name] = found = _dns.addresses(name, self.servers)
        if not found:
            self.problems.append(
                f"{name} has no address in the DNS (asked {self.servers[0]}); make an A or AAAA record that leads to "
                "this host."
            )
        wrong, unclear = _dns.foreign(found, own)
        if wrong:
            self.problems.append(
                f"{name} leads to {', '.join(wrong)} in the DNS, but this host has {', '.join(own)}; correct the "
                "record or, where a load balancer or NAT stands in front, say which addresses are meant."
            )
        if unclear:
            self.notes.append(
                f"Whether {', '.join(unclear)} ({name}) leads here cannot be told, since this host has no public "
                "address of its own."
            )

    def permits(self, name: str, issuer: str) -> None:
        try:
            refusal = _dns.caa_refusal(_dns.caa(name, self.servers), issuer)
        except _dns.DnsError as error:
            self.notes.append(f"Whether CAA records permit {issuer} for {name} could not be told: {error}.")
            return
        if refusal:
            self.problems.append(
                f'The CAA record that holds for {name} {refusal}, not {issuer}; add the CAA record 0 issue "{issuer}".'
            )


def _own(module: AnsibleModule) -> list[str]:
    _rc, out, _err = module.run_command(["hostname", "-I"], check_rc=True)
    return [str(word) for word in out.split()]


def _resolvers() -> list[str]:
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        return _dns.resolvers(file.read())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "own": {"type": "bool", "default": True},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "issuer": {"type": "str", "default": ""},
            "resolvers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    judge = _Judge([])
    try:
        judge.servers = options["resolvers"] or _resolvers()
        for name in options["names"]:
            if options["own"]:
                judge.leads_to(name, options["addresses"] or _own(module))
            if options["issuer"]:
                judge.permits(name, options["issuer"])
    except (OSError, ValueError, _dns.DnsError) as error:
        judge.problems.append(f"The DNS could not be asked: {error}.")
    module.exit_json(changed=False, addresses=judge.addresses, problems=judge.problems, notes=judge.notes)


if __name__ == "__main__":
    main()
