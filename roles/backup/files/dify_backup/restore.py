# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One restore."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import stat
import typing as t

from dify_backup import databases
from dify_backup.basics import Json, Problem, run
from dify_backup.config import Config
from dify_backup.project import below, roots
from dify_backup.restic import Restic, pattern
from dify_backup.server import Server
from dify_backup.sets import FORMAT
from dify_backup.tree import summary, walked


def place(
    restic: Restic,
    part: str,
    saved: Json,
    without: t.Collection[str],
    root: str = "",
    kept: t.Sequence[str] = (),
    compared: bool = True,
) -> None:
    """Puts a part's files below ``root``, and compares them with the manifest. restic compares what it wrote itself.

    ``without``: paths that the manifest did not count. ``kept``: paths that stay as they are.
    """
    words = ["--exclude=" + pattern(path) for path in kept]
    if restic.knows(0, 15):
        words.append("--sparse")
    try:
        restic.run("restore", saved["snapshot"], "--target", root or "/", "--verify", *words)
    except Problem as problem:
        raise Problem(
            f"The part {part} could not be restored: {problem}. If the repository is damaged, restore an older set "
            "(dify-backup status names them) or repair it as docs/backup.md says."
        ) from None
    found = summary(walked(saved["paths"], saved["excluded"], without, root))
    wrong = [f"{key} is {found[key]}, not {saved[key]}" for key in found if found[key] != saved[key]]
    if wrong and compared:
        raise Problem("The part {} was not restored as it was saved: {}.".format(part, ", ".join(wrong)))


def mounts() -> list[str]:
    """Where something is mounted on this host."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in file]


class Restore:
    """One restore, onto a host where the release is checked out and nothing of Dify runs.

    Options: ``set``; ``edge``, what belongs to the TLS edge, too; ``other_release``, whatever release is checked out;
    ``replace``, stop what is there and move it aside.
    """

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.config = config
        self.options = options
        self.restic = Restic(config)
        self.server = Server(config.project_path, config.database_image)

    def run(self) -> Json:
        self.restic.run("unlock")
        self.manifest = self.restic.manifest(self.options.set)
        # Says that what is there comes from a restore of this set that did not end.
        begun, progress = self.config.state("restoring"), self.config.state("restoring-databases.json")
        aside: list[str] = []
        if not (begun.exists() and begun.read_text(encoding="utf-8") == self.manifest["set"]):
            self.refuse()
            if self.options.replace:
                aside = self.replace()
            progress.unlink(missing_ok=True)
            begun.write_text(self.manifest["set"], encoding="utf-8")
        self.volumes()
        tracked = self.server.tracked()
        for part in self.parts():
            self.files(part, tracked)
        # Before anything uses them.
        counted = databases.load(self.server, self.server.plan(), self.restic, self.manifest, progress)
        begun.unlink()
        return {"set": self.manifest["set"], "rows": counted, "aside": aside}

    def parts(self) -> list[str]:
        """The parts with files to restore."""
        wanted = ("files", "store", *(["edge"] if self.options.edge else []))
        return [part for part in wanted if part in self.manifest["parts"]]

    def wanted(self) -> list[str]:
        """The named volumes to restore."""
        volumes = self.manifest["volumes"]
        return [
            name
            for name in sorted(volumes)
            if volumes[name]["path"] and (self.options.edge or name not in self.config.edge_volumes)
        ]

    def volumes(self) -> None:
        """Makes the named volumes as Compose would, so that it takes them for its own."""
        for name in self.wanted():
            saved = self.manifest["volumes"][name]
            words = [word for key, value in sorted(saved["labels"].items()) for word in ("--label", f"{key}={value}")]
            run(["docker", "volume", "create", *words, name])
            if self.server.mountpoint(name) != saved["path"]:
                raise Problem(
                    f"The volume {name} is in {self.server.mountpoint(name)} here, but was in {saved['path']}; "
                    "give Docker the same data-root as on the old host."
                )

    def refuse(self) -> None:
        """Refuses what the set does not fit."""
        if self.manifest["format"] != FORMAT:
            raise Problem(
                "The set {} is of format {}, but this program knows {}; use a newer release of the collection.".format(
                    self.manifest["set"], self.manifest["format"], FORMAT
                )
            )
        wanted, here = self.manifest["release"], self.server.release()
        if wanted["commit"] != here["commit"] and not self.options.other_release:
            raise Problem(
                "The set {} is of Dify {} ({}), but {} holds {} ({}); set dify_version to the former, or "
                "backup_restore_other_release to true.".format(
                    self.manifest["set"],
                    wanted["tag"],
                    wanted["commit"][:12],
                    self.server.path,
                    here["tag"],
                    here["commit"][:12],
                )
            )
        if self.manifest["project_path"] != self.server.path:
            raise Problem(
                "The set {} holds {}, but Dify is to be in {}; set dify_path to the former.".format(
                    self.manifest["set"], self.manifest["project_path"], self.server.path
                )
            )
        occupied = self.occupied()
        if occupied and not self.options.replace:
            raise Problem(
                "{} is no empty target, since there are {}. Restore onto another host, or set backup_restore_replace "
                "to true, which moves them aside; after a restore that ended, go on with selfhost.dify.site.".format(
                    self.server.path, ", ".join(sorted(occupied))
                )
            )

    def occupied(self) -> list[str]:
        """What is there of a server already."""
        volumes = [name for name in [*self.wanted(), *self.manifest["fresh"]] if self.server.mountpoint(name)]
        containers = [one.name for one in self.server.containers(self.manifest["project"])]
        data = [os.path.join(self.server.path, name) for name in (".env", "volumes/app", "volumes/db")]
        return [*containers, *volumes, *(path for path in data if os.path.lexists(path))]

    def replace(self) -> list[str]:
        """Stops what is there and moves it aside, so that nothing is lost: where to."""
        saved = [path for part in self.parts() for path in self.manifest["parts"][part]["paths"]]
        volumes = {name: self.server.mountpoint(name) for name in [*self.wanted(), *self.manifest["fresh"]]}
        data = {path for path in volumes.values() if path}
        paths = [path for path in roots([*saved, *data]) if os.path.lexists(path)]
        paths.sort(key=lambda path: path == self.server.path)  # last, and put back at once
        mounted = [one for one in mounts() if any(below(one, path) for path in paths)]
        if mounted:
            raise Problem(
                "{} cannot be moved aside, since something is mounted there; empty it yourself and try again.".format(
                    " and ".join(mounted)
                )
            )
        containers = {one.name for one in self.server.containers(self.manifest["project"])}
        for name in volumes:
            containers.update(
                run(["docker", "ps", "--all", "--filter", f"volume={name}", "--format", "{{.Names}}"]).split()
            )
        if containers:
            run(["docker", "stop", *sorted(containers)])
            run(["docker", "rm", *sorted(containers)])
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime(".replaced-%Y%m%dT%H%M%SZ")
        for path in paths:
            status = os.lstat(path)
            os.rename(path, path + stamp)
            if path in data:  # Docker keeps an entry for it
                os.mkdir(path)
                os.chown(path, status.st_uid, status.st_gid)
                os.chmod(path, stat.S_IMODE(status.st_mode))
        self.server.check_out()
        return [path + stamp for path in paths]

    def files(self, part: str, tracked: set[str]) -> None:
        """Puts a part's files in place, but for those of the release that is checked out."""
        saved = self.manifest["parts"][part]
        kept = sorted(path for path in tracked if any(below(path, parent) for parent in saved["paths"]))
        without = {*tracked, *self.manifest["tracked"]}
        same = self.manifest["release"]["commit"] == self.server.release()["commit"]
        place(self.restic, part, saved, without=without, kept=kept, compared=same)
