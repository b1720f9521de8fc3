# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fills the server that will be lost, as its users do and as years do, and notes what is there then."""

from __future__ import annotations

import json
import typing as t

from conftest import Server
from truth import FILE, truth, upload

SMALL_FILES = 50000

PLUGINS = """
INSERT INTO plugins (plugin_unique_identifier) SELECT 'author/plugin:' || n FROM generate_series(1, 500) n
"""
# A credential as Dify keeps it, encrypted for the workspace by the libraries Dify uses; and a role of the operator's.
ENCRYPT = """
import base64, glob, json
from Cryptodome.Cipher import AES, PKCS1_OAEP
from Cryptodome.PublicKey import RSA
path = glob.glob("/app/api/storage/privkeys/*/private.pem")[0]
session = bytes(range(16))
cipher = AES.new(session, AES.MODE_EAX)
text, tag = cipher.encrypt_and_digest(b"sk-of-a-model")
sealed = PKCS1_OAEP.new(RSA.import_key(open(path).read()).public_key()).encrypt(session)
config = {"api_key": base64.b64encode(b"HYBRID:" + sealed + cipher.nonce + tag + text).decode(), "endpoint": "https://example.com"}
print("INSERT INTO provider_credentials (tenant_id, provider_name, credential_name, encrypted_config) VALUES "
      f"('{path.split('/')[-2]}', 'openai', 'mine', '{json.dumps(config)}')")
"""
ROLE = "CREATE ROLE reporting LOGIN PASSWORD 'Rep0rting'; GRANT SELECT ON accounts TO reporting"
PSQL = "docker exec dify-db_postgres-1 psql -qU postgres -d {} -c %s"
FILES = f"""
import os, struct
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
# An access control list, as the kernel keeps it: user 1234 may read.
entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 4, -1)]
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
open(f"{{root}}/acl", "w").close()
os.setxattr(f"{{root}}/acl", "system.posix_acl_access", acl)
os.makedirs("/opt/dify/docker/envs/mine")
with open("/opt/dify/docker/envs/mine/own.env", "w") as file:
    file.write("OWN=1")
"""


def test_fill_it(server: Server, host: t.Any, session: dict[str, str]) -> None:
    for number in range(20):
        upload(server, session, f"Übersicht {number} 资料.txt", f"content {number} é\n".encode() * 100)
    host.check_output(PSQL.format("dify_plugin"), PLUGINS)
    host.check_output(PSQL.format("dify"), host.check_output("docker exec dify-api-1 python3 -c %s", ENCRYPT))
    host.check_output(PSQL.format("dify"), ROLE)
    host.check_output("python3 -c %s", FILES)
    FILE.write_text(json.dumps(truth(host)), encoding="utf-8")
