# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens a report as a reader does; runs in the testbed's client:browser. Tells as JSON what it saw of its input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

# Whether everything keeps within the window, and the colours of the text and of what is good or bad.
LOOK = """
const color = name => { const one = document.querySelector(name); return one && getComputedStyle(one).color; };
return {
  wide: document.documentElement.scrollWidth > innerWidth,
  colors: [color("body"), color("section header .good, section header .error")],
};
"""


def main() -> None:
    report = Path("/tmp/report.html")
    report.write_text(sys.stdin.read(), encoding="utf-8")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    browser.get(report.as_uri())
    seen = {
        "title": browser.title,
        "text": browser.find_element(By.TAG_NAME, "body").text,
        "rows": len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")),
    }
    for name, width, scheme in (("desk", 1280, "light"), ("phone", 390, "dark")):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen[name] = browser.execute_script(LOOK)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    seen["fetched"] = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    seen["complaints"] = [entry["message"] for entry in browser.get_log("browser")]
    browser.quit()
    print(json.dumps(seen))


main()
