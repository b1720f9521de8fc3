# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Celery ping: where the broker is, and what a real worker answered (recorded from Celery 5.7)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _celery
from ansible_collections.selfhost.dify.plugins.module_utils._connection import Connection, Refused

RECORDED = Path(__file__).resolve().parents[4] / "tests/unit/recorded"


@pytest.mark.parametrize(
    ("url", "target", "number"),
    [
        ("redis://:pass@redis:6379/1", Connection("redis", "redis", 6379, password="pass"), 1),
        ("redis://redis", Connection("redis", "redis", 6379), 0),
        (
            "rediss://dify:a%2Fb@cache.example.com:6380/2",
            Connection("redis", "cache.example.com", 6380, True, user="dify", password="a/b"),
            2,
        ),
    ],
)
def test_broker(url: str, target: Connection, number: int) -> None:
    assert _celery.broker(url) == _celery.Broker(target, number, "")


def test_a_prefix_ends_in_a_colon() -> None:
    found = _celery.broker("redis://redis", " dify ")
    assert found and found.prefix == "dify:"


@pytest.mark.parametrize("url", ["", "sentinel://redis:26379/1", "amqp://rabbit", "redis://"])
def test_no_single_redis(url: str) -> None:
    assert _celery.broker(url) is None


def test_a_workers_answer() -> None:
    assert _celery.workers((RECORDED / "celery-pong.json").read_text(encoding="utf-8")) == ["worker@example"]


def test_a_worker_in_trouble_does_not_count() -> None:
    body = base64.b64encode(json.dumps({"worker@a": {"error": "no"}, "worker@b": {"ok": "pong"}}).encode()).decode()
    assert _celery.workers(json.dumps({"body": body})) == ["worker@b"]


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"body": "***"}', '{"body": "W10="}'])
def test_something_else_answers(answer: str) -> None:
    with pytest.raises(Refused, match="not Celery's"):
        _celery.workers(answer)


def test_the_question_has_the_form_of_the_answer() -> None:
    asked = json.loads(_celery.message("ticket", "queue", 3))
    answered = json.loads((RECORDED / "celery-pong.json").read_text(encoding="utf-8"))
    assert set(asked) == set(answered)
    assert set(asked["properties"]) == set(answered["properties"])
    body = json.loads(base64.b64decode(asked["body"]))
    assert (body["method"], body["ticket"]) == ("ping", "ticket")
    assert body["reply_to"] == {"exchange": answered["properties"]["delivery_info"]["exchange"], "routing_key": "queue"}
