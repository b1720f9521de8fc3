# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server holds, asked by other means than the backup's own."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from conftest import Server

TREES = "volumes/app volumes/plugin_daemon volumes/weaviate envs"
SECRETS = "SECRET_KEY DB_PASSWORD REDIS_PASSWORD PLUGIN_DAEMON_KEY WEAVIATE_API_KEY DIFY_AGENT_SERVER_SECRET_KEY"

SCRIPT = f"""
cd /opt/dify/docker
echo "== rows"
for database in dify dify_plugin; do
  docker compose exec -T db_postgres pg_dump -U postgres --data-only --inserts -d $database | grep '^INSERT' | sort
done
docker compose exec -T db_postgres psql -U postgres -qAtc '\\du' | sort
echo "== entries"
find {TREES} -printf '%y %m %U:%G %n %P %l\\n' | sort
echo "== contents"
find {TREES} -type f -print0 | sort -z | xargs -0 sha256sum
python3 -c '
import os
path = "volumes/plugin_daemon/cwd/many/acl"
print("acl", os.getxattr(path, "system.posix_acl_access").hex())'
echo "== secrets"
for name in {SECRETS}; do grep "^$name=" .env; done | sha256sum
sha256sum /root/.dify/owner_password
"""

FOLDER = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
FILE = FOLDER / "truth.txt"
# What was written while the backup ran: a line of JSON for each answer, with the time before it was asked for.
WRITTEN = FOLDER / "written.txt"
# Ends the writing.
ENOUGH = FOLDER / "enough"


def upload(server: Server, session: dict[str, str], name: str, content: bytes) -> str:
    """The new file's ID."""
    boundary = "boundary-of-a-form"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    body = head.encode() + b"Content-Type: text/plain\r\n\r\n" + content + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = server.request("POST", "/console/api/files/upload", body, {**session, **kind})
    assert answer.status == 201, answer.body
    return str(answer.json()["id"])


def truth(host: t.Any) -> dict[str, list[str]]:
    """Section to its lines."""
    sections = host.check_output("sh -c %s", SCRIPT).split("== ")
    return {section.split("\n")[0]: section.split("\n")[1:] for section in sections if section}
