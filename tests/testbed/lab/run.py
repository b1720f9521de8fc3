# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands, and saying what is being done."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CLONE = Path(__file__).resolve().parents[3]
TESTBED = CLONE / "tests" / "testbed"
CACHE = CLONE / ".cache" / "testbed"

_STARTED = time.monotonic()


class TestbedError(Exception):
    """Something the testbed cannot do; the message says what, and what to do about it."""

    __test__ = False  # the name is no test class for pytest


def say(text: str) -> None:
    """One line of progress on standard error, with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announces a piece of work, and how long it took when that was noticeable."""
    say(title)
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took >= 2:
        say(f"{title}: done in {took:.0f} s")


def run(command: Sequence[str], *, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command and captures its output; a failure shows the end of it."""
    done = subprocess.run(
        list(command),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        check=False,
    )
    result = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-40:])
        raise TestbedError(f"`{' '.join(command)}` ended with {result.returncode}:\n{tail}")
    return result
