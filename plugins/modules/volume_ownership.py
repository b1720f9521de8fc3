#!/usr/bin/python
# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_ownership
short_description: Make directory trees belong to the user a container runs as
version_added: 0.1.0
description:
  - Makes every directory, file, symlink (the link itself), socket and FIFO under each root belong to O(owner) and
    O(group).
  - Compares first. An entry that is already right is never touched, since an unneeded change of owner removes setuid
    bits and capabilities and makes backup programs read the file again.
  - Walks by descriptor and never follows a symlink below the root, so that nothing a container swaps in its volume
    while this module runs can lead it outside.
  - Finishes what it can; what could not be changed fails the task at the end, with the list.
  - Interrupted at any moment, it is finished by running it again.
extends_documentation_fragment:
  - selfhost.dify._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Lists the first 20 wrong entries of each root.
  idempotent:
    support: full
options:
  paths:
    description:
      - Directories that are the roots of the trees.
      - Each is an absolute path, or a dictionary with the key C(path) and any of C(owner), C(group), C(create),
        C(mode), C(recurse) and C(exclude), which then hold for this root instead of the options of these names.
      - System directories, and everything in those that belong to the operating system, are refused.
    type: list
    elements: raw
    default: []
  volumes:
    description:
      - Names of Docker volumes whose mount points are roots, as C(docker volume inspect) tells them.
      - Only volumes of the driver C(local) have one.
    type: list
    elements: str
    default: []
  owner:
    description:
      - User the trees shall belong to, by name or number. A number need not exist on the host.
      - Without it the owning user stays as it is. At least one of O(owner) and O(group) is needed for each root.
    type: str
  group:
    description:
      - Group the trees shall belong to, by name or number. A number need not exist on the host.
      - Without it the owning group stays as it is.
    type: str
  userns_remap:
    description:
      - For a Docker daemon with C(userns-remap), the value that option has there (V(default), a user, or
        C(user:group)).
      - O(owner) and O(group) are then numbers inside the container, and are mapped to those of the host through
        C(/etc/subuid) and C(/etc/subgid).
    type: str
  recurse:
    description:
      - Whether everything below a root is owned too, or the root alone.
    type: bool
    default: true
  create:
    description:
      - Whether a root that does not exist is made, with O(mode). Missing directories above it are made with mode
        C(0755).
      - Without it, a root that does not exist is an error.
    type: bool
    default: false
  mode:
    description:
      - Permission bits of a root that is created, as a quoted octal number. The mode of a root that exists is left
        alone.
    type: raw
    default: "0755"
  exclude:
    description:
      - Globs of what is left alone, relative to each root. An excluded directory is not entered.
      - V(*), V(?) and V([…]) match within one name, V(**) matches any number of directories.
        So V(*.pid) is meant for the root's own files, V(**/*.pid) for those at any depth.
    type: list
    elements: str
    default: []
  one_file_system:
    description:
      - Whether mounts below a root are left alone, other file systems and bind mounts of the same one alike.
    type: bool
    default: true
  workers:
    description:
      - Number of processes that walk a tree together. V(0) takes as many as there are processors, more where the disk
        is what takes time, and at most 8. Small trees are walked by one in any case.
    type: int
    default: 0
  follow_root:
    description:
      - Whether a root may be a symlink, which is then resolved once. Without it, such a root is an error.
    type: bool
    default: false
  within:
    description:
      - Directory below which every root has to lie after symlinks were resolved.
    type: path
  hardlinks:
    description:
      - What to do with files that have several names, some of which may lie outside the tree.
      - V(skip) leaves and reports those that do not belong to the former owner of the tree, which is the owner of
        its root when the module starts. With C(fs.protected_hardlinks) nobody but the owner of a file can have linked
        it into the tree; where that setting is off, all wrong files with several names are left.
      - V(change) changes all of them.
    type: str
    choices: [skip, change]
    default: skip
seealso:
  - module: ansible.builtin.file
    description: Changes the mode of a tree as well; slower, and follows paths that can be swapped under it.
author:
  - selfhost.dify contributors (@selfhost-dify)
"""

EXAMPLES = r"""
---
- name: Give Dify's storage to the user its containers run as
  selfhost.dify.volume_ownership:
    paths:
      - /opt/dify/docker/volumes/app/storage
    owner: "1001"
    group: "1001"
    create: true

- name: Own two trees differently, and only below Dify's own directory
  selfhost.dify.volume_ownership:
    within: /opt/dify/docker/volumes
    owner: "1001"
    group: "1001"
    paths:
      - path: /opt/dify/docker/volumes/app/storage
        exclude: ["lost+found"]
      - path: /opt/dify/docker/volumes/opensearch/data
        owner: "1000"
        group: "1000"

- name: Own a Docker volume on a daemon with user namespaces
  selfhost.dify.volume_ownership:
    volumes:
      - dify_storage
    owner: "1001"
    group: "1001"
    userns_remap: default
"""

RETURN = r"""
---
roots:
  description: What was found and done, one entry for each of O(paths), then of O(volumes).
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The root, with symlinks resolved.
      type: str
      sample: /opt/dify/docker/volumes/app/storage
    owner:
      description: Number of the user the tree shall belong to, V(-1) if it was not asked for.
      type: int
      sample: 1001
    group:
      description: Number of the group the tree shall belong to, V(-1) if it was not asked for.
      type: int
      sample: 1001
    created:
      description: Whether the root was made, or would be in check mode.
      type: bool
    mode:
      description: Permission bits of a root that was made.
      type: str
      sample: "0755"
    examined:
      description: Number of entries looked at, the root included.
      type: int
      sample: 1234
    wrong:
      description: Number of entries that belonged to somebody else. A file with several names counts once.
      type: int
      sample: 2
    changed:
      description: Number of entries whose owner was changed, or would be in check mode.
      type: int
      sample: 2
    vanished:
      description: Number of entries that disappeared, or were replaced, between being listed and being looked at.
      type: int
      sample: 0
    excluded:
      description: Number of entries O(exclude) matched, without what lies below them.
      type: int
      sample: 0
    failed_total:
      description: Number of entries that could not be examined or changed.
      type: int
      sample: 0
    failures:
      description: The first 100 of them.
      type: list
      elements: dict
      sample: [{"path": "/data/locked", "error": "cannot be changed: Operation not permitted"}]
    wrong_paths:
      description: The first 20 wrong entries, highest in the tree first, with their owners before.
      type: list
      elements: dict
      sample: [{"path": "/data/a", "owner": 0, "group": 0}]
    stripped_total:
      description: Number of files that lost privileges by a needed change of owner, or would in check mode.
      type: int
      sample: 0
    stripped:
      description: The first 100 of them, with what they lost.
      type: list
      elements: dict
      sample: [{"path": "/data/bin/ping", "lost": ["capabilities"]}]
    skipped_mounts_total:
      description: Number of mounts below the root that were left alone.
      type: int
      sample: 0
    skipped_mounts:
      description: The first 100 of them.
      type: list
      elements: str
      sample: ["/data/other"]
    skipped_hardlinks_total:
      description: Number of names that were left alone since their files have others and belonged to somebody else.
      type: int
      sample: 0
    skipped_hardlinks:
      description: The first 20 of them.
      type: list
      elements: dict
      sample: [{"path": "/data/passwd", "owner": 0, "group": 0}]
    duration:
      description: Time it took, in seconds.
      type: float
      sample: 0.42
"""

import json
import os
import re
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.selfhost.dify.plugins.module_utils._ownership import (
    NO_ID,
    OwnershipError,
    check_mapped,
    compile_globs,
    create_root,
    host_id,
    is_below,
    open_root,
    printable,
    resolve_id,
    resolve_root,
)
from ansible_collections.selfhost.dify.plugins.module_utils._ownership_walk import Policy, Report, own_tree

# Keys of a dictionary in C(paths); those but the path stand for the options of the same names.
ROOT_SPEC: dict[str, dict[str, t.Any]] = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "create": {"type": "bool"},
    "mode": {"type": "raw"},
    "recurse": {"type": "bool"},
    "exclude": {"type": "list", "elements": "str"},
}


class Root(t.NamedTuple):
    """One tree to own."""

    path: str
    create: bool
    mode: int
    policy: Policy


class VolumeOwnership:
    """Judges everything that was asked for before it changes anything."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, t.Any] = module.params
        remapped_to = (self.params["userns_remap"] or "").split(":")
        self.users: str = remapped_to[0]
        self.groups: str = remapped_to[-1]

    def run(self) -> None:
        roots = [self.root(request) for request in self.requests()]
        if not roots:
            raise OwnershipError("nothing to own: expected a path in paths, or the name of a Docker volume in volumes.")
        refuse_overlaps(roots)
        reports = [self.own(root) for root in roots]
        results = [result for result, _report in reports]
        outcome: dict[str, t.Any] = {
            "changed": any(result["changed"] or result["created"] for result in results),
            "roots": results,
        }
        if self.module._diff:
            outcome["diff"] = [difference(result) for result in results]
        for result, report in reports:
            self.warn(result, report)
        failures = [failure for result in results for failure in result["failures"]]
        if failures:
            total = sum(result["failed_total"] for result in results)
            named = "; ".join(f"{failure['path']} {failure['error']}" for failure in failures[:5])
            more = f"; the others are in roots[].failures ({total} in all)" if total > 5 else ""
            self.module.fail_json(msg=f"Not everything could be owned: {named}{more}.", **outcome)
        self.module.exit_json(**outcome)

    # What was asked for

    def requests(self) -> list[dict[str, t.Any]]:
        """The roots as dictionaries of ROOT_SPEC; None stands for the option of that name."""
        found: list[dict[str, t.Any]] = []
        validator = ArgumentSpecValidator(ROOT_SPEC)
        for given in self.params["paths"]:
            given = given if isinstance(given, dict) else {"path": given}
            unknown = sorted(set(given) - set(ROOT_SPEC))
            if unknown:
                raise OwnershipError(
                    f"paths: {given.get('path')} has {', '.join(unknown)}: expected some of {', '.join(ROOT_SPEC)}."
                )
            request = validator.validate(given)
            if request.error_messages:
                reasons = "; ".join(message.rstrip(".") for message in request.error_messages)
                raise OwnershipError(f"paths: {given!r} is not a root: {reasons}.")
            found.append(request.validated_parameters)
        found.extend({"path": self.mount_point(volume)} for volume in self.params["volumes"])
        return found

    def root(self, request: dict[str, t.Any]) -> Root:
        def option(name: str) -> t.Any:
            return self.params[name] if request.get(name) is None else request[name]

        path = request["path"]
        if option("owner") is None and option("group") is None:
            raise OwnershipError(f"path {path} is given no owner: expected owner, group, or both.")
        if self.params["workers"] < 0:
            raise OwnershipError(
                f"workers is {self.params['workers']}: expected 0 (automatic) or a number of processes."
            )
        compile_globs(option("exclude"))
        real = resolve_root(path, self.params["follow_root"], self.params["within"])
        if not os.path.lexists(real) and not option("create"):
            raise OwnershipError(f"path {path} does not exist: create it first, or set create.")
        if os.path.lexists(real) and not os.path.isdir(real):
            raise OwnershipError(f"path {path} is not a directory: give the directory it lies in.")
        return Root(
            path=real,
            create=option("create"),
            mode=octal(option("mode")),
            policy=Policy(
                uid=self.number("owner", option("owner"), self.users),
                gid=self.number("group", option("group"), self.groups),
                apply=not self.module.check_mode,
                recurse=option("recurse"),
                exclude=tuple(option("exclude")),
                one_file_system=self.params["one_file_system"],
                change_hardlinks=self.params["hardlinks"] == "change",
                workers=self.params["workers"],
            ),
        )

    def number(self, kind: str, value: str | None, remapped_to: str) -> int:
        """The number of an owner or group on this host; NO_ID if none was given."""
        if value is None:
            return NO_ID
        number = resolve_id(value, kind)
        letter = "u" if kind == "owner" else "g"
        if remapped_to:
            name = "dockremap" if remapped_to == "default" else remapped_to
            with open(f"/etc/sub{letter}id", encoding="utf-8") as table:
                number = host_id(number, name, table.read())
        with open(f"/proc/self/{letter}id_map", encoding="ascii") as id_map:
            check_mapped(number, kind, id_map.read())
        return number

    def mount_point(self, volume: str) -> str:
        """Where the files of a Docker volume lie on this host."""
        docker = self.module.get_bin_path("docker")
        if docker is None:
            raise OwnershipError(f"volume {volume}: the command docker is not on this host: install it, or give paths.")
        status, output, errors = self.module.run_command([docker, "volume", "inspect", "--", volume])
        if status != 0:
            reason = errors.strip() or output.strip()
            raise OwnershipError(f"volume {volume} cannot be inspected: {reason}: create it first, or give its path.")
        return volume_path(volume, json.loads(output)[0])

    # What is done

    def own(self, root: Root) -> tuple[dict[str, t.Any], Report]:
        begun = time.monotonic()
        created = root.create and not os.path.lexists(root.path)
        report = Report()
        if created:
            if root.policy.apply:
                create_root(root.path, root.mode, root.policy.uid, root.policy.gid)
        else:
            fd = open_root(root.path)
            try:
                report = own_tree(fd, root.path, root.policy)
            finally:
                os.close(fd)
        return summary(root, report, created, round(time.monotonic() - begun, 3)), report

    def warn(self, result: dict[str, t.Any], report: Report) -> None:
        """What an operator wants to know of a task that went well."""
        path, check = result["path"], self.module.check_mode
        if report.stripped.total:
            would = "would lose" if check else "lost"
            self.module.warn(
                f"{path}: {report.stripped.total} files {would} setuid, setgid or capabilities by the change of owner, "
                f"the first is {result['stripped'][0]['path']}."
            )
        if report.skipped_hardlinks.total:
            self.module.warn(
                f"{path}: {report.skipped_hardlinks.total} names were left alone, since their files have other names "
                f"and another owner, the first is {result['skipped_hardlinks'][0]['path']}; see hardlinks."
            )
        if report.lost_directories.total:
            lost = full_path(path, report.lost_directories.first()[0][0])
            self.module.warn(
                f"{path}: {report.lost_directories.total} directories vanished or were renamed while they were walked, "
                f"the first is {lost}; run the task again to be sure of what was in them."
            )


def refuse_overlaps(roots: t.Sequence[Root]) -> None:
    """Two roots must not give the same entry to different owners, or no run would be the last."""
    for outer in roots:
        excluded = compile_globs(outer.policy.exclude)
        for inner in roots:
            same = outer.path == inner.path
            if outer is inner or (outer.policy.uid, outer.policy.gid) == (inner.policy.uid, inner.policy.gid):
                continue
            if not same and not (outer.policy.recurse and is_below(inner.path, outer.path)):
                continue
            names = [] if same else os.path.relpath(inner.path, outer.path).split("/")
            if excluded and any(excluded.fullmatch("/".join(names[: n + 1])) for n in range(len(names))):
                continue
            raise OwnershipError(
                f"path {inner.path} lies in {outer.path}, which gets another owner: "
                "give each path once, and exclude it from the tree around it."
            )


def octal(mode: t.Any) -> int:
    """Permission bits from their usual notation."""
    if isinstance(mode, str) and re.fullmatch(r"(0o?)?[0-7]{1,4}", mode):
        return int(mode, 8)
    raise OwnershipError(f"mode {mode!r} is not a quoted octal number: expected one such as '0755'.")


def volume_path(volume: str, inspected: dict[str, t.Any]) -> str:
    """Where the files of a volume lie, from what C(docker volume inspect) says of it."""
    options = inspected.get("Options") or {}
    if inspected["Driver"] != "local":
        raise OwnershipError(
            f"volume {volume} belongs to the driver {inspected['Driver']}: expected local; give the path in paths."
        )
    device = options.get("device", "")
    if device.startswith("/") and "bind" in options.get("o", "").split(","):
        return str(device)
    mount_point = str(inspected["Mountpoint"])
    if device and not os.path.ismount(mount_point):
        raise OwnershipError(
            f"volume {volume} is only mounted on {mount_point} while a container uses it: start one, or give a path."
        )
    return mount_point


def full_path(root: str, relative: str) -> str:
    return printable(f"{root}/{relative}" if relative else root)


def owned(root: str, found: t.Iterable[tuple[str, str]]) -> list[dict[str, t.Any]]:
    """Entries with their owners, from findings whose detail is C(uid:gid)."""
    return [
        {"path": full_path(root, path), "owner": int(ids.split(":")[0]), "group": int(ids.split(":")[1])}
        for path, ids in found
    ]


def summary(root: Root, report: Report, created: bool, duration: float) -> dict[str, t.Any]:
    """One entry of RV(roots)."""
    path = root.path
    return {
        "path": printable(path),
        "owner": root.policy.uid,
        "group": root.policy.gid,
        "created": created,
        "mode": f"{root.mode:04o}" if created else None,
        "examined": report.examined,
        "wrong": report.wrong.total,
        "changed": report.changed if root.policy.apply else report.wrong.total,
        "vanished": report.vanished,
        "excluded": report.excluded,
        "failed_total": report.failed.total,
        "failures": [{"path": full_path(path, name), "error": error} for name, error in report.failed.first()],
        "wrong_paths": owned(path, report.wrong.first()),
        "stripped_total": report.stripped.total,
        "stripped": [
            {"path": full_path(path, name), "lost": lost.split(", ")} for name, lost in report.stripped.first()
        ],
        "skipped_mounts_total": report.skipped_mounts.total,
        "skipped_mounts": [full_path(path, name) for name, _detail in report.skipped_mounts.first()],
        "skipped_hardlinks_total": report.skipped_hardlinks.total,
        "skipped_hardlinks": owned(path, report.skipped_hardlinks.first()),
        "duration": duration,
    }


def difference(result: dict[str, t.Any]) -> dict[str, str]:
    """The diff of one root: its first wrong entries with their owners before and after."""
    if result["created"]:
        after = f"{result['path']} {result['owner']}:{result['group']} {result['mode']}\n".replace("-1", "unchanged")
        return {"before_header": result["path"], "after_header": result["path"], "before": "absent\n", "after": after}
    before = after = ""
    for entry in result["wrong_paths"]:
        uid = entry["owner"] if result["owner"] == NO_ID else result["owner"]
        gid = entry["group"] if result["group"] == NO_ID else result["group"]
        before += f"{entry['owner']}:{entry['group']} {entry['path']}\n"
        after += f"{uid}:{gid} {entry['path']}\n"
    unseen = result["wrong"] - len(result["wrong_paths"])
    if unseen > 0:
        before += f"and {unseen} more\n"
        after += f"and {unseen} more, changed likewise\n"
    return {"before_header": result["path"], "after_header": result["path"], "before": before, "after": after}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "raw", "default": []},
            "volumes": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "userns_remap": {"type": "str"},
            "recurse": {"type": "bool", "default": True},
            "create": {"type": "bool", "default": False},
            "mode": {"type": "raw", "default": "0755"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "one_file_system": {"type": "bool", "default": True},
            "workers": {"type": "int", "default": 0},
            "follow_root": {"type": "bool", "default": False},
            "within": {"type": "path"},
            "hardlinks": {"type": "str", "choices": ["skip", "change"], "default": "skip"},
        },
        supports_check_mode=True,
    )
    try:
        VolumeOwnership(module).run()
    except OwnershipError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
