# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user who goes on working while the server is backed up: uploads files and notes which were accepted, and when."""

from __future__ import annotations

import json
import time

from conftest import Server
from truth import ENOUGH, WRITTEN, upload


def test_write(server: Server, session: dict[str, str]) -> None:
    number = 0
    with WRITTEN.open("w", encoding="utf-8") as file:
        while not ENOUGH.exists():
            asked = time.time()
            identity = upload(server, session, f"writer {number}.txt", f"written {number}\n".encode())
            file.write(json.dumps({"id": identity, "asked": asked, "took": time.time() - asked}) + "\n")
            file.flush()
            number += 1
            time.sleep(0.1)
