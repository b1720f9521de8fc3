# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as an operator buys them: a root, an intermediate, and servers' own, made with the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """A root and an intermediate in ``directory``; ``root`` is the file that clients trust."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root.pem"
        ca = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        self._openssl(
            "req",
            "-x509",
            *EC,
            "-days",
            "3650",
            "-subj",
            "/CN=Own root",
            *ca,
            "-keyout",
            "root.key",
            "-out",
            "root.pem",
        )
        self._sign(
            "intermediate",
            "root",
            "/CN=Own intermediate",
            "3650",
            "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign",
        )

    def issue(self, name: str, *domains: str, days: int = 30) -> tuple[Path, Path]:
        """Files of a chain (the server's own first) and of its key; ``days`` may be negative."""
        names = ",".join(f"DNS:{domain}" for domain in domains)
        self._sign(name, "intermediate", f"/CN={domains[0]}", str(days), f"subjectAltName={names}")
        chain = self.directory / f"{name}.chain.pem"
        chain.write_text(self._read(name) + self._read("intermediate"), encoding="ascii")
        return chain, self.directory / f"{name}.key"

    def turned(self, name: str) -> Path:
        """The chain of an issued certificate in the wrong order."""
        chain = self.directory / f"{name}.turned.pem"
        chain.write_text(self._read("intermediate") + self._read(name), encoding="ascii")
        return chain

    def _read(self, name: str) -> str:
        return (self.directory / f"{name}.pem").read_text(encoding="ascii")

    def _sign(self, name: str, issuer: str, subject: str, days: str, extensions: str) -> None:
        (self.directory / f"{name}.ext").write_text(extensions + "\n", encoding="ascii")
        self._openssl("req", "-new", *EC, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial",
            "-days", days, "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)
