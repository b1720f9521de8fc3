# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""What was seen of a Dify server as metrics for the textfile collector of Prometheus' node exporter.

The role installs this with the private module utils beside it as a program of its own, which a timer runs:
C(python3 -m …_instance_metrics OPTIONS.json DIRECTORY/dify.prom). No host needs Ansible for that.
"""

from __future__ import annotations

import json
import os
import sys
import time
import typing as t

from ansible_collections.selfhost.dify.plugins.module_utils._instance import ERROR, Finding

Sample = t.Tuple[t.Mapping[str, str], float]

HELP = {
    "dify_healthy": "Whether there is no finding of severity error.",
    "dify_finding": "A finding: what is wrong is in docs/status.md under its id.",
    "dify_service_running": "Whether a service that is to run does.",
    "dify_service_restarts": "How often Docker started a service's container again.",
    "dify_release_info": "The release that runs; the value is always 1.",
    "dify_certificate_expires_timestamp_seconds": "When the certificate expires.",
    "dify_backup_last_success_timestamp_seconds": "When the last good backup ended.",
    "dify_storage_wrong_owner_entries": "Entries of the storage that do not belong to the uid of the API.",
    "dify_logs_bytes": "Size of the containers' logs.",
    "dify_images_unused_bytes": "Size of the images that no container of the server runs.",
    "dify_status_timestamp_seconds": "When the server was looked at last.",
    "dify_status_duration_seconds": "How long it took to look.",
}


def metrics(facts: t.Mapping[str, t.Any], findings: t.Iterable[Finding], now: float, seconds: float) -> str:
    """The text of the file. ``now``: when it was looked, ``seconds``: how long it took."""
    ones = list(dict.fromkeys((one.id, one.severity, one.service) for one in findings))
    release = facts.get("release") or {}
    version = (facts.get("api") or {}).get("version") or release.get("checked_out") or ""
    certificate = facts.get("certificate") or {}
    backup = (facts.get("backup") or {}).get("last_success")
    wanted = {
        name: one for name, one in (facts.get("services") or {}).items() if one["expected"] and not one["one_shot"]
    }
    samples: dict[str, list[Sample]] = {
        "dify_healthy": [({}, float(not any(severity == ERROR for _id, severity, _service in ones)))],
        "dify_finding": [({"id": name, "severity": severity, "service": of}, 1) for name, severity, of in ones],
        "dify_service_running": [({"service": name}, one["state"] == "running") for name, one in wanted.items()],
        "dify_service_restarts": [({"service": name}, one["restarts"]) for name, one in wanted.items()],
        "dify_release_info": [({"version": version, "commit": release.get("commit") or ""}, 1)] if version else [],
        "dify_certificate_expires_timestamp_seconds": [({}, certificate["expires"])] if certificate else [],
        "dify_backup_last_success_timestamp_seconds": [({}, backup)] if backup else [],
        "dify_storage_wrong_owner_entries": [
            ({"path": one["path"]}, one["wrong"]) for one in facts.get("storage") or ()
        ],
        "dify_logs_bytes": [({}, facts["logs_bytes"])] if "logs_bytes" in facts else [],
        "dify_images_unused_bytes": [({}, facts["images_unused_bytes"])] if "images_unused_bytes" in facts else [],
        "dify_status_timestamp_seconds": [({}, now)],
        "dify_status_duration_seconds": [({}, seconds)],
    }
    return "".join(_family(name, rows) for name, rows in samples.items() if rows)


def _family(name: str, rows: t.Iterable[Sample]) -> str:
    lines = ["# HELP {0} {1}".format(name, HELP[name]), "# TYPE {0} gauge".format(name)]
    for labels, value in rows:
        inside = ",".join('{0}="{1}"'.format(key, _escaped(text)) for key, text in labels.items())
        lines.append("{0}{1} {2:.15g}".format(name, "{" + inside + "}" if inside else "", float(value)))
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def main(options: str, target: str) -> None:
    """Looks once and replaces the file in one step, so that nobody reads half of it."""
    # Only the program looks; whoever wants the text alone needs none of the probes.
    from ansible_collections.selfhost.dify.plugins.module_utils._instance_probes import Options, look

    with open(options, encoding="utf-8") as stream:
        given = Options(**json.load(stream))
    begun = time.time()
    facts, findings, _hidden = look(given)
    text = metrics(facts, findings, begun, time.time() - begun)
    partial = target + ".partial"
    with open(partial, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(partial, 0o644)
    os.replace(partial, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
