# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority of the container's own, in LOCAL_CA_DIR, for servers without a public name."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from pathlib import Path

LIVE = Path("/etc/letsencrypt/live")
DAYS = "90"
AUTHORITY_DAYS = "30"


def subject_alternative_names(domains: list[str]) -> str:
    return ",".join(f"{'IP' if is_address(domain) else 'DNS'}:{domain}" for domain in domains)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


def authority() -> tuple[Path, Path]:
    """Key and certificate of the authority; made once, and never over a mounted one."""
    directory = Path(os.environ.get("LOCAL_CA_DIR") or "/etc/local_ca")
    key, certificate = directory / "caPrivkey.pem", directory / "caCert.pem"
    directory.mkdir(parents=True, exist_ok=True)
    if not key.exists():
        openssl("genrsa", "-out", key, key_size())
    if not certificate.exists():
        days = os.environ.get("LOCAL_CA_ROOT_CERT_VALIDITY") or AUTHORITY_DAYS
        request: list[str | Path] = ["req", "-x509", "-new", "-key", key, "-out", certificate, "-days", days]
        request += ["-subj", "/CN=Local CA of the selfhost.dify testbed"]
        openssl(*request, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return key, certificate


def issue(name: str, domains: list[str]) -> None:
    """A new key and certificate, stored where certbot would store them."""
    ca_key, ca_certificate = authority()
    live = LIVE / name
    live.mkdir(parents=True, exist_ok=True)
    request: list[str | Path] = ["req", "-x509", "-newkey", f"rsa:{key_size()}", "-noenc", "-days", DAYS, "-subj", "/"]
    request += ["-CA", ca_certificate, "-CAkey", ca_key, "-keyout", live / "privkey.pem", "-out", live / "cert.pem"]
    extensions = [
        "basicConstraints=critical,CA:false",
        "extendedKeyUsage=serverAuth",
        f"subjectAltName=critical,{subject_alternative_names(domains)}",
    ]
    openssl(*request, *(part for extension in extensions for part in ("-addext", extension)))
    (live / "chain.pem").write_bytes(ca_certificate.read_bytes())
    (live / "fullchain.pem").write_bytes((live / "cert.pem").read_bytes() + (live / "chain.pem").read_bytes())


def key_size() -> str:
    return os.environ.get("RSA_KEY_SIZE") or "2048"
