# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases of MySQL, and of MariaDB, whose tools are called the same."""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t

from dify_backup.basics import Json, Problem, run
from dify_backup.dumps import Accounts, Dump
from dify_backup.project import FOREIGN, Database

# What mysqldump is told beside its own defaults. One INSERT for a row: so rows can be counted as they pass.
# Options that only one of MySQL and MariaDB knows are "loose". GTIDs are the server's, not the database's.
OPTIONS = [
    *("--single-transaction", "--routines", "--triggers", "--events", "--comments", "--no-tablespaces"),
    *("--hex-blob", "--skip-extended-insert", "--no-autocommit"),
    *("--loose-set-gtid-purged=OFF", "--loose-column-statistics=0"),
]

# What in a dump says which table a row is of. There are no line breaks in its strings, but in bodies of triggers and
# routines; those stand between other delimiters.
MARK = re.compile(rb"\n(?:(INSERT INTO|CREATE TABLE) `((?:[^`]|``)+)`|DELIMITER (;;?)(?=\r?\n))")
LONGEST = 1024  # more than MARK ever matches
END = b"\n-- Dump completed"

# Of the connection, as PyMySQL calls them.
FILES = ("ssl_ca", "ssl_cert", "ssl_key")

COUNT = "SELECT COUNT(*) FROM {};"

STARTING = 120  # seconds
NO_SERVER = re.compile(r"ERROR 20(02|03|13)\b")


class Tally:
    """Counts the rows of a dump as it passes, and refuses one without its end."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.body = self.ended = False
        self.pending = b"\n"

    def __call__(self, chunk: bytes) -> None:
        if not (chunk or self.ended):
            raise Problem("mysqldump ended well, but its dump is cut short; nothing was saved.")
        text = self.pending + chunk
        cut = text.rfind(b"\n")
        for match in MARK.finditer(text, 0, cut + 1):
            verb, table, delimiter = match.groups()
            if delimiter:
                self.body = delimiter == b";;"
            elif not self.body:
                name = table.replace(b"``", b"`").decode("utf-8")
                self.rows[name] = self.rows.get(name, 0) + (verb == b"INSERT INTO")
        if cut:
            self.ended = text.startswith(END, text.rfind(b"\n", 0, cut))
        self.pending = text[cut : cut + LONGEST]


class Session:
    """A MySQL database, by the tools in a container: that of its server, or one that reaches it."""

    file = "database.sql"

    def __init__(self, container: str, database: Database) -> None:
        self.database = database
        self.environment = {**os.environ, "MYSQL_PWD": database.password}
        self.command = ["docker", "exec", "--interactive", "--env", "MYSQL_PWD", container]
        # Never the socket: there the server also answers that makes a new data directory, and then goes.
        host = "127.0.0.1" if database.service else database.host
        self.where = ["--protocol=tcp", "--host=" + host, "--port=" + database.port, "--user=" + database.user]
        self.where += ["--default-character-set=utf8mb4", *([] if database.service else encrypted(database.encryption))]

    def tool(self, name: str, *arguments: str) -> list[str]:
        return [*self.command, name, *self.where, *arguments]

    def query(self, *statements: str, selected: bool = True) -> list[list[str]]:
        """The rows of all statements."""
        command = self.tool("mysql", "--batch", "--skip-column-names", *([self.database.name] if selected else []))
        text = run(command, input="\n".join(statements), env=self.environment)
        return [line.split("\t") for line in text.splitlines()]

    def has(self, table: str) -> bool:
        return bool(self.query(f"SHOW TABLES LIKE '{table}';"))

    def quoted(self, name: str) -> str:
        return quoted(name)

    def hex(self, column: str) -> str:
        """An expression for a text in hexadecimal UTF-8, which has no line's end in it."""
        return f"HEX(CONVERT({column} USING utf8mb4))"

    def accounts(self) -> Accounts | None:
        return None  # MySQL has no dump of them that another release of it takes

    def create(self) -> None:
        """Makes the database where it is missing, as soon as its server answers."""
        end = time.monotonic() + (STARTING if self.database.service else 0)
        while True:
            try:
                self.query("SELECT 1;")
                return
            except Problem as problem:
                closed = problem
            if time.monotonic() > end or not NO_SERVER.search(str(closed)):
                break
            time.sleep(0.5)
        try:
            self.query(f"CREATE DATABASE {quoted(self.database.name)};", selected=False)
        except Problem as unmade:
            name, address = self.database.name, self.database.address
            text = f"The database {name} at {address} can neither be opened ({closed}) nor made ({unmade})."
            raise Problem(text) from None

    def empty(self) -> bool:
        return not self.query("SHOW TABLES;")

    def clear(self) -> None:
        """Takes away what a load that was cut short left."""
        name = quoted(self.database.name)
        self.query(f"DROP DATABASE {name};", f"CREATE DATABASE {name};", selected=False)

    def rows(self) -> dict[str, int]:
        """Rows by table."""
        names = [row[0] for row in self.query("SHOW FULL TABLES;") if row[1] == "BASE TABLE"]
        counts = self.query(*(COUNT.format(quoted(name)) for name in names))
        return {name: int(count) for name, (count,) in zip(names, counts)}

    def loading(self, saved: Json) -> list[str]:
        # What tables that are made later take for their own.
        alter = "ALTER DATABASE {} CHARACTER SET {} COLLATE {}".format(
            quoted(self.database.name), saved["charset"], saved["collation"]
        )
        return self.tool("mysql", "--batch", "--binary-mode", "--init-command=" + alter, self.database.name)

    @contextlib.contextmanager
    def dump(self) -> t.Iterator[Dump]:
        """All of it, in one transaction."""
        (maker,), (charset, collation) = self.query(
            "SELECT @@version_comment;", "SELECT @@character_set_database, @@collation_database;"
        )
        if any(word in maker.lower() for word in FOREIGN):
            raise Problem(
                f"{self.database.address} is {maker}, which cannot be backed up; only PostgreSQL and MySQL can."
            )
        tally = Tally()
        command = self.tool("mysqldump", *OPTIONS, self.database.name)
        yield Dump(command, tally.rows, tally, {"charset": charset, "collation": collation})


def encrypted(told: t.Mapping[str, str]) -> list[str]:
    """Options of MySQL's and MariaDB's tools for what the API and the plugin daemon are told of encryption.

    >>> encrypted({"ssl_ca": "/ca.pem", "ssl_check_hostname": "false"})
    ['--ssl-ca=/ca.pem', '--loose-ssl-mode=VERIFY_CA']
    >>> encrypted({"sslmode": "require"})
    ['--loose-ssl-mode=REQUIRED', '--loose-ssl']
    >>> encrypted({"sslmode": "disable"})
    []
    """
    words = ["--{}={}".format(name.replace("_", "-"), told[name]) for name in FILES if told.get(name)]
    if "ssl_ca" in told:
        named = told.get("ssl_check_hostname", "true").lower() == "true"
        words += (
            ["--loose-ssl-mode=VERIFY_IDENTITY", "--loose-ssl-verify-server-cert"]
            if named
            else ["--loose-ssl-mode=VERIFY_CA"]
        )
    elif told.get("sslmode", "disable") != "disable":
        words += ["--loose-ssl-mode=REQUIRED", "--loose-ssl"]
    return words


def quoted(name: str) -> str:
    """A name as MySQL reads it.

    >>> quoted("a`b")
    '`a``b`'
    """
    return "`{}`".format(name.replace("`", "``"))
