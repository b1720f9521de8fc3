# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS certificates as files hold them and as servers show them.

Note that this module util is **PRIVATE** to the collection. It can change at any time without notice.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import socket
import ssl
import tempfile
import typing as t

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}


class CertificateError(Exception):
    """What cannot be read, in one sentence."""


def split(text: str) -> list[str]:
    """The PEM certificates of a file, in their order."""
    return _PEM.findall(text)


def describe(pem: str, now: float) -> dict[str, t.Any]:
    """A certificate as the module returns it; ``now`` in seconds since the epoch. Raises CertificateError."""
    found = _decode(pem)
    after = ssl.cert_time_to_seconds(found["notAfter"])
    return {
        "subject": _name(found.get("subject", ())),
        "issuer": _name(found.get("issuer", ())),
        "names": [value for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address")],
        "not_before": _moment(ssl.cert_time_to_seconds(found["notBefore"])),
        "not_after": _moment(after),
        "days_left": int((after - now) // 86400),
        "fingerprint": hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest(),
    }


def misordered(chain: list[str], now: float) -> list[str]:
    """Where a chain is out of order, one sentence each: every certificate must stand before its issuer's."""
    described = [describe(pem, now) for pem in chain]
    return [
        f"certificate {position} ({lower['subject']}) was issued by {lower['issuer']}, but certificate {position + 1} "
        f"is {upper['subject']}; put the server's own first and behind each its issuer's"
        for position, (lower, upper) in enumerate(zip(described, described[1:]), 1)
        if lower["issuer"] != upper["subject"]
    ]


def problems(chain: list[str], names: t.Iterable[str], now: float) -> list[str]:
    """Why a server with this chain would not be believed, one sentence each. Signatures are not checked.

    ``chain``: PEM certificates in the order in which they would be sent; ``names``: what clients will ask for.
    """
    found = []
    described = [describe(pem, now) for pem in chain]
    leaf = described[0]
    missing = [name for name in names if not any(_covers(pattern, name) for pattern in leaf["names"])]
    if missing:
        found.append(f"it is for {', '.join(leaf['names']) or 'no name'}, not for {', '.join(missing)}")
    today = _moment(now)
    for one in described:
        if one["not_after"] <= today:
            found.append(f"{one['subject']} expired at {one['not_after']}")
        elif one["not_before"] > today:
            found.append(f"{one['subject']} is not valid before {one['not_before']}")
    return found


def key_problem(chain: str, private_key: str, directory: str) -> str:
    """Why the private key is none for this chain's first certificate; else empty. ``directory``: a private one."""
    asked = []

    def passphrase() -> str:
        asked.append(True)
        return ""

    with tempfile.TemporaryDirectory(dir=directory) as place:
        paths = [os.path.join(place, name) for name in ("chain.pem", "key.pem")]
        for path, text in zip(paths, (chain, private_key)):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths[0], paths[1], passphrase)
        except (OSError, ValueError) as error:
            if asked:
                return "it is encrypted with a passphrase, which a server cannot type; give the key without one"
            reason = getattr(error, "reason", None)
            if reason == "KEY_VALUES_MISMATCH":
                return "it belongs to another certificate; give the key that the certificate was requested with"
            return f"OpenSSL cannot use it ({reason or 'no PEM key'}); give an unencrypted private key in PEM"
    return ""


def served(address: str, port: int, name: str, timeout: float) -> str:
    """The certificate that a server shows to who asks for ``name``, in PEM; empty when it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection((address, port), timeout)
        with plain, context.wrap_socket(plain, server_hostname=name) as connection:
            return ssl.DER_cert_to_PEM_cert(t.cast(bytes, connection.getpeercert(True)))
    except OSError:  # refused, silent, or an alert: no certificate in any case
        return ""


def _decode(pem: str) -> dict[str, t.Any]:
    """What the ssl module knows of a certificate; it offers this for files alone."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as file:
        file.write(pem + "\n")
        file.flush()
        try:
            return ssl._ssl._test_decode_cert(file.name)  # type: ignore[attr-defined,no-any-return]
        except (OSError, ValueError) as error:
            raise CertificateError("a certificate in it cannot be decoded") from error


def _name(parts: t.Iterable[t.Iterable[tuple[str, str]]]) -> str:
    """A distinguished name, the most particular part first."""
    return ",".join(f"{_SHORT.get(key, key)}={value}" for part in reversed(list(parts)) for key, value in part)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name stands for this one; ``*.`` stands for one label."""
    pattern, name = pattern.lower(), name.lower()
    return pattern == name or (pattern.startswith("*.") and pattern[1:] == "." + name.partition(".")[2])
