# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Pure functions over the resolved project that C(docker compose config --format json) prints."""

from __future__ import annotations

import json
import typing as t

LOOPBACK = ("127.0.0.1", "::1")


def override(
    config: t.Mapping[str, t.Any],
    address: str = "127.0.0.1",
    additions: t.Mapping[str, t.Mapping[str, t.Any]] | None = None,
) -> str:
    """Text of a C(docker-compose.override.yaml) that binds every published port to ``address``.

    ``config``: the resolved project of the release's own file. Services that publish nothing, or only on
    loopback, are left out. C(!override) replaces the list, which plain merging would only extend. ``additions``: names
    of services to keys for them.
    """
    lines: list[str] = []
    more = additions or {}
    for name, service in sorted(config.get("services", {}).items()):
        ports = service.get("ports") or []
        bind = not all(port.get("host_ip") in LOOPBACK for port in ports)
        if not bind and name not in more:
            continue
        lines.append("  {0}:".format(name))
        for key, value in more.get(name, {}).items():
            lines.append("    {0}: {1}".format(key, json.dumps(value)))
        if bind:
            lines.append("    ports: !override")
        for port in ports if bind else ():
            entry = "{0}:{1}:{2}".format(address, port.get("published", ""), port["target"])
            if port.get("protocol", "tcp") != "tcp":
                entry += "/" + port["protocol"]
            lines.append("      - {0}".format(json.dumps(entry)))
    return "\n".join(["services:", *lines] if lines else ["services: {}"]) + "\n"


def volume_owners(config: t.Mapping[str, t.Any], owners: t.Iterable[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The directories of the host that must belong to somebody, each once.

    ``config``: the resolved project, with the services that are to run. ``owners``: for a directory inside a
    service's container (``service``, ``target``), who writes there (``owner``, ``group``). A service that does not run
    needs nothing; a named volume takes its owner from its image. Returns ``path`` with all of that, and the
    service's ``image``.
    """
    found: dict[str, dict[str, t.Any]] = {}
    for row in owners:
        service = config.get("services", {}).get(row["service"], {})
        for volume in service.get("volumes") or []:
            if volume["type"] == "bind" and volume["target"] == row["target"]:
                found.setdefault(volume["source"], {"path": volume["source"], "image": service["image"], **row})
    return list(found.values())
