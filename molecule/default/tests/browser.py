# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs in as a user does; runs in the testbed's client:browser. Says what the browser saw, as JSON.

Standard input is an object of `domain`, `roots` (certificates to trust, PEM), `email` and `password`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

# What a page of the console does to know who it serves.
PROFILE = """
const [done] = arguments, csrf = document.cookie.match(/(?:^|; )(?:__Host-)?csrf_token=([^;]*)/);
fetch("/console/api/account/profile", { headers: { "X-CSRF-Token": csrf ? csrf[1] : "" } })
  .then(async answer => done({ status: answer.status, email: (await answer.json()).email }));
"""


def trust(roots: list[str]) -> None:
    """Makes the browser trust these certificates, beside the public ones."""
    database = Path.home() / ".pki/nssdb"
    database.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    for number, root in enumerate(roots):
        command = [*certutil, "-A", "-n", f"root {number}", "-t", "C,,"]
        subprocess.run(command, input=root.encode(), check=True)


def path(browser: webdriver.Chrome) -> str:
    return browser.execute_script("return location.pathname")


def main() -> None:
    told = json.load(sys.stdin)
    trust(told["roots"])
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    wait = WebDriverWait(browser, 60)
    seen = {}

    browser.get(f"https://{told['domain']}/")
    wait.until(lambda _: path(browser) == "/signin")
    seen["before"] = browser.execute_async_script(PROFILE)

    browser.find_element(By.CSS_SELECTOR, "input[type=email]").send_keys(told["email"])
    browser.find_element(By.CSS_SELECTOR, "input[type=password]").send_keys(told["password"], Keys.ENTER)
    wait.until(lambda _: path(browser).startswith("/apps"))
    seen["signed in"] = browser.execute_async_script(PROFILE)

    browser.refresh()
    seen["reloaded"] = browser.execute_async_script(PROFILE)
    seen["path"] = path(browser)
    seen["cookies"] = {cookie["name"]: cookie["secure"] for cookie in browser.get_cookies()}
    seen["complaints"] = [entry["message"] for entry in browser.get_log("browser") if entry["source"] == "security"]
    browser.quit()
    print(json.dumps(seen))


main()
