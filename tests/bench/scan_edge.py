# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what testssl.sh finds at the edge of the demonstration server, as the table of docs/tls-scan.md."""

from __future__ import annotations

import argparse
import json
import re
import ssl
import sys

import bench_edge
import demo
from lab import services

# Of what it only tells, without judging it.
TOLD = ("cert_keySize", "certs_countServer", "certs_list_ordering_problem", "final_score")


def roots() -> str:
    """The testbed's roots without its intermediates, so that a chain without them is found incomplete."""
    context = ssl.create_default_context(cafile=str(services.acme_root()))
    found = zip(context.get_ca_certs(), context.get_ca_certs(binary_form=True), strict=True)
    return "".join(ssl.DER_cert_to_PEM_cert(body) for fields, body in found if fields["subject"] == fields["issuer"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--host", default=demo.HOST, help="a host of the testbed with an edge (the demonstration server)"
    )
    domain = bench_edge.server(parser.parse_args().host)["domains"][0]
    done = bench_edge.client("tls-scan", domain, given=roots())
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    print("| check | finding | judged |\n|---|---|---|")
    for finding in json.loads(done.stdout):
        judged = finding["severity"] not in ("INFO", "WARN")
        if judged or finding["finding"] == "not offered" or finding["id"] in TOLD:
            text = re.sub(r"\s+", " ", finding["finding"]).replace("|", r"\|").strip()
            print(f"| {finding['id']} | {text} | {finding['severity']} |")


if __name__ == "__main__":
    main()
