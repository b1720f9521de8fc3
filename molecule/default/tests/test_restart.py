# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that was switched off and on again."""

from __future__ import annotations

import os
import subprocess
import time

from conftest import TESTBED, Server


def test_the_server_comes_back_by_itself(server: Server, password: str) -> None:
    name = os.environ["MOLECULE_SCENARIO_NAME"]
    subprocess.run([*TESTBED, "host", "restart", f"selfhost-dify-{name}"], check=True, capture_output=True)
    deadline = time.monotonic() + 180
    while True:
        try:
            answer = server.request("GET", "/console/api/setup")
            if answer.status == 200:
                break
        except OSError:
            pass
        assert time.monotonic() < deadline, "no answer over HTTPS within 180 s of the restart"
        time.sleep(1)
    assert answer.json()["step"] == "finished"
    assert server.sign_in(password)
