# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dify's console API as a new server speaks it: setup, init, login.

Note that this module util is **PRIVATE** to the collection. It can change at any time without notice.

Everything here runs on the target with the standard library of Python 3.8 and later. Two shapes of error are known:
`{"code", "message", "status"}` up to 1.11, `{"error": {"type", "message", "status"}}` for setup and init from 1.12 on.
The second names no code and its validation errors name no field, so inputs are judged here before they are sent.
"""

from __future__ import annotations

import base64
import dataclasses
import email.message
import errno
import http.client
import json
import os
import re
import secrets
import ssl
import stat
import string
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]"
)
LANGUAGE = re.compile(r"[a-z]{2}-[A-Z][A-Za-z]+")
PASSWORD = re.compile(r"(?=.*[a-zA-Z])(?=.*\d).{8,}")
PASSWORD_LENGTH = 24
BASE64_LOGIN_SINCE = (1, 11, 2)
LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
GATEWAY_ERRORS = (502, 503, 504)
UNSHOWN_INIT = "The server asks for its INIT_PASSWORD before setup: give it as init_password."


class ConsoleError(Exception):
    """What went wrong, in one or two sentences that say what to do; carries no secret."""


class NoAnswer(ConsoleError):
    """The API gave no usable answer: nothing listens, it timed out, or a proxy answered for it."""


# Inputs


@dataclasses.dataclass(frozen=True)
class Owner:
    """The first account. `email` is kept in lower case, as Dify does from 1.12 on."""

    email: str
    name: str
    language: str = "en-US"
    init_password: str | None = dataclasses.field(default=None, repr=False)


def validate_owner(
    email: str, name: str, password: str | None, language: str = "en-US", init_password: str | None = None
) -> list[str]:
    """Return one sentence for each input Dify would refuse, an empty list when all are good.

    A `password` of None is one that has yet to be generated. Neither secret is repeated in a sentence.
    """
    problems = []
    if not EMAIL.fullmatch(email):
        problems.append(f"email is {email!r}, expected an address such as 'owner@example.com'.")
    if not name.strip() or len(name) > 30:
        problems.append(f"name has {len(name)} characters, Dify accepts 1 to 30 that are not all blank.")
    if password is not None and not PASSWORD.fullmatch(password):
        problems.append("password is refused by Dify: give at least 8 characters with a letter and a digit among them.")
    if not LANGUAGE.fullmatch(language):
        problems.append(f"language is {language!r}, expected a form such as 'en-US' or 'zh-Hans'.")
    if init_password is not None and not 1 <= len(init_password) <= 30:
        problems.append(f"init_password has {len(init_password)} characters, Dify accepts 1 to 30.")
    return problems


def validate_url(url: str) -> list[str]:
    """Return one sentence when `url` is not the http(s) base address of a server."""
    parts = urllib.parse.urlsplit(url)
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if good and parts.path in ("", "/") and not parts.query and not parts.fragment and not parts.username:
        return []
    return [f"url is {url!r}, expected the server's address without a path, such as 'http://127.0.0.1:3000'."]


# The owner's password on the target


def read_password(path: str) -> str | None:
    """Return the password kept in `path`, None when there is no such file.

    The file must be a regular one of the calling user that nobody else may read.
    """
    if not Path(path).is_absolute():
        raise ConsoleError(f"password_file is {path!r}, expected an absolute path.")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "is a symbolic link, expected a file" if error.errno == errno.ELOOP else f"cannot be read: {error}"
        raise ConsoleError(f"password_file {path} {reason}.") from error
    try:
        status = os.fstat(handle)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise ConsoleError(f"password_file {path} is not a regular file.")
        if status.st_uid != os.geteuid() or mode & 0o077:
            raise ConsoleError(
                f"password_file {path} has owner {status.st_uid} and mode {mode:04o}, expected owner {os.geteuid()} and"
                f" mode 0600: change them, and choose another password if somebody else may have read it."
            )
        password = os.read(handle, 4096).decode("utf-8", "replace").strip("\r\n")
    finally:
        os.close(handle)
    if not password:
        raise ConsoleError(f"password_file {path} is empty: write a password into it, or delete it to have one made.")
    return password


def generate_password(length: int = PASSWORD_LENGTH) -> str:
    """Return a random password of letters and digits with at least one of each."""
    alphabet = string.ascii_letters + string.digits
    while True:
        password = "".join(secrets.choice(alphabet) for _unused in range(length))
        if PASSWORD.fullmatch(password):
            return password


def create_password(path: str) -> str:
    """Write a new password to `path` with mode 0600 and return it.

    The file appears whole or not at all, and an existing one is never replaced: then its password is returned.
    A missing directory is made with mode 0700; one that others may write to is refused.
    """
    directory = Path(path).parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o022:
        raise ConsoleError(f"{directory} has mode {mode:04o}, so others could replace {path}: expected mode 0700.")
    password = generate_password()
    draft = Path(f"{path}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(password + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    except FileExistsError:
        return read_password(path) or password
    finally:
        draft.unlink()
    return password


class OwnerPassword:
    """The owner's password: given, kept in a file on the target, or still to be made in that file."""

    def __init__(self, given: str | None, path: str | None) -> None:
        self.path = path
        self.value = given if path is None else read_password(path)

    def obtain(self) -> str:
        """Return the password, made now when there is none yet."""
        if self.value is None:
            if self.path is None:
                raise ConsoleError("The server has no owner yet: give password or password_file.")
            self.value = create_password(self.path)
        return self.value


# The API


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer of the API: status code, body as text, `name=value` cookies, and the X-Version header."""

    status: int
    text: str
    version: str | None = None
    location: str | None = None
    cookies: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, t.Any]:
        """The JSON object in the body, empty when there is none."""
        try:
            parsed = json.loads(self.text)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def reason(self) -> str:
        """The server's own words, from either shape of error, on one line."""
        error = self.data.get("error", self.data)
        message = error.get("message") if isinstance(error, dict) else error
        return " ".join(str(message or self.text[:200] or http.client.responses.get(self.status, "no text")).split())


@dataclasses.dataclass(frozen=True)
class SetupState:
    """What `GET /console/api/setup` says."""

    finished: bool
    setup_at: str | None = None
    version: str | None = None

    @property
    def step(self) -> str:
        return "finished" if self.finished else "not_started"


class _KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Hands a redirect back instead of following it: a redirected POST would turn into a GET."""

    def redirect_request(self, *args: t.Any, **kwargs: t.Any) -> None:
        return None


def _context(ca_path: str | None, validate_certs: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_path:
        try:
            context.load_verify_locations(cafile=ca_path)
        except OSError as error:
            raise ConsoleError(f"ca_path {ca_path} cannot be used as a file of PEM certificates: {error}.") from error
    return context


class ConsoleClient:
    """Talks to one server, without a proxy where `direct`. `timeout` is in seconds and holds for each request."""

    def __init__(
        self,
        url: str,
        ca_path: str | None = None,
        validate_certs: bool = True,
        timeout: float = 10.0,
        direct: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        parts = urllib.parse.urlsplit(self.url)
        handlers: list[urllib.request.BaseHandler] = [_KeepRedirect()]
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=_context(ca_path, validate_certs)))
        if direct or LOOPBACK.fullmatch(parts.hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def request(
        self, method: str, path: str, body: dict[str, t.Any] | None = None, cookies: t.Sequence[str] = ()
    ) -> Answer:
        """Return the API's answer to `method` on `path` below /console/api, whatever its status code."""
        headers = {"Accept": "application/json", "User-Agent": "selfhost.dify"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if cookies:
            headers["Cookie"] = "; ".join(cookies)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/console/api/{path}", data, headers, method=method)
        try:
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    return _answer(response.status, response.headers, response.read(1 << 20))
            except urllib.error.HTTPError as error:
                with error:
                    return _answer(error.code, error.headers, error.read(1 << 20))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise ConsoleError(
                    f"The certificate of {self.url} is not trusted here ({reason.verify_message}):"
                    f" give the CA's file as ca_path."
                ) from error
            raise NoAnswer(f"{method} {self.url}/console/api/{path} had no answer: {reason or repr(error)}") from error

    def setup_state(self) -> SetupState:
        """Ask whether the server has an owner. Raises NoAnswer for what may pass by itself."""
        answer = self.request("GET", "setup")
        if answer.status >= 500:
            raise NoAnswer(f"GET {self.url}/console/api/setup answered {answer.status}: {answer.reason}")
        step = answer.data.get("step")
        if answer.status != 200 or step not in ("not_started", "finished"):
            whither = f" to {answer.location}: give that server as url" if answer.location else ""
            raise ConsoleError(
                f"GET {self.url}/console/api/setup answered {answer.status}{whither or ': ' + answer.reason}."
                f" Expected Dify's setup state; check that url is Dify's address."
            )
        return SetupState(step == "finished", answer.data.get("setup_at"), answer.version)

    def await_setup_state(self, wait: float, finished: bool = False) -> SetupState:
        """Ask until there is an answer, or until setup is finished when `finished`, for at most `wait` seconds."""
        deadline = time.monotonic() + wait
        pause = 0.25
        while True:
            try:
                state = self.setup_state()
                if state.finished or not finished or time.monotonic() >= deadline:
                    return state
            except NoAnswer as error:
                if time.monotonic() >= deadline:
                    raise NoAnswer(
                        f"Dify's API gave no usable answer for {wait:g} s ({error})."
                        f" Look at the containers api, nginx and the database, then run again."
                    ) from error
            time.sleep(min(pause, max(deadline - time.monotonic(), 0.01)))
            pause = min(pause * 2, 5.0)

    def needs_init(self) -> bool:
        """Ask whether the server wants INIT_PASSWORD before it can be set up."""
        answer = self.request("GET", "init")
        if answer.status != 200 or "status" not in answer.data:
            raise ConsoleError(f"GET {self.url}/console/api/init answered {answer.status}: {answer.reason}.")
        return bool(answer.data["status"] != "finished")

    def pass_init(self, init_password: str | None) -> tuple[str, ...]:
        """Show INIT_PASSWORD and return the session cookies that the setup call must carry."""
        if not init_password:
            raise ConsoleError(UNSHOWN_INIT)
        answer = self.request("POST", "init", {"password": init_password})
        if answer.status in (200, 201):
            return answer.cookies
        if answer.status == 401:
            raise ConsoleError("The server refused init_password: expected the value of INIT_PASSWORD in Dify's .env.")
        raise ConsoleError(f"POST {self.url}/console/api/init answered {answer.status}: {answer.reason}.")

    def sign_in(self, email: str, password: str, version: str | None) -> None:
        """Sign in once. Raises ConsoleError when the server does not let this e-mail in with this password.

        Where the server does not tell its version the password goes out plain first and, if only its form was
        refused (which does not count as a wrong password), once more in Base64.
        """
        release = _release(version)
        encoded = base64.b64encode(password.encode()).decode()
        body = {"email": email, "password": password, "remember_me": True}
        if release is not None and release >= BASE64_LOGIN_SINCE:
            body["password"] = encoded
        answer = self.request("POST", "login", body)
        if release is None and answer.status == 401 and "encrypted" in answer.reason:
            answer = self.request("POST", "login", dict(body, password=encoded))
        if answer.status == 200 and answer.data.get("result") == "success":
            return
        if answer.status == 429:
            raise ConsoleError(
                f"{email} is locked for 24 hours after too many wrong passwords ({answer.reason}):"
                f" wait, or reset the password in the api container."
            )
        if answer.status == 401:
            raise ConsoleError(
                f"{email} cannot sign in at {self.url} ({answer.reason}): the server was claimed by somebody else, or"
                f" the password was changed since. Give the owner's present e-mail and password, or reset the password"
                f" in the api container; do not try over and over, five wrong passwords lock the account for 24 hours."
            )
        raise ConsoleError(f"POST {self.url}/console/api/login answered {answer.status}: {answer.reason}.")


def _answer(status: int, headers: email.message.Message, body: bytes) -> Answer:
    cookies = tuple(value.split(";", 1)[0] for value in headers.get_all("Set-Cookie", []))
    return Answer(status, body.decode("utf-8", "replace"), headers.get("X-Version"), headers.get("Location"), cookies)


def _release(version: str | None) -> tuple[int, ...] | None:
    """Return the numbers of a release such as 1.10.1-fix.1 without its suffix, None when there are none."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    return tuple(int(part) for part in found.groups()) if found else None


# The claim


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where Dify's storage lies on this host, if known, and the uid and gid its files must have."""

    path: str | None
    uid: int = 1001
    gid: int = 1001

    def explain(self, reason: str) -> str:
        """Return which directory has which owner and which it needs, for a setup that failed with `reason`."""
        owner = f"{self.uid}:{self.gid}"
        told = f"Dify could not write its storage while it made the first account ({reason})."
        if self.path is None:
            return f"{told} Its volumes/app/storage and everything below it must belong to {owner}."
        named = re.search(r"path: (\S+)", reason)
        places = [Path(self.path)]
        for part in Path(named.group(1)).parent.parts if named and ".." not in named.group(1) else ():
            places.append(places[-1] / part)
        for place in places:
            try:
                status = place.stat()
            except FileNotFoundError as error:
                if place == places[0]:
                    return f"{told} {place} cannot be examined: {error.strerror}."
                break
            if (status.st_uid, status.st_gid) != (self.uid, self.gid):
                return (
                    f"{told} {place} belongs to {status.st_uid}:{status.st_gid}, expected {owner}:"
                    f" run chown -R {owner} {self.path} and run again."
                )
        return (
            f"{told} {self.path} belongs to {owner} as it should: look for a read-only or full file system,"
            f" for mode bits, or for SELinux."
        )


def claim(client: ConsoleClient, owner: Owner, password: str, storage: Storage) -> SetupState:
    """Make the first account on a server that has none and return its setup state, which is then finished.

    A setup that failed with an error of the server leaves nothing behind (Dify deletes what it made), so it is tried
    once more; one without an answer is settled by asking for the state.
    """
    cookies = client.pass_init(owner.init_password) if client.needs_init() else ()
    body = {"email": owner.email, "name": owner.name, "password": password, "language": owner.language}
    for last in (False, True):
        try:
            answer = client.request("POST", "setup", body, cookies)
        except NoAnswer as error:
            return _settle(client, str(error))
        if answer.status in GATEWAY_ERRORS:
            return _settle(client, f"POST setup answered {answer.status}")
        if answer.status in (200, 201):
            return _settle(client, f"POST setup answered {answer.status}")
        if re.search(r"permission ?denied", answer.reason, re.IGNORECASE):
            raise ConsoleError(storage.explain(answer.reason))
        if answer.status != 500 or last:
            break
        state = client.await_setup_state(client.timeout)
        if state.finished:
            return state
    raise ConsoleError(_refusal(client, answer))


def _settle(client: ConsoleClient, problem: str) -> SetupState:
    state = client.await_setup_state(client.timeout, finished=True)
    if state.finished:
        return state
    raise ConsoleError(f"{problem}, and the server still says that it is not set up: it is safe to run again.")


def _refusal(client: ConsoleClient, answer: Answer) -> str:
    said = f"POST {client.url}/console/api/setup answered {answer.status}: {answer.reason}."
    if answer.status == 403 and client.await_setup_state(client.timeout).finished:
        return f"{said} Somebody else claimed the server in this very moment: sign in with that account."
    if answer.status == 403:
        return (
            f"{said} The database holds a workspace although setup was never finished, so an earlier setup died"
            f" half-way: start with an empty database, or restore a backup."
        )
    if answer.status == 401:
        return f"{said} The session made with init_password was not accepted: check that the server's clock is right."
    if answer.status >= 500:
        return f"{said} Nothing was kept: look at the log of the api container, then run again."
    return f"{said} The owner's particulars have the form Dify documents: look at the log of the api container."


def ensure_owner(
    client: ConsoleClient,
    owner: Owner,
    password: OwnerPassword,
    storage: Storage,
    wait: float = 0,
    verify_login: bool = False,
    check_mode: bool = False,
) -> tuple[SetupState, SetupState]:
    """Give the server an owner if it has none; return its state before and after.

    A password is made only once the server said that it has no owner, and before it is asked to take one.
    In check mode nothing is sent but questions, and the state after is the expected one.
    """
    before = after = client.await_setup_state(wait)
    if not before.finished:
        if check_mode:
            if client.needs_init() and not owner.init_password:
                raise ConsoleError(UNSHOWN_INIT)
            return before, dataclasses.replace(before, finished=True)
        after = claim(client, owner, password.obtain(), storage)
    if verify_login and not check_mode:
        if password.value is None:
            raise ConsoleError(
                f"The server was set up before this run and {password.path} does not exist, so nothing proves that"
                f" {owner.email} can sign in: write the owner's password into that file, or leave verify_login out."
            )
        client.sign_in(owner.email, password.value, after.version)
    return before, after
