# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repository, by restic's own commands."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tempfile
import typing as t

from dify_backup.basics import Json, Problem, complaint, pump, read_environment, run
from dify_backup.config import Config
from dify_backup.sets import TAG, choose, sets


def pattern(path: str) -> str:
    """A path as a pattern of restic's.

    >>> pattern("/a*[b]")
    '/a\\\\*\\\\[b]'
    """
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def keeping_alive(repository: str, options: t.Sequence[str]) -> list[str]:
    """The options, with one more for a repository by SFTP that is dead to be noticed: SSH waits for ever otherwise.

    An operator who sets options for SFTP has thought of that.

    >>> keeping_alive("sftp:me@there:/srv", [])
    ['sftp.command=ssh -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 me@there -s sftp']
    >>> keeping_alive("sftp://[::1]:2222//srv", [])[0][-19:]
    '-p 2222 ::1 -s sftp'
    >>> keeping_alive("sftp:there:srv", ["sftp.args=-4"]), keeping_alive("/srv", [])
    (['sftp.args=-4'], [])
    """
    found = re.match(r"sftp:(?://)?((?:[^@/]+@)?)(?:\[(.+?)\]|([^:/]+))(?::([0-9]+)/)?", repository)
    if not found or any(option.startswith(("sftp.command", "sftp.args")) for option in options):
        return list(options)
    user, address, name, port = found.groups()
    words = [*(["-p", port] if port else []), user + (address or name), "-s", "sftp"]
    alive = "-o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
    return [*options, "sftp.command=ssh {} {}".format(alive, " ".join(words))]


class Restic:
    """The repository, by restic's own commands. Secrets go by files and the environment, never as arguments."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.environment = {
            **os.environ,
            "HOME": os.environ.get("HOME") or "/root",
            "RESTIC_REPOSITORY": config.repository,
            "RESTIC_PASSWORD_FILE": config.password_file,
            "RESTIC_CACHE_DIR": config.cache_path,
            "RESTIC_PROGRESS_FPS": "0.01",
            **read_environment(config.environment_file),
        }
        options = keeping_alive(config.repository, config.restic_options)
        self.base = [config.restic, *(word for option in options for word in ("-o", option))]
        self.patience = config.lock_timeout  # seconds that locks of others are waited for

    def run(self, *arguments: str) -> str:
        return run(self.command(*arguments), env=self.environment)

    def command(self, *arguments: str) -> list[str]:
        waiting = ["--retry-lock", f"{self.patience}s"] if self.patience and self.knows(0, 16) else []
        return [*self.base, *waiting, *arguments]

    @functools.cached_property
    def version(self) -> str:
        return run([self.config.restic, "version"], env=self.environment).split()[1]

    def knows(self, *release: int) -> bool:
        """Whether this restic is of that release or a later one."""
        return tuple(map(int, re.findall(r"[0-9]+", self.version)[:2])) >= release

    def snapshots(self) -> list[Json]:
        text = self.run("snapshots", "--no-lock", "--json", "--host", self.config.name, "--tag", TAG)
        return json.loads(text) or []

    def manifest(self, wanted: str) -> Json:
        """The manifest of a set, with its snapshots as they are called in this repository."""
        chosen = choose(sets(self.snapshots()), wanted)
        manifest: Json = json.loads(self.run("dump", chosen.manifest, "/manifest.json"))
        for part, snapshot in chosen.parts.items():
            manifest["parts"][part]["snapshot"] = snapshot
        return manifest

    def backup(self, paths: t.Sequence[str], excluded: t.Sequence[str], tags: t.Sequence[str]) -> Json:
        """A snapshot of files. What vanished while it was made is no error; all else that was not read is."""
        command = self.command("backup", "--json", *self._labels(tags))
        command += ["--exclude=" + pattern(path) for path in excluded]
        command += ["--", *paths]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, errors="surrogateescape", check=False
        )
        if done.returncode not in (0, 3):
            raise Problem(complaint(command, done.returncode, done.stderr))
        unread = [line for line in done.stderr.splitlines() if '"error"' in line and not vanished(line)]
        if unread:
            raise Problem("restic could not read everything: {}".format("; ".join(unread[:3])))
        return _summary(done.stdout)

    def store(self, source: t.Sequence[str], name: str, tags: t.Sequence[str], **options: t.Any) -> Json:
        """A snapshot of what a command prints, which is only made when the command ends well."""
        with tempfile.TemporaryFile() as printed:
            command = ["backup", "--json", "--stdin", "--stdin-filename", name, *self._labels(tags)]
            sink = subprocess.Popen(
                self.command(*command),
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=subprocess.PIPE,
            )
            moved = pump(source, sink, **options)
            printed.seek(0)
            return {**_summary(printed.read().decode()), **moved}

    def load(self, snapshot: str, name: str, target: t.Sequence[str], **options: t.Any) -> Json:
        """Hands what a snapshot of C(store) holds to a command."""
        sink = subprocess.Popen(
            target, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
        )
        return pump(self.command("dump", snapshot, "/" + name), sink, env=self.environment)

    def _labels(self, tags: t.Sequence[str]) -> list[str]:
        labels = ["--host", self.config.name]
        for tag in (TAG, *tags):
            labels += ["--tag", tag]
        return labels


def _summary(output: str) -> Json:
    for line in reversed(output.splitlines()):
        if '"summary"' in line:
            found: Json = json.loads(line)
            if found.get("snapshot_id"):
                return found
    raise Problem("restic reported no snapshot, so nothing was saved.")


def vanished(line: str) -> bool:
    """Whether an error line of restic's is about a file that is no longer there."""
    try:
        error = json.loads(line).get("error") or {}
    except ValueError:
        return False
    text = error.get("message", "") if isinstance(error, dict) else str(error)
    return "no such file or directory" in text or (isinstance(error, dict) and error.get("Err") == 2)
