# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
name: parse_dotenv
short_description: Read the settings of a Compose .env
version_added: 0.1.0
description:
  - Returns the settings of a C(.env) as a dictionary, each value as Compose resolves it.
  - References see the settings above them, as with Compose, but not the environment.
options:
  _input:
    description: The file's text.
    type: str
    required: true
author:
  - selfhost.dify contributors (@selfhost)
"""

EXAMPLES = r"""
---
- name: Show a setting
  ansible.builtin.debug:
    msg: "{{ (lookup('ansible.builtin.file', '.env') | selfhost.dify.parse_dotenv).LOG_LEVEL }}"
"""

RETURN = r"""
_value:
  description: Name to value.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv


def parse_dotenv(text: object) -> dict[str, str]:
    """The settings of a .env; see DOCUMENTATION."""
    if not isinstance(text, str):
        raise AnsibleFilterError(f"parse_dotenv takes the text of a .env, got a {type(text).__name__}.")
    try:
        return _dotenv.resolve(text)
    except _dotenv.DotenvError as error:
        raise AnsibleFilterError(f"parse_dotenv cannot read the .env: {error}.") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"parse_dotenv": parse_dotenv}
