"""The body of a message is put right by paths and values, or written anew."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.application.errors import Invalid
from daylily_daemon.application.mending import LARGEST_BYTES, checked, laid_out, with_values

BODY = json.dumps({"kind": "tidy", "ask": {"priority": "low"}, "Records": [{"s3": {"key": "a"}}]})


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("kind=cancel", ("kind",), "cancel"),
        ("ask.priority=urgent", ("ask", "priority"), "urgent"),
        ("ask.reason=a = b", ("ask", "reason"), "a = b"),
        ("ask.from_start=true", ("ask", "from_start"), True),
        ('id="12"', ("id",), "12"),
        ("id=12", ("id",), 12),
        ("kind=", ("kind",), ""),
        ("Records.0.s3.key=b/c", ("Records", 0, "s3", "key"), "b/c"),
        ("Records.0=[]", ("Records", 0), []),
    ],
)
def test_a_value_is_put_where_its_path_leads_and_nothing_else_changes(
    assignment: str, path: tuple[str | int, ...], value: object
) -> None:
    found, wanted = json.loads(with_values(BODY, [assignment])), json.loads(BODY)
    place = wanted
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert found == wanted


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("kind", "write it as PATH=VALUE"),
        ("=x", "write it as PATH=VALUE"),
        ("control.bucket=lab", "the message has no control there; it has Records, ask, kind"),
        ("Records.1.s3=x", "the message has no 1 there; it is a list of 1"),
        ("Records.-1=x", "the message has no -1 there"),
        ("kind.of=x", "there is nothing in the message that of could be a part of"),
        ("kind.of.it=x", "the message has no of there; it has no parts"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_sentence(assignment: str, said: str) -> None:
    with pytest.raises(Invalid) as raised:
        with_values(BODY, [assignment])
    assert said in str(raised.value)


@pytest.mark.parametrize("body", ["not JSON", "[" * 100_000])
def test_what_is_no_json_is_written_anew(body: str) -> None:
    with pytest.raises(Invalid, match="write it anew with --edit or --body"):
        with_values(body, ["kind=cancel"])
    assert laid_out(body) == body


@pytest.mark.parametrize("body", ["", " \n"])
def test_nothing_is_no_message(body: str) -> None:
    with pytest.raises(Invalid, match="dlq drop"):
        checked(body)


def test_a_message_that_no_queue_takes_is_refused() -> None:
    assert checked("x" * LARGEST_BYTES + "\n") == "x" * LARGEST_BYTES
    with pytest.raises(Invalid, match="larger than"):
        checked("é" * LARGEST_BYTES)


@given(st.text(), st.lists(st.text(), max_size=3))
def test_whatever_is_given_is_mended_or_a_sentence(body: str, assignments: list[str]) -> None:
    for text in (body, json.dumps([body, {body: 1}])):
        try:
            json.loads(with_values(text, assignments))
        except Invalid:
            continue


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_a_message_that_is_laid_out_says_the_same(value: object) -> None:
    assert json.loads(laid_out(json.dumps(value))) == value


@pytest.mark.parametrize("name", ["Zo\u00eb", "\ud83d", "a\udcff"])
def test_half_a_character_stays_an_escape_and_a_whole_one_is_itself(name: str) -> None:
    body = json.dumps({"by": name})
    for text in (with_values(body, ["kind=cancel"]), laid_out(body)):
        assert json.loads(text)["by"] == name
        assert text.encode()
    assert "Zo\u00eb" in laid_out(json.dumps({"by": "Zo\u00eb"}))
