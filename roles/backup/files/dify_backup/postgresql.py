# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases of PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import typing as t

from dify_backup.basics import Json, Problem, complaint, run
from dify_backup.dumps import Accounts, Dump
from dify_backup.project import Database

BEGIN = """SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_export_snapshot();
"""


# The rows of every table that the planner takes for no larger: an exact count reads all of it.
COUNT = """SELECT format('SELECT %L, count(*) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
AND c.reltuples <= 1000000 ORDER BY 1 \\gexec
"""


# Whatever is there, but for what extensions brought.
OBJECTS = """SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' AND NOT EXISTS (
  SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
"""


class Session:
    """A PostgreSQL database, by the tools in a container: that of its server, or one that reaches it."""

    file = "database.dump"

    def __init__(self, container: str, database: Database) -> None:
        self.database = database
        self.environment = {**os.environ, "PGPASSWORD": database.password}
        where = ["--username", database.user]
        names = ["PGPASSWORD"]
        if not database.service:
            where += ["--host", database.host, "--port", database.port]
            variables = {"PG" + name.upper(): value for name, value in database.encryption.items()}
            self.environment.update(variables)
            names += sorted(variables)
        environment = [word for name in names for word in ("--env", name)]
        self.command = ["docker", "exec", "--interactive", *environment, container]
        self.where = where

    def tool(self, name: str, *arguments: str) -> list[str]:
        return [*self.command, name, *self.where, *arguments]

    def query(self, *statements: str, database: str = "") -> list[list[str]]:
        """The rows of all statements, in one read-only transaction."""
        script = "\n".join(["SET statement_timeout = 0;", *statements])
        text = run(
            self.tool("psql", "-qAtXF", "\t", "-v", "ON_ERROR_STOP=1", "-d", database or self.database.name),
            input=script,
            env=self.environment,
        )
        return [line.split("\t") for line in text.splitlines()]

    def has(self, table: str) -> bool:
        return self.query(f"SELECT to_regclass('public.{table}') IS NOT NULL;") == [["t"]]

    def quoted(self, name: str) -> str:
        return f'"{name}"'

    def hex(self, column: str) -> str:
        """An expression for a text in hexadecimal UTF-8, which has no line's end in it."""
        return f"encode(convert_to({column}, 'UTF8'), 'hex')"

    def accounts(self) -> Accounts | None:
        if not self.database.service:
            return None  # they are not the project's
        # Roles that are there already, as the one that the server was made with, only get their settings again.
        return Accounts(
            part="roles-" + self.database.service,
            file="roles.sql",
            command=self.tool("pg_dumpall", "--roles-only"),
            loading=self.tool("psql", "-qX", "-d", "postgres"),
        )

    def create(self) -> None:
        """Makes the database where it is missing."""
        name = self.database.name
        try:
            self.query("SELECT 1;")
        except Problem as closed:
            try:
                run(self.tool("createdb", name), env=self.environment)
            except Problem as unmade:
                address = self.database.address
                text = f"The database {name} at {address} can neither be opened ({closed}) nor made ({unmade})."
                raise Problem(text) from None

    def empty(self) -> bool:
        return not self.query(OBJECTS)

    def clear(self) -> None:
        """Takes away what a load that was cut short left: nothing, since it is one transaction."""

    def rows(self) -> dict[str, int]:
        """Rows by table."""
        return {table: int(number) for table, number in self.query(COUNT)}

    def loading(self, saved: Json) -> list[str]:
        # Who owns what on a server elsewhere is not the project's.
        own = [] if self.database.service else ["--no-owner", "--no-privileges"]
        words = ["--exit-on-error", "--single-transaction", *own, "--dbname=" + self.database.name]
        return self.tool("pg_restore", *words)

    @contextlib.contextmanager
    def dump(self) -> t.Iterator[Dump]:
        """All of it, from the snapshot in which the rows are counted."""
        with self._snapshot() as (name, rows):
            # Not compressed: restic does that, and finds again what did not change.
            arguments = ["--format=custom", "--compress=0", "--snapshot=" + name, "--dbname=" + self.database.name]
            yield Dump(self.tool("pg_dump", *arguments), rows)

    @contextlib.contextmanager
    def _snapshot(self) -> t.Iterator[tuple[str, dict[str, int]]]:
        """The name of the snapshot, and rows by table in it."""
        command = self.tool("psql", "-qAtXF", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.database.name)
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            command, env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(BEGIN + COUNT + "\\echo end\n")
                process.stdin.flush()
                lines = []
                for line in process.stdout:
                    if line.strip() == "end":
                        break
                    lines.append(line.rstrip("\n").split("\t"))
                else:
                    process.wait()
                    errors.seek(0)
                    raise Problem(complaint(command, process.returncode, errors.read()))
                yield lines[0][0], {table: int(rows) for table, rows in lines[1:]}
            finally:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
