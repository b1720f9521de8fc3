# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots make a set, whether it is whole, and which may go. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from dify_backup.basics import Json, Problem

TAG = "selfhost.dify"


FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Set:
    """The snapshots of one backup."""

    identity: str
    time: str
    manifest: str  # the snapshot's ID, empty where there is none
    parts: dict[str, str]  # part to the snapshot's ID
    missing: list[str]  # parts that the manifest names, or the manifest itself
    strays: list[str]  # snapshots of the set that no manifest names

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def snapshots(self) -> list[str]:
        """All of them, the manifest first: once it is gone, the set cannot be taken for complete."""
        return [*([self.manifest] if self.manifest else []), *self.parts.values(), *self.strays]


def sets(snapshots: t.Iterable[Json]) -> list[Set]:
    """The sets among snapshots as restic lists them, oldest first.

    A snapshot that was copied from another repository counts as the one it was made from. One that restic repaired
    lacks what was damaged and holds another tree than was saved, and counts as missing.
    """
    grouped: dict[str, list[Json]] = {}
    for snapshot in snapshots:
        tags = snapshot.get("tags") or []
        identity = _tagged(tags, "set")
        if TAG in tags and identity:
            grouped.setdefault(identity, []).append(snapshot)
    return [_set(identity, members) for identity, members in sorted(grouped.items())]


def _set(identity: str, members: list[Json]) -> Set:
    members = sorted(members, key=lambda member: str(member["time"]))
    manifests = [member for member in members if _tagged(member["tags"], "part") == "manifest"]
    if not manifests:
        return Set(
            identity, members[-1]["time"], "", {}, ["manifest"], [t.cast("str", member["id"]) for member in members]
        )
    manifest = manifests[-1]
    named, trees = (
        dict(tag[len(name) :].split(":", 1) for tag in manifest["tags"] if tag.startswith(name))
        for name in ("of=", "tree=")
    )
    parts = {
        part: member["id"]
        for part, snapshot in named.items()  # up to restic 0.16 the first digits of it
        for member in members
        if any(known.startswith(snapshot) for known in (member["id"], member.get("original") or ""))
        if member.get("tree") == trees.get(part, member.get("tree"))
    }
    strays = [member["id"] for member in members if member is not manifest and member["id"] not in parts.values()]
    missing = sorted(set(named) - set(parts)) if named else ["every part"]
    return Set(identity, manifest["time"], manifest["id"], parts, missing, strays)


def _tagged(tags: t.Iterable[str], name: str) -> str:
    return next((tag[len(name) + 1 :] for tag in tags if tag.startswith(name + "=")), "")


def choose(found: t.Sequence[Set], wanted: str) -> Set:
    """The set to restore: C(latest) is the newest complete one."""
    if wanted == "latest":
        complete = [one for one in found if one.complete]
        if not complete:
            raise Problem(f"The repository holds no complete set of this server{_incomplete(found)}.")
        return complete[-1]
    matching = [one for one in found if one.identity == wanted]
    if not matching:
        raise Problem('There is no set "{}"; there are: {}.'.format(wanted, _names(found) or "none"))
    if matching[0].missing:
        raise Problem("The set {} is incomplete: {} missing.".format(wanted, " and ".join(matching[0].missing)))
    return matching[0]


def _names(found: t.Iterable[Set]) -> str:
    return ", ".join(one.identity for one in found if one.complete)


def _incomplete(found: t.Iterable[Set]) -> str:
    texts = ["{} without {}".format(one.identity, " and ".join(one.missing)) for one in found if one.missing]
    return "; incomplete are " + ", ".join(texts) if texts else ""


def outdated(found: t.Sequence[Set], kept: t.Collection[str]) -> list[str]:
    """The snapshots to forget: of sets whose manifest is not among ``kept``, and of what older runs left unfinished.

    The newest complete set stays in any case, and everything that is newer than it.
    """
    newest = max((number for number, one in enumerate(found) if one.complete), default=-1)
    return [
        snapshot
        for one in found[: max(newest, 0)]
        for snapshot in (one.strays if one.complete and one.manifest in kept else one.snapshots)
    ]
