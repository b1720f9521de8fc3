# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The owner's account: setup, sign-in, and the signed tokens that carry a session."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import subprocess
import time
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dify_api import release, storage
from dify_api.database import connect, connect_redis

Account = dict[str, Any]

PASSWORD_RULE = re.compile(r"^(?=.*[a-zA-Z])(?=.*\d).{8,}$")
EMAIL_RULE = re.compile(r"^[\w.!#$%&'*+\-/=?^`{|}~]+@([\w-]+\.)+[\w-]{2,}$")
NAME_LENGTH = 30
MAX_LOGIN_ERRORS = 5
LOCKOUT_SECONDS = 24 * 3600
ACCESS_SECONDS = 3600
REFRESH_SECONDS = 30 * 24 * 3600


class SetupFailed(Exception):
    pass


def setup_time() -> Any:
    """When this instance was set up, or None."""
    with connect() as connection:
        row = connection.execute("SELECT setup_at FROM dify_setups").fetchone()
    return row[0] if row else None


def setup(email: str, name: str, password: str, language: str, address: str) -> None:
    """Make owner and workspace in one transaction: when the storage refuses the key, nothing remains."""
    salt = secrets.token_bytes(16)
    try:
        with connect() as connection:
            account_id = insert(
                connection,
                "INSERT INTO accounts (name, email, password, password_salt, interface_language, last_login_ip) "
                "VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                [name, email, hashed(password, salt), base64.b64encode(salt).decode(), language, address],
            )
            tenant_id = insert(
                connection, "INSERT INTO tenants (name) VALUES (%s) RETURNING id", [f"{name}'s Workspace"]
            )
            connection.execute(
                "UPDATE tenants SET encrypt_public_key = %s WHERE id = %s", [write_key_pair(tenant_id), tenant_id]
            )
            connection.execute("INSERT INTO tenant_account_joins VALUES (%s, %s, 'owner')", [tenant_id, account_id])
            connection.execute("INSERT INTO dify_setups (version) VALUES (%s)", [release.current().version])
    except (psycopg.Error, storage.StorageError) as error:
        raise SetupFailed(f"Setup failed: {error}") from None


def insert(connection: psycopg.Connection[Any], statement: str, values: list[Any]) -> str:
    row = connection.execute(statement.encode(), values).fetchone()
    assert row is not None
    return str(row[0])


def write_key_pair(tenant_id: str) -> str:
    """Store the workspace's private key and return the public one."""
    private = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True).stdout
    storage.save(f"privkeys/{tenant_id}/private.pem", private)
    public = subprocess.run(["openssl", "rsa", "-pubout"], input=private, check=True, capture_output=True).stdout
    return public.decode()


def hashed(password: str, salt: bytes) -> str:
    return base64.b64encode(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10000)).decode()


def decode_password(text: str) -> str | None:
    """The Base64-encoded password of a sign-in, or None when the text is none."""
    try:
        return base64.b64decode(text).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def find(column: str, value: str) -> Account | None:
    """The account whose `id` or `email` is the value."""
    with connect() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        account: Account | None = cursor.execute(
            f"SELECT * FROM accounts WHERE {column} = %s".encode(), [value]
        ).fetchone()
    return account


def is_locked(email: str) -> bool:
    return int(connect_redis().get(f"login_error_rate_limit:{email}") or 0) > MAX_LOGIN_ERRORS


def authenticate(email: str, password: str) -> Account | None:
    """The account with this password; a wrong one counts towards the lock."""
    key = f"login_error_rate_limit:{email}"
    account = find("email", email)
    if account and hashed(password, base64.b64decode(account["password_salt"])) == account["password"]:
        connect_redis().delete(key)
        return account
    connect_redis().incr(key)
    connect_redis().expire(key, LOCKOUT_SECONDS)
    return None


def open_session(account: Account, address: str) -> dict[str, str]:
    """Tokens of a new session: access_token, refresh_token, csrf_token."""
    with connect() as connection:
        connection.execute(
            "UPDATE accounts SET last_login_at = CURRENT_TIMESTAMP, last_login_ip = %s WHERE id = %s",
            [address, account["id"]],
        )
    user, expires = str(account["id"]), int(time.time()) + ACCESS_SECONDS
    refresh_token = secrets.token_hex(64)
    connect_redis().set(f"refresh_token:{refresh_token}", user, ex=REFRESH_SECONDS)
    return {
        "access_token": sign({"user_id": user, "exp": expires, "sub": "Console API Passport"}),
        "refresh_token": refresh_token,
        "csrf_token": sign({"sub": user, "exp": expires}),
    }


@cache
def secret_key() -> bytes:
    """SECRET_KEY; when it is empty, releases that can do so generate one and keep it in the storage."""
    key = os.environ.get("SECRET_KEY", "")
    if not key and release.current().generates_secret_key:
        kept = storage.root() / ".dify_secret_key"
        if not kept.exists():
            storage.save(kept.name, f"{secrets.token_urlsafe(48)}\n".encode())
        key = kept.read_text().strip()
    return key.encode()


def sign(payload: dict[str, Any]) -> str:
    """A JSON Web Token (HS256)."""
    header = encode_part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{header}.{encode_part(json.dumps(payload).encode())}"
    return f"{signed}.{signature(signed)}"


def verify(token: str) -> dict[str, Any] | None:
    """The payload of a token of ours that has not expired, or None."""
    signed, _dot, claimed = token.rpartition(".")
    if not signed or not hmac.compare_digest(signature(signed).encode(), claimed.encode()):
        return None
    body = signed.split(".")[1]
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return payload if payload.get("exp", float("inf")) > time.time() else None


def signature(text: str) -> str:
    return encode_part(hmac.digest(secret_key(), text.encode(), "sha256"))


def encode_part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
