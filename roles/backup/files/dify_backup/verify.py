# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored server is asked once it runs: its owner signs in, a file comes back, a credential can be read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from dify_backup._console_api import ConsoleClient, ConsoleError, read_password
from dify_backup.basics import Json, Problem, run
from dify_backup.databases import sessions
from dify_backup.project import Plan, storage_elsewhere
from dify_backup.server import Server

API_PORT = 5001
STORAGE = "/app/api/storage"
OWNER = """SELECT a.email FROM accounts a JOIN tenant_account_joins j ON j.account_id = a.id
WHERE j.role = 'owner' ORDER BY a.created_at LIMIT 1;"""
FILES = "SELECT id, size, {key} FROM upload_files ORDER BY created_at DESC LIMIT 20;"
TENANTS = "SELECT id, {key} FROM tenants WHERE encrypt_public_key IS NOT NULL;"
CREDENTIALS = "SELECT tenant_id, {config} FROM {table} WHERE encrypted_config IS NOT NULL LIMIT 50;"
CREDENTIAL_TABLES = ("provider_credentials", "provider_model_credentials")

# What Dify encrypts begins with "HYBRID:", here in Base64 up to the last whole character of it.
HYBRID = base64.b64encode(b"HYBRID:").decode()[:9]

# Runs in the API's container, as the API and with its libraries. Reads JSON: tenants as [id, public key], and
# credentials as [tenant, encrypted in Base64]. Prints how many of each were good, and nothing else of them.
DECRYPT = """
import base64, json, sys
try:
    from Crypto.Cipher import AES, PKCS1_OAEP
    from Crypto.PublicKey import RSA
except ImportError:
    from Cryptodome.Cipher import AES, PKCS1_OAEP
    from Cryptodome.PublicKey import RSA
given = json.load(sys.stdin)
keys = {}
for tenant, public in given["tenants"]:
    with open(given["storage"] + "/privkeys/" + tenant + "/private.pem") as file:
        keys[tenant] = RSA.import_key(file.read())
    if keys[tenant].public_key() != RSA.import_key(public):
        sys.exit("the private key of the tenant " + tenant + " does not fit its public key in the database")
opened = 0
for tenant, text in given["credentials"]:
    data, key = base64.b64decode(text), keys[tenant]
    try:
        data, size = data[7:], key.size_in_bytes()
        session = PKCS1_OAEP.new(key).decrypt(data[:size])
        cipher = AES.new(session, AES.MODE_EAX, nonce=data[size:size + 16])
        cipher.decrypt_and_verify(data[size + 32:], data[size + 16:size + 32])
    except ValueError:
        sys.exit("a credential of the tenant " + tenant + " cannot be decrypted with its private key")
    opened += 1
print(json.dumps({"tenants": len(keys), "credentials": opened}))
"""


def encrypted(config: str) -> list[str]:
    """The values of a credential's configuration that Dify encrypted; it keeps others beside them.

    >>> encrypted('{"api_key": "SFlCUklEOnNlY3JldA==", "endpoint": "https://example.com", "timeout": 5}')
    ['SFlCUklEOnNlY3JldA==']
    """
    try:
        values = json.loads(config)
    except ValueError:
        return []
    if not isinstance(values, dict):
        return []
    return [one for one in values.values() if isinstance(one, str) and one.startswith(HYBRID)]


def _text(digits: str) -> str:
    return bytes.fromhex(digits).decode()


class Verification:
    """Of one running server, by asking its API's container directly.

    ``password_file``: keeps the owner's password. ``wait``: seconds until the API must answer.
    """

    def __init__(self, server: Server, plan: Plan, password_file: str, wait: float) -> None:
        self.plan = plan
        self.password_file = password_file
        self.wait = wait
        self.container = server.container(plan.project, "api")
        self.url = f"http://{server.address(self.container)}:{API_PORT}"
        self.server = server

    def run(self) -> Json:
        """What was proven, or why not: "owner", "file" and "credentials"."""
        with sessions(self.server, self.plan) as found:
            main = self.plan.environment.get("DB_DATABASE")
            self.session = next(one for one in found if one.database.name == main)
            return {"owner": self.owner(), "file": self.file(), "credentials": self.credentials()}

    def owner(self) -> str:
        """Signs the owner in with the password that is kept."""
        client = ConsoleClient(self.url, direct=True)
        try:
            state = client.await_setup_state(self.wait, finished=True)
            if not state.finished:
                raise Problem("The server asks to be set up, so its accounts are not there.")
            found = self.session.query(OWNER)
            if not found:
                raise Problem("The database names no owner of a workspace.")
            password = read_password(self.password_file)
            if password is None:
                return f"not tried: {self.password_file} keeps no password"
            client.sign_in(found[0][0], password, state.version)
        except ConsoleError as error:
            raise Problem(str(error)) from None
        return str(found[0][0])

    def file(self) -> str:
        """Downloads a stored file through an address signed with the server's key: the newest that was not deleted."""
        if storage_elsewhere(self.plan.environment):
            return "not tried: files are stored in " + storage_elsewhere(self.plan.environment)
        rows = self.session.query(FILES.format(key=self.session.quoted("key")))
        if not rows:
            return "not tried: no file was ever uploaded"
        storage = self.storage()
        stored = [(identity, size, Path(storage, key)) for identity, size, key in rows if Path(storage, key).is_file()]
        if not stored:
            raise Problem(f"None of the {len(rows)} newest uploaded files is in {storage}.")
        identity, size, path = stored[0]
        content = self.download(identity)
        if len(content) != int(size) or content != path.read_bytes():
            raise Problem(
                f"The uploaded file {identity} came back with {len(content)} bytes; it has {size}, kept in {path}."
            )
        return f"{identity}, {size} bytes"

    def storage(self) -> str:
        """The storage's directory on this host."""
        if STORAGE not in self.plan.mounts:
            raise Problem(f"The service api mounts nothing on {STORAGE}, where Dify keeps its files.")
        return self.plan.mounts[STORAGE]

    def download(self, identity: str) -> bytes:
        kept = Path(self.storage(), ".dify_secret_key")
        secret = self.plan.environment.get("SECRET_KEY") or (kept.read_text().strip() if kept.exists() else "")
        stamp, nonce = str(int(time.time())), secrets.token_hex(16)
        digest = hmac.new(secret.encode(), f"file-preview|{identity}|{stamp}|{nonce}".encode(), hashlib.sha256).digest()
        sign = base64.urlsafe_b64encode(digest).decode()
        query = urllib.parse.urlencode({"timestamp": stamp, "nonce": nonce, "sign": sign})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/files/{identity}/file-preview?{query}", timeout=60) as answer:
                return t.cast("bytes", answer.read())
        except urllib.error.HTTPError as error:
            raise Problem(f"The uploaded file {identity} cannot be downloaded: the API answers {error.code}.") from None
        except OSError as error:
            raise Problem(f"The uploaded file {identity} cannot be downloaded: {error}.") from None

    def credentials(self) -> str:
        """Decrypts credentials of models with the keys of their workspaces."""
        if storage_elsewhere(self.plan.environment):
            return "not tried: the keys are stored in " + storage_elsewhere(self.plan.environment)
        tenants = [
            [one, _text(key)]
            for one, key in self.session.query(TENANTS.format(key=self.session.hex("encrypt_public_key")))
        ]
        known = {one for one, _key in tenants}
        found = []
        for table in CREDENTIAL_TABLES:
            if self.session.has(table):
                query = CREDENTIALS.format(config=self.session.hex("encrypted_config"), table=table)
                rows = [(one, _text(config)) for one, config in self.session.query(query) if one in known]
                found += [[one, secret] for one, config in rows for secret in encrypted(config)]
        given = {"storage": STORAGE, "tenants": tenants, "credentials": found}
        command = ["docker", "exec", "--interactive", self.container, "python3", "-c", DECRYPT]
        done = json.loads(run(command, input=json.dumps(given)))
        return "{tenants} workspaces' keys fit, {credentials} secrets decrypted".format(**done)
