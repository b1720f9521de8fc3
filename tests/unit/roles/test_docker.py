# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role docker: what it derives from the host's facts, the operator's variables and the daemon.json it finds."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles" / "docker"

OWN_PACKAGES = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]

# What ansible.builtin.setup says on each supported system.
FACTS: dict[str, dict[str, str]] = {
    "Debian 12": {"distribution": "Debian", "distribution_version": "12.12", "distribution_release": "bookworm"},
    "Debian 13": {"distribution": "Debian", "distribution_version": "13.2", "distribution_release": "trixie"},
    "Ubuntu 22.04": {"distribution": "Ubuntu", "distribution_version": "22.04", "distribution_release": "jammy"},
    "Ubuntu 24.04": {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_release": "noble"},
    "Ubuntu 26.04": {"distribution": "Ubuntu", "distribution_version": "26.04", "distribution_release": "resolute"},
}


def derive(expression: str, system: str = "Debian 13", **variables: t.Any) -> t.Any:
    """The value of a Jinja expression over the role's defaults and vars, a system's facts and other variables."""
    loader = DataLoader()
    scope: dict[str, t.Any] = {}
    for part in ("defaults", "vars"):
        scope |= loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    scope["ansible_facts"] = {"architecture": "x86_64", "service_mgr": "systemd", **FACTS[system]}
    scope |= variables
    return Templar(loader=loader, variables=scope).template(trust_as_template("{{ " + expression + " }}"))


def daemon(found: dict[str, t.Any], options: dict[str, t.Any]) -> t.Any:
    """What daemon.json shall say, given what it says now and the operator's options."""
    return derive("__docker_daemon_wanted", __docker_daemon_found=found, docker_daemon_options=options)


@pytest.mark.parametrize(
    ("system", "url", "codename", "packages"),
    [
        ("Debian 12", "https://download.docker.com/linux/debian", "bookworm", []),
        (
            "Debian 13",
            "https://download.docker.com/linux/debian",
            "trixie",
            ["docker.io", "docker-cli", "docker-buildx", "docker-compose"],
        ),
        (
            "Ubuntu 22.04",
            "https://download.docker.com/linux/ubuntu",
            "jammy",
            ["docker.io", "docker-buildx", "docker-compose-v2"],
        ),
        (
            "Ubuntu 24.04",
            "https://download.docker.com/linux/ubuntu",
            "noble",
            ["docker.io", "docker-buildx", "docker-compose-v2"],
        ),
        (
            "Ubuntu 26.04",
            "https://download.docker.com/linux/ubuntu",
            "resolute",
            ["docker.io", "docker-buildx", "docker-compose-v2"],
        ),
    ],
)
def test_data_of_each_system(system: str, url: str, codename: str, packages: list[str]) -> None:
    assert derive("__docker_repository_url", system) == url
    assert derive("__docker_repository_key_url", system) == f"{url}/gpg"
    assert derive("__docker_codename", system) == codename
    assert derive("__docker_systems[__docker_codename].name", system) == system
    assert derive("__docker_packages", system) == OWN_PACKAGES
    assert derive("__docker_packages", system, docker_package_source="distribution") == packages


def test_the_systems_are_these_five() -> None:
    assert {system["name"] for system in derive("__docker_systems").values()} == set(FACTS)


def test_no_source_counts_its_own_packages_as_rivals() -> None:
    for system in FACTS:
        for source in ("docker", "distribution"):
            assert not derive(
                "__docker_packages | intersect(__docker_rivals[docker_package_source])",
                system,
                docker_package_source=source,
            )


def test_each_source_counts_the_packages_of_the_other_as_rivals() -> None:
    assert not derive("__docker_own_packages | difference(__docker_rivals.distribution)")
    for system in FACTS:
        assert not derive("__docker_systems[__docker_codename].packages | difference(__docker_rivals.docker)", system)


def test_a_mirror_with_its_own_key() -> None:
    mirror = {"docker_repository_url": "https://mirror.example.com/docker/"}
    assert derive("__docker_repository_url", **mirror) == "https://mirror.example.com/docker"
    assert derive("__docker_repository_key_url", **mirror) == "https://mirror.example.com/docker/gpg"
    key = {"docker_repository_key_url": "https://keys.example.com/docker.asc"}
    assert derive("__docker_repository_key_url", **mirror, **key) == key["docker_repository_key_url"]


def test_packages_that_are_removed_but_not_purged_are_missing() -> None:
    dpkg = {"stdout_lines": ["installed ca-certificates 20250419", "config-files curl 8.14", "installed git 1:2.47"]}
    assert derive("__docker_present", __docker_dpkg=dpkg) == ["ca-certificates", "git"]
    assert derive("__docker_base_missing", __docker_dpkg=dpkg) == ["curl", "gnupg", "python3-debian"]


def test_daemon_options_of_a_bare_host() -> None:
    assert daemon({}, {}) == {
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-file": "3", "max-size": "20m"},
    }


def test_operator_wins_over_the_file_and_the_file_over_the_defaults() -> None:
    found = {"live-restore": False, "data-root": "/srv/docker", "log-opts": {"max-size": "5m", "labels": "site"}}
    options = {"registry-mirrors": ["https://mirror.example.com"], "log-opts": {"max-size": "50m"}}
    assert daemon(found, options) == {
        "data-root": "/srv/docker",
        "live-restore": False,
        "log-driver": "json-file",
        "log-opts": {"labels": "site", "max-file": "3", "max-size": "50m"},
        "registry-mirrors": ["https://mirror.example.com"],
    }


def test_a_second_run_wants_what_the_first_wrote() -> None:
    options = {"log-driver": "local", "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}]}
    first = daemon({"debug": True}, options)
    assert daemon(first, options) == first


@pytest.mark.parametrize("driver", ["journald", "syslog", "none"])
def test_size_limits_are_left_out_for_drivers_that_do_not_know_them(driver: str) -> None:
    assert "log-opts" not in daemon({}, {"log-driver": driver})
    assert "log-opts" not in daemon({"log-driver": driver}, {})


def test_log_options_go_with_their_driver() -> None:
    syslog = {"log-driver": "syslog", "log-opts": {"syslog-address": "udp://10.0.0.1:514"}}
    assert daemon(syslog, {})["log-opts"] == {"syslog-address": "udp://10.0.0.1:514"}
    assert daemon(syslog, {"log-driver": "local"})["log-opts"] == {"max-file": "3", "max-size": "20m"}


def test_null_removes_an_option() -> None:
    wanted = daemon({"debug": True, "log-driver": "syslog"}, {"debug": None, "live-restore": None, "log-driver": None})
    assert wanted == {"log-opts": {"max-file": "3", "max-size": "20m"}}


def test_a_file_that_says_the_same_keeps_its_formatting() -> None:
    text = json.dumps(daemon({}, {}))
    same = derive("__docker_daemon_content", __docker_daemon_text=text, __docker_daemon_found=json.loads(text))
    assert same == text
    other = derive("__docker_daemon_content", __docker_daemon_text="{}", __docker_daemon_found={})
    assert json.loads(other) == json.loads(text)
    assert other.endswith("}\n")
