# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The testbed's decisions: what it reads from the machine, when it rebuilds, how hosts are told apart."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TESTBED = Path(__file__).resolve().parents[2] / "testbed"
sys.path.insert(0, str(TESTBED))

import demo  # noqa: E402
from lab import apt, engine, hosts, images, services, standins  # noqa: E402
from lab.run import TestbedError  # noqa: E402

DEB822 = """\
# The archive.
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""
ONE_LINE = """\
# deb http://comment.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # trailing words
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/keyring.asc] http://mirror.example/security bookworm-security main
"""
THIRD_PARTY = "deb https://packages.example/apt stable main\n"


def test_sources_of_both_formats_turn_into_another_release(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "other.list").write_text(THIRD_PARTY)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "debian.sources.save").write_text(DEB822.replace("mirror", "saved"))

    assert apt.for_release(apt.machine_sources(tmp_path), "bookworm", "trixie") == [
        "deb http://mirror.example/debian trixie main",
        "deb [signed-by=/etc/keyring.asc] http://mirror.example/security trixie-security main",
        "deb [signed-by=/usr/share/keyrings/archive.gpg] http://mirror.example/debian trixie main",
        "deb [signed-by=/usr/share/keyrings/archive.gpg] http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]


def test_only_the_options_a_mirror_needs_are_taken_over() -> None:
    dump = (
        'APT::Install-Recommends "1";\nAcquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Languages "de";\n'
    )
    assert apt.options(dump) == [
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy.example:3128";',
    ]


def test_os_release_is_read_with_and_without_quotes() -> None:
    assert apt.os_release('ID=debian\nVERSION_ID="12"\n# x=y\n') == {"ID": "debian", "VERSION_ID": "12"}


def test_the_hash_follows_everything_an_image_is_made_from(tmp_path: Path) -> None:
    context = tmp_path / "image"
    (context / "__pycache__").mkdir(parents=True)
    script = context / "run.sh"
    script.write_text("echo 1\n")
    seen = [images.content_hash("base:1", context)]

    (context / "__pycache__" / "run.pyc").write_bytes(b"compiled")
    assert images.content_hash("base:1", context) == seen[0]

    script.write_text("echo 2\n")
    seen.append(images.content_hash("base:1", context))
    script.chmod(0o755)
    seen.append(images.content_hash("base:1", context))
    script.rename(context / "other.sh")
    seen.append(images.content_hash("base:1", context))
    seen.append(images.content_hash("base:2", context))
    assert len(set(seen)) == len(seen)


def test_the_hash_is_the_same_in_every_clone(tmp_path: Path) -> None:
    for clone in ("one", "two"):
        (tmp_path / clone / "image").mkdir(parents=True)
        (tmp_path / clone / "image" / "Dockerfile").write_text("FROM scratch\n")
    assert images.content_hash(tmp_path / "one" / "image") == images.content_hash(tmp_path / "two" / "image")


@pytest.mark.parametrize(
    ("system", "image"),
    [("debian-13", "debian:trixie"), ("ubuntu-24.04", "ubuntu:24.04"), ("debian-12", "debian:bookworm")],
)
def test_public_images_are_named_as_registries_name_them(system: str, image: str) -> None:
    assert images.SYSTEMS[system].public_image == image


def test_every_supported_system_can_be_a_host() -> None:
    assert set(images.SYSTEMS) == {"debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"}
    with pytest.raises(TestbedError, match="use --image host"):
        images.host_docker_tag("debian-12")


def test_every_client_has_what_its_image_is_made_from() -> None:
    directory = Path(images.__file__).parents[1] / "client"
    sources = {f"Dockerfile.{kind}" for kind in images.CLIENTS if kind != "plain"}
    assert sources.union(*images.CLIENTS.values()) == {path.name for path in directory.iterdir()}
    assert len({images.client_tag(kind) for kind in images.CLIENTS}) == len(images.CLIENTS)


def test_hosts_get_the_lowest_free_address() -> None:
    assert hosts.free_address([]) == "10.213.0.10"
    assert hosts.free_address(["10.213.0.2", "10.213.0.10", "10.213.0.12"]) == "10.213.0.11"
    with pytest.raises(TestbedError, match="host destroy"):
        hosts.free_address(f"10.213.0.{number}" for number in range(256))


def test_fixed_addresses_stay_clear_of_those_the_engine_hands_out() -> None:
    subnet, handed_out = (ipaddress.ip_network(text) for text in (engine.SUBNET, engine.DYNAMIC_RANGE))
    fixed = [services.REGISTRY, services.GIT, services.ACME, services.DNS, *hosts._ADDRESSES]
    assert len(set(fixed)) == len(fixed)
    for address in map(ipaddress.ip_address, fixed):
        assert address in subnet
        assert address not in handed_out
    assert handed_out.subnet_of(subnet)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a-", "registry", "selfhost-dify-acme", "a" * 64])
def test_names_that_cannot_be_hosts_are_refused(name: str) -> None:
    with pytest.raises(TestbedError, match="cannot name a host"):
        hosts.check_name(name)


def test_containers_carry_the_prefix_once() -> None:
    hosts.check_name("a")
    assert hosts.container_name("a") == "selfhost-dify-a"
    assert hosts.container_name("selfhost-dify-demo") == "selfhost-dify-demo"


def test_control_groups_by_version() -> None:
    flags, command = hosts.cgroup_flags("2", unified=False)
    assert flags == ["--cgroupns=private"]
    assert command[-1].endswith("exec /lib/systemd/systemd")
    flags, command = hosts.cgroup_flags("1", unified=True)
    assert "/sys/fs/cgroup/unified:/sys/fs/cgroup:rw" in flags
    assert command == ["/lib/systemd/systemd"]
    with pytest.raises(TestbedError, match="unified_cgroup_hierarchy"):
        hosts.cgroup_flags("1", unified=False)


def test_only_old_engines_are_told_which_capability_may_be_missing() -> None:
    assert hosts.capability_flags("20.10.24+dfsg1") == ["--cap-add=ALL", "--cap-drop=SYS_RESOURCE"]
    assert hosts.capability_flags("26.1.5+dfsg1") == ["--cap-add=ALL"]


def test_images_come_after_the_ones_they_build_on() -> None:
    entries = [
        {"directory": "leaf", "base": "middle", "tags": [{"name": "a/leaf:1", "args": {"VERSION": "1"}}]},
        {"directory": "middle", "base": "root", "tags": []},
        {"directory": "root", "tags": [{"name": "root:latest"}]},
    ]
    ordered = standins.parse(entries)
    assert [one.directory for one in ordered] == ["root", "middle", "leaf"]
    assert ordered[0].tags == {"root:latest": {}}
    assert ordered[2].tags == {"a/leaf:1": {"VERSION": "1"}}
    with pytest.raises(TestbedError, match=r"leaf \(base middle\)"):
        standins.parse(entries[:1])


def test_the_list_of_stand_ins_can_be_built() -> None:
    ordered = standins.parse(json.loads((standins.DIRECTORY / "images.json").read_text()))
    names = [name for one in ordered for name in one.tags]
    assert len(names) == len(set(names))
    for one in ordered:
        assert (standins.DIRECTORY / one.directory / "Dockerfile").is_file(), one.directory
    for name in names:
        assert ":" in name, f"{name} has no tag"


def test_official_images_are_in_library() -> None:
    assert standins.repository_path("redis:6-alpine") == "library/redis:6-alpine"
    assert standins.repository_path("langgenius/dify-api:1.16.1") == "langgenius/dify-api:1.16.1"


@pytest.mark.parametrize(("value", "upstream"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_upstream_is_used_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, value: str | None, upstream: bool
) -> None:
    monkeypatch.delenv("DIFY_TEST_UPSTREAM", raising=False)
    if value is not None:
        monkeypatch.setenv("DIFY_TEST_UPSTREAM", value)
    assert services.upstream_mode() is upstream


HOST = {"address": "10.213.0.10", "user": "operator", "private_key": "/key"}


def test_the_demo_says_in_its_inventory_only_what_differs_from_the_internet() -> None:
    info = {"repo_url": "git://x", "acme_directory": "https://a", "acme_ca": "/ca", "registry_mirror": "http://r",
            "stand_ins": True}  # fmt: skip
    variables = demo.inventory(HOST, info, "1.12.1")["dify"]["hosts"][demo.HOST]
    assert variables["dify_version"] == "1.12.1"
    assert variables["docker_daemon_options"] == {"registry-mirrors": ["http://r"]}
    assert variables["docker_package_source"] == "distribution"

    upstream = demo.inventory(HOST, {**info, "registry_mirror": None, "stand_ins": False}, "1.12.1")
    assert not [name for name in upstream["dify"]["hosts"][demo.HOST] if name.startswith("docker_")]


def test_the_demo_tells_stand_ins_from_dify() -> None:
    assert "stand-ins in place of Dify's own images" in demo.how_to_open(HOST, Path("/ca.pem"), stand_ins=True)
    text = demo.how_to_open(HOST, Path("/ca.pem"), stand_ins=False)
    assert "stand-in" not in text
    assert "curl --cacert /ca.pem --resolve dify.test:443:10.213.0.10 https://dify.test/signin" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Python keeps what it compiled")
def test_a_module_in_an_archive_is_compiled_once_and_anew_when_it_changed(tmp_path: Path) -> None:
    place, archive = tmp_path / "kept", tmp_path / "modules.zip"
    script = f"import compile_once; compile_once.install({str(place)!r}); import told; print(told.value)"

    def told(value: str) -> str:
        with zipfile.ZipFile(archive, "w") as modules:
            modules.writestr("told.py", f"value = {value!r}\n")
        path = f"{TESTBED / 'host'}:{archive}"
        done = subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert told("first") == "first"
    (kept,) = (file for file in place.rglob("*") if file.is_file())
    made = kept.stat()
    assert told("first") == "first"
    assert kept.stat() == made
    assert told("other") == "other"
    assert told("first") == "first"
    assert len([file for file in place.rglob("*") if file.is_file()]) == 2
