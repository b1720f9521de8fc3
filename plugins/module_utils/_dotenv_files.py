# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""The files that C(_dotenv) works on: the release's own and those of the host."""

from __future__ import annotations

import glob

from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv


def read(path: str) -> str | None:
    """The file's text, line ends as they are, or None where there is no file."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _dotenv.DotenvError("{0} cannot be read: it is not UTF-8 text.".format(path)) from error


def read_dotenv(path: str) -> str | None:
    """As read; raises DotenvError naming the file where Compose could not read it either."""
    text = read(path)
    try:
        _dotenv.assignments(text or "")
    except _dotenv.DotenvError as error:
        raise _dotenv.DotenvError("{0} cannot be read: {1}.".format(path, error)) from error
    return text


def matching(patterns: list[str]) -> list[str]:
    """The files that match the patterns, each once."""
    return list(dict.fromkeys(path for pattern in patterns for path in sorted(glob.glob(pattern, recursive=True))))


def read_release(example: str, known: list[str]) -> _dotenv.Release:
    """What the release's files say."""
    text = read_dotenv(example)
    if text is None:
        raise _dotenv.DotenvError("The example {0} does not exist; check out the release first.".format(example))
    defaults = {key: _dotenv.unquote(raw) for key, raw in _dotenv.assignments(text).items()}
    implicit: dict[str, str] = {}
    required: list[str] = []
    for path in matching(known):
        if path.endswith((".yaml", ".yml")):
            falls_back, needed = _dotenv.interpolated(read(path) or "")
            implicit = {**falls_back, **{key: value for key, value in implicit.items() if value}}
            required += needed
        else:
            for key, raw in _dotenv.assignments(read_dotenv(path) or "").items():
                defaults[key] = defaults.get(key) or _dotenv.unquote(raw)
    return _dotenv.Release(text, defaults, implicit, required)
