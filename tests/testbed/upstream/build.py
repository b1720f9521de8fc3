# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the testbed's stand-in for Dify's git repository.

    build.py OUT_DIR

OUT_DIR becomes a bare repository whose tags hold each release's `docker/` directory. It is made from the data beside
this file alone, and the same data give the same commits. Prints one line `<tag> <commit>` per release.
"""

from __future__ import annotations

import argparse
import calendar
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AUTHOR = "selfhost.dify testbed <testbed@selfhost-dify.test>"
DESCRIPTION = "Stand-in of selfhost.dify's testbed for Dify's repository\n"
HEADER = "# Stand-in of selfhost.dify's testbed for Dify {version}. Not upstream's file.\n"

Env = dict[str, list[tuple[str, str]]]  # section → (key, default) in order; section ".env" is the root file


@dataclass(frozen=True)
class Release:
    """One tag: `facts` are the placeholders its templates may use."""

    version: str
    date: str
    split: bool
    annotated: bool
    facts: dict[str, str]

    @property
    def timestamp(self) -> int:
        return calendar.timegm(time.strptime(self.date, "%Y-%m-%d"))

    def satisfies(self, condition: str) -> bool:
        """Whether the release meets `>=1.14.1` or `<1.14.1`. A fix release follows the release it fixes."""
        match = re.fullmatch(r"(>=|<)(\d[\w.-]*)", condition)
        if not match:
            raise ValueError(f"{condition!r} is no condition; expected >=VERSION or <VERSION.")
        newer = _order(self.version) >= _order(match[2])
        return newer if match[1] == ">=" else not newer


def _order(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def load() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((HERE / "releases.json").read_text(encoding="utf-8"))
    return data


def releases() -> list[Release]:
    """All releases, oldest first."""
    return [
        Release(version, r["date"], r["split"], r["annotated"], {"version": version, **r["facts"]})
        for version, r in sorted(load()["releases"].items(), key=lambda item: _order(item[0]))
    ]


def select(lines: Iterable[str], release: Release) -> Iterator[str]:
    """Keep the lines meant for `release`: `text #? CONDITION`, or `#? if CONDITION` … `#? end` around several."""
    keeping = True
    for line in lines:
        text, mark, condition = line.partition("#? ")
        if not mark:
            if keeping:
                yield line
        elif condition == "end":
            keeping = True
        elif condition.startswith("if "):
            keeping = release.satisfies(condition[3:])
        elif keeping and release.satisfies(condition):
            yield text.rstrip()


def read_env(name: str, release: Release) -> Iterator[str]:
    return select((HERE / "env" / name).read_text(encoding="utf-8").splitlines(), release)


def full_env(release: Release) -> list[str]:
    """Lines of the one long `.env.example`: headings, and `KEY=default`."""
    return list(read_env("full.env", release))


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, given, default = line.partition("=")
        if given and not line.startswith("#"):
            yield key, default


def split_env(release: Release) -> Env:
    """The root file and `envs/**` by section. A bare `KEY` has the root file's default, else the full list's, else the
    one given first."""
    known = dict(_pairs(full_env(release)))
    sections: Env = {}
    for line in read_env("split.env", release):
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            key, given, default = line.partition("=")
            if given and (current is sections[".env"] or key not in known):
                known[key] = default
            current.append((key, default if given else known[key]))
    return sections


def defaults(release: Release) -> dict[str, str]:
    """Every key of the release with the default the compose file falls back to: the root file's, where it has one."""
    if not release.split:
        return dict(_pairs(full_env(release)))
    sections = split_env(release)
    return {key: default for section in [*list(sections)[1:], ".env"] for key, default in sections[section]}


def env_files(release: Release) -> dict[str, str]:
    """The `*.env.example` files of the release by path below `docker/`."""
    header = HEADER.format(version=release.version)
    if not release.split:
        return {".env.example": header + "\n".join(full_env(release)) + "\n"}
    return {
        ".env.example" if section == ".env" else f"envs/{section}.env.example": header
        + "".join(f"{key}={default}\n" for key, default in keys)
        for section, keys in split_env(release).items()
    }


def compose(lines: Iterable[str], release: Release) -> Iterator[str]:
    """Expand the compose template.

    `KEY: ${}` means `${KEY}`, and `${KEY}` gets the release's default: `${KEY:-default}`. `#@ shared_env` lists every
    key that way, `#@ env_file A B/*` the files of `envs/` (none of them required) and `.env` last.
    """
    known = defaults(release)
    sections = split_env(release) if release.split else {}

    def reference(match: re.Match[str]) -> str:
        return f"${{{match[1]}:-{known[match[1]]}}}"

    for line in lines:
        indent, directive, arguments = line.partition("#@ ")
        if not directive:
            line = re.sub(r"(\w+): \$\{\}", r"\1: ${\1}", line)
            yield re.sub(r"(?<!\$)\$\{(\w+)\}", reference, line)
        elif arguments == "shared_env":
            passed = {key: default for key, default in known.items() if key != "COMPOSE_PROFILES"}
            yield from (f"  {key}: ${{{key}:-{default}}}" for key, default in passed.items())
        else:
            yield f"{indent}env_file:"
            for name in arguments.split()[1:]:
                matches = [section for section in sections if fnmatch(section, name)]
                yield from (f"{indent}  - {{path: ./envs/{match}.env, required: false}}" for match in matches)
            yield f"{indent}  - ./.env"


def render(name: str, text: str, release: Release) -> str:
    """A template of `tree/`: conditional lines, `@fact@` placeholders, and the compose file's own shorthand."""
    lines = select(text.splitlines(), release)
    if name.endswith("docker-compose.yaml.in"):
        lines = compose(lines, release)
    return re.sub(r"@(\w+)@", lambda match: release.facts[match[1]], "\n".join(lines) + "\n")


def files(release: Release) -> dict[str, tuple[str, str]]:
    """Path → (git mode, text) of everything the release's commit holds."""
    data = load()
    result = {}
    for source in sorted(path for path in (HERE / "tree").rglob("*") if path.is_file()):
        name = source.relative_to(HERE / "tree").as_posix()
        path = re.sub(r"(^|/)dot\.", r"\1.", name.removesuffix(".in"))
        if path in data["only"] and not release.satisfies(data["only"][path]):
            continue
        text = source.read_text(encoding="utf-8")
        if name.endswith(".in"):
            text = render(name, text, release)
        result[path] = ("100755" if path in data["executable"] else "100644", text)
    for path, text in env_files(release).items():
        result[f"docker/{path}"] = ("100644", text)
    return result


def history() -> bytes:
    """The whole repository as input of `git fast-import`: one commit per release on `main`, and its tag."""
    stream: list[bytes] = []

    def data(text: str) -> None:
        raw = text.encode()
        stream.append(b"data %d\n%s\n" % (len(raw), raw))

    for mark, release in enumerate(releases(), start=1):
        when = f"{AUTHOR} {release.timestamp} +0000"
        stream.append(f"commit refs/heads/main\nmark :{mark}\ncommitter {when}\n".encode())
        data(f"Stand-in for Dify {release.version}\n")
        stream.append(b"deleteall\n")
        for path, (mode, text) in sorted(files(release).items()):
            stream.append(f"M {mode} inline {path}\n".encode())
            data(text)
        if release.annotated:
            stream.append(f"tag {release.version}\nfrom :{mark}\ntagger {when}\n".encode())
            data(f"{release.version}\n")
        else:
            stream.append(f"reset refs/tags/{release.version}\nfrom :{mark}\n\n".encode())
    return b"".join(stream)


def build(out: Path) -> dict[str, str]:
    """Write the repository and return tag → commit. Replaces an earlier stand-in at `out`, and nothing else."""
    if out.exists() and any(out.iterdir()):
        description = out / "description"
        if not (description.is_file() and description.read_text(encoding="utf-8") == DESCRIPTION):
            raise FileExistsError(f"{out} holds something else than a stand-in repository; name another directory.")
    new = out.with_name(out.name + ".new")
    if new.exists():
        shutil.rmtree(new)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str, stdin: bytes = b"") -> str:
        command = ["git", "--git-dir", str(new), *arguments]
        return subprocess.run(command, input=stdin, env=environment, check=True, stdout=subprocess.PIPE).stdout.decode()

    git("init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main")
    git("fast-import", "--quiet", stdin=history())
    for name in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):  # as GitHub allows
        git("config", name, "true")
    (new / "description").write_text(DESCRIPTION, encoding="utf-8")
    git("update-server-info")
    commits = {release.version: git("rev-parse", f"{release.version}^{{commit}}").strip() for release in releases()}
    if out.exists():
        shutil.rmtree(out)
    new.rename(out)
    return commits


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the testbed's stand-in for Dify's git repository.")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="bare repository to write; an older one is replaced")
    for tag, commit in build(parser.parse_args().out.absolute()).items():
        print(tag, commit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
