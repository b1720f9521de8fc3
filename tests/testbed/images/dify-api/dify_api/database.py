# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's state in the real PostgreSQL, and its connection to the real Redis.

`python3 -m dify_api.database` brings the schema to the head of this release, under a lock in Redis.
`python3 -m dify_api.database DIRECTORY` writes the files in which a release keeps its revisions.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
from standin import log

from dify_api import release
from dify_api.release import Release

LOCK_SECONDS = 60
OUTAGES = (psycopg.Error, redis.RedisError)
# REDIS_SSL_CERT_REQS says CERT_NONE unless the operator says otherwise.
UNVERIFIED: dict[str, Any] = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@dataclass(frozen=True)
class Migration:
    revision: str
    since: str
    sql: str


# Oldest first. A release's head is the last revision that is not newer than the release.
MIGRATIONS = (
    Migration(
        "1c0a59d0f5a1",
        "1.10.1",
        """
        CREATE TABLE dify_setups (
            version text PRIMARY KEY,
            setup_at timestamp(0) NOT NULL DEFAULT CURRENT_TIMESTAMP
        );
        CREATE TABLE accounts (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            name text NOT NULL,
            email text NOT NULL UNIQUE,
            password text NOT NULL,
            password_salt text NOT NULL,
            interface_language text NOT NULL,
            last_login_at timestamptz,
            last_login_ip text,
            created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
        );
        CREATE TABLE tenants (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            name text NOT NULL,
            encrypt_public_key text,
            created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
        );
        CREATE TABLE tenant_account_joins (
            tenant_id uuid NOT NULL REFERENCES tenants,
            account_id uuid NOT NULL REFERENCES accounts,
            role text NOT NULL,
            PRIMARY KEY (tenant_id, account_id)
        );
        CREATE TABLE upload_files (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            tenant_id uuid NOT NULL REFERENCES tenants,
            key text NOT NULL,
            name text NOT NULL,
            size bigint NOT NULL,
            mime_type text NOT NULL,
            created_by uuid NOT NULL REFERENCES accounts,
            created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
        );
        CREATE TABLE provider_credentials (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            tenant_id uuid NOT NULL REFERENCES tenants,
            provider_name text NOT NULL,
            credential_name text NOT NULL,
            encrypted_config text NOT NULL
        );
        """,
    ),
    Migration("1c12e4b7d302", "1.12.0", "CREATE INDEX upload_files_tenant ON upload_files (tenant_id);"),
    Migration("1c16a86f3c43", "1.16.0", "ALTER TABLE tenants ADD COLUMN agents_enabled boolean NOT NULL DEFAULT true;"),
)


def migrations_of(wanted: Release) -> list[Migration]:
    return [migration for migration in MIGRATIONS if Release(migration.since).number <= wanted.number]


def connect() -> psycopg.Connection[Any]:
    """A connection that commits when its `with` block ends well and rolls back when it does not."""
    return psycopg.connect(
        host=os.environ.get("DB_HOST", "localhost"),
        port=os.environ.get("DB_PORT", "5432"),
        user=os.environ.get("DB_USERNAME", "postgres"),
        password=os.environ.get("DB_PASSWORD", ""),
        dbname=os.environ.get("DB_DATABASE", "dify"),
        connect_timeout=5,
    )


def connect_redis() -> redis.Redis:
    return redis.Redis(
        host=os.environ.get("REDIS_HOST", "localhost"),
        port=int(os.environ.get("REDIS_PORT", "6379")),
        username=os.environ.get("REDIS_USERNAME") or None,
        password=os.environ.get("REDIS_PASSWORD") or None,
        db=int(os.environ.get("REDIS_DB", "0")),
        ssl=os.environ.get("REDIS_USE_SSL", "false").lower() == "true",
        socket_timeout=5,
        decode_responses=True,
        **UNVERIFIED,
    )


def upgrade(wanted: Release) -> None:
    """Apply the migrations that this release has and the database lacks."""
    migrations = migrations_of(wanted)
    with connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num text NOT NULL)")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        revisions = [migration.revision for migration in migrations]
        if row and row[0] not in revisions:
            raise LookupError(f"Can't locate revision identified by '{row[0]}'")
        pending = migrations[revisions.index(row[0]) + 1 :] if row else migrations
        for migration in pending:
            connection.execute(migration.sql)
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES (%s)", [revisions[-1]])


def write_revisions(directory: Path) -> None:
    """A file for each migration of this release, with the two assignments by which Alembic orders them."""
    directory.mkdir(parents=True)
    before = None
    for migration in migrations_of(release.current()):
        text = f"revision = {migration.revision!r}\ndown_revision = {before!r}\nbranch_labels = None\n"
        (directory / f"{migration.revision}_standin.py").write_text(text)
        before = migration.revision


def main() -> int:
    if sys.argv[1:]:
        write_revisions(Path(sys.argv[1]))
        return 0
    print("Preparing database migration...")
    lock = connect_redis().lock("db_upgrade_lock", timeout=LOCK_SECONDS)
    if not lock.acquire(blocking=False):
        print("Database migration skipped")
        return 0
    try:
        print("Starting database migration.")
        upgrade(release.current())
        print("Database migration successful!")
    except (psycopg.Error, LookupError) as error:
        log(f"Failed to execute database migration: {error}")
        return int(release.current().failed_migration_is_fatal)
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
