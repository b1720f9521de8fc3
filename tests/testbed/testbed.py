# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real systemd hosts on one machine, with a registry, a git server and an ACME server. See README.md beside this."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import engine, hosts, images, services, standins
from lab.run import TestbedError, say, step


def _services(have: set[str]) -> None:
    images.ensure_services(have)
    services.ensure(services.dns())
    services.ensure(services.zone())
    services.ensure(services.acme())
    if not services.upstream_mode():
        services.ensure(services.registry())
        images.ensure_repository(have)
        services.ensure(services.git())
        standins.ensure(have)


def up(hosts_only: bool, docker_repository: bool = False) -> None:
    """Everything that hosts need; what is there already is left alone."""
    engine.ensure()
    with engine.lock():
        engine.ensure_network()
        have = images.present()
        images.ensure_base(images.DEFAULT_OS, have)
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(images.ensure_host, images.DEFAULT_OS, have)]
            if not hosts_only:
                jobs.append(pool.submit(_services, have))
            for job in jobs:
                job.result()
        if not hosts_only:
            services.publish_domains(hosts.all_facts())
            services.acme_root()
        if docker_repository and not services.upstream_mode():
            images.ensure_docker_repository(have)
            services.ensure(services.docker_repository())
    say("The testbed is up")


def create_host(options: argparse.Namespace) -> dict[str, Any]:
    """A running host; its image and the network are made if they are missing."""
    engine.ensure()
    engine.ensure_network()
    prepared = options.image == "host-docker"
    tag = images.host_docker_tag(options.os) if prepared else images.host_tag(options.os)
    if tag not in images.present():
        with engine.lock():
            have = images.present()
            images.ensure_base(options.os, have)
            images.ensure_host(options.os, have)
            if prepared:
                images.ensure_host_docker(options.os, have)
    host = hosts.create(options.name, options.image, options.os, tag, options.domain, options.compile_once)
    if services.running("dns"):
        services.publish_domains([host])
    return host


def client(command: list[str], kind: str) -> int:
    """Runs a command in a throw-away container that reaches all hosts by their domains; returns its exit code."""
    tag = images.client_tag(kind)
    if kind != "plain" and tag not in images.present():
        with engine.lock():
            images.ensure_client(kind, images.present())
    names = [f"--add-host={domain}:{host['address']}" for host in hosts.all_facts() for domain in host["domains"]]
    options = ["--rm", "--interactive", "--label", engine.LABEL, "--network", engine.NETWORK, *names]
    docker = [*engine.docker_command(), "run", *options, tag, *command]
    return subprocess.run(docker, check=False).returncode


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("up", help="engine, network, images and services")
    sub.add_argument("--hosts-only", action="store_true", help="no services: hosts alone")
    sub.add_argument("--docker-repository", action="store_true", help="a stand-in for Docker's apt repository, too")
    sub = commands.add_parser("down", help="remove everything the testbed made")
    sub.add_argument("--images", action="store_true", help="the images, too")
    commands.add_parser("info", help="addresses and certificates as JSON")
    sub = commands.add_parser("client", help="run a command in a throw-away container on the network")
    sub.add_argument("--image", choices=sorted(images.CLIENTS), default="plain", help="what the container has in it")
    sub.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD…")
    actions = commands.add_parser("host", help="target hosts").add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="all hosts as JSON")
    for action, text in (("create", "a running host, as JSON"), ("destroy", "remove it with its volumes"),
                         ("restart", "restart the whole host and wait")):  # fmt: skip
        sub = actions.add_parser(action, help=text)
        sub.add_argument("name")
        if action == "create":
            sub.add_argument("--image", choices=("host", "host-docker"), default="host")
            sub.add_argument("--domain", action="append", default=[], help="a name that leads to it; repeatable")
            sub.add_argument("--compile-once", action="store_true", help="spare processor time: host/compile_once.py")
            sub.add_argument("--os", choices=sorted(images.SYSTEMS), default=images.DEFAULT_OS)
    return parser.parse_args(argv)


def main(options: argparse.Namespace) -> int:
    if options.command == "up":
        up(options.hosts_only, options.docker_repository)
    elif options.command == "down":
        engine.ensure()
        with engine.lock(), step("Take the testbed down"):
            engine.remove_everything(options.images)
    elif options.command == "info":
        print(json.dumps(services.info(), indent=2))
    elif options.command == "client":
        return client([word for index, word in enumerate(options.argv) if index or word != "--"], options.image)
    elif options.action == "create":
        print(json.dumps(create_host(options), indent=2))
    elif options.action == "restart":
        print(json.dumps(hosts.restart(options.name), indent=2))
    elif options.action == "destroy":
        hosts.destroy(options.name)
    else:
        print(json.dumps(hosts.all_facts(), indent=2))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(arguments()))
    except TestbedError as error:
        sys.exit(f"testbed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
