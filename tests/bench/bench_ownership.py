# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures volume_ownership against its alternatives, as root, and prints a table; judges nothing.

Every repetition runs all candidates one after the other on the same tree, after a sync; ratios are taken to `chown -R`
of the same repetition. The trees take 1.3 million inodes (--quick: 30 000) and are kept for the next time.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import typing as t
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWNERS = (54321, 54322)
PYTHON = "/usr/bin/python3"
PAYLOADS = ROOT / ".cache/bench/modules"
# What runs on a target: the walker in the system's own Python, with nothing but the standard library.
WALKER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.selfhost.dify.plugins.module_utils import _ownership as own, _ownership_walk as walk
root, owner, check = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "check"
report = walk.own_tree(own.open_root(root), root, walk.Policy(owner, owner, not check, workers=int(sys.argv[5])))
print(report.examined, report.wrong.total, report.changed, report.failed.total)
"""
# Writes a module as Ansible sends it to a target. In a process of its own: a big one would blur its children's memory.
PAYLOAD = """
import json, pathlib, sys
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_loader
from ansible.template import Templar
collections, python, file, module, arguments = sys.argv[1:]
init_plugin_loader([collections])
built = modify_module(
    module_name=module,
    module_path=module_loader.find_plugin_with_context(module).plugin_resolved_path,
    module_args=json.loads(arguments),
    templar=Templar(DataLoader()),
    task_vars={"ansible_python_interpreter": python},
)
pathlib.Path(file).write_bytes(built.b_module_data)
"""


class Run(t.NamedTuple):
    """One run: seconds, processor seconds, megabytes of its largest process, megabytes written to the device."""

    seconds: float
    processor: float
    megabytes: float
    written: float


# --- trees -----------------------------------------------------------------------------------------------------------


def files(fd: int, number: int) -> None:
    for name in range(number - 1):
        os.mknod(f"f{name:06}", 0o100644, dir_fd=fd)
    os.symlink("f000000", "link", dir_fd=fd)


def wide(root: Path, levels: int) -> None:
    """100 directories in each directory, and 100 files in those at the end."""
    root.mkdir()
    if levels:
        for number in range(100):
            wide(root / f"d{number:02}", levels - 1)
        return
    fd = os.open(root, os.O_RDONLY)
    files(fd, 100)
    os.close(fd)


def several(root: Path, number: int, levels: int) -> None:
    root.mkdir()
    for tree in range(number):
        wide(root / f"d{tree}", levels)


def flat(root: Path, number: int) -> None:
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    files(fd, number)
    os.close(fd)


def deep(root: Path, levels: int) -> None:
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _level in range(levels):
        os.mknod("file", 0o100644, dir_fd=fd)
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


TREES: dict[str, t.Callable[[Path], None]] = {
    "1k": lambda root: several(root, 10, 0),
    "10k": lambda root: wide(root, 1),
    "100k": lambda root: several(root, 10, 1),
    "1M": lambda root: wide(root, 2),
    "flat10k": lambda root: flat(root, 10_000),
    "flat100k": lambda root: flat(root, 100_000),
    "deep3000": lambda root: deep(root, 3000),
}
QUICK = ("1k", "10k", "flat10k", "deep3000")
FULL = ("1k", "100k", "1M", "flat100k", "deep3000")


def grown(directory: Path, name: str) -> Path:
    """The tree of that name, made unless an earlier run has left it complete."""
    root, complete = directory / name, directory / f"{name}.complete"
    if not complete.exists():
        print(f"making tree {name} …", file=sys.stderr, flush=True)
        subprocess.run(["rm", "-rf", root], check=True)
        TREES[name](root)
        complete.touch()
    return root


# --- candidates ------------------------------------------------------------------------------------------------------


def walker(root: Path, owner: int, workers: int = 0) -> list[str]:
    return [PYTHON, "-c", WALKER, str(ROOT / ".collections"), str(root), str(owner), "run", str(workers)]


@functools.cache
def payload(module: str, arguments: str) -> list[str]:
    """A module as Ansible sends it to a target, to be run by the system's own Python."""
    PAYLOADS.mkdir(parents=True, exist_ok=True)
    file = PAYLOADS / f"{module}-{zlib.crc32(arguments.encode()):x}"
    command = [sys.executable, "-c", PAYLOAD, str(ROOT / ".collections"), PYTHON, str(file), module, arguments]
    subprocess.run(command, check=True)
    return [PYTHON, str(file)]


def whole_module(root: Path, owner: int) -> list[str]:
    options = {"paths": [str(root)], "owner": str(owner), "group": str(owner)}
    return payload("selfhost.dify.volume_ownership", json.dumps(options))


def builtin_file(root: Path, owner: int) -> list[str]:
    options = {"path": str(root), "state": "directory", "recurse": True, "follow": False}
    return payload("ansible.builtin.file", json.dumps({**options, "owner": str(owner), "group": str(owner)}))


CHOWN = "chown -R -h"
PING = "an empty module"
CANDIDATES: dict[str, t.Callable[[Path, int], list[str]]] = {
    "walker": walker,
    "walker, 1 process": functools.partial(walker, workers=1),
    CHOWN: lambda root, owner: ["chown", "-R", "-h", f"{owner}:{owner}", str(root)],
    "find -exec chown": lambda root, owner: ["find", str(root), "-exec", "chown", "-h", f"{owner}:{owner}", "{}", "+"],
    PING: lambda root, owner: payload("ansible.builtin.ping", "{}"),
    "whole module": whole_module,
    "ansible.builtin.file": builtin_file,
}
LESS_PING = ("whole module", "ansible.builtin.file")


# --- measuring -------------------------------------------------------------------------------------------------------


def sectors(root: Path) -> int:
    """512-byte sectors written so far to the device the tree lies on; 0 where that cannot be told."""
    device = root.stat().st_dev
    try:
        return int(Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()[6])
    except OSError:
        return 0


def measure(command: list[str], root: Path, cold: bool) -> Run:
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        # The programs themselves are warm: what is measured is the tree.
        subprocess.run([*command[:1], "--version"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = sectors(root)
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        print(f"failed: {' '.join(command)[:200]}: {errors.strip()[-300:]}", file=sys.stderr)
    os.sync()
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, (sectors(root) - before) / 2048)


def right(root: Path, owner: int) -> None:
    subprocess.run(["chown", "-R", "-h", f"{owner}:{owner}", root], check=True)


def victim(root: Path) -> Path:
    """A file that the case `one wrong` gives away: the last one of the first directories."""
    while True:
        names = sorted(path.name for path in root.iterdir())
        directories = [name for name in names if (root / name).is_dir()]
        if not directories or len(root.parts) > 20:
            return root / next(name for name in names if name not in directories)
        root = root / directories[-1]


def repetition(root: Path, case: str, candidates: list[str]) -> dict[str, Run]:
    """Every candidate once, each on the tree as the case wants it."""
    found = {}
    right(root, OWNERS[0])
    owner = OWNERS[0]
    for name in candidates:
        if case.endswith("all wrong") and name != PING:
            owner = OWNERS[1] if owner == OWNERS[0] else OWNERS[0]
        elif case.endswith("one wrong"):
            os.lchown(victim(root), 0, 0)
        found[name] = measure(CANDIDATES[name](root, owner), root, cold=case.startswith("cold"))
    return found


def report(tree: str, case: str, runs: list[dict[str, Run]]) -> None:
    for name in runs[0]:
        less = [found[PING].seconds if name in LESS_PING else 0.0 for found in runs]
        processor = statistics.median(found[name].processor for found in runs)
        if name in LESS_PING:
            processor -= statistics.median(found[PING].processor for found in runs)
        seconds = [found[name].seconds - spent for found, spent in zip(runs, less)]
        ratios = [spent / found[CHOWN].seconds for found, spent in zip(runs, seconds)]
        written = min(found[name].written for found in runs)
        print(
            f"| {tree} | {case} | {name}{' less an empty module' if name in LESS_PING else ''} "
            f"| {statistics.median(seconds):.3f} | {min(seconds):.3f} "
            f"| {statistics.median(ratios):.2f} | {min(ratios):.2f} | {processor:.3f} "
            f"| {max(found[name].megabytes for found in runs):.0f} | {written:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small trees, fewer repetitions")
    parser.add_argument("--trees", nargs="+", choices=TREES, help="only these")
    parser.add_argument("--cases", nargs="+", default=["no-op", "one wrong", "all wrong", "cold no-op"])
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, help="only these; chown is always among them")
    parser.add_argument("--repetitions", type=int, help="of each case (5; of 1M and with --quick 3)")
    parser.add_argument("--directory", type=Path, default=ROOT / ".cache/bench", help="where the trees are made")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root may give files away: run it as root, for example with sudo")
    arguments.directory.mkdir(parents=True, exist_ok=True)
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} processors ({(processors or ['unknown'])[0].split(': ')[-1]}),", end=" ")
    print(f"Linux {platform.release()}, load before {load}, trees in {os.path.relpath(arguments.directory, ROOT)}\n")
    print(
        "| tree | case | candidate | median s | minimum s | median ratio | best ratio | processor s "
        "| peak MB | written MB |"
    )
    print("|---" * 10 + "|")
    for tree in arguments.trees or (QUICK if arguments.quick else FULL):
        root = grown(arguments.directory.resolve(), tree)
        for case in arguments.cases:
            names = [name for name in CANDIDATES if not arguments.candidates or name in (*arguments.candidates, CHOWN)]
            if any(name in names for name in LESS_PING) and PING not in names:
                names.append(PING)
            if case.startswith("cold"):
                names = [name for name in names if name.startswith(("walker", "chown", "find"))]
            if tree == "deep3000":
                # Neither gets to the end of a path longer than PATH_MAX.
                names = [name for name in names if name not in ("ansible.builtin.file", "find -exec chown")]
            repetitions = arguments.repetitions or (3 if arguments.quick or tree == "1M" else 5)
            report(tree, case, [repetition(root, case, names) for _number in range(repetitions)])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\nLoad after: {load}. Ratios are to chown -R -h in the same repetition. Peak MB is of the largest process,")
    print("at least what the measuring process has; written MB is the least of all repetitions, others' included.")


if __name__ == "__main__":
    main()
