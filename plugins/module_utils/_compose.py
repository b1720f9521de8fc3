# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Pure functions over the resolved project that C(docker compose config --format json) prints."""

from __future__ import annotations

import difflib
import json
import re
import typing as t

LOOPBACK = ("127.0.0.1", "::1")
TOP_LEVEL = ("services", "networks", "volumes", "configs", "secrets")

_PORT = re.compile(r"([A-Za-z0-9._-]+):([0-9]{1,5})")
_IMAGE = re.compile(r"(.+?)((?::[^:/@]+)?(?:@.+)?)")
_REFERENCE = re.compile(
    r"[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@[a-z0-9]+:[0-9a-f]+)?"
)
_REGISTRY = re.compile(
    r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9.-]+(?=:))(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
)
_PLAIN_KEY = re.compile(r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)[A-Za-z_][A-Za-z0-9_./-]*")
# Of what lies in volumes/, the one place that comes with the release and is read when the service starts.
_RELEASE_DATA = "volumes/sandbox/conf"

Config = t.Mapping[str, t.Any]


class Tagged(t.NamedTuple):
    """A value with one of Compose's YAML tags: C(!override) replaces what is there, C(!reset) takes it away."""

    tag: str
    value: t.Any


def override(
    config: Config,
    *,
    public_ports: t.Sequence[str] = (),
    logging: Config | None = None,
    image_pins: t.Mapping[str, str] | None = None,
    image_registry: str = "",
    images: t.Mapping[str, str] | None = None,
    limits: t.Mapping[str, Config] | None = None,
    memory_mb: int = 0,
    path: str = "",
    release: str = "",
    additions: Config | None = None,
    compose_override: Config | None = None,
) -> str:
    """Text of a C(docker-compose.override.yaml) for the resolved project of a release's own file, all profiles.

    ``additions``: keys for services, put in where the project has the service. ``compose_override``: the operator's
    own, merged last: their values win, their lists are added to (ports are replaced), and null for a service or for
    a key of a service takes it away. The options are those of the filter, see there. Raises ValueError with all
    L(problems).
    """
    theirs = _plain(compose_override or {})
    found = problems(
        config,
        public_ports=public_ports,
        logging=logging or {},
        image_registry=image_registry,
        images=images or {},
        compose_override=theirs,
    )
    if found:
        raise ValueError(" ".join(found))
    their_services = theirs.get("services") or {}
    services: dict[str, t.Any] = {}
    for name in sorted({*config["services"], *their_services}):
        service = config["services"].get(name, {})
        own = their_services.get(name) or {}
        entry: dict[str, t.Any] = {}
        ports = [_port(name, port, public_ports) for port in service.get("ports") or []]
        if [address for address, _text in ports] != [port.get("host_ip", "") for port in service.get("ports") or []]:
            entry["ports"] = Tagged("!override", [text for _address, text in ports])
        if "image" in service:
            chosen = image(service["image"], image_pins or {}, image_registry, images or {})
            if chosen != service["image"]:
                entry["image"] = chosen
        if logging and "driver" not in (own.get("logging") or {}):
            entry["logging"] = _plain(logging)
        row = (limits or {}).get(name, (limits or {}).get("*"))
        if row and memory_mb and service:
            entry.update(_limits({**service, **own}, row, memory_mb))
        if release and _mounts_release(service, path):
            entry["labels"] = {"selfhost.dify.release": release}
        if service:
            entry = _merged(entry, _plain((additions or {}).get(name, {})))
        if entry:
            services[name] = entry
    merged = _merged({"services": services}, theirs)
    return "".join("{0}\n".format(line) for key in sorted(merged) for line in _yaml("{0}:".format(key), merged[key]))


def problems(
    config: Config | None,
    *,
    public_ports: t.Any = (),
    logging: t.Any = None,
    image_registry: t.Any = "",
    images: t.Any = None,
    compose_override: t.Any = None,
) -> list[str]:
    """What is wrong with the options of L(override), a sentence each that names the role's variable.

    ``config``: the project, resolved or as written in the file; without it only the options' form is judged.
    """
    found = _malformed(public_ports, logging, image_registry, images, compose_override)
    if found or config is None:
        return found
    services = config["services"]
    for entry in public_ports:
        name, port = entry.split(":")
        targets = [_target(published) for published in (services.get(name) or {}).get("ports") or []]
        if name not in services:
            found.append(
                'dify_public_ports names "{0}", but the release has no service {1}.'.format(
                    entry, _near(name, services)
                )
            )
        elif port not in targets and "" not in targets:
            publishes = "publishes {0}".format(", ".join(targets)) if targets else "publishes nothing"
            found.append(
                'dify_public_ports names "{0}", but {1} {2}; expected a port inside its container.'.format(
                    entry, name, publishes
                )
            )
    used = {service["image"] for service in services.values() if "image" in service}
    used |= {_split(name)[0] for name in used}
    for name in images or {}:
        if name not in used:
            found.append("dify_images names an image that the release does not use: {0}.".format(_near(name, used)))
    for name, service in ((compose_override or {}).get("services") or {}).items():
        if name not in services and not {"image", "build"} & {*(service or {})}:
            found.append(
                "dify_compose_override changes a service that the release does not have: {0}; a service of your own "
                "needs an image.".format(_near(name, services))
            )
    return found


def image(original: str, pins: t.Mapping[str, str], registry: str, images: t.Mapping[str, str]) -> str:
    """The image to run in place of the release's.

    A replacement in ``images`` is taken as it is, with the release's tag where it names none. Otherwise a floating
    tag is replaced by the one in ``pins``, and ``registry`` takes the place of the image's own; what Docker Hub
    calls C(nginx) is C(library/nginx) there.
    """
    name, tag = _split(original)
    replacement = images.get(original, images.get(name))
    if tag in ("", ":latest") and name in pins:
        tag = ":" + pins[name]
    if replacement:
        return replacement if _split(replacement)[1] else replacement + tag
    if not registry:
        return name + tag
    host, _slash, path = name.partition("/")
    if not path:
        path = "library/" + name
    elif not re.search(r"[.:]|^localhost$", host):
        path = name
    return "{0}/{1}{2}".format(registry, path, tag)


def volume_owners(config: t.Mapping[str, t.Any], owners: t.Iterable[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The directories of the host that must belong to somebody, each once.

    ``config``: the resolved project, with the services that are to run. ``owners``: for a directory inside a
    service's container (``service``, ``target``), who writes there (``owner``, ``group``). A service that does not run
    needs nothing; a named volume takes its owner from its image. Returns ``path`` with all of that, and the
    service's ``image``.
    """
    found: dict[str, dict[str, t.Any]] = {}
    for row in owners:
        service = config.get("services", {}).get(row["service"], {})
        for volume in service.get("volumes") or []:
            if volume["type"] == "bind" and volume["target"] == row["target"]:
                found.setdefault(volume["source"], {"path": volume["source"], "image": service["image"], **row})
    return list(found.values())


def _malformed(public_ports: t.Any, logging: t.Any, registry: t.Any, images: t.Any, theirs: t.Any) -> list[str]:
    """What is wrong with the options whatever the project is."""
    found = []
    for entry in public_ports if isinstance(public_ports, (list, tuple)) else [public_ports]:
        if not isinstance(entry, str) or not _PORT.fullmatch(entry):
            found.append(
                "dify_public_ports holds {0}, expected a list of services with a port inside their container, such as "
                "plugin_daemon:5003.".format(_json(entry))
            )
    if logging is not None and (
        not isinstance(logging, dict) or (logging and not isinstance(logging.get("driver"), str))
    ):
        found.append(
            "dify_logging is {0}, expected Compose's logging with a driver and its options, or {{}} to leave it to the "
            "engine.".format(_json(logging))
        )
    if not isinstance(registry, str) or (registry and not _REGISTRY.fullmatch(registry)):
        found.append(
            "dify_image_registry is {0}, expected a registry's name with an optional path, without scheme or trailing "
            "slash, such as registry.example.com/mirror.".format(_json(registry))
        )
    if images is not None and not isinstance(images, dict):
        found.append("dify_images is {0}, expected names of images with their replacements.".format(_json(images)))
    for name, replacement in images.items() if isinstance(images, dict) else ():
        if not isinstance(replacement, str) or not _REFERENCE.fullmatch(replacement):
            found.append(
                "dify_images replaces {0} by {1}, expected the name of an image, such as "
                "registry.example.com/nginx:1.30.5.".format(name, _json(replacement))
            )
    if theirs is not None and not isinstance(theirs, dict):
        found.append("dify_compose_override is {0}, expected what a Compose file holds.".format(_json(theirs)))
    for key, section in theirs.items() if isinstance(theirs, dict) else ():
        if key not in TOP_LEVEL and not str(key).startswith("x-"):
            found.append(
                "dify_compose_override has a key {0}, expected one of {1}.".format(_json(key), ", ".join(TOP_LEVEL))
            )
        elif key == "services" and not isinstance(section, dict):
            found.append("dify_compose_override.services is {0}, expected services by name.".format(_json(section)))
    services = theirs.get("services") if isinstance(theirs, dict) else None
    for name, service in services.items() if isinstance(services, dict) else ():
        if service is not None and not isinstance(service, dict):
            found.append(
                "dify_compose_override.services.{0} is {1}, expected keys of a Compose service.".format(
                    name, _json(service)
                )
            )
    return found


def _near(name: str, known: t.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    return '"{0}"'.format(name) + (", did you mean {0}".format(near[0]) if near else "")


def _target(port: t.Any) -> str:
    """The port inside the container, empty where the file's text leaves it to a setting."""
    if isinstance(port, dict):
        return str(port["target"])
    return "" if "$" in str(port) else str(port).split("/", maxsplit=1)[0].rpartition(":")[2]


def _port(name: str, port: Config, public: t.Sequence[str]) -> tuple[str, str]:
    """The address a port is to be published on, empty for all, and Compose's text for it."""
    target = "{0}:{1}".format(port.get("published", ""), port["target"])
    if port.get("protocol", "tcp") != "tcp":
        target += "/" + port["protocol"]
    if "{0}:{1}".format(name, port["target"]) in public:
        return "", target
    address = port["host_ip"] if port.get("host_ip") in LOOPBACK else LOOPBACK[0]
    return address, "{0}:{1}".format("[::1]" if ":" in address else address, target)


def _split(name: str) -> tuple[str, str]:
    """An image's name, and its tag and digest with what stands before them."""
    match = _IMAGE.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def _limits(service: Config, row: Config, memory_mb: int) -> dict[str, t.Any]:
    """Limits for a service that has none of its own, in the form that it uses: Compose refuses both forms at once.

    RAM counts in whole GiB, so that a new kernel changes nothing.
    """
    ram = max(round(memory_mb / 1024), 1) * 1024
    memory = "{0}m".format(max(row["floor_mb"], ram * row["percent"] // 100))
    if "deploy" in service:
        has = ((service["deploy"] or {}).get("resources") or {}).get("limits") or {}
        limits = {"memory": memory, "pids": row["pids"]}
        return {"deploy": {"resources": {"limits": {key: limits[key] for key in limits if key not in has}}}}
    limits = {"mem_limit": memory, "pids_limit": row["pids"]}
    return {key: limits[key] for key in limits if key not in service}


def _mounts_release(service: Config, path: str) -> bool:
    """Whether a service mounts files of the release, whose old state a container keeps until it is recreated."""
    sources = [volume["source"] for volume in service.get("volumes") or [] if volume["type"] == "bind"]
    inside = [source[len(path) + 1 :] for source in sources if source.startswith(path + "/")]
    return any(not source.startswith("volumes/") or source == _RELEASE_DATA for source in inside)


def _plain(value: t.Any) -> t.Any:
    """A copy of plain dicts and lists."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _merged(ours: t.Any, theirs: t.Any, path: tuple[str, ...] = ()) -> t.Any:
    """Theirs over ours: dicts are merged, lists are joined, everything else is replaced."""
    if theirs is None and path[:1] == ("services",) and len(path) in (2, 3):
        return Tagged("!reset", None)
    if path[:1] == ("services",) and path[2:] == ("ports",):
        return Tagged("!override", theirs)
    if isinstance(ours, dict) and isinstance(theirs, list):  # an environment or labels as a list of NAME=value
        pairs = [str(item).partition("=") for item in theirs]
        theirs = {name: value if equals else None for name, equals, value in pairs}
    if isinstance(theirs, dict):
        ours = ours if isinstance(ours, dict) else {}
        return {**ours, **{key: _merged(ours.get(key), value, (*path, key)) for key, value in theirs.items()}}
    if isinstance(ours, list) and isinstance(theirs, list):
        return ours + theirs
    return theirs


def _yaml(head: str, value: t.Any, indent: str = "  ") -> list[str]:
    """Lines of YAML: dicts as blocks in the order of their keys, everything else as JSON, which is YAML as well."""
    if isinstance(value, Tagged):
        head, value = "{0} {1}".format(head, value.tag), value.value
    if isinstance(value, dict) and value:
        lines = [head]
        for key in sorted(value):
            name = key if _PLAIN_KEY.fullmatch(key) else _json(key)
            lines += _yaml("{0}{1}:".format(indent, name), value[key], indent + "  ")
        return lines
    if isinstance(value, list) and value:
        return [head] + ["{0}- {1}".format(indent, _json(item)) for item in value]
    return ["{0} {1}".format(head, _json(value))]


def _json(value: t.Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda match: "\\u{0:04x}".format(ord(match[0])), text)
