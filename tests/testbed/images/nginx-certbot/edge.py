# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of jonasal/nginx-certbot: keeps nginx running and its certificates issued.

Servers in /etc/nginx/user_conf.d whose certificate files are missing stay disabled until the files exist. Every
RENEWAL_INTERVAL, and on SIGHUP, the configuration is read again and certificates are issued or renewed. With the
argument local-ca, certificates are signed once and nginx is told, as the image's script for that does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import local_ca

CONF = Path("/etc/nginx/conf.d")
USER_CONF = Path("/etc/nginx/user_conf.d")
WEBROOT = "/var/www/letsencrypt"
PID_FILE = Path("/run/nginx.pid")
PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
DISABLED = ".nokey"
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

FILE_DIRECTIVE = re.compile(r"^\s*ssl_(?:certificate|certificate_key|trusted_certificate|dhparam)\s+([^;]+);", re.M)
KEY_DIRECTIVE = re.compile(r"^\s*ssl_certificate_key\s+/etc/letsencrypt/live/([^;]+)/privkey\.pem\s*;", re.M)
AUTHENTICATOR = re.compile(r"(?:^|[-.])dns-([^-.]*)(?:[-.]|$)")
WEBROOT_NAMED = re.compile(r"(?:^|[-.])webroot(?:[-.]|$)")
NAME_DIRECTIVE = re.compile(r"^\s*server_name\s+([^;]*);", re.M)


def needed_files(text: str) -> list[str]:
    """Files that a configuration names and nginx would miss."""
    return [path for path in FILE_DIRECTIVE.findall(text) if not path.startswith(("data:", "engine:", "$"))]


def certificates(text: str) -> dict[str, list[str]]:
    """Certificate names of a configuration, each with all of the file's plain server names, in their order."""
    names = [name for line in NAME_DIRECTIVE.findall(text) for name in line.split()]
    domains = list(dict.fromkeys(name for name in names if name != "_" and name[0] not in "~$"))
    return dict.fromkeys(KEY_DIRECTIVE.findall(text), domains)


def key_type(name: str, use_ecdsa: str) -> str:
    """rsa or ecdsa: what the certificate's name says, or else the setting."""
    parts = re.split(r"[-.]", name.lower())
    if "rsa" in parts:
        return "rsa"
    return "rsa" if use_ecdsa == "0" and not {"ecdsa", "ecc"} & set(parts) else "ecdsa"


def interval_seconds(text: str) -> float:
    """Seconds of a `sleep` interval such as `8d` or `90s`."""
    match = re.fullmatch(r"([\d.]+)([smhd]?)", text)
    if not match:
        raise ValueError(f"RENEWAL_INTERVAL is '{text}': expected a number with s, m, h or d behind it.")
    return float(match[1]) * SECONDS[match[2]]


def challenge(name: str, environ: dict[str, str]) -> list[str]:
    """How a certificate of this name is proven: by the DNS if the name says so, or else by a file below WEBROOT."""
    found = AUTHENTICATOR.search(name.lower())
    if not found or WEBROOT_NAMED.search(name.lower()):
        return ["--authenticator", "webroot", "--webroot-path", WEBROOT, "--preferred-challenges", "http-01"]
    plugin = f"dns-{found[1]}"
    command = ["--authenticator", plugin, "--preferred-challenges", "dns-01"]
    directory = environ.get("CERTBOT_DNS_CREDENTIALS_DIR", "/etc/letsencrypt")
    command += [f"--{plugin}-credentials", f"{directory}/{found[1]}.ini"]
    if seconds := environ.get("CERTBOT_DNS_PROPAGATION_SECONDS"):
        command += [f"--{plugin}-propagation-seconds", seconds]
    return command


def certbot_command(name: str, domains: list[str], environ: dict[str, str]) -> list[str]:
    if environ.get("STAGING") == "1":
        server = environ.get("CERTBOT_STAGING_URL", STAGING)
    else:
        server = environ.get("CERTBOT_PRODUCTION_URL", PRODUCTION)
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--keep-until-expiring"]
    command += ["--email", environ["CERTBOT_EMAIL"], "--server", server, "--cert-name", name]
    command += challenge(name, environ)
    command += ["--key-type", key_type(name, environ.get("USE_ECDSA", "1"))]
    command += ["--elliptic-curve", environ.get("ELLIPTIC_CURVE") or "secp256r1"]
    command += ["--rsa-key-size", environ.get("RSA_KEY_SIZE") or "2048"]
    for domain in domains:
        command += ["--domain", domain]
    return command


def log(message: str) -> None:
    print(time.strftime("%Y/%m/%d %H:%M:%S"), f"[edge] {message}")


def configurations() -> Iterator[Path]:
    """Enabled and disabled configurations."""
    yield from sorted([*CONF.glob("*.conf"), *CONF.glob(f"*.conf{DISABLED}")])


def link_configurations() -> None:
    """Make conf.d hold a link for every configuration of the user, and none for a vanished one."""
    known = {path.resolve() for path in configurations() if path.exists()}
    for path in configurations():
        if not path.exists():
            log(f"Removing {path}: its source is gone.")
            path.unlink()
    for source in sorted(USER_CONF.glob("*.conf")):
        if source.resolve() not in known:
            (CONF / source.name).symlink_to(source)


def enable_configurations() -> None:
    """Enable the configurations whose certificate files all exist, disable the others."""
    for path in configurations():
        missing = [name for name in needed_files(path.read_text()) if not is_filled(Path(name))]
        if missing and path.suffix != DISABLED:
            log(f"Disabling {path}: {', '.join(missing)} missing or empty.")
            path.rename(f"{path}{DISABLED}")
        elif not missing and path.suffix == DISABLED:
            log(f"Enabling {path.with_suffix('')}.")
            path.rename(path.with_suffix(""))


def is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def issue(name: str, domains: list[str]) -> None:
    log(f"Certificate {name} for {', '.join(domains)}.")
    try:
        if os.environ.get("USE_LOCAL_CA") == "1":
            local_ca.issue(name, domains)
        else:
            subprocess.run(certbot_command(name, domains, dict(os.environ)), check=True)
    except subprocess.CalledProcessError as error:
        log(f"No certificate {name}: {error.cmd[0]} ended with {error.returncode}; its messages are above.")


def renew() -> int:
    """Get the certificates of all configurations and let nginx see the result; returns how telling it ended."""
    wanted: dict[str, list[str]] = {}
    for path in configurations():
        for name, domains in certificates(path.read_text()).items():
            wanted[name] = list(dict.fromkeys([*wanted.get(name, []), *domains]))
    for name, domains in wanted.items():
        issue(name, domains)
    enable_configurations()
    if subprocess.run(["nginx", "-t"], check=False).returncode:
        log("The configuration is invalid: nginx keeps the one it has.")
        return 0
    return subprocess.run(["nginx", "-s", "reload"], check=False).returncode


def renew_forever(interval: float, wake: threading.Event) -> None:
    while True:
        link_configurations()
        renew()
        log(f"Next look at the certificates in {interval:.0f} seconds, or on SIGHUP.")
        wake.wait(interval)
        wake.clear()


def start_nginx() -> subprocess.Popen[bytes]:
    PID_FILE.unlink(missing_ok=True)
    nginx = subprocess.Popen(["nginx", "-g", "daemon off;"])
    while nginx.poll() is None and not PID_FILE.exists():
        time.sleep(0.05)
    return nginx


def main(arguments: list[str]) -> int:
    """Runs until nginx ends, by itself or because a signal asked for it."""
    if not os.environ.get("CERTBOT_EMAIL"):
        log("CERTBOT_EMAIL is empty: set it to the address that the certificate authority writes to.")
        return 1
    if arguments == ["local-ca"]:
        os.environ["USE_LOCAL_CA"] = "1"
        return renew()
    interval = interval_seconds(os.environ.get("RENEWAL_INTERVAL") or "8d")
    wake = threading.Event()
    link_configurations()
    enable_configurations()
    nginx = start_nginx()
    signal.signal(signal.SIGHUP, lambda *_: wake.set())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, lambda received, _: nginx.send_signal(received))
    threading.Thread(target=renew_forever, args=(interval, wake), daemon=True).start()
    return nginx.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
