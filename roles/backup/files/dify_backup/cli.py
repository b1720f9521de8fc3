# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
import typing as t

import dify_backup
from dify_backup.backup import Backup
from dify_backup.basics import Json, Locked, Problem, run
from dify_backup.config import CONFIGS, Config
from dify_backup.drill import Drill
from dify_backup.restic import Restic
from dify_backup.restore import Restore
from dify_backup.server import Server, resume
from dify_backup.sets import TAG, outdated, sets
from dify_backup.state import keep, publish, read_state
from dify_backup.verify import Verification

LOCK = "/run/selfhost-dify-backup.lock"


def init(config: Config, options: argparse.Namespace) -> Json:
    """Makes the repository where there is none. restic never writes over one."""
    restic = Restic(config)
    try:
        restic.run("cat", "config", "--no-lock")
        return {"created": False}
    except Problem as unreadable:
        try:
            restic.run("init")
        except Problem as uncreated:
            raise Problem(f"The repository can neither be opened ({unreadable}) nor made ({uncreated}).") from None
    return {"created": True}


def backup(config: Config, options: argparse.Namespace) -> Json:
    manifest = Backup(config, options.mode or config.mode).run()
    parts = manifest["parts"].values()
    return {
        "set": manifest["set"],
        "downtime": manifest["downtime"],
        "bytes": sum(part["bytes"] for part in parts),
        "added": sum(part["added"] for part in parts),
    }


def forget(config: Config, options: argparse.Namespace) -> Json:
    """Forgets the sets that restic's own policy would forget by their manifests, each as a whole, and prunes."""
    if config.append_only:
        return {"forgotten": 0}
    restic = Restic(config)
    restic.run("unlock")
    policy = [f"--keep-{unit}={number}" for unit, number in sorted(config.keep.items()) if number]
    text = restic.run(
        *("forget", "--dry-run", "--json", "--host", config.name, "--tag", TAG + ",part=manifest"),
        *("--group-by", "host", *policy),
    )
    kept = {snapshot["id"] for group in json.loads(text) or [] for snapshot in group.get("keep") or []}
    gone = outdated(sets(restic.snapshots()), kept)
    if gone:
        restic.run("forget", *gone)
        restic.run("prune")
    return {"forgotten": len(gone)}


def check(config: Config, options: argparse.Namespace) -> Json:
    restic = Restic(config)
    restic.run("unlock")
    try:
        restic.run("check", "--read-data-subset", config.check_subset)
    except Problem as problem:
        if "repository contains errors" not in str(problem):
            raise
        raise Problem(
            "The repository is damaged; docs/backup.md says how to find out what, and to repair it."
        ) from None
    return {}


def show(config: Config, options: argparse.Namespace) -> Json:
    """The manifest of a set."""
    return Restic(config).manifest(options.set)


def status(config: Config, options: argparse.Namespace) -> Json:
    found = sets(Restic(config).snapshots())
    complete = [one for one in found if one.complete]
    return {
        "newest": complete[-1].identity if complete else None,
        "complete": [one.identity for one in complete],
        "incomplete": {one.identity: one.missing for one in found if one.missing},
        "runs": read_state(config),
    }


def alert(config: Config, options: argparse.Namespace) -> Json:
    """Tells the operator of a unit that failed. systemd calls it, so that also a killed run is told."""
    state = read_state(config)
    failed = [
        "{} failed: {}".format(command, state[command]["message"])
        for command in UNITS[options.unit]
        if not state.get(command, {}).get("success", True)
    ]
    message = f"{config.name}: " + ("; ".join(failed) or f"{options.unit} failed, see journalctl")
    if config.alert_command:
        run([*config.alert_command, message])
    publish(config, state)
    return {"message": message}


def restore(config: Config, options: argparse.Namespace) -> Json:
    return Restore(config, options).run()


def verify(config: Config, options: argparse.Namespace) -> Json:
    """Asks the server that runs on this host what a restored one is asked."""
    server = Server(config.project_path, config.database_image)
    return Verification(server, server.plan(), config.owner_password_file, config.start_timeout).run()


def drill(config: Config, options: argparse.Namespace) -> Json:
    return Drill(config, options).run()


def wake(config: Config, options: argparse.Namespace) -> Json:
    """Resumes unless a run is under way, which does so itself."""
    try:
        with locked(0):
            resume(config)
    except Locked:
        return {"resumed": False}
    return {"resumed": True}


COMMANDS: dict[str, t.Callable[[Config, argparse.Namespace], Json]] = {
    "init": init,
    "backup": backup,
    "forget": forget,
    "check": check,
    "status": status,
    "show": show,
    "restore": restore,
    "verify": verify,
    "drill": drill,
    "resume": wake,
    "alert": alert,
}


# One at a time, since they would stand in each other's way.
EXCLUSIVE = ("backup", "forget", "check", "restore", "drill", "init")


# Whose results monitoring is told.
REPORTED = ("backup", "forget", "check", "drill")


# What the units run.
UNITS = {"backup": ("backup", "forget"), "check": ("check",), "drill": ("drill",)}


@contextlib.contextmanager
def locked(timeout: int) -> t.Iterator[None]:
    """Waits until no other run is under way."""
    with open(LOCK, "w", encoding="utf-8") as file:
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Locked(f"Another run was still under way after {timeout} seconds; try again later.") from None
                time.sleep(0.5)
        yield


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="dify-backup", description=dify_backup.__doc__.splitlines()[0])
    main.add_argument("--config", default=next(filter(os.path.exists, CONFIGS), CONFIGS[0]))
    commands = main.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="make the repository, where there is none")
    command = commands.add_parser("backup", help="make a set")
    command.add_argument("--mode", choices=["online", "cold"])
    commands.add_parser("forget", help="forget sets by the policy, and prune")
    commands.add_parser("check", help="check the repository, and read some of its data")
    commands.add_parser("status", help="say which sets there are and how the last runs ended")
    command = commands.add_parser("show", help="print the manifest of a set")
    command.add_argument("--set", default="latest")
    command = commands.add_parser("restore", help="restore a set onto a host without data")
    command.add_argument("--set", default="latest")
    command.add_argument("--edge", action="store_true", help="also what belongs to the TLS edge")
    command.add_argument("--other-release", action="store_true", help="whatever release is checked out")
    command.add_argument("--replace", action="store_true", help="stop what is there and move it aside")
    commands.add_parser("verify", help="ask the server that runs here whether owner, files and credentials are there")
    command = commands.add_parser("drill", help="restore a set in isolation, verify it, and remove it again")
    command.add_argument("--set", default="latest")
    commands.add_parser("resume", help="start what a killed backup left halted")
    command = commands.add_parser("alert", help="tell of a failed run")
    command.add_argument("unit", choices=UNITS)
    return main


def terminated(number: int, frame: object) -> t.NoReturn:
    raise Problem(f"stopped by signal {number}")


def main(arguments: t.Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):  # systemd's, and that of a terminal that is gone
        signal.signal(number, terminated)
    started = time.time()
    config: Config | None = None
    try:
        config = Config.read(options.config)
        with locked(config.lock_timeout) if options.command in EXCLUSIVE else contextlib.nullcontext():
            started = time.time()
            if options.command in REPORTED:
                keep(config, options.command, {"success": False, "message": "it was cut short"})
            result = COMMANDS[options.command](config, options)
        if options.command in REPORTED:
            ended = time.time()
            ending = {"ended": ended, "succeeded": ended, "success": True, "duration": ended - started, "message": ""}
            keep(config, options.command, {**ending, **result})
        print(json.dumps(result, indent=2, sort_keys=True))
        return 0
    except (Problem, OSError) as problem:
        if config and options.command in REPORTED:
            with contextlib.suppress(OSError):
                keep(config, options.command, {"ended": time.time(), "success": False, "message": str(problem)})
        print(f"{options.command}: {problem}", file=sys.stderr)
        return 1
