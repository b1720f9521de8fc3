# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Reading and writing Compose's C(.env) files.

Quoting follows what Compose's own parser does: an unquoted or double-quoted value is interpolated,
a single-quoted value is literal, double quotes know the escapes ``\\n``, ``\\"``, ``\\\\`` and ``\\$``.
"""

from __future__ import annotations

import difflib
import re
import secrets as _random
import string
import typing as t

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::?[-?+][^}]*)?\}")
_INTERPOLATION = re.compile(r"\$\{([A-Z][A-Z0-9_]*)")
# Characters that Compose's parser passes through untouched in an unquoted value.
_PLAIN = re.compile(r"^[A-Za-z0-9_./:@%+,=~^*?<>{}()\[\]|&;!-]*$")
_NUMBER = re.compile(r"^-?[0-9]+(\.[0-9]+)?$")
_BOOLEAN = ("true", "false")
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:PASSWORD|SECRET|TOKEN|PEPPER|CREDENTIALS?|DSN|API_KEY|DAEMON_KEY|ACCESS_KEY|PRIVATE_KEY|ALLOWED_KEYS"
    r"|BROKER_URL|REDIS_URL|CONNECTION_STRING)(?:_|$)"
)

HEADER = "# Managed by Ansible (selfhost.dify). Put lasting changes into dify_env; hand edits are kept and reported."
EXTRA = "# Settings this release knows beyond its .env.example"
KEPT = "# Settings this release does not know, kept from the previous file"


class DotenvError(Exception):
    """A value that cannot be written; the message is one sentence for the operator."""


class Secret(t.NamedTuple):
    """A generated value.

    ``key``: the setting that holds it. ``also``: other settings made from it, name to template, where ``{}``
    stands for the value. ``format``: C(alphanumeric) has upper case, lower case and digits, C(complex) a dash as
    well, both of ``length`` characters; C(base64url32) is unpadded base64url of exactly 32 random bytes.
    ``fallback``: a value the running server already uses when the file does not name one, or an empty string.
    """

    key: str
    also: t.Mapping[str, str]
    length: int
    format: str
    fallback: str


class Merge(t.NamedTuple):
    """What a C(.env) should hold and how it came about.

    ``text``: the file. ``memory``: what the file would hold without hand edits, to be handed in as ``applied``
    next time. ``values``: name to raw value. The lists hold names of settings, in the file's order.
    """

    text: str
    memory: str
    values: dict[str, str]
    generated: list[str]
    drifted: list[str]
    kept: list[str]
    public: list[str]


def is_secret(key: str) -> bool:
    """Whether a setting's name says that its value must not be shown."""
    return bool(_SECRET_NAME.search(key))


def assignments(text: str) -> dict[str, str]:
    """The file's settings: name to value exactly as written behind the ``=``, in the file's order."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = None if line.lstrip().startswith("#") else _ASSIGNMENT.match(line)
        if match:
            found[match.group(1)] = match.group(2)
    return found


def interpolated(text: str) -> set[str]:
    """Names a Compose file takes from C(.env): every ``${NAME…}``."""
    return set(_INTERPOLATION.findall(text))


def unquote(raw: str) -> str:
    """The value Compose reads from a raw assignment, with references left as they are."""
    if raw.startswith("'"):
        end = raw.find("'", 1)
        return raw[1:end] if end > 0 else raw[1:]
    if raw.startswith('"'):
        value = re.match(r'"((?:[^"\\]|\\.)*)', raw)
        body = value.group(1) if value else raw[1:]
        escapes = {"n": "\n", "r": "\r", "t": "\t"}
        return re.sub(r"\\(.)", lambda found: escapes.get(found.group(1), found.group(1)), body)
    return re.split(r"\s#", raw, maxsplit=1)[0].rstrip()


def quote(value: str, known: t.Collection[str] = ()) -> str:
    """A raw assignment that Compose resolves to ``value``.

    ``${NAME}`` with a ``NAME`` in ``known`` stays a reference; every other dollar sign is literal.
    """
    if any(ord(char) < 32 and char not in "\n\t" for char in value):
        raise DotenvError("a control character cannot be written to a .env file")
    references = [found for found in _REFERENCE.finditer(value) if found.group(1) in known]
    bare = value
    for found in references:
        bare = bare.replace(found.group(0), "")
    if _PLAIN.match(bare):
        return value
    if not references and "'" not in value and "\\" not in value and "\n" not in value:
        return "'" + value + "'"
    parts, position = [], 0
    for found in references:
        parts += [_escape(value[position : found.start()]), found.group(0)]
        position = found.end()
    parts.append(_escape(value[position:]))
    return '"' + "".join(parts) + '"'


def _escape(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return text.replace("\n", "\\n").replace("\t", "\\t")


def text_of(value: object) -> str:
    """An operator's YAML value as a setting: booleans in lower case, null as empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise DotenvError("expected text, a number or a boolean, got a {0}".format(type(value).__name__))


def check_values(
    values: t.Mapping[str, str],
    example: t.Mapping[str, str],
    known: t.Collection[str],
    allow_unknown: t.Collection[str] = (),
    any_type: t.Collection[str] = (),
) -> None:
    """Raises DotenvError for a setting the release does not know, or of another type than its default."""
    for key, value in values.items():
        if key not in known and key not in allow_unknown:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            hint = " Did you mean {0}?".format(near[0]) if near else ""
            raise DotenvError(
                "This release knows no setting {0}.{1} List it in allow_unknown to pass it on all the same.".format(
                    key, hint
                )
            )
        default = unquote(example.get(key, ""))
        if key in any_type or _REFERENCE.search(value):
            continue
        if _NUMBER.match(default) and not _NUMBER.match(value):
            raise DotenvError("{0} is {1!r}, expected a number such as {2}.".format(key, _show(key, value), default))
        if default.lower() in _BOOLEAN and value.lower() not in _BOOLEAN:
            raise DotenvError("{0} is {1!r}, expected true or false.".format(key, _show(key, value)))


def _show(key: str, value: str) -> str:
    return "(hidden)" if is_secret(key) else value


def generate(secret: Secret) -> str:
    """A new random value in the secret's format."""
    if secret.format == "base64url32":
        return _random.token_urlsafe(32)
    classes = [string.ascii_uppercase, string.ascii_lowercase, string.digits]
    drawn = [_random.choice(alphabet) for alphabet in classes]
    drawn += [_random.choice("".join(classes)) for _unused in range(secret.length - len(drawn))]
    _random.SystemRandom().shuffle(drawn)
    if secret.format == "complex":
        drawn[len(drawn) // 2] = "-"
    return "".join(drawn)


def merge(
    example: str,
    values: t.Mapping[str, str],
    secrets: t.Sequence[Secret],
    known: t.Collection[str],
    current: str | None = None,
    applied: str | None = None,
) -> Merge:
    """The C(.env) for a release.

    ``example``: text of the release's C(.env.example); its order and comments are kept. ``values``: the
    operator's settings, already checked. ``known``: every setting of the release. ``current``: text of the
    C(.env) in place, if any. ``applied``: ``memory`` of the last run, if any: what differs from it in
    ``current`` is a hand edit, which is kept unless ``values`` says otherwise.
    """
    defaults = assignments(example)
    present = assignments(current or "")
    before = assignments(applied or "")
    adopting = current is not None and applied is None
    everyone = set(known) | set(defaults) | set(values)

    wanted = {key: quote(value, everyone) for key, value in values.items()}
    generated: list[str] = []
    public: list[str] = []
    for secret in secrets:
        if secret.key not in known:
            continue
        default = unquote(defaults.get(secret.key, ""))
        if secret.key in values:
            value = values[secret.key]
        else:
            value = unquote(present.get(secret.key, "")) or secret.fallback or (default if adopting else "")
            if not value:
                value = generate(secret)
                generated.append(secret.key)
            elif value == default:
                public.append(secret.key)
        wanted[secret.key] = quote(value)
        for other, template in secret.also.items():
            if other in known and other not in values:
                wanted[other] = quote(template.format(value))

    result: dict[str, str] = {}
    base: dict[str, str] = {}
    drifted: list[str] = []
    for key, default in defaults.items():
        raw = base[key] = wanted.get(key, default)
        if key in present and present[key] != before.get(key, default) and present[key] != raw:
            drifted.append(key)
            if key not in wanted:
                raw = present[key]
        result[key] = raw
    extra = {key: raw for key, raw in wanted.items() if key not in defaults}
    base.update(extra)
    kept: dict[str, str] = {}
    for key, raw in present.items():
        if key in defaults or key in extra:
            continue
        if key not in known:
            kept[key] = raw
        elif before.get(key) != raw:
            extra[key] = raw
            drifted.append(key)

    lines = [HEADER]
    written: set[str] = set()
    for line in example.splitlines():
        match = None if line.lstrip().startswith("#") else _ASSIGNMENT.match(line)
        if match is None:
            lines.append(line)
        elif match.group(1) not in written:
            written.add(match.group(1))
            lines.append("{0}={1}".format(match.group(1), result[match.group(1)]))
    for title, section in ((EXTRA, extra), (KEPT, kept)):
        if section:
            lines += ["", title] + ["{0}={1}".format(key, raw) for key, raw in section.items()]
    result.update(extra)
    result.update(kept)
    memory = "".join("{0}={1}\n".format(key, raw) for key, raw in base.items())
    return Merge("\n".join(lines) + "\n", memory, result, generated, drifted, list(kept), public)


def changes(current: str, merged: Merge) -> tuple[str, str]:
    """Before and after of the settings that change, one C(KEY=value) a line, secrets hidden: for a diff.

    ``current``: text of the C(.env) in place, or of the example where there is none yet.
    """
    present = assignments(current)
    before, after = [], []
    for key in list(dict.fromkeys([*merged.values, *present])):
        old, new = present.get(key), merged.values.get(key)
        if old == new:
            continue
        if old is not None:
            before.append("{0}={1}".format(key, "(hidden)" if old and is_secret(key) else old))
        if new is not None:
            after.append("{0}={1}".format(key, "(hidden, new)" if new and is_secret(key) else new))
    return "".join(line + "\n" for line in before), "".join(line + "\n" for line in after)
