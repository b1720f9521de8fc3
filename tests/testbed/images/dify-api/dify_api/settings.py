# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses to start on a setting that is not of the type the real API parses it as.

`python3 -m dify_api.settings` checks the environment and exits 1 with the message an operator of the real API sees.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BOOLEANS = {"0", "1", "f", "false", "n", "no", "off", "on", "t", "true", "y", "yes"}
COMPLAINTS = {
    "integer": ("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    "number": ("float_parsing", "Input should be a valid number, unable to parse string as a number"),
    "boolean": ("bool_parsing", "Input should be a valid boolean, unable to interpret input"),
}


@dataclass(frozen=True)
class Problem:
    name: str
    value: str
    kind: str

    def __str__(self) -> str:
        error, text = COMPLAINTS[self.kind]
        return f"{self.name}\n  {text} [type={error}, input_value={self.value!r}, input_type=str]"


def typed_settings() -> dict[str, list[str]]:
    """Names of the settings by kind: integer, number, boolean."""
    kinds: dict[str, list[str]] = json.loads(Path(__file__).with_name("settings.json").read_text())
    return kinds


def is_valid(kind: str, value: str) -> bool:
    if kind == "boolean":
        return value.strip().lower() in BOOLEANS
    try:
        int(value) if kind == "integer" else float(value)
    except ValueError:
        return False
    return True


def problems(environ: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(name, environ[name], kind)
        for kind, names in typed_settings().items()
        for name in names
        if name in environ and not is_valid(kind, environ[name])
    ]


def report(found: list[Problem]) -> str:
    count = f"{len(found)} validation error{'' if len(found) == 1 else 's'}"
    return "\n".join([f"pydantic_core._pydantic_core.ValidationError: {count} for DifyConfig", *map(str, found)])


if __name__ == "__main__":
    if found := problems(os.environ):
        sys.exit(report(found))
