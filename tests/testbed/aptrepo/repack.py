# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a signed apt repository of stand-ins for Docker's five packages, out of the distribution's own.

Each stand-in carries the files and maintainer scripts of the distribution's packages it is made of, under the name of
Docker's package, and conflicts with the originals as Docker's does. Runs in the image of this directory, as root.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Docker's package: the distribution's it is made of (those it lacks are left out), and the stand-ins it depends on.
STAND_INS: dict[str, tuple[list[str], list[str]]] = {
    "containerd.io": (["containerd", "runc"], []),
    "docker-ce-cli": (["docker-cli"], []),
    "docker-ce": (["docker.io"], ["containerd.io", "docker-ce-cli"]),
    "docker-buildx-plugin": (["docker-buildx"], []),
    "docker-compose-plugin": (["docker-compose-v2", "docker-compose"], []),
}
ORIGINALS = {name for originals, _dependencies in STAND_INS.values() for name in originals}
KEY_OWNER = "Stand-in for Docker's repository"


def output(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def candidate(package: str) -> str | None:
    """The version apt would install, or None."""
    found = re.search(r"Candidate: (\S+)", output("apt-cache", "policy", package))
    return found[1] if found and found[1] != "(none)" else None


def repack(name: str, work: Path, pool: Path) -> None:
    originals, dependencies = STAND_INS[name]
    originals = [package for package in originals if candidate(package)]
    if name == "docker-compose-plugin":
        originals = originals[:1]  # the other name is Compose v1 there
    root = work / name
    root.mkdir()
    (root / "DEBIAN").mkdir()
    versions: list[str] = []
    kept: list[str] = []
    for package in originals:
        output("apt-get", "download", "-oAPT::Sandbox::User=root", package, cwd=work)
        (archive,) = work.glob(f"{package}_*.deb")
        output("dpkg-deb", "--raw-extract", archive, work / package)
        shutil.copytree(work / package, root, symlinks=True, dirs_exist_ok=True)
        versions.append(output("dpkg-deb", "--field", archive, "Version").strip())
        for dependency in output("dpkg-deb", "--field", archive, "Pre-Depends", "Depends").splitlines():
            kept += [part.strip() for part in dependency.split(":", 1)[1].split(",")]
    depends = [part for part in kept if re.match(r"[\w.+-]+", part)[0] not in ORIGINALS]
    control = {
        "Package": name,
        "Version": [*versions, "1"][0],
        "Architecture": output("dpkg", "--print-architecture").strip(),
        "Maintainer": "selfhost.dify contributors <root@localhost>",
        "Depends": ", ".join(dict.fromkeys(depends + dependencies)),
        "Conflicts": ", ".join(originals),
        "Description": f"stand-in for Docker's {name}, made of {', '.join(originals) or 'nothing'}",
    }
    (root / "DEBIAN" / "control").write_text("".join(f"{key}: {value}\n" for key, value in control.items() if value))
    output("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, pool)


def sign(repository: Path, suite: Path) -> None:
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(repository.parent / "gnupg")]
    Path(gpg[-1]).mkdir(mode=0o700)
    output(*gpg, "--passphrase", "", "--quick-generate-key", KEY_OWNER, "ed25519", "sign", "never")
    (repository / "gpg").write_text(output(*gpg, "--armor", "--export"))
    output(*gpg, "--clearsign", "--output", suite / "InRelease", suite / "Release")


def main(repository: Path) -> None:
    codename = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)[1]
    architecture = output("dpkg", "--print-architecture").strip()
    suite = repository / "dists" / codename
    pool = suite / "pool" / "stable"
    index = suite / "stable" / f"binary-{architecture}"
    for directory in (pool, index):
        directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        for name in STAND_INS:
            repack(name, Path(work), pool)
    (index / "Packages").write_text(output("apt-ftparchive", "packages", pool.relative_to(repository), cwd=repository))
    fields = {"Origin": "Docker", "Suite": codename, "Codename": codename}
    fields |= {"Architectures": architecture, "Components": "stable"}
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
    (suite / "Release").write_text(output("apt-ftparchive", *options, "release", suite))
    sign(repository, suite)
    for package in sorted(pool.iterdir()):
        print(package.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
