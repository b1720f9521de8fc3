# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the other modules stand on: failures told to the operator, commands, and moving bytes between them."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import subprocess
import tempfile
import typing as t
from pathlib import Path

Json = t.Dict[str, t.Any]


CHUNK = 1 << 20


# Looks at what is moved.
Tap = t.Callable[[bytes], None]


class Problem(Exception):
    """What went wrong, as a sentence for the operator."""


class Locked(Problem):
    """Another run is under way."""


def run(command: t.Sequence[str], **options: t.Any) -> str:
    """What a command prints; its failure is a Problem with what it complained of."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", check=False, **options
    )
    if done.returncode:
        raise Problem(complaint(command, done.returncode, done.stderr or done.stdout))
    return done.stdout


def complaint(command: t.Sequence[str], code: int, output: str) -> str:
    """What a failed command said: its last lines, without credentials."""
    lines = [said(line) for line in output.strip().splitlines() if line.strip()]
    words = "; ".join(lines[-3:]) if lines else "it said nothing"
    program = " ".join(command[:2]) if command[0] == "docker" else Path(command[0]).name
    return "{} failed with {}: {}".format(program, code, re.sub(r"://[^/@\s]+@", "://***@", words))


def said(line: str) -> str:
    """The message of a line that may be JSON.

    >>> said('{"message_type":"exit_error","code":12,"message":"Fatal: wrong password"}')
    'Fatal: wrong password'
    """
    try:
        message = json.loads(line)["message"]
    except (ValueError, KeyError, TypeError):
        return line
    return str(message)


def pump(source: t.Sequence[str], sink: subprocess.Popen[bytes], tap: Tap | None = None, **options: t.Any) -> Json:
    """Moves what a command prints into another one: how much it was, and its digest.

    The other one sees an end only after the command ended well; otherwise it is killed before, so that half of a dump
    never becomes a snapshot. ``tap`` is handed every chunk and nothing (empty) at the end, which it may refuse.
    """
    assert sink.stdin
    digest, size, broken = hashlib.sha256(), 0, False
    with tempfile.TemporaryFile() as errors:
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(source, stdout=subprocess.PIPE, stderr=errors, **options)
        assert process.stdout
        try:
            while True:
                chunk = process.stdout.read(CHUNK)
                if not chunk:
                    break
                digest.update(chunk)
                size += len(chunk)
                if tap:
                    tap(chunk)
                sink.stdin.write(chunk)
            sink.stdin.flush()
        except BrokenPipeError:
            broken = True
            process.kill()  # nobody takes the rest
        except BaseException:
            sink.kill()
            process.kill()
            raise
        process.stdout.close()
        code = process.wait()
        errors.seek(0)
        words = errors.read().decode("utf-8", "replace")
    if code and not broken:
        sink.kill()
        sink.communicate()
        raise Problem(complaint(source, code, words))
    if tap and not broken:
        try:
            tap(b"")
        except Problem:
            sink.kill()
            sink.communicate()
            raise
    with contextlib.suppress(BrokenPipeError):
        sink.stdin.close()
    sink.stdin = None  # communicate() would close it once more
    complaints = sink.communicate()[1] or b""
    if sink.returncode or broken:
        raise Problem(complaint(t.cast("list[str]", sink.args), sink.returncode, complaints.decode("utf-8", "replace")))
    return {"bytes": size, "sha256": digest.hexdigest()}


def utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def read_environment(path: str) -> dict[str, str]:
    """Name to value of a file of NAME=value lines."""
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).exists() else ""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)
