# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a scenario's host, root's Python compiles a module that comes in a zip archive only once.

Ansible sends each task's module in an archive, of which Python keeps nothing compiled: two thirds of the processor
time of a short task, thousands of times in a scenario. Here what was compiled is kept under the hash of its source.
Nothing else differs from a host of an operator's. Hosts whose speed is measured go without.
"""

import contextlib
import hashlib
import marshal
import os
import sys
import zipimport

PLACE = "/var/cache/compile_once"


def install(place=PLACE):
    """Keeps what is compiled from archives in ``place``; does nothing unless root runs it."""
    if os.geteuid() != 0:
        return
    directory = os.path.join(place, sys.implementation.cache_tag)
    compile_source = zipimport._compile_source

    def compile_once(path, source):
        kept = os.path.join(directory, hashlib.sha256(source).hexdigest())
        if os.path.exists(kept):
            with open(kept, "rb") as file:
                return marshal.loads(file.read())
        code = compile_source(path, source)
        with contextlib.suppress(OSError):  # some tests fill disks
            os.makedirs(directory, mode=0o700, exist_ok=True)
            part = f"{kept}.{os.getpid()}"
            with open(part, "wb") as file:
                file.write(marshal.dumps(code))
            os.replace(part, kept)
        return code

    zipimport._compile_source = compile_once
