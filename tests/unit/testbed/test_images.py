# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of stand-in images: complete for every release of the stand-in upstream, and built without surprises."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TESTBED = Path(__file__).resolve().parents[2] / "testbed"
IMAGES = TESTBED / "images"
sys.path.insert(0, str(TESTBED / "upstream"))

import build as upstream  # noqa: E402

ENTRIES: list[dict[str, Any]] = json.loads((IMAGES / "images.json").read_text())
DIRECTORIES = [entry["directory"] for entry in ENTRIES]
DEFAULT_PROFILES = {"collaboration", "postgresql", "weaviate"}


def published() -> list[str]:
    return [tag["name"] for entry in ENTRIES for tag in entry["tags"]]


def dockerfile(directory: str) -> str:
    return (IMAGES / directory / "Dockerfile").read_text()


def test_every_directory_is_listed_once_and_has_a_dockerfile() -> None:
    assert sorted(DIRECTORIES) == sorted(path.parent.name for path in IMAGES.glob("*/Dockerfile"))


def test_an_image_stands_after_the_one_it_builds_on() -> None:
    for index, entry in enumerate(ENTRIES):
        assert entry.get("base") is None or entry["base"] in DIRECTORIES[:index], entry["directory"]


def test_no_name_is_published_twice() -> None:
    assert len(published()) == len(set(published()))


@pytest.mark.parametrize("release", upstream.releases(), ids=lambda release: release.version)
def test_every_image_of_a_default_stack_has_a_stand_in(release: upstream.Release) -> None:
    compose = yaml.safe_load(upstream.files(release)["docker/docker-compose.yaml"][1])
    needed = {
        service["image"]
        for service in compose["services"].values()
        if set(service.get("profiles", [])) <= DEFAULT_PROFILES
    }
    assert needed
    assert needed <= set(published())


@pytest.mark.parametrize("entry", ENTRIES, ids=DIRECTORIES)
def test_build_arguments_are_those_the_dockerfile_declares(entry: dict[str, Any]) -> None:
    declared = set(re.findall(r"^ARG (\w+)$", dockerfile(entry["directory"]), re.M)) - {"BASE"}
    assert all(set(tag.get("args", {})) == declared for tag in entry["tags"])


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_dockerfile_takes_the_shared_base_and_the_classic_builder(directory: str) -> None:
    text = dockerfile(directory)
    assert re.search(r"^ARG BASE\nFROM \$BASE$", text, re.M)
    assert not re.search(r"^RUN --|<<|^# *syntax=|COPY .*--(?:chmod|link)", text, re.M)


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_an_image_says_that_it_is_a_stand_in_or_whose_program_it_holds(directory: str) -> None:
    description = re.search(r'image\.description="([^"]+)"', dockerfile(directory))
    assert description
    assert re.match(r"Stand-in of |Debian's .+ in place of |Base of the stand-ins", description[1])
