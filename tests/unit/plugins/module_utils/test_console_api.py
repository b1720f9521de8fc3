# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import ssl
import stat
import string

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _console_api as api
from ansible_collections.selfhost.dify.tests.unit.recorded.replay import Replay, Reply, recorded
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

SECRET = "Passw0rd123"
OWNER = api.Owner("owner@example.com", "Owner")
STORAGE = api.Storage(None)

NEW = "1.12.1"
OLD = "1.11.1"
FRESH = {version: recorded(version, "fresh instance", "GET", "setup") for version in (OLD, NEW)}
OPEN = {version: recorded(version, "fresh instance, INIT_PASSWORD empty", "GET", "init") for version in (OLD, NEW)}
GATED = {version: recorded(version, "fresh instance, INIT_PASSWORD set", "GET", "init") for version in (OLD, NEW)}
SUCCESS = {version: recorded(version, "success", "POST", "setup") for version in (OLD, NEW)}
DONE = {version: recorded(version, "after setup", "GET", "setup") for version in (OLD, NEW)}
GATE_OPENS = {
    OLD: recorded(OLD, "right INIT_PASSWORD", "POST", "init"),
    NEW: recorded(NEW, "right INIT_PASSWORD: its session cookie must go with the setup call", "POST", "init"),
}
DENIED = {
    OLD: recorded(OLD, "storage not writable", "POST", "setup"),
    NEW: recorded(NEW, "storage owned by 1000:1000, API runs as 1001", "POST", "setup"),
}

each_release = pytest.mark.parametrize("release", [OLD, NEW])


def settle(replay, owner=OWNER, password=SECRET, storage=STORAGE, timeout=5.0, **options):
    client = api.ConsoleClient(replay.url, timeout=timeout)
    return api.ensure_owner(client, owner, api.OwnerPassword(password, None), storage, **options)


def refused(message, *replies, **options):
    """Settle against these replies, which must fail with that message; return the server and the whole message."""
    with Replay(*replies) as replay, pytest.raises(api.ConsoleError, match=message) as failure:
        settle(replay, **options)
    return replay, str(failure.value)


# Inputs


def test_good_inputs_have_no_problems():
    assert api.validate_owner("owner@example.com", "Dify owner", SECRET, "zh-Hans", "x" * 30) == []
    assert api.validate_owner("o.w+n@sub.example.co", "N" * 30, None) == []


@pytest.mark.parametrize(
    ("inputs", "about"),
    [
        ({"email": "not-an-email"}, "email is 'not-an-email'"),
        ({"email": "owner@localhost"}, "email is"),
        ({"email": "owner@example.com\n"}, "email is"),
        ({"email": "owner@@example.com"}, "email is"),
        ({"name": ""}, "name has 0 characters"),
        ({"name": "   "}, "name has 3 characters"),
        ({"name": "N" * 31}, "name has 31 characters"),
        ({"password": "short1"}, "password is refused"),
        ({"password": "onlyletters"}, "password is refused"),
        ({"password": "1234567890"}, "password is refused"),
        ({"language": "english"}, "language is 'english'"),
        ({"init_password": "x" * 31}, "init_password has 31 characters"),
        ({"init_password": ""}, "init_password has 0 characters"),
    ],
)
def test_each_bad_input_has_its_sentence(inputs, about):
    good = {"email": "owner@example.com", "name": "Owner", "password": SECRET}
    (problem,) = api.validate_owner(**{**good, **inputs})
    assert problem.startswith(about)
    assert problem.endswith(".")
    for secret in ("password", "init_password"):
        assert not inputs.get(secret) or inputs[secret] not in problem


def test_all_problems_are_told_at_once():
    assert len(api.validate_owner("x", "", "y", "z", "")) == 5


@pytest.mark.parametrize("url", ["http://127.0.0.1:3000", "https://dify.example.com", "https://[::1]:8443/"])
def test_urls_accepted(url):
    assert api.validate_url(url) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:3000",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x/console/api",
        "http://u:p@x",
        "http://x?y",
    ],
)
def test_urls_refused(url):
    assert len(api.validate_url(url)) == 1


@given(st.integers(min_value=8, max_value=64))
def test_generated_passwords_pass_the_rule(length):
    password = api.generate_password(length)
    assert len(password) == length
    assert set(password) <= set(string.ascii_letters + string.digits)
    assert api.validate_owner("owner@example.com", "Owner", password) == []


# The password file


def test_password_file_is_made_once(tmp_path):
    path = tmp_path / "new" / "owner-password"
    password = api.create_password(str(path))
    assert len(password) == 24
    assert path.read_text() == password + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert api.read_password(str(path)) == password
    assert api.create_password(str(path)) == password


def test_password_file_that_is_missing_is_none(tmp_path):
    assert api.read_password(str(tmp_path / "none" / "file")) is None


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [(0o640, SECRET, "mode 0640"), (0o604, SECRET, "mode 0604"), (0o600, "\n", "is empty")],
)
def test_password_file_that_is_refused(tmp_path, mode, text, message):
    path = tmp_path / "owner-password"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(api.ConsoleError, match=message) as failure:
        api.read_password(str(path))
    assert SECRET not in str(failure.value)


def test_password_file_must_be_a_regular_file(tmp_path):
    (tmp_path / "real").write_text(SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, message in (("link", "symbolic link"), ("fifo", "not a regular file"), (".", "not a regular file")):
        with pytest.raises(api.ConsoleError, match=message):
            api.read_password(str(tmp_path / name))
    with pytest.raises(api.ConsoleError, match="absolute"):
        api.read_password("owner-password")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_password_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "owner-password"
    path.write_text(SECRET)
    path.chmod(0o600)
    os.chown(path, 1234, 1234)
    with pytest.raises(api.ConsoleError, match="owner 1234"):
        api.read_password(str(path))


def test_password_is_not_made_where_others_may_write(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(api.ConsoleError, match="mode 0777"):
        api.create_password(str(tmp_path / "owner-password"))
    assert list(tmp_path.iterdir()) == []


# The claim


@each_release
def test_fresh_server_is_claimed(release):
    with Replay(FRESH[release], DONE[release], OPEN[release], SUCCESS[release]) as replay:
        before, after = settle(replay)
    (asked,) = replay.asked_for("POST", "setup")
    assert asked.body == {"email": "owner@example.com", "name": "Owner", "password": SECRET, "language": "en-US"}
    assert "Cookie" not in asked.headers
    assert (before.step, after.step) == ("not_started", "finished")
    assert after.version == release
    assert after.setup_at is not None
    assert not replay.asked_for("POST", "login")


@each_release
def test_claimed_server_is_left_alone(release):
    with Replay(DONE[release]) as replay:
        before, after = settle(replay)
    assert before == after
    assert [(asked.method, asked.path) for asked in replay.asked] == [("GET", "/console/api/setup")]


@each_release
def test_session_of_init_goes_with_the_setup_call(release):
    replies = (FRESH[release], DONE[release], GATED[release], GATE_OPENS[release], SUCCESS[release])
    with Replay(*replies) as replay:
        settle(replay, api.Owner("owner@example.com", "Owner", init_password="Gate12345"))
    assert replay.asked_for("POST", "init")[0].body == {"password": "Gate12345"}
    assert replay.asked_for("POST", "setup")[0].headers["Cookie"] == "session=<jwt>"


@each_release
def test_wrong_init_password_stops_before_setup(release):
    replay, message = refused(
        "refused init_password",
        FRESH[release],
        GATED[release],
        recorded(release, "wrong INIT_PASSWORD", "POST", "init"),
        owner=api.Owner("owner@example.com", "Owner", init_password="wrong-gate"),
    )
    assert not replay.asked_for("POST", "setup")
    assert "wrong-gate" not in message


@pytest.mark.parametrize("check_mode", [True, False])
@each_release
def test_missing_init_password_is_told(release, check_mode):
    replay, _message = refused("give it as init_password", FRESH[release], GATED[release], check_mode=check_mode)
    assert {asked.method for asked in replay.asked} == {"GET"}


@each_release
def test_check_mode_only_asks(release):
    with Replay(FRESH[release], OPEN[release]) as replay:
        before, after = settle(replay, check_mode=True, verify_login=True)
    assert (before.step, after.step) == ("not_started", "finished")
    assert {asked.method for asked in replay.asked} == {"GET"}


@each_release
def test_password_is_written_before_setup_and_used_for_it(release, tmp_path):
    path = tmp_path / "owner-password"
    with Replay(FRESH[release], OPEN[release], DENIED[release]) as replay:
        client = api.ConsoleClient(replay.url)
        with pytest.raises(api.ConsoleError):
            api.ensure_owner(client, OWNER, api.OwnerPassword(None, str(path)), STORAGE)
    assert replay.asked_for("POST", "setup")[0].body["password"] + "\n" == path.read_text()


def test_no_password_is_made_for_a_claimed_server(tmp_path):
    path = tmp_path / "owner-password"
    with Replay(DONE[NEW]) as replay:
        password = api.OwnerPassword(None, str(path))
        api.ensure_owner(api.ConsoleClient(replay.url), OWNER, password, STORAGE)
        with pytest.raises(api.ConsoleError, match="does not exist"):
            api.ensure_owner(api.ConsoleClient(replay.url), OWNER, password, STORAGE, verify_login=True)
    assert not path.exists()


# Failures of the setup call


@each_release
def test_unwritable_storage_names_the_directory_and_its_owner(release, tmp_path):
    told = rf"{tmp_path} belongs to {os.geteuid()}:{os.getegid()}, expected 4711:4712"
    storage = api.Storage(str(tmp_path), 4711, 4712)
    replay, _message = refused(told, FRESH[release], OPEN[release], DENIED[release], storage=storage)
    assert len(replay.asked_for("POST", "setup")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_unwritable_storage_names_the_directory_below(tmp_path):
    (tmp_path / "privkeys").mkdir()
    os.chown(tmp_path, 1001, 1001)
    said = api.Storage(str(tmp_path)).explain("Permission denied path: privkeys/373f/private.pem")
    assert f"{tmp_path}/privkeys belongs to 0:0, expected 1001:1001" in said
    os.chown(tmp_path / "privkeys", 1001, 1001)
    assert "read-only" in api.Storage(str(tmp_path)).explain("Permission denied path: privkeys/373f/private.pem")


def test_unwritable_storage_without_a_path_says_what_is_needed():
    assert "must belong to 1001:1001" in api.Storage(None).explain("Permission denied")
    assert "cannot be examined" in api.Storage("/nonexistent").explain("Permission denied")


def test_setup_that_died_is_tried_once_more():
    broken = Reply("POST", "/console/api/setup", 500, '{"error":{"message":"Setup failed: deadlock","status":500}}')
    with Replay(FRESH[NEW], FRESH[NEW], DONE[NEW], OPEN[NEW], broken, SUCCESS[NEW]) as replay:
        _before, after = settle(replay)
    assert after.finished
    assert len(replay.asked_for("POST", "setup")) == 2


def test_setup_that_dies_twice_is_told():
    broken = Reply("POST", "/console/api/setup", 500, '{"error":{"message":"Setup failed: deadlock","status":500}}')
    replay, _message = refused(
        r"answered 500: Setup failed: deadlock.*log of the api container", FRESH[NEW], OPEN[NEW], broken
    )
    assert len(replay.asked_for("POST", "setup")) == 2


@pytest.mark.parametrize("reply", [Reply("POST", "/console/api/setup", status) for status in (0, 502, 504)])
def test_setup_without_an_answer_is_settled_by_asking(reply):
    with Replay(FRESH[NEW], FRESH[NEW], DONE[NEW], OPEN[NEW], reply) as replay:
        _before, after = settle(replay, timeout=0.5)
    assert after.finished
    assert len(replay.asked_for("POST", "setup")) == 1


def test_setup_without_an_answer_that_did_nothing_is_told():
    refused(
        "still says that it is not set up: it is safe to run again",
        FRESH[NEW],
        OPEN[NEW],
        Reply("POST", "/console/api/setup", 0),
        timeout=0.2,
    )


@each_release
def test_server_claimed_meanwhile_is_told(release):
    forbidden = recorded(release, "second setup", "POST", "setup")
    refused("Somebody else claimed", FRESH[release], DONE[release], OPEN[release], forbidden)


@each_release
def test_workspace_without_setup_is_told(release):
    refused(
        "earlier setup died half-way", FRESH[release], OPEN[release], recorded(release, "second setup", "POST", "setup")
    )


@each_release
def test_refused_session_and_refused_inputs_are_told(release):
    for note, message in (("setup without the init step", "session"), ("malformed e-mail", "log of the api container")):
        refused(message, FRESH[release], OPEN[release], recorded(release, note, "POST", "setup"))


# Waiting


def test_server_that_comes_up_is_waited_for():
    starting = Reply("GET", "/console/api/setup", 502, "<html>502 Bad Gateway</html>")
    database_down = Reply("GET", "/console/api/setup", 500, '{"message": "Internal Server Error"}')
    with Replay(starting, database_down, DONE[NEW]) as replay:
        before, _after = settle(replay, wait=30)
    assert before.finished
    assert len(replay.asked) == 3


def test_server_that_does_not_come_up_is_told():
    replay, _message = refused(
        r"no usable answer for 0 s.*answered 500: no database",
        Reply("GET", "/console/api/setup", 500, '{"message": "no database"}'),
    )
    with pytest.raises(api.NoAnswer, match="refused"):
        settle(replay)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply("GET", "/console/api/setup", 404, "<html>not here</html>"), "answered 404: <html>not here"),
        (Reply("GET", "/console/api/setup", 200, "<html>Welcome</html>"), "answered 200.*check that url"),
        (
            Reply("GET", "/console/api/setup", 301, "", (("Location", "https://dify.example.com/console/api/setup"),)),
            "answered 301 to https://dify.example.com/console/api/setup: give that server",
        ),
    ],
)
def test_something_else_than_dify_is_told_at_once(reply, message):
    with Replay(reply) as replay, pytest.raises(api.ConsoleError, match=message):
        settle(replay, wait=30)
    assert len(replay.asked) == 1


def test_loopback_is_reached_without_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Replay(DONE[NEW]) as replay:
        assert settle(replay)[0].finished


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1 with its key, as one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return str(path)


def test_certificate_must_be_trusted(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with Replay(DONE[NEW], tls=tls) as replay:
        with pytest.raises(api.ConsoleError, match=r"is not trusted here.*ca_path"):
            api.ConsoleClient(replay.url).await_setup_state(30)
        assert api.ConsoleClient(replay.url, ca_path=certificate).setup_state().finished
        assert api.ConsoleClient(replay.url, validate_certs=False).setup_state().finished


def test_ca_file_that_is_none_is_told(tmp_path):
    with pytest.raises(api.ConsoleError, match=r"ca_path .*none.pem cannot be used"):
        api.ConsoleClient("https://127.0.0.1", ca_path=str(tmp_path / "none.pem"))


# Signing in


def test_login_is_plain_up_to_1_11_1():
    with Replay(DONE[OLD], recorded(OLD, "right password, plain", "POST", "login")) as replay:
        settle(replay, verify_login=True)
    (asked,) = replay.asked_for("POST", "login")
    assert asked.body == {"email": "owner@example.com", "password": SECRET, "remember_me": True}


def test_login_is_base64_from_1_11_2():
    with Replay(DONE[NEW], recorded(NEW, "right password, Base64", "POST", "login")) as replay:
        settle(replay, verify_login=True)
    (asked,) = replay.asked_for("POST", "login")
    assert base64.b64decode(asked.body["password"]).decode() == SECRET


@pytest.mark.parametrize(
    ("version", "is_base64"), [("1.10.1-fix.1", False), ("1.11.1", False), ("1.11.2", True), ("2.0.0", True)]
)
def test_form_of_the_login_follows_the_version(version, is_base64):
    with Replay(recorded(NEW, "right password, Base64", "POST", "login")) as replay:
        api.ConsoleClient(replay.url).sign_in("owner@example.com", SECRET, version)
    assert (replay.asked[0].body["password"] != SECRET) is is_base64


def test_login_without_a_version_goes_by_the_answer():
    replies = (
        recorded(NEW, "plain password: rejected from 1.11.2 on", "POST", "login"),
        recorded(NEW, "right password, Base64", "POST", "login"),
    )
    with Replay(*replies) as replay:
        api.ConsoleClient(replay.url).sign_in("owner@example.com", SECRET, None)
    assert [asked.body["password"] for asked in replay.asked] == [SECRET, base64.b64encode(SECRET.encode()).decode()]


@pytest.mark.parametrize("version", [OLD, NEW, None])
def test_wrong_password_is_tried_once_only(version):
    told = pytest.raises(api.ConsoleError, match="claimed by somebody else, or the password was changed")
    with Replay(recorded(NEW, "wrong password", "POST", "login")) as replay, told as failure:
        api.ConsoleClient(replay.url).sign_in("owner@example.com", SECRET, version)
    assert len(replay.asked) == 1
    assert SECRET not in str(failure.value)


def test_locked_account_is_told():
    replay = Replay(recorded(NEW, "right password while locked", "POST", "login"))
    with replay, pytest.raises(api.ConsoleError, match="locked for 24 hours"):
        api.ConsoleClient(replay.url).sign_in("owner@example.com", SECRET, NEW)
    assert len(replay.asked) == 1


def test_login_is_proved_after_a_claim_too():
    replies = (FRESH[NEW], DONE[NEW], OPEN[NEW], SUCCESS[NEW], recorded(NEW, "right password, Base64", "POST", "login"))
    with Replay(*replies) as replay:
        settle(replay, verify_login=True)
    assert [asked.path for asked in replay.asked][-1] == "/console/api/login"
