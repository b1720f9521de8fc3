# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the API's container that operators use: `flask reset-password`, `flask db current`, `flask db heads`.

As with the real one, what no option gives is asked for on the terminal, and a refusal is a sentence, not an exit code.
"""

from __future__ import annotations

import base64
import secrets
import sys

from dify_api import accounts, database, release

OPTIONS = {"--email": "Email", "--new-password": "New password", "--password-confirm": "Password confirm"}


def reset_password(given: dict[str, str]) -> str:
    email, password, again = (given.get(option) or ask(prompt) for option, prompt in OPTIONS.items())
    if password.strip() != again.strip():
        return "Passwords do not match."
    normalized = email.strip().lower()
    account = accounts.find("email", normalized)
    if account is None:
        return f"Account not found for email: {email}"
    if not accounts.PASSWORD_RULE.match(password):
        return f"Invalid password. Must match {accounts.PASSWORD_RULE.pattern}"
    salt = secrets.token_bytes(16)
    with database.connect() as connection:
        connection.execute(
            "UPDATE accounts SET password = %s, password_salt = %s WHERE id = %s",
            [accounts.hashed(password, salt), base64.b64encode(salt).decode(), account["id"]],
        )
    database.connect_redis().delete(f"login_error_rate_limit:{normalized}")
    return "Password reset successfully."


def ask(prompt: str) -> str:
    print(f"{prompt}: ", end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        sys.exit("Aborted!")
    return line.rstrip("\n")


def main(words: list[str]) -> str:
    if words[:1] == ["reset-password"]:
        return reset_password(dict(zip(words[1::2], words[2::2], strict=True)))
    head = database.migrations_of(release.current())[-1].revision
    if words == ["db", "heads"]:
        return f"{head} (head)"
    if words == ["db", "current"]:
        with database.connect() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        current = row[0] if row else ""
        return f"{current} (head)" if current == head else current
    sys.exit(f"Error: No such command {' '.join(words)!r}.")


if __name__ == "__main__":
    print(main(sys.argv[1:]))
