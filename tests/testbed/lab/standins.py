# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins for the images a Dify release names: built from ../images and pushed to the testbed's registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lab import images, services
from lab.engine import PREFIX, docker
from lab.run import TESTBED, TestbedError, say, step

DIRECTORY = TESTBED / "images"
_RECORD = "/var/lib/registry/testbed.json"  # what was pushed, beside the registry's data: public name → local tag


@dataclass(frozen=True)
class StandIn:
    """A directory with a Dockerfile, the directory of the image it builds on, and its arguments by public name."""

    directory: str
    base: str | None = None
    tags: dict[str, dict[str, str]] = field(default_factory=dict)


def parse(entries: Iterable[dict[str, Any]]) -> list[StandIn]:
    """The list of `images.json`, in an order in which every image comes after the one it builds on."""
    waiting = [
        StandIn(entry["directory"], entry.get("base"), {tag["name"]: tag.get("args", {}) for tag in entry["tags"]})
        for entry in entries
    ]
    ordered: list[StandIn] = []
    while waiting:
        done = {one.directory for one in ordered}
        ready = [one for one in waiting if one.base is None or one.base in done]
        if not ready:
            names = ", ".join(f"{one.directory} (base {one.base})" for one in waiting)
            raise TestbedError(f"images.json names bases that it does not build: {names}")
        ordered += ready
        waiting = [one for one in waiting if one not in ready]
    return ordered


def repository_path(name: str) -> str:
    """The name under which a mirror is asked for an image: official ones live in `library/`."""
    return name if "/" in name else f"library/{name}"


class _Registry:
    """The registry as the engine sees it, and the record of what was pushed to it."""

    def __init__(self) -> None:
        self.container = f"{PREFIX}-registry"
        self.address = docker("port", self.container, "5000").stdout.split()[0]
        self.pushed: dict[str, str] = json.loads(
            docker("exec", self.container, "cat", _RECORD, check=False).stdout or "{}"
        )
        self._lock = threading.Lock()

    def push(self, name: str, tag: str) -> None:
        if self.pushed.get(name) == tag:
            return
        with step(f"Push the stand-in {name}"):
            there = f"{self.address}/{repository_path(name)}"
            docker("tag", tag, there)
            docker("push", "--quiet", there)
            docker("rmi", there)
        with self._lock:
            self.pushed[name] = tag
            script = f"cat >{_RECORD}.new && mv {_RECORD}.new {_RECORD}"
            docker("exec", "-i", self.container, "sh", "-c", script, stdin=json.dumps(self.pushed).encode())


def _make(one: StandIn, base_tag: str, have: set[str], registry: _Registry) -> str:
    """Builds and pushes all tags of a directory; returns the local tag others build on."""
    context = DIRECTORY / one.directory
    tag = ""
    for name, arguments in (one.tags or {"": {}}).items():
        digest = images.content_hash(base_tag, context, json.dumps(arguments, sort_keys=True))
        tag = f"{PREFIX}-stand-in:{'-'.join([one.directory, *arguments.values(), digest])}"
        if tag not in have:
            images.build(tag, context, {"BASE": base_tag, **arguments})
        if name:
            registry.push(name, tag)
    return tag


def ensure(have: set[str]) -> None:
    """Every stand-in of `images.json` is in the registry, two being made at a time."""
    services.await_registry()
    registry, root = _Registry(), images.base_tag(images.DEFAULT_OS)
    made: dict[str, Future[str]] = {}

    def job(one: StandIn) -> str:
        # The base was submitted earlier, so it is done or being made in another thread: this cannot block for ever.
        return _make(one, made[one.base].result() if one.base else root, have, registry)

    with ThreadPoolExecutor(2) as pool:
        for one in parse(json.loads((DIRECTORY / "images.json").read_text())):
            made[one.directory] = pool.submit(job, one)
    for future in made.values():
        future.result()
    say("Dify's own images and repository are replaced by this project's stand-ins (DIFY_TEST_UPSTREAM=1 uses Dify's)")
