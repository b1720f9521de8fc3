# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every role and module: specs say what defaults say, and everything is documented."""

from __future__ import annotations

import ast
import re
import typing as t
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in PROJECT.glob("roles/*/tasks/main.yml"))
MODULES = sorted(PROJECT.glob("plugins/modules/*.py"))
TASK_FILES = sorted(PROJECT.glob("roles/*/tasks/*.yml"))

roles = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def specs(role: Path) -> dict[str, t.Any]:
    """Entry point to its spec."""
    return t.cast("dict[str, t.Any]", load(role / "meta" / "argument_specs.yml")["argument_specs"])


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def tasks_in(items: list[dict[str, t.Any]]) -> t.Iterator[dict[str, t.Any]]:
    """All tasks of a file, those in blocks included."""
    for task in items:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_in(task.get(part, []))


def test_there_is_something_to_look_at() -> None:
    assert {role.name for role in ROLES} >= {"docker", "dify", "nginx_certbot"}
    assert MODULES


@roles
def test_spec_and_defaults_agree(role: Path) -> None:
    options = specs(role)["main"]["options"]
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert stated == load(role / "defaults" / "main.yml")


@roles
def test_required_options_have_no_default(role: Path) -> None:
    for entry_point, spec in specs(role).items():
        both = [name for name, option in spec["options"].items() if option.get("required") and "default" in option]
        assert not both, entry_point


@roles
def test_every_entry_point_takes_the_same_options(role: Path) -> None:
    main = specs(role)["main"]["options"]
    for entry_point, spec in specs(role).items():
        assert (role / "tasks" / f"{entry_point}.yml").is_file(), entry_point
        for name, option in spec["options"].items():
            assert option.get("default") == main[name].get("default"), f"{entry_point}: {name}"


@roles
def test_every_option_is_described_and_named_after_its_role(role: Path) -> None:
    shared = {"dify_domain", "dify_http_port", "dify_upload_max_mb"}
    for spec in specs(role).values():
        assert spec["short_description"]
        assert spec["description"]
        for name, option in spec["options"].items():
            assert option["description"], name
            assert option["type"], name
            assert name.startswith(f"{role.name}_") or name in shared, name


@roles
def test_every_secret_option_is_kept_out_of_output(role: Path) -> None:
    for spec in specs(role).values():
        for name, option in spec["options"].items():
            if re.search(r"(password|secret|token)$", name):
                assert option.get("no_log") is True, name


@roles
def test_every_role_has_a_readme_that_names_its_options(role: Path) -> None:
    text = (role / "README.md").read_text(encoding="utf-8")
    missing = [name for name in specs(role)["main"]["options"] if f"`{name}`" not in text]
    assert not missing


@roles
def test_every_role_says_what_it_is(role: Path) -> None:
    galaxy = load(role / "meta" / "main.yml")["galaxy_info"]
    assert galaxy["description"]
    assert galaxy["license"] == "GPL-3.0-or-later"
    assert galaxy["min_ansible_version"] == "2.19"


@pytest.mark.parametrize("path", TASK_FILES, ids=name_of)
def test_tasks_are_named_and_prefixed_with_their_file(path: Path) -> None:
    """`configure | Render the environment file`, so that output tells which step a line belongs to."""
    prefix = "" if path.stem == "main" else f"{path.stem} | "
    for task in tasks_in(load(path)):
        name = task.get("name", "")
        assert name.startswith(prefix), task
        assert name[len(prefix) : len(prefix) + 1].isupper(), task


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_main_only_includes(role: Path) -> None:
    keys = {key for task in tasks_in(load(role / "tasks" / "main.yml")) for key in task}
    modules = {key for key in keys if "." in key}
    including = {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"}
    assert modules <= including | {"ansible.builtin.debug"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_is_documented(path: Path) -> None:
    constants = {
        target.id: node.value.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    documentation = yaml.safe_load(constants["DOCUMENTATION"])
    assert documentation["module"] == path.stem
    assert documentation["short_description"]
    assert all(option["description"] for option in documentation["options"].values())
    assert yaml.safe_load(constants["EXAMPLES"])
    assert yaml.safe_load(constants["RETURN"])


def test_every_module_is_in_the_action_group() -> None:
    assert load(PROJECT / "meta" / "runtime.yml")["action_groups"]["dify"] == [path.stem for path in MODULES]
