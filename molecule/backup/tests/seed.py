# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fills the server that will be lost, as its users do and as years do, and notes what is there then."""

from __future__ import annotations

import json
import typing as t

from conftest import Server
from truth import FILE, truth

SMALL_FILES = 50000

PLUGINS = """
INSERT INTO plugins (plugin_unique_identifier) SELECT 'author/plugin:' || n FROM generate_series(1, 500) n
"""
# A credential as Dify keeps it: encrypted with the public key of the tenant; and a role of the operator's own.
CREDENTIAL = r"""
cd /opt/dify/docker
key=$(ls volumes/app/storage/privkeys/*/private.pem)
openssl rsa -in "$key" -pubout -out /tmp/public.pem 2>/dev/null
text=$(printf %s sk-of-a-model | openssl pkeyutl -encrypt -pubin -inkey /tmp/public.pem | base64 -w0)
docker compose exec -T db_postgres psql -qU postgres -d dify \
  -c "CREATE TABLE provider_credentials (encrypted_config text)" \
  -c "INSERT INTO provider_credentials VALUES ('$text')" \
  -c "CREATE ROLE reporting LOGIN PASSWORD 'Rep0rting'" -c "GRANT SELECT ON accounts TO reporting"
"""
FILES = f"""
import os
root = "/opt/dify/docker/volumes/plugin_daemon/cwd/many"
for number in range({SMALL_FILES}):
    directory = f"{{root}}/{{number % 500:03}}"
    if number < 500:
        os.makedirs(directory)
    with open(f"{{directory}}/файл {{number}}.py", "w") as file:
        file.write(f"print({{number}})")
os.link(f"{{root}}/000/файл 0.py", f"{{root}}/hard")
os.chmod(f"{{root}}/hard", 0o4750)
os.chown(f"{{root}}/hard", 1234, 5678)
os.symlink("000/файл 0.py", f"{{root}}/soft")
with open(f"{{root}}/sparse", "wb") as file:
    file.truncate(50 << 20)
os.makedirs("/opt/dify/docker/envs/mine")
with open("/opt/dify/docker/envs/mine/own.env", "w") as file:
    file.write("OWN=1")
"""


def upload(server: Server, session: dict[str, str], name: str, content: bytes) -> None:
    boundary = "boundary-of-a-form"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    body = head.encode() + b"Content-Type: text/plain\r\n\r\n" + content + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = server.request("POST", "/console/api/files/upload", body, {**session, **kind})
    assert answer.status == 201, answer.body


def test_fill_it(server: Server, host: t.Any, session: dict[str, str]) -> None:
    for number in range(20):
        upload(server, session, f"Übersicht {number} 资料.txt", f"content {number} é\n".encode() * 100)
    host.check_output("docker exec dify-db_postgres-1 psql -qU postgres -d dify_plugin -c %s", PLUGINS)
    host.check_output("sh -ec %s", CREDENTIAL)
    host.check_output("python3 -c %s", FILES)
    FILE.write_text(json.dumps(truth(host)), encoding="utf-8")
