# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of certificates that the openssl command made: as files and as a TLS server shows them."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _certificate

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "molecule/edge/tests"))

from authority import Authority

NOW = time.time() + 60  # after all that is issued here


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.issue("good", "a.test", "*.b.test")
    authority.issue("old", "a.test", days=-1)
    return authority


def chain(own: Authority, name: str) -> list[str]:
    return _certificate.split((own.directory / name).read_text(encoding="ascii"))


def test_what_a_certificate_says(own: Authority) -> None:
    (pem, _issuer) = chain(own, "good.chain.pem")
    found = _certificate.describe(pem, NOW)
    assert (found["subject"], found["issuer"]) == ("CN=a.test", "CN=Own intermediate")
    assert found["names"] == ["a.test", "*.b.test"]
    assert found["days_left"] in (29, 30)
    said = subprocess.run(
        ["openssl", "x509", "-in", "good.pem", "-noout", "-fingerprint", "-sha256", "-enddate", "-dateopt", "iso_8601"],
        cwd=own.directory, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    fingerprint, end = (line.split("=")[1] for line in said.splitlines())
    assert found["fingerprint"] == fingerprint.replace(":", "").lower()
    assert found["not_after"] == end.replace(" ", "T")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], []),
        (["a.test", "x.b.test", "A.test"], []),
        (["b.test"], ["it is for a.test, *.b.test, not for b.test"]),
        (["x.y.b.test", "c.test"], ["it is for a.test, *.b.test, not for x.y.b.test, c.test"]),
    ],
)
def test_names_that_it_is_for(names: list[str], words: list[str], own: Authority) -> None:
    assert _certificate.problems(chain(own, "good.chain.pem"), names, NOW) == words


def test_its_time(own: Authority) -> None:
    (problem,) = _certificate.problems(chain(own, "old.chain.pem"), [], NOW)
    assert problem.startswith("CN=a.test expired at 20")
    early = _certificate.problems(chain(own, "good.chain.pem"), [], NOW - 3600)
    assert [" is not valid before 20" in problem for problem in early] == [True, True]


def test_the_order_of_a_chain(own: Authority) -> None:
    assert _certificate.misordered(chain(own, "good.chain.pem"), NOW) == []
    (problem,) = _certificate.misordered(chain(own, "good.chain.pem")[::-1], NOW)
    assert problem.startswith(
        "certificate 1 (CN=Own intermediate) was issued by CN=Own root, but certificate 2 is CN=a."
    )


def key_problem(own: Authority, key: str) -> str:
    return _certificate.key_problem("\n".join(chain(own, "good.chain.pem")), key, str(own.directory))


def test_the_key_that_belongs_to_it(own: Authority) -> None:
    before = sorted(own.directory.iterdir())
    assert key_problem(own, (own.directory / "good.key").read_text()) == ""
    assert "it belongs to another certificate" in key_problem(own, (own.directory / "old.key").read_text())
    assert "OpenSSL cannot use it" in key_problem(own, "no key")
    assert sorted(own.directory.iterdir()) == before, "nothing of a key is left behind"


def test_a_key_with_a_passphrase(own: Authority) -> None:
    command = ["openssl", "pkey", "-in", "good.key", "-aes128", "-passout", "pass:secret"]
    locked = subprocess.run(command, cwd=own.directory, check=True, capture_output=True, text=True).stdout
    assert "it is encrypted with a passphrase" in key_problem(own, locked)


def test_what_cannot_be_decoded() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    with pytest.raises(_certificate.CertificateError, match="cannot be decoded"):
        _certificate.describe(broken, NOW)
    assert _certificate.split("text\n" + broken + "\nmore") == [broken]


@pytest.fixture
def port(own: Authority) -> t.Iterator[int]:
    """A TLS server that shows the good certificate, to any number of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.directory / "good.chain.pem", own.directory / "good.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _address = listener.accept()
                context.wrap_socket(connection, server_side=True).close()
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_what_a_server_shows(own: Authority, port: int) -> None:
    shown = _certificate.served("127.0.0.1", port, "whatever.test", 5)
    good = _certificate.describe(chain(own, "good.chain.pem")[0], NOW)
    assert _certificate.describe(shown, NOW) == good


def test_a_server_that_shows_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = listener.getsockname()[1]
        assert _certificate.served("127.0.0.1", silent, "a.test", 0.2) == ""
    assert _certificate.served("127.0.0.1", silent, "a.test", 0.2) == ""
