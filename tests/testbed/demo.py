# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disposable Dify server on this machine: the testbed, one bare host, and the unchanged site.yml over SSH."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import hosts
from lab.run import CACHE, CLONE, TESTBED, TestbedError, say

HOST = "selfhost-dify-demo"
DOMAIN = "dify.test"
OWNER = "owner@dify.test"
DEFAULTS = yaml.safe_load((CLONE / "roles/dify/defaults/main.yml").read_text(encoding="utf-8"))
VERSION = DEFAULTS["dify_version"]
PASSWORD_FILE = DEFAULTS["dify_admin_password_file"]
DIRECTORY = CACHE / "demo"


def testbed(*arguments: str) -> str:
    """The output of a testbed command; its progress goes straight to the terminal."""
    command = [sys.executable, str(TESTBED / "testbed.py"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise TestbedError(f"`testbed.py {' '.join(arguments)}` ended with {done.returncode}")
    return done.stdout


def inventory(host: dict[str, Any], info: dict[str, Any], version: str) -> dict[str, Any]:
    """What an operator would write into an inventory, plus where this testbed differs from the internet."""
    variables: dict[str, Any] = {
        "ansible_host": host["address"],
        "ansible_user": host["user"],
        "ansible_ssh_private_key_file": host["private_key"],
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        "dify_domain": DOMAIN,
        "dify_admin_email": OWNER,
        "dify_version": version,
        "dify_repo_url": info["repo_url"],
        "nginx_certbot_email": OWNER,
        "nginx_certbot_acme_directory": info["acme_directory"],
        "nginx_certbot_acme_ca": info["acme_ca"],
    }
    if info["stand_ins"]:
        variables["docker_package_source"] = "distribution"
        variables["docker_daemon_options"] = {"registry-mirrors": [info["registry_mirror"]]}
    return {"dify": {"hosts": {HOST: variables}}}


def create_host(version: str) -> dict[str, Any]:
    """The demo host, bare or with this release on it: a host with another release is thrown away."""
    command = ("host", "create", HOST, "--image", "host", "--domain", DOMAIN)
    host: dict[str, Any] = json.loads(testbed(*command))
    found = hosts.ssh(host, "sudo git -C /opt/dify describe --tags --exact-match 2>/dev/null").stdout.strip()
    if found and found != version:
        say(f"The demo host has Dify {found}, and {version} is wanted: it is thrown away and made anew")
        testbed("host", "destroy", HOST)
        host = json.loads(testbed(*command))
    return host


def how_to_open(host: dict[str, Any], ca: Path, stand_ins: bool) -> str:
    """The closing words."""
    address = host["address"]
    curl = f"curl --cacert {ca} --resolve {DOMAIN}:443:{address}"
    login = f"ssh -i {host['private_key']} -o StrictHostKeyChecking=no {host['user']}@{address}"
    what = (
        "Behind it run this project's stand-ins in place of Dify's own images and repository: the pages are theirs.\n"
        "With DIFY_TEST_UPSTREAM=1 the demo uses GitHub and the public image registry."
        if stand_ins
        else "Behind it run Dify's own images."
    )
    return f"""
A Dify server answers at https://{DOMAIN} (host {HOST}, {address}).
{what}

From this machine:
  {curl} https://{DOMAIN}/signin
  {curl} https://{DOMAIN}/console/api/setup

In a browser on this machine (its certificate comes from a test authority: accept it, or import {ca}):
  chromium --host-resolver-rules='MAP {DOMAIN} {address}' https://{DOMAIN}/signin
  or put the line `{address} {DOMAIN}` into your hosts file and open https://{DOMAIN}/signin

In a browser elsewhere, with SSH access to this machine:
  ssh -L 8443:{address}:443 THIS-MACHINE
  chromium --host-resolver-rules='MAP {DOMAIN}:443 127.0.0.1:8443' https://{DOMAIN}/signin

Sign in as {OWNER}; this prints the password:
  {login} sudo cat {PASSWORD_FILE}

`make demo-down` removes it.
"""


def up(version: str) -> None:
    testbed("up")
    host = create_host(version)
    info = json.loads(testbed("info"))
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = DIRECTORY / "inventory.yml"
    path.write_text(json.dumps(inventory(host, info, version), indent=2) + "\n")  # JSON is YAML
    say(f"Run playbooks/site.yml for Dify {version} on {HOST} over SSH")
    playbook = Path(sys.executable).parent / "ansible-playbook"
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CLONE / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [str(playbook), "--inventory", str(path), "playbooks/site.yml"], cwd=CLONE, env=environment, check=False
    )
    if done.returncode != 0:
        raise TestbedError(f"site.yml ended with {done.returncode}; run the same command again when its cause is gone")
    print(how_to_open(host, Path(info["acme_root"]), info["stand_ins"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make it, or do nothing when it is there").add_argument(
        "--dify-version", default=VERSION, help=f"a tag of Dify's repository ({VERSION})"
    )
    commands.add_parser("down", help="remove the demo host and its data")
    options = parser.parse_args()
    if options.command == "up":
        up(options.dify_version)
    else:
        testbed("host", "destroy", HOST)
        if not json.loads(testbed("host", "list")):
            testbed("down")
            say("Images stay for the next time; `python3 tests/testbed/testbed.py down --images` removes them, too")


if __name__ == "__main__":
    try:
        main()
    except TestbedError as error:
        sys.exit(f"demo: {error}")
