# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The databases of a project, from their servers into the repository and back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import typing as t
from pathlib import Path

from dify_backup import mysql, postgresql
from dify_backup.basics import Json, Problem, run
from dify_backup.project import Plan
from dify_backup.restic import Restic
from dify_backup.server import Server

Session = t.Union[mysql.Session, postgresql.Session]

SESSIONS: dict[str, type[Session]] = {"mysql": mysql.Session, "postgresql": postgresql.Session}

# How PostgreSQL's tools say that they are too old for a server, or for a dump of newer ones.
TOO_OLD = ("server version mismatch", "unsupported version")


def dump(server: Server, plan: Plan, restic: Restic, tags: t.Callable[[str], list[str]]) -> dict[str, Json]:
    """Saves every database of the plan: the parts for the manifest. ``tags``: those of a part's snapshot."""
    parts: dict[str, Json] = {}
    with sessions(server, plan) as found:
        for session in found:
            accounts, database = session.accounts(), session.database
            if accounts and accounts.part not in parts:
                saved = restic.store(accounts.command, accounts.file, tags(accounts.part), env=session.environment)
                parts[accounts.part] = _part(saved)
            with session.dump() as dumped, _hint():
                saved = restic.store(
                    dumped.command, session.file, tags(database.part), tap=dumped.tap, env=session.environment
                )
            about = {"database": database.name, "kind": database.kind, "service": database.service}
            parts[database.part] = {**_part(saved), **about, **dumped.more, "rows": dumped.rows}
    return parts


def load(server: Server, plan: Plan, restic: Restic, manifest: Json, progress: Path) -> dict[str, int]:
    """Fills every database of the plan from a set: the rows in each of them.

    Starts the servers that are services of the project. Only empty databases are filled; ``progress`` is a file that
    says which ones a restore of this set began and ended, so that it can go on after it was cut short.
    """
    for service in sorted({database.service for database in plan.databases if database.service}):
        server.compose("up", "--detach", "--wait", "--no-deps", service)
    states = _states(progress, manifest["set"])
    counted = {}
    loaded = set()
    with sessions(server, plan) as found:
        for session in found:
            accounts, database = session.accounts(), session.database
            saved = manifest["parts"].get(database.part)
            if saved is None or saved["kind"] != database.kind:
                raise Problem("The set {} has no {} database {}.".format(manifest["set"], database.kind, database.name))
            if accounts and accounts.part not in loaded:
                _load(restic, manifest["parts"][accounts.part], accounts.file, accounts.loading, session)
                loaded.add(accounts.part)
            session.create()
            if database.part in states:
                if states[database.part] == "begun":
                    session.clear()
            elif not session.empty():
                raise Problem(
                    f"The database {database.name} at {database.address} is not empty, and nothing is restored over "
                    "it; rename or drop it there and restore again."
                )
            if states.get(database.part) != "ended" and session.empty():
                _keep(progress, manifest["set"], {**states, database.part: "begun"})
                _load(restic, saved, session.file, session.loading(saved), session)
            states[database.part] = "ended"
            _keep(progress, manifest["set"], states)
            counted[database.name] = _compared(session, saved["rows"])
    return counted


def _compared(session: Session, wanted: t.Mapping[str, int]) -> int:
    """How many rows there are, once every table has as many as it should."""
    rows = session.rows()
    wrong = [
        f"{table} has {rows.get(table)} rows, not {number}"
        for table, number in wanted.items()
        if rows.get(table) != number
    ]
    if wrong:
        raise Problem("The database {} is not as it was saved: {}.".format(session.database.name, ", ".join(wrong)))
    return sum(rows.values())


@contextlib.contextmanager
def sessions(server: Server, plan: Plan) -> t.Iterator[list[Session]]:
    """A session for each database of the plan."""
    with contextlib.ExitStack() as stack:
        containers: dict[tuple[str, str], str] = {}
        for kind, service in sorted({(database.kind, database.service) for database in plan.databases}):
            if service:
                containers[kind, service] = server.container(plan.project, service)
            else:
                containers[kind, service] = stack.enter_context(_tools(server, plan.project, kind))
        yield [
            SESSIONS[database.kind](containers[database.kind, database.service], database)
            for database in sorted(plan.databases, key=lambda database: database.part)
        ]


@contextlib.contextmanager
def _tools(server: Server, project: str, kind: str) -> t.Iterator[str]:
    """A container with the tools for a server elsewhere, with the network and the files that the API has.

    It takes them from an idle container of the API's service, since the API itself is stopped in a cold backup and not
    there yet in a restore. Only so it reaches what the API reaches, also on networks of Docker's.
    """
    idle = ["--entrypoint", "sleep"]
    outer, inner = f"{project}-backup-{kind}-network", f"{project}-backup-{kind}"
    _remove(inner, outer)  # of a run that was killed
    try:
        server.compose("run", "--detach", "--no-deps", "--name", outer, *idle, "api", "infinity")
        shared = ["--network", "container:" + outer, "--volumes-from", outer + ":ro"]
        run(["docker", "run", "--detach", "--name", inner, *shared, *idle, server.database_image(kind), "infinity"])
        yield inner
    finally:
        _remove(inner, outer)


def _remove(*containers: str) -> None:
    subprocess.run(["docker", "rm", "--force", "--volumes", *containers], capture_output=True, check=False)


@contextlib.contextmanager
def _hint() -> t.Iterator[None]:
    try:
        yield
    except Problem as problem:
        if any(words in str(problem) for words in TOO_OLD):
            raise Problem(
                f"{problem}; set backup_database_image to an image with tools as new as the server, such as "
                "postgres:17-alpine."
            ) from None
        raise


def _load(restic: Restic, saved: Json, name: str, command: t.Sequence[str], session: Session) -> None:
    with _hint():
        moved = restic.load(saved["snapshot"], name, command, env=session.environment)
    if moved["sha256"] != saved["sha256"]:
        raise Problem("{} of snapshot {} is not what was saved.".format(name, saved["snapshot"]))


def _part(saved: Json) -> Json:
    return {
        "snapshot": saved["snapshot_id"],
        "bytes": saved["bytes"],
        "sha256": saved["sha256"],
        "added": saved.get("data_added", 0),
    }


def _states(progress: Path, identity: str) -> dict[str, str]:
    """Parts that an earlier restore of the same set began to load, and those of them that it ended."""
    try:
        said = json.loads(progress.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return dict(said["parts"]) if said["set"] == identity else {}


def _keep(progress: Path, identity: str, states: t.Mapping[str, str]) -> None:
    progress.write_text(json.dumps({"set": identity, "parts": states}), encoding="utf-8")
