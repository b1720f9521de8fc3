# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Note that this module util is **PRIVATE** to the collection. It can change at any time without notice.

Several processes walk one tree together: who has nothing left to do is given some of another's directories.
"""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import select
import signal
import traceback
import typing as t

from ansible_collections.selfhost.dify.plugins.module_utils._ownership import OwnershipError
from ansible_collections.selfhost.dify.plugins.module_utils._ownership_walk import Directory, Report, Walker

SHARE_DEPTH = 200  # deeper directories stay with the helper that found them


class _Packed(t.NamedTuple):
    """A directory as one helper gives it to another, with those above it."""

    above: _Packed | None
    name: str
    identity: tuple[int, int] | None
    part: int


def _give(walker: Walker) -> list[_Packed]:
    """The older half of the pending directories, which lie highest in the tree, for another helper."""
    if not walker.pending or walker.pending[0].depth > SHARE_DEPTH:
        return []
    half = min((len(walker.pending) + 1) // 2, 1000)
    given, walker.pending[:half] = walker.pending[:half], []
    packed: dict[Directory, _Packed] = {}

    def pack(node: Directory) -> _Packed:
        if node not in packed:
            above = pack(node.parent) if node.parent else None
            packed[node] = _Packed(above, node.name, node.identity, node.part)
        return packed[node]

    return [pack(node) for node in given]


def _take(walker: Walker, given: list[_Packed]) -> None:
    """Makes the pending directories of another helper this one's."""
    nodes: dict[int, Directory] = {}

    def unpack(packed: _Packed) -> Directory:
        if id(packed) not in nodes:
            parent = unpack(packed.above) if packed.above else None
            if parent and parent.parent is None:
                parent = walker.root
            node = nodes[id(packed)] = Directory(parent, packed.name, packed.part)
            node.identity = packed.identity
        return nodes[id(packed)]

    walker.pending.extend(unpack(packed) for packed in given)


class _Channel:
    """Messages between this process and another one that was forked from it."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads = reads
        self.writes = writes

    def send(self, message: t.Any) -> None:
        """Raises ConnectionError if the other process is gone."""
        data = pickle.dumps(message)
        view = memoryview(len(data).to_bytes(8, "little") + data)
        while view:
            view = view[os.write(self.writes, view) :]

    def receive(self) -> t.Any:
        """Raises EOFError if the other process is gone."""
        return pickle.loads(self._exactly(int.from_bytes(self._exactly(8), "little")))  # noqa: S301 - our own process

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = os.read(self.reads, size - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    def close(self) -> None:
        os.close(self.reads)
        os.close(self.writes)


def _channel_pair() -> tuple[_Channel, _Channel]:
    (down, into_down), (up, into_up) = os.pipe(), os.pipe()
    return _Channel(up, into_down), _Channel(down, into_up)


def walk_together(walker: Walker, helpers: int) -> None:
    """Works off the pending directories with forked helpers; who has none is given some of another's."""
    hungry = mmap.mmap(-1, mmap.PAGESIZE)  # first byte: whether a helper is without work
    children: dict[_Channel, int] = {}
    idle: list[_Channel] = []
    poll = select.poll()
    channels: dict[int, _Channel] = {}
    given: list[list[_Packed]] = []
    gc.freeze()
    try:
        for number in range(helpers):
            ours, theirs = _channel_pair()
            try:
                pid = os.fork()
            except OSError:  # no more processes allowed: those that run do the work
                ours.close()
                theirs.close()
                break
            if pid == 0:
                for channel in (*children, ours):
                    channel.close()
                if number:
                    walker.pending = []
                _help(walker, theirs, hungry)
            theirs.close()
            children[ours] = pid
            channels[ours.reads] = ours
            poll.register(ours.reads, select.POLLIN)
        if not children:
            walker.walk()
            return
        walker.pending = []
        while len(idle) < len(children):
            for reads, _event in poll.poll():
                message = channels[reads].receive()
                if message is None:
                    idle.append(channels[reads])
                else:
                    given.append(message)
            while idle and given:
                idle.pop().send(given.pop())
            hungry[0] = bool(idle)
        for channel in children:
            channel.send(None)
            walker.report.merge(channel.receive())
    except (EOFError, ConnectionError):
        raise OwnershipError(
            "a helper process died before the tree was done, which memory or a signal can cause: "
            "run the task again to finish, or set workers to 1."
        ) from None
    finally:
        gc.unfreeze()
        for channel, pid in children.items():
            channel.close()
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        hungry.close()


def _help(walker: Walker, channel: _Channel, hungry: mmap.mmap) -> t.NoReturn:
    """The life of a helper: walk, ask for more, report at the end."""
    parent = os.getppid()

    def tick(busy: bool) -> None:
        if hungry[0] and len(walker.pending) > (not busy):
            given = _give(walker)
            if given:
                channel.send(given)
        if os.getppid() != parent:
            os._exit(1)

    walker.report = Report()
    walker.tick = tick
    try:
        while True:
            walker.walk()
            channel.send(None)
            given = channel.receive()
            if given is None:
                break
            _take(walker, given)
        channel.send(walker.report)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    except BaseException:  # the parent learns it from the closed channel
        traceback.print_exc()
    finally:
        os._exit(0)
