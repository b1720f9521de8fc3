# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The console's routes: liveness, first-run setup, sign-in, profile, uploads and what was uploaded."""

from __future__ import annotations

import base64
import hmac
import json
import mimetypes
import os
import time
import uuid
from email.utils import formatdate
from pathlib import Path
from typing import Any

from standin import HttpError, Request, Response, json_response

from dify_api import accounts, storage
from dify_api.accounts import Account
from dify_api.addresses import client_address
from dify_api.database import connect
from dify_api.multipart import Part, parse
from dify_api.web import ApiApp, json_object

NOT_SETUP = (
    "Dify has not been initialized and installed yet. "
    "Please proceed with the initialization and installation process first."
)
NOT_INITIALISED = "Init validation has not been completed yet. Please proceed with the init validation process first."
ALREADY_SETUP = "Dify has been successfully installed. Please refresh the page or return to the dashboard homepage."
FEATURES = json.loads(Path(__file__).with_name("system_features.json").read_text())
TIMEZONES = {"zh-Hans": "Asia/Shanghai", "de-DE": "Europe/Berlin", "fr-FR": "Europe/Paris", "ja-JP": "Asia/Tokyo"}
# The real API's limits in MiB by kind of file: variable and its default.
UPLOAD_LIMITS = {
    "image": ("UPLOAD_IMAGE_FILE_SIZE_LIMIT", 10),
    "audio": ("UPLOAD_AUDIO_FILE_SIZE_LIMIT", 50),
    "video": ("UPLOAD_VIDEO_FILE_SIZE_LIMIT", 100),
}
DOCUMENT_LIMIT = ("UPLOAD_FILE_SIZE_LIMIT", 15)


def add_routes(app: ApiApp) -> None:
    release = app.release

    @app.route("GET", "/console/api/ping")
    def ping(request: Request) -> Response:
        return app.reply(request, {"result": "pong"})

    @app.route("GET", "/console/api/system-features")
    def system_features(request: Request) -> Response:
        return app.reply(request, FEATURES)

    @app.route("GET", "/console/api/version")
    def version(request: Request) -> Response:
        features = {"can_replace_logo": False, "model_load_balancing_enabled": False}
        answer = {"version": request.query.get("current_version", ""), "release_date": "", "release_notes": ""}
        return app.reply(request, {**answer, "can_auto_update": False, "features": features})

    @app.route("GET", "/console/api/init")
    def init_status(request: Request) -> Response:
        return app.reply(request, {"status": "finished" if is_initialised(request) else "not_started"})

    @app.route("POST", "/console/api/init")
    def init(request: Request) -> Response:
        if accounts.setup_time():
            raise HttpError(403, "already_setup", ALREADY_SETUP)
        password = json_object(request).get("password")
        right = bool(password) and password == os.environ.get("INIT_PASSWORD")
        cookie = ("Set-Cookie", f"session={accounts.sign({'is_init_validated': right})}; HttpOnly; Path=/")
        if right:
            return app.reply(request, {"result": "success"}, 201, [cookie])
        message = "Init validation failed. Please check the password and try again."
        response = app.error_response(request, HttpError(401, "init_validate_failed", message))
        response.headers.append(cookie)
        return response

    @app.route("GET", "/console/api/setup")
    def setup_status(request: Request) -> Response:
        setup_at = accounts.setup_time()
        if setup_at:
            return app.reply(request, {"step": "finished", "setup_at": setup_at.isoformat()})
        return app.reply(request, {"step": "not_started"} | ({"setup_at": None} if release.typed_console_api else {}))

    @app.route("POST", "/console/api/setup")
    def setup(request: Request) -> Response:
        payload = json_object(request)
        if release.typed_console_api and setup_complaint(payload):
            text = "Validation error for parameter 'payload'"
            raise HttpError(422, message=text, details=text)
        if accounts.setup_time():
            raise HttpError(403, "already_setup", ALREADY_SETUP)
        if not is_initialised(request):
            raise HttpError(401, "not_init_validated", NOT_INITIALISED)
        if complaint := setup_complaint(payload):
            raise HttpError(400, "invalid_param", complaint[1], params=complaint[0])
        email = payload["email"].lower() if release.typed_console_api else payload["email"]
        language = payload.get("language") or "en-US"
        try:
            accounts.setup(email, payload["name"], payload["password"], language, client_address(request))
        except accounts.SetupFailed as error:
            raise HttpError(500 if release.typed_console_api else 400, "invalid_param", str(error)) from None
        return app.reply(request, {"result": "success"}, 201)

    @app.route("POST", "/console/api/login")
    def login(request: Request) -> Response:
        require_setup()
        payload = json_object(request)
        email, password = str(payload.get("email", "")), str(payload.get("password", ""))
        if release.encoded_login_password:
            decoded = accounts.decode_password(password)
            if decoded is None:
                raise HttpError(401, "authentication_failed", "Invalid encrypted data")
            password = decoded
        if not accounts.EMAIL_RULE.match(email):
            raise HttpError(400, "invalid_param", f"{email} is not a valid email.", params="email")
        if release.typed_console_api:
            email = email.lower()
        if accounts.is_locked(email):
            message = "Too many incorrect password attempts. Please try again later."
            raise HttpError(429, "email_code_login_limit", message)
        account = accounts.authenticate(email, password)
        if account is None:
            raise HttpError(401, "authentication_failed", "Invalid email or password.")
        tokens = accounts.open_session(account, client_address(request))
        return json_response(200, {"result": "success"}, session_cookies(tokens))

    @app.route("POST", "/console/api/logout")
    def logout(request: Request) -> Response:
        return json_response(200, {"result": "success"}, session_cookies({}))

    @app.route("GET", "/console/api/account/profile")
    def profile(request: Request) -> Response:
        account = signed_in(request)
        language = account["interface_language"]
        answer = {
            "avatar": None,
            "id": str(account["id"]),
            "name": account["name"],
            "email": account["email"],
            "is_password_set": True,
            "interface_language": language,
            "interface_theme": "light",
            "timezone": TIMEZONES.get(language, "America/New_York"),
            "last_login_at": int(account["last_login_at"].timestamp()),
            "last_login_ip": account["last_login_ip"],
            "created_at": int(account["created_at"].timestamp()),
            "avatar_url": None,
        }
        return app.reply(request, answer)

    @app.route("POST", "/console/api/files/upload")
    def upload(request: Request) -> Response:
        account = signed_in(request)
        part = uploaded_file(request)
        mime_type = mimetypes.guess_type(part.filename)[0] or part.content_type
        variable, default = UPLOAD_LIMITS.get(mime_type.split("/")[0], DOCUMENT_LIMIT)
        if len(part.content) > int(os.environ.get(variable) or default) * 1024 * 1024:
            raise HttpError(413, "file_too_large", "File size exceeded. ")
        with connect() as connection:
            row = connection.execute("SELECT id FROM tenants").fetchone()
            assert row is not None
            extension = Path(part.filename).suffix.lstrip(".").lower()
            key = f"upload_files/{row[0]}/{uuid.uuid4()}.{extension}"
            file_id = accounts.insert(
                connection,
                "INSERT INTO upload_files (tenant_id, key, name, size, mime_type, created_by) "
                "VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                [row[0], key, part.filename, len(part.content), mime_type, account["id"]],
            )
            try:
                storage.save(key, part.content)
            except storage.StorageError as error:
                connection.rollback()
                raise HttpError(500, "unknown", str(error)) from None
        answer = {"id": file_id, "name": part.filename, "size": len(part.content), "extension": extension}
        created = {"mime_type": mime_type, "created_by": str(account["id"]), "created_at": int(time.time())}
        return app.reply(request, answer | created, 201)

    @app.route("GET", "/files/<file>/file-preview")
    def preview(request: Request, file: str) -> Response:
        """An uploaded file, for who holds a signature of the server's own."""
        stamp, nonce = request.query.get("timestamp", ""), request.query.get("nonce", "")
        text = f"file-preview|{file}|{stamp}|{nonce}"
        digest = hmac.digest(accounts.secret_key(), text.encode(), "sha256")
        sign = base64.urlsafe_b64encode(digest).decode()
        fresh = stamp.isdecimal() and time.time() - int(stamp) <= int(os.environ.get("FILES_ACCESS_TIMEOUT") or 300)
        if not fresh or not hmac.compare_digest(sign, request.query.get("sign", "")):
            raise HttpError(403, "forbidden", "Invalid signature")
        with connect() as connection:
            row = connection.execute("SELECT key, mime_type FROM upload_files WHERE id::text = %s", [file]).fetchone()
        if row is None:
            raise HttpError(404, "not_found", "File not found")
        try:
            return Response(200, storage.load(row[0]), [("Content-Type", row[1])])
        except storage.StorageError as error:
            raise HttpError(500, "unknown", str(error)) from None


def is_initialised(request: Request) -> bool:
    """No INIT_PASSWORD, or this session gave it, or the instance is set up already."""
    if not os.environ.get("INIT_PASSWORD"):
        return True
    session = accounts.verify(request.cookies.get("session", "")) or {}
    return session.get("is_init_validated") is True or accounts.setup_time() is not None


def setup_complaint(payload: dict[str, Any]) -> tuple[str, str] | None:
    """The first field that setup does not accept, and why."""
    for field in ("email", "name", "password"):
        if not isinstance(payload.get(field), str):
            return field, "Missing required parameter in the JSON body"
    if not accounts.EMAIL_RULE.match(payload["email"]):
        return "email", f"{payload['email']} is not a valid email."
    if len(payload["name"]) > accounts.NAME_LENGTH:
        return "name", f"Invalid argument: {payload['name']}. argument cannot exceed length {accounts.NAME_LENGTH}"
    if not accounts.PASSWORD_RULE.match(payload["password"]):
        return "password", "Password must contain letters and numbers, and the length must be greater than 8."
    return None


def require_setup() -> None:
    if not accounts.setup_time():
        if os.environ.get("INIT_PASSWORD"):
            raise HttpError(401, "not_init_validated", NOT_INITIALISED)
        raise HttpError(401, "not_setup", NOT_SETUP)


def is_secure() -> bool:
    """Cookies are bound to https when the console's two public URLs say https."""
    return all(os.environ.get(name, "").startswith("https") for name in ("CONSOLE_API_URL", "CONSOLE_WEB_URL"))


def cookie_name(name: str) -> str:
    return f"__Host-{name}" if is_secure() and not os.environ.get("COOKIE_DOMAIN") else name


def session_cookies(tokens: dict[str, str]) -> list[tuple[str, str]]:
    """Set-Cookie headers of a session; without tokens they end it."""
    cookies = []
    for name in ("access_token", "refresh_token", "csrf_token"):
        age = (accounts.REFRESH_SECONDS if name == "refresh_token" else accounts.ACCESS_SECONDS) if tokens else 0
        attributes = [
            f"{cookie_name(name)}={tokens.get(name, '')}",
            f"Expires={formatdate(time.time() + age, usegmt=True)}",
            f"Max-Age={age}",
            *(["Secure"] if is_secure() else []),
            *(["HttpOnly"] if name != "csrf_token" else []),
            "Path=/",
            "SameSite=Lax",
        ]
        if domain := os.environ.get("COOKIE_DOMAIN"):
            attributes.insert(1, f"Domain={domain}")
        cookies.append(("Set-Cookie", "; ".join(attributes)))
    return cookies


def signed_in(request: Request) -> Account:
    """The account of this request's cookies, which need the CSRF token in a header beside them."""
    require_setup()
    cookies = request.cookies
    session = accounts.verify(cookies.get(cookie_name("access_token"), ""))
    account = accounts.find("id", session["user_id"]) if session else None
    if account is None:
        raise HttpError(401, "unauthorized", "Unauthorized.")
    csrf = request.header("X-CSRF-Token")
    claims = accounts.verify(csrf) if csrf and csrf == cookies.get(cookie_name("csrf_token")) else None
    if not claims or claims["sub"] != str(account["id"]):
        raise HttpError(401, "unauthorized", "CSRF token is missing or invalid.")
    return account


def uploaded_file(request: Request) -> Part:
    files = [part for part in parse(request.header("Content-Type"), request.body()) if part.name == "file"]
    if not files:
        raise HttpError(400, "no_file_uploaded", "Please upload your file.")
    if not files[0].filename:
        raise HttpError(400, "filename_not_exists_error", "The specified filename does not exist.")
    return files[0]
