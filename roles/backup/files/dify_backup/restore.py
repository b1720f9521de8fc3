# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One restore."""

from __future__ import annotations

import argparse
from pathlib import Path

from dify_backup.basics import Json, Problem, run
from dify_backup.config import Config
from dify_backup.postgresql import COUNT, Session
from dify_backup.project import below
from dify_backup.restic import Restic, pattern
from dify_backup.server import Server
from dify_backup.sets import FORMAT
from dify_backup.tree import summary, walked


class Restore:
    """One restore, onto a host where the release is checked out and nothing of Dify runs."""

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.config = config
        self.options = options
        self.restic = Restic(config)
        self.server = Server(config)

    def run(self) -> Json:
        self.restic.run("unlock")
        self.manifest = self.restic.manifest(self.options.set)
        # Says that what is there comes from a restore of this set that did not end.
        begun = self.config.state("restoring")
        if not (begun.exists() and begun.read_text(encoding="utf-8") == self.manifest["set"]):
            self.refuse()
            begun.write_text(self.manifest["set"], encoding="utf-8")
        self.volumes()
        tracked = self.server.tracked()
        for part in ("files", "store", *(["edge"] if self.options.edge else [])):
            if part in self.manifest["parts"]:
                self.files(part, tracked)
        counted = self.databases()
        begun.unlink()
        return {"set": self.manifest["set"], "rows": counted}

    def wanted(self) -> list[str]:
        """The named volumes to restore."""
        volumes = self.manifest["volumes"]
        return [
            name
            for name in sorted(volumes)
            if volumes[name]["path"] and (self.options.edge or name not in self.config.edge_volumes)
        ]

    def volumes(self) -> None:
        """Makes the named volumes as Compose would, so that it takes them for its own."""
        for name in self.wanted():
            saved = self.manifest["volumes"][name]
            words = [word for key, value in sorted(saved["labels"].items()) for word in ("--label", f"{key}={value}")]
            run(["docker", "volume", "create", *words, name])
            if self.server.mountpoint(name) != saved["path"]:
                raise Problem(
                    f"The volume {name} is in {self.server.mountpoint(name)} here, but was in {saved['path']}; "
                    "give Docker the same data-root as on the old host."
                )

    def refuse(self) -> None:
        """Refuses what the set does not fit."""
        if self.manifest["format"] != FORMAT:
            raise Problem(
                "The set {} is of format {}, but this program knows {}; use a newer release of the collection.".format(
                    self.manifest["set"], self.manifest["format"], FORMAT
                )
            )
        wanted, here = self.manifest["release"], self.server.release()
        if wanted["commit"] != here["commit"] and not self.options.other_release:
            raise Problem(
                "The set {} is of Dify {} ({}), but {} holds {} ({}); check that release out first.".format(
                    self.manifest["set"],
                    wanted["tag"],
                    wanted["commit"][:12],
                    self.server.path,
                    here["tag"],
                    here["commit"][:12],
                )
            )
        if self.manifest["project_path"] != self.server.path:
            raise Problem(
                "The set {} holds {}, but Dify is to be in {}; set dify_path to the former.".format(
                    self.manifest["set"], self.manifest["project_path"], self.server.path
                )
            )
        occupied = [one.name for one in self.server.containers(self.manifest["project"])]
        occupied += [name for name in self.wanted() if self.server.mountpoint(name)]
        environment = Path(self.server.path, ".env")
        occupied += [str(environment)] if environment.exists() else []
        if occupied:
            raise Problem(
                "{} is no empty target, since there are {}. Restore onto another host, or move these away; after a "
                "restore that ended, go on with selfhost.dify.site.".format(
                    self.server.path, ", ".join(sorted(occupied))
                )
            )

    def files(self, part: str, tracked: set[str]) -> None:
        """Puts a part's files in place. restic compares every file it wrote with the repository."""
        saved = self.manifest["parts"][part]
        skipped = sorted(path for path in tracked if any(below(path, parent) for parent in saved["paths"]))
        words = ["--exclude=" + pattern(path) for path in skipped]
        if self.restic.knows(0, 15):
            words.append("--sparse")
        self.restic.run("restore", saved["snapshot"], "--target", "/", "--verify", *words)
        found = summary(walked(saved["paths"], saved["excluded"], tracked))
        wrong = [f"{key} is {found[key]}, not {saved[key]}" for key in found if found[key] != saved[key]]
        if wrong:
            raise Problem("The part {} was not restored as it was saved: {}.".format(part, ", ".join(wrong)))

    def databases(self) -> dict[str, int]:
        """Fills the databases of a server that starts with no data, before anything uses them."""
        plan = self.server.plan()
        total = {}
        for service in sorted({database.service for database in plan.databases}):
            self.server.compose("up", "--detach", "--wait", "--no-deps", service)
            container = self.server.container(plan.project, service)
            mine = [database for database in plan.databases if database.service == service]
            session = Session(container, mine[0])
            saved = self.manifest["parts"]["roles-" + service]
            # Roles that are there already, as the one that the server was made with, only get their settings again.
            self.load(saved, "roles.sql", session, "psql", "-qX", "-d", "postgres")
            for database in mine:
                total[database.name] = self.database(Session(container, database))
        return total

    def database(self, session: Session) -> int:
        name = session.database.name
        saved = self.manifest["parts"].get(session.database.part)
        if saved is None:
            raise Problem("The set {} has no database {}.".format(self.manifest["set"], name))
        if [name] not in session.query("SELECT datname FROM pg_database;", database="postgres"):
            run(session.tool("createdb", name), env=session.environment)
        rows = {table: int(number) for table, number in session.query(COUNT)}
        if not rows:  # in one transaction: after a run that was cut short there is all or nothing
            words = ["--exit-on-error", "--single-transaction", "--dbname=" + name]
            self.load(saved, "database.dump", session, "pg_restore", *words)
            rows = {table: int(number) for table, number in session.query(COUNT)}
        wrong = [
            f"{table} has {rows.get(table)} rows, not {number}"
            for table, number in saved["rows"].items()
            if rows.get(table) != number
        ]
        if wrong:
            raise Problem("The database {} is not as it was saved: {}.".format(name, ", ".join(wrong)))
        return sum(rows.values())

    def load(self, saved: Json, name: str, session: Session, tool: str, *arguments: str) -> None:
        moved = self.restic.load(saved["snapshot"], name, session.tool(tool, *arguments), env=session.environment)
        if moved["sha256"] != saved["sha256"]:
            raise Problem("{} of snapshot {} is not what was saved.".format(name, saved["snapshot"]))
