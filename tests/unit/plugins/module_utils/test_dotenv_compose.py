# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written is what Compose resolves, tried with every real Compose binary found here."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv
from ansible_collections.selfhost.dify.tests.unit.data.composes import BINARIES, every_compose
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

# Awkward on purpose: quotes, escapes, comments, references, spaces of all kinds, characters of two and four bytes.
TEXTS = st.text(
    st.one_of(
        st.sampled_from(list("$#'\"\\\n\r\t {}=:,-+?!;&|<>()[]*~`^%@/.")),
        st.sampled_from(list("azAZ09_é漢🐘\u00a0\u2028\u3000\x85\ufeff")),
        st.characters(blacklist_categories=["Cc", "Cs"]),
    ),
    max_size=24,
)
PARTS = st.sampled_from(
    ["", " ", "'", '"', "\\", "$", "$$", "#", " #", "\n", "x", "${A}", "${NO}", "$A", "${A:-d e}", "${NO:-'x' #\"}"]  # noqa: RUF005
    + ["${NO:-${A}}", "${NO-${E:-deep}}", "${E-unset}", "${A:+set}", "${E:+set}", "${NO:+ ${A}}", "{}", "export B=2"]
)
FEW = settings(
    max_examples=8,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
BATCH = 60
ABOVE = "A=it's \\\\ $$5\nE=\n"
ENVIRONMENT = {"A": "it's \\\\ $5", "E": ""}


def resolve(binary: Path, text: str, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What Compose makes of a .env: for ``${NAME}`` in the Compose file, and for ``env_file``."""
    project = {
        "services": {
            "interpolated": {"image": "x", "environment": {name: f"${{{name}}}" for name in names}},
            "env_file": {"image": "x", "env_file": [".env"]},
        }
    }
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "compose.yaml").write_text(json.dumps(project), encoding="utf-8")
        Path(directory, ".env").write_bytes(text.encode("utf-8"))
        said = subprocess.run(
            [binary, "config", "--format", "json"],
            cwd=directory,
            env={"PATH": "/usr/bin:/bin", "HOME": directory},
            capture_output=True,
            check=False,
        )
    assert said.returncode == 0, said.stderr.decode() + text
    services = json.loads(said.stdout)["services"]
    # Compose doubles literal dollar signs on output, so that the result can be read again.
    return tuple(  # type: ignore[return-value]
        {key: value.replace("$$", "$") for key, value in services[name]["environment"].items()}
        for name in ("interpolated", "env_file")
    )


def assert_resolved(binary: Path, text: str, expected: dict[str, str]) -> None:
    """Both ways agree with what is expected, and with what this project's own reader says."""
    interpolated, env_file = resolve(binary, text, list(expected))
    assert interpolated == expected
    assert {key: env_file[key] for key in expected} == expected
    own = _dotenv.resolve(text)
    assert {key: own[key] for key in expected} == expected


def test_the_newest_compose_is_tried() -> None:
    assert any(version.startswith("5.") for version in BINARIES), BINARIES


@every_compose
@FEW
@given(st.lists(TEXTS, min_size=30, max_size=BATCH))
@example(
    [
        "",
        " ",
        "  lead",
        "trail  ",
        "#",
        " #",
        "a #b",
        "a#b",
        "'",
        '"',
        "\\",
        "\\'",
        "'\\",
        '\\"',
        "$",
        "$$",
        "${A}",
        "$A",
    ]
)
@example(
    [
        "a\nb",
        "\n",
        "a\r\nb",
        "\t",
        "\\n",
        "\\\\n",
        "${",
        "}",
        "${A:-x}",
        "export X=1",
        "ä",
        "🐘",
        "\u00a0x\u00a0",
        "%Y-%m-%d",
    ]
)
def test_a_value_that_is_written_is_what_compose_resolves(binary: Path, values: list[str]) -> None:
    expected = {f"K{number}": value for number, value in enumerate(values)}
    text = "".join(f"{key}={_dotenv.quote(value)}\n" for key, value in expected.items())
    assert_resolved(binary, ABOVE + text, expected)


@every_compose
@FEW
@given(st.lists(st.lists(PARTS, max_size=6), min_size=30, max_size=BATCH))
def test_references_to_known_settings_are_resolved_and_the_rest_is_literal(
    binary: Path, parts: list[list[str]]
) -> None:
    """What a value means is spelt out here once more, piece by piece, for the pieces that mean something."""
    meaning = {"${A}": ENVIRONMENT["A"], "${NO}": "", "${A:-d e}": ENVIRONMENT["A"], "${NO:-'x' #\"}": "'x' #\""}
    meaning |= {"${NO:-${A}}": ENVIRONMENT["A"], "${NO-${E:-deep}}": "deep", "${E-unset}": ""}
    meaning |= {"${A:+set}": "set", "${E:+set}": "", "${NO:+ ${A}}": ""}
    # A lone dollar before a brace would make another reference of it.
    kept = [["$$$" if part == "$" else part for part in value] for value in parts]
    expected = {f"K{number}": "".join(meaning.get(part, part) for part in value) for number, value in enumerate(kept)}
    text = "".join(
        f"K{number}={_dotenv.quote(''.join(value), {'A', 'E', 'NO'})}\n" for number, value in enumerate(kept)
    )
    assert_resolved(binary, ABOVE + text, expected)


@every_compose
@FEW
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["{}={}", "export {}={}", "export  {} = {}", "{}: {}", "{} ={}", "  {}={}", "\n# it's\n{}={}"]
            ),
            st.sampled_from(["", " ", " # it's", "\r", "\n#"]),
            st.sampled_from(["'{}'", '"{}"', "{}"]),
            st.text(st.sampled_from(list("ab $#\\n\t'\"{}\n=:0é")), max_size=10),
        ),
        min_size=30,
        max_size=BATCH,
    )
)
def test_what_somebody_wrote_is_read_as_compose_reads_it(binary: Path, lines: list[tuple[str, str, str, str]]) -> None:
    """Any text that Compose accepts; where it finds an error this reader may say anything but something else."""
    text = ABOVE
    names = []
    for number, (form, end, quotes, body) in enumerate(lines):
        line = form.format(f"K{number}", quotes.format(body)) + end + "\n"
        try:
            _dotenv.resolve(line)
        except _dotenv.DotenvError:
            continue
        # A dollar sign that begins no reference, or a stray quote, is an error to Compose: not what is tried here.
        if "$" in body or (quotes != "{}" and quotes[0] in body) or "\n" in body:
            continue
        text += line
        names.append(f"K{number}")
    assume(names)
    interpolated, env_file = resolve(binary, text, names)
    own = _dotenv.resolve(text)
    assert interpolated == {name: own[name] for name in names}
    assert {name: env_file[name] for name in names} == interpolated


@every_compose
def test_lines_met_in_real_files_are_read_as_compose_reads_them(binary: Path) -> None:
    text = (
        '\ufeffA= # no comment\nB=#x\nC=\t# y\nD="q"#c\nE="a" F=2\nexport G=a$$b\nH: yaml\nJ=  sp  \n'
        "K='it\\'s \\\\ b\\n'\nL=\"\\\\n \\$A \\x ${B}\"\nM=${NO:-d${B}e}x\nN=a\t#z\n"
        'O=a\\nb "q" \'s\nP="multi\nline"\n'
        "R=${NO}\nT='${B}'\nU=${Z:+w}${B:+w}\nV=\"\\101 \\0101 \\a\\c\"\nW=x\r\n"
        "X=%Y-%m-%d %H:%M:%S\nA1=a b # c\nY=${NO-${B}}"
    )
    names = list(_dotenv.assignments(text))
    interpolated, env_file = resolve(binary, text, names)
    assert interpolated == env_file == _dotenv.resolve(text)


@every_compose
def test_a_reference_sees_only_what_stands_above_it(binary: Path) -> None:
    """So settings that refer to something further down are moved below it."""
    release = _dotenv.Release(
        "FIRST=1\nKEY=x\nOTHER=${KEY:-none}\nLAST=end\n", {"FIRST": "1", "KEY": "x", "LAST": "end"}, {}, []
    )
    merged = _dotenv.merge(release, {"KEY": "see ${LAST}", "FIRST": "${KEY}!"})
    interpolated, _env_file = resolve(binary, merged.text, ["FIRST", "KEY", "OTHER", "LAST"])
    assert interpolated == {"FIRST": "see end!", "KEY": "see end", "OTHER": "see end", "LAST": "end"}
