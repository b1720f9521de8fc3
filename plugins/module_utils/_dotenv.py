# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Reading, judging and writing Compose's C(.env) files.

Reading follows Compose's own parser: an unquoted value ends at the line's end or at " #", a quoted one may span
lines; an unquoted or double-quoted value is interpolated, and sees only the settings above it; a single-quoted one is
literal but for an escaped quote. A "raw" value is what stands behind the C(=), quotes included.
"""

from __future__ import annotations

import base64
import difflib
import re
import secrets as _random
import string
import typing as t
import urllib.parse

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Compose takes YAML's colon for an equals sign, too. A name alone on its line is the shell's, not the file's.
_HEAD = re.compile(r"(?:export[ \t\v\f\r]+)?([\w.\[\]-]+)[ \t\v\f\r\x85\xa0]*(?:([=:])[ \t\v\f\r\x85\xa0]*|(?=\n|\Z))")
_FILLER = re.compile(r"(?:\s|#[^\n]*)*")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ESCAPE = re.compile(r'\\([abfnrtv$"\\]|0[0-3][0-7]{2})')
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}
_DOLLAR = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])|(?=\})))")
_INTERPOLATION = re.compile(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)(:?[-?+])?")
# Characters that Compose's parser passes through untouched in an unquoted value.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~^*?<>{}()\[\]|&;!-]*\Z")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_WHOLE = re.compile(r"-?[0-9]+\Z")
_BOOLEAN = ("true", "false")
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:PASSWORD|PWD|SECRET|TOKEN|PEPPER|CREDENTIALS?|DSN|API_KEY|ALLOWED_KEYS|BROKER_URL|REDIS_URL"
    r"|CONNECTION_STRING)(?:_|$)|_KEY$"
)
_NO_SECRET_NAME = re.compile(r"_(?:MINUTES|SECONDS|DAYS|ENABLED|LENGTH|TYPE|PREFIX|COUNTING|FILENAME|PATH|NAME)$")
_URL_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]+@")

HEADER = "# Managed by Ansible (selfhost.dify). Put lasting changes into dify_env; hand edits are kept and reported."
EXTRA = "# Settings this release knows beyond its .env.example"
KEPT = "# Settings this release does not know, kept from the previous file"
_PUBLIC = "# {0} is public\n"  # in the memory: a newer release may not tell any more
MOVED = "# Settings that refer to others: Compose sees only what stands above a reference"


class DotenvError(Exception):
    """A file or value that cannot be read or written; the message is one sentence for the operator."""


class Secret(t.NamedTuple):
    """A generated value.

    ``key``: the setting that holds it. ``also``: other settings made from it, name to template, where ``{}``
    stands for the value. ``format``: C(alphanumeric) has upper case, lower case and digits, C(complex) a dash as
    well, both of ``length`` characters; C(base64url32) is unpadded base64url of exactly 32 random bytes.
    ``fallback``: a value the running server already uses when no file names one, or an empty string.
    ``fixed``: whether the server's data was made with the value in place, so that another one would lock it out.
    """

    key: str
    also: t.Mapping[str, str] = {}
    length: int = 48
    format: str = "alphanumeric"
    fallback: str = ""
    fixed: bool = False


class Release(t.NamedTuple):
    """What a release's own files say.

    ``example``: text of its C(.env.example). ``defaults``: every setting that C(.env.example) and further examples
    assign, name to value. ``implicit``: every setting the Compose file interpolates, name to what it falls back to.
    ``required``: those it cannot do without.
    """

    example: str
    defaults: t.Mapping[str, str]
    implicit: t.Mapping[str, str]
    required: t.Collection[str]

    @property
    def known(self) -> set[str]:
        """Every setting of the release."""
        return {*self.defaults, *self.implicit}

    def default(self, key: str) -> str:
        """The setting's default, empty where it has none."""
        return self.defaults.get(key) or self.implicit.get(key, "")


class Host(t.NamedTuple):
    """What the host holds already.

    ``current``: text of the C(.env) in place, if any. ``applied``: ``memory`` of the last run, if any: what differs
    from it in ``current`` is a hand edit. ``beside``: settings from files Compose reads before C(.env). ``running``:
    whether a server has run with these, so that its secrets must stay what they are.
    """

    current: str | None = None
    applied: str | None = None
    beside: t.Mapping[str, str] = {}
    running: bool = False


class Merge(t.NamedTuple):
    """What a C(.env) should hold and how it came about.

    ``text``: the file. ``memory``: what the file would hold without hand edits, to be handed in as ``applied``
    next time. ``values``: name to raw value. ``renamed``: old name to new. The lists hold names of settings, in the
    file's order. ``hidden``: names of secrets, whatever they are called.
    """

    text: str
    memory: str
    values: dict[str, str]
    generated: list[str]
    drifted: list[str]
    unknown: list[str]
    renamed: dict[str, str]
    public: list[str]
    hidden: set[str]


class _Piece(t.NamedTuple):
    """One assignment: comments and blank lines before it, ``NAME=``, the name, the raw value."""

    filler: str
    head: str
    key: str
    raw: str


def is_secret(key: str) -> bool:
    """Whether a setting's name says that its value must not be shown."""
    return bool(_SECRET_NAME.search(key)) and not _NO_SECRET_NAME.search(key)


def _parse(text: str) -> tuple[list[_Piece], str]:
    """The file's assignments and what follows the last one: together they are the text again."""
    pieces: list[_Piece] = []
    start, position = 0, int(text.startswith("\ufeff"))
    while True:
        begin = t.cast("re.Match[str]", _FILLER.match(text, position)).end()
        if begin == len(text):
            return pieces, text[start:]
        head = _HEAD.match(text, begin)
        if not head:
            raise DotenvError("line {0} is neither a comment nor NAME=value".format(text.count("\n", 0, begin) + 1))
        position = head.end()
        if not head.group(2):
            continue
        if text[position : position + 1] in ("'", '"'):
            quoted = _QUOTED.match(text, position)
            if not quoted:
                line = text.count("\n", 0, begin) + 1
                raise DotenvError("line {0}: the quote behind {1}= is never closed".format(line, head.group(1)))
            raw = quoted.group(0)
        else:
            end = text.find("\n", position)
            raw = text[position : end if end >= 0 else len(text)].split(" #", 1)[0].rstrip()
        pieces.append(_Piece(text[start:begin], head.group(0), head.group(1), raw))
        start = position = position + len(raw)


def assignments(text: str) -> dict[str, str]:
    """The file's settings, name to raw value, in the file's order. Raises DotenvError where Compose cannot read it."""
    return {piece.key: piece.raw for piece in _parse(text)[0]}


def resolve(text: str) -> dict[str, str]:
    """The file's settings as Compose resolves them in an empty environment: name to value, in the file's order."""
    scope: dict[str, str] = {}
    for piece in _parse(text)[0]:
        scope[piece.key] = unquote(piece.raw, scope)
    return scope


def unquote(raw: str, scope: t.Mapping[str, str] | None = None) -> str:
    """The value Compose reads from a raw one. References are taken from ``scope``; without it they stay as written."""
    if raw.startswith("'"):
        return raw[1:-1].replace("\\'", "'")
    if raw.startswith('"'):
        raw = _ESCAPE.sub(_unescape, raw[1:-1])
    return raw if scope is None else _expand(raw, scope)


def _unescape(found: re.Match[str]) -> str:
    code = found.group(1)
    return chr(int(code, 8)) if code.startswith("0") else _ESCAPES[code]


def _expand(template: str, scope: t.Mapping[str, str]) -> str:
    """The template with its references taken from ``scope``: Compose's rules for ``$``."""
    parts: list[str] = []
    position = 0
    while True:
        found = _DOLLAR.search(template, position)
        if not found:
            return "".join([*parts, template[position:]])
        parts.append(template[position : found.start()])
        escaped, bare, braced, operator = found.groups()
        position = found.end()
        if escaped:
            parts.append("$")
            continue
        other = ""
        if braced:
            end = _closing(template, position)
            other, position = template[position:end], end + 1
        name = bare or braced
        value = scope.get(name, "")
        absent = not value if (operator or "").startswith(":") else name not in scope
        if operator and operator[-1] == "+":
            value = "" if absent else _expand(other, scope)
        elif operator and operator[-1] == "-" and absent:
            value = _expand(other, scope)
        parts.append(value)


def _closing(template: str, position: int) -> int:
    """Where the brace closes that was opened before ``position``."""
    depth = 1
    while position < len(template):
        depth += template.startswith("${", position) - template.startswith("}", position)
        if not depth:
            break
        position += 1
    return position


def _references(template: str) -> set[str]:
    """Names a raw or unquoted value takes from elsewhere."""
    return {found.group(2) or found.group(3) for found in _DOLLAR.finditer(template)} - {None}


def interpolated(text: str) -> tuple[dict[str, str], list[str]]:
    """What a Compose file takes from C(.env): name to what it falls back to, and the names it cannot do without."""
    fallback: dict[str, str] = {}
    required: dict[str, None] = {}
    for found in _INTERPOLATION.finditer(text):
        name, operator = found.groups()
        if operator in ("?", ":?"):
            required[name] = None
        value = text[found.end() : _closing(text, found.end())] if operator in ("-", ":-") else ""
        fallback[name] = fallback.get(name) or value
    return {name: _expand(value, {}) for name, value in fallback.items()}, list(required)


def quote(value: str, known: t.Collection[str] = ()) -> str:
    """A raw value that Compose resolves to ``value``.

    ``${NAME}`` with a ``NAME`` in ``known`` stays a reference; every other dollar sign is literal. Raises DotenvError.
    """
    if any(ord(char) < 32 and char not in "\n\r\t" for char in value) or "\x7f" in value:
        raise DotenvError("a control character cannot be written to a .env file")
    if any(0xD800 <= ord(char) < 0xE000 for char in value):
        raise DotenvError("half a character (a lone surrogate) cannot be written as UTF-8")
    if _PLAIN.match(value):
        return value
    template = _template(value, known)
    if template == value.replace("$", "$$"):
        if not any(char in value for char in "'\\\n\r\t"):
            return "'" + value + "'"
    elif _PLAIN.match(template.replace("$", "")):
        return template
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        template = template.replace(char, escaped)
    return '"' + template + '"'


def _template(value: str, known: t.Collection[str]) -> str:
    """The value with every dollar sign doubled but those of references to known settings."""
    parts, position = [], 0
    while position < len(value):
        found = _DOLLAR.match(value, position)
        end = _closing(value, found.end()) if found and found.group(3) in known else len(value)
        if found and end < len(value):
            parts += [found.group(0), _template(value[found.end() : end], known), "}"]
            position = end + 1
        else:
            parts.append("$$" if value[position] == "$" else value[position])
            position += 1
    return "".join(parts)


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
    release: Release,
    secrets: t.Sequence[Secret] = (),
    allow_unknown: t.Collection[str] = (),
    any_type: t.Collection[str] = (),
) -> None:
    """Raises DotenvError for a setting the release does not know, or of another type than its default."""
    known = release.known
    formats = {secret.key: secret.format for secret in secrets}
    for key, value in values.items():
        if not _NAME.match(key):
            raise DotenvError(
                "{0!r} is no setting's name, expected letters, digits and underscores, no digit first.".format(key)
            )
        if key not in known and key not in allow_unknown:
            near = difflib.get_close_matches(key.upper(), sorted(known), n=1)
            hint = " Did you mean {0}?".format(near[0]) if near else ""
            raise DotenvError(
                "This release knows no setting {0}.{1} List it in allow_unknown to pass it on all the same.".format(
                    key, hint
                )
            )
        try:
            quote(value, known)
        except DotenvError as error:
            raise DotenvError("{0} cannot be written: {1}.".format(key, error)) from error
        if _references(value) & known:
            continue
        if not value and key in release.required:
            raise DotenvError("{0} is empty, but this release cannot start without it.".format(key))
        if formats.get(key) == "base64url32" and not _is_base64url32(value):
            raise DotenvError(
                "{0} is (hidden), expected unpadded base64url of exactly 32 bytes, which is 43 characters.".format(key)
            )
        if key not in any_type:
            _check_type(key, value, release.default(key))


def _check_type(key: str, value: str, default: str) -> None:
    shown = "(hidden)" if is_secret(key) else repr(value)
    if _NUMBER.match(default) and not _NUMBER.match(value):
        raise DotenvError("{0} is {1}, expected a number such as {2}.".format(key, shown, default))
    if _WHOLE.match(default) and not _WHOLE.match(value):
        raise DotenvError("{0} is {1}, expected a whole number such as {2}.".format(key, shown, default))
    if default in _BOOLEAN and value not in _BOOLEAN:
        raise DotenvError("{0} is {1}, expected true or false.".format(key, shown))


def _is_base64url32(value: str) -> bool:
    return bool(re.match(r"[A-Za-z0-9_-]{43}\Z", value)) and len(base64.urlsafe_b64decode(value + "=")) == 32


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


def renames(renamed: t.Mapping[str, str], release: Release) -> dict[str, str]:
    """Old name to new of the settings this release knows under the new one only."""
    return {old: new for old, new in renamed.items() if new in release.known and old not in release.defaults}


def merge(
    release: Release,
    values: t.Mapping[str, str],
    secrets: t.Sequence[Secret] = (),
    host: Host = Host(),  # noqa: B008
    renamed: t.Mapping[str, str] | None = None,
    drift: str = "keep",
) -> Merge:
    """The C(.env) for a release; order and comments of its example are kept.

    ``values``: the operator's settings, already checked; they win over hand edits. ``renamed``: old name to new, from
    ``renames``. ``drift``: C(keep) keeps hand edits, C(overwrite) undoes them, C(fail) raises DotenvError, as does a
    required setting without a value.
    """
    pieces, rest = _parse(release.example)
    known = release.known
    defaults = {piece.key: piece.raw for piece in pieces}
    before = assignments(host.applied or "")
    present, moved = _carry_over(renamed or {}, assignments(host.current or ""), before, defaults)
    wanted = {key: quote(value, known | set(values)) for key, value in values.items()}
    drawn = _secrets(release, values, wanted, secrets, host, renamed or {}, present, drift)

    result: dict[str, str] = {}
    base: dict[str, str] = {}
    drifted: list[str] = []
    unknown: list[str] = []
    for key in dict.fromkeys([*defaults, *wanted, *present]):
        ours, theirs = wanted.get(key, defaults.get(key)), present.get(key)
        if ours is not None:
            result[key] = base[key] = ours
        elif theirs is not None and key not in known:
            result[key] = theirs
            unknown.append(key)
            continue
        if theirs is None or theirs == before.get(key, defaults.get(key)):
            continue
        if theirs != ours or (key in drawn.kept and key in before):
            drifted.append(key)
        if key not in wanted and drift != "overwrite":
            result[key] = theirs
    if drifted and drift == "fail":
        raise DotenvError(
            "Edited by hand since the last run: {0}. Move these settings into values, or set drift to keep or "
            "overwrite.".format(", ".join(drifted))
        )
    for key in release.required:
        if not unquote(result.get(key, ""), result):
            raise DotenvError(
                "This release cannot start without {0}, which has no value; set it in values.".format(key)
            )

    text = _render(pieces, rest, result, set(unknown))
    memory = "".join("{0}={1}\n".format(key, raw) for key, raw in base.items())
    memory += "".join(_PUBLIC.format(key) for key in drawn.public)
    hidden = {key for secret in secrets for key in (secret.key, *secret.also)}
    return Merge(text, memory, result, drawn.generated, drifted, unknown, moved, drawn.public, hidden)


def _carry_over(
    renamed: t.Mapping[str, str],
    present: dict[str, str],
    before: t.Mapping[str, str],
    defaults: t.Mapping[str, str],
) -> tuple[dict[str, str], dict[str, str]]:
    """The settings in place under their new names, and old name to new of those that were there.

    What was edited by hand moves; what this module wrote is made anew under the new name. Where both names were
    edited the old one stays.
    """
    moved = {}
    for old, new in renamed.items():
        if old not in present:
            continue
        own = present[old] != before.get(old)
        if own and new in present and present[new] != before.get(new, defaults.get(new)):
            continue
        raw = present.pop(old)
        moved[old] = new
        if own:
            present[new] = raw
    return present, moved


class _Drawn(t.NamedTuple):
    """What became of the secrets: those made now, those still public, those taken from the host."""

    generated: list[str]
    public: list[str]
    kept: set[str]


def _secrets(
    release: Release,
    values: t.Mapping[str, str],
    wanted: dict[str, str],
    secrets: t.Sequence[Secret],
    host: Host,
    renamed: t.Mapping[str, str],
    present: t.Mapping[str, str],
    drift: str,
) -> _Drawn:
    """Adds each secret and what must agree with it to ``wanted``."""
    known = release.known
    held, remembered = resolve(host.current or ""), resolve(host.applied or "")
    drawn = _Drawn([], [], set())
    table = {key for secret in secrets for key in (secret.key, *secret.also)}
    # A token that only a newer release asks for.
    unheard = [Secret(key) for key in release.required if key not in table | set(values) and is_secret(key)]
    for secret in [*secrets, *(secret for secret in unheard if not release.default(secret.key))]:
        key = secret.key
        if key not in known or key in renamed:
            continue
        names = [key, *(old for old, new in renamed.items() if new == key)]
        public = {unquote(release.defaults.get(key, "")), release.implicit.get(key, "")}
        public |= {remembered.get(name, "") for name in names if _PUBLIC.format(name) in (host.applied or "")}
        written = [remembered.get(name, "") for name in names]
        found = [held.get(name, "") for name in names]
        found = written + found if drift == "overwrite" else found + written
        if host.running and host.applied is None:
            found += [host.beside.get(key, ""), release.implicit.get(key, ""), secret.fallback]
            found += [unquote(release.defaults.get(key, ""))]
        elif not host.running:
            found = [value for value in found if value not in public]
        value = next(filter(None, found), "")
        if key in values:
            if secret.fixed and value and unquote(wanted[key], held) != value:
                raise DotenvError(
                    "{0} in values is another than the one in place, with which the server's data was made; take it "
                    "out of values, or rotate it where the data is first.".format(key)
                )
            value = values[key]
        else:
            if not value:
                value = generate(secret)
                drawn.generated.append(key)
            elif value in public:
                drawn.public.append(key)
            drawn.kept.add(key)
            raw = present.get(key, "")
            wanted[key] = raw if held.get(key) == value and not _references(raw) else quote(value)
        for other, template in secret.also.items():
            if other not in known or other in values:
                continue
            own = held.get(other, "") if drift != "overwrite" else ""
            if re.match(re.escape(template).replace(r"\{\}", ".*") + r"\Z", own or template):
                in_url = "://" in template and not (key in values and _references(value) & known)
                made = urllib.parse.quote(value, safe="") if in_url else value
                wanted[other] = quote(template.replace("{}", made), known if key in values else ())
    return drawn


def edited(release: Release, current: str, applied: str) -> list[str]:
    """Names of the settings that somebody changed or took out since the C(.env) was written, in the file's order.

    ``current``: the file's text, ``applied``: the memory of the run that wrote it. What the release does not know is
    nobody's concern.
    """
    before, present = {**assignments(release.example), **assignments(applied)}, assignments(current)
    known = release.known | set(before)
    changed = [key for key, raw in present.items() if key in known and raw != before.get(key)]
    return changed + [key for key in before if key not in present]


def still_public(release: Release, current: str, applied: str, names: t.Iterable[str]) -> list[str]:
    """Which of the secrets have a value that everybody can look up."""
    held, remembered = resolve(current), resolve(applied)
    found = []
    for key in names:
        public = {unquote(release.defaults.get(key, "")), release.implicit.get(key, "")}
        public |= {remembered.get(key, "")} if _PUBLIC.format(key) in applied else set()
        if (held.get(key) or release.implicit.get(key, "")) in public - {""}:
            found.append(key)
    return found


def _render(pieces: t.Sequence[_Piece], rest: str, result: t.Mapping[str, str], unknown: t.Collection[str]) -> str:
    """The file: the example with the results in it, then what else there is."""
    defaults = {piece.key: piece.raw for piece in pieces}
    above: set[str] = set()
    later: dict[str, str] = {}

    def waits(key: str) -> bool:
        """Whether a setting must move below those it refers to."""
        raw = result[key]
        needs = set() if raw.startswith("'") else _references(raw) & set(result) - above - {key}
        return bool(needs and (raw != defaults.get(key) or needs & set(later)))

    text = HEADER + "\n"
    written = ""  # an assignment of ours, behind which what followed the example's own must not be read as its value
    for piece in [*pieces, _Piece(rest, "", "", "")]:
        filler = piece.filler
        if written and not re.match(r"[ \t\r]*(?:\n|\Z)| #", filler + piece.head):
            text += " " if filler.lstrip().startswith("#") else "\n"
        written = ""
        if piece.key in later or (piece.key and waits(piece.key)):
            later[piece.key] = result[piece.key]
            text = re.sub(r"\n?[ \t]*\Z", "", text + filler)
            continue
        if piece.key and result[piece.key] != defaults[piece.key]:
            written = "{0}={1}".format(piece.key, result[piece.key])
        text += filler.lstrip("\ufeff") + (written or piece.head + piece.raw)
        above.add(piece.key)
    if set(result) - above:
        text = text.rstrip("\n") + "\n"

    others = [key for key in result if key not in defaults]
    sections = [
        (EXTRA, [key for key in others if key not in unknown]),
        (KEPT, [key for key in others if key in unknown]),
    ]
    for title, keys in sections:
        lines = []
        for key in keys:
            if waits(key):
                later[key] = result[key]
                continue
            above.add(key)
            lines.append("{0}={1}\n".format(key, result[key]))
        text += "\n{0}\n{1}".format(title, "".join(lines)) if lines else ""
    text += "\n{0}\n".format(MOVED) if later else ""
    while later:
        ready = [key for key in later if not waits(key)]
        if not ready:
            raise DotenvError("{0} refer to each other in a circle.".format(", ".join(later)))
        for key in ready:
            text += "{0}={1}\n".format(key, later.pop(key))
            above.add(key)
    return text


def changes(current: str, merged: Merge) -> tuple[str, str]:
    """Before and after of the settings that change, one C(KEY=value) a line, secrets hidden: for a diff.

    ``current``: text of the C(.env) in place, or of the example where there is none yet.
    """
    present = assignments(current)

    def line(key: str, raw: str, instead: str) -> str:
        secret = raw and (key in merged.hidden or is_secret(key) or _URL_LOGIN.search(raw))
        return "{0}={1}\n".format(key, instead if secret else raw)

    keys = [key for key in dict.fromkeys([*merged.values, *present]) if present.get(key) != merged.values.get(key)]
    before = "".join(line(key, present[key], "(hidden)") for key in keys if key in present)
    after = "".join(line(key, merged.values[key], "(hidden, new)") for key in keys if key in merged.values)
    return before, after
