"""What each channel says to its receiver, and how it reads the answers that are its receiver's own."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from daylily_daemon.adapters.notifiers.linear import Linear, issue_id
from daylily_daemon.adapters.notifiers.s3_sentinels import S3Sentinels
from daylily_daemon.adapters.notifiers.slack import Slack
from daylily_daemon.adapters.notifiers.webhook import DELIVERY, SIGNATURE, Webhook, verify
from daylily_daemon.domain.errors import Impeded, Permanent, Transient
from daylily_daemon.domain.model import Priority, RecordType, State
from tests.contract.benches import BENCHES
from tests.contract.receivers import (
    LINEAR_KEY,
    NOW,
    WEBHOOK_SECRET,
    Clock,
    Heard,
    Receiver,
    linear_error,
)
from tests.fakes.objects import MemoryObjects
from tests.records import FAILED, a_record

GUIDE: Final = Path(__file__).parents[2] / "docs" / "adding-a-channel.md"
NOON: Final = {"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}

Reached = tuple[str, aiohttp.ClientSession, list[Heard]]


@asynccontextmanager
async def always(
    status: int, body: Any = "", headers: Mapping[str, str] = NOON
) -> AsyncIterator[Reached]:
    """Serve one answer to everything; yield address, session and what was heard."""

    async def answer(_: Heard) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    receiver = Receiver(answer)
    async with receiver.serving() as url, aiohttp.ClientSession() as session:
        yield str(url), session, receiver.heard


def a_linear(url: str, session: aiohttp.ClientSession) -> Linear:
    return Linear(session=session, api_key=LINEAR_KEY, team_id="team-1", endpoint=url)


def a_webhook(url: str, session: aiohttp.ClientSession, secret: str = WEBHOOK_SECRET) -> Webhook:
    return Webhook(session=session, url=url, secret=secret, clock=Clock())


@pytest.mark.parametrize(
    "url",
    [
        "http://receiver.example/hook",
        "ftp://127.0.0.1/hook",
        "http://127.0.0.1.example/hook",
        "receiver.example/hook",
        "https://",
        "https://[::1/hook",
        "https://receiver.example/ho ok",
        "https://receiver.example/hook\n",
        "",
    ],
)
async def test_an_address_that_is_not_https_is_refused_before_anything_is_sent(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for make in (a_webhook, a_linear, lambda u, s: Slack(session=s, url=u)):
            with pytest.raises(Permanent, match=r"The address of .* https://"):
                make(url, session)


@pytest.mark.parametrize(
    "url", ["https://receiver.example/x", "http://localhost:1/x", "http://[::1]:1/x"]
)
async def test_https_and_this_machine_are_good_addresses(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        assert a_webhook(url, session).url == url


@pytest.mark.parametrize("secret", ["two words", "line\n", "ümlaut", "\x00"])
async def test_a_secret_that_no_header_can_carry_is_refused(secret: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Permanent, match="copy it again"):
            a_webhook("https://receiver.example/", session, secret)


@pytest.mark.reported("C", "a mention or a link in what somebody wrote (CrabTrap#20, runlore#196)")
async def test_slack_sees_no_mention_and_no_link_in_what_a_lab_wrote() -> None:
    async with always(200, "ok") as (url, session, heard):
        record = a_record(message="<!channel> <https://x|y> a&b")
        await Slack(session=session, url=url).deliver(record)
    said = heard[0].json["blocks"][0]["text"]["text"]
    assert "&lt;!channel&gt; &lt;https://x|y&gt; a&amp;b" in said
    assert "<" not in said


@pytest.mark.parametrize("lead", range(6))
async def test_a_message_too_long_for_slack_is_cut_between_two_escapes(lead: int) -> None:
    async with always(200, "ok") as (url, session, heard):
        record = a_record(message="x" * lead + "&" * 1999, error_details="<" * 4000)
        await Slack(session=session, url=url).deliver(record)
    said = heard[0].json["blocks"][0]["text"]["text"]
    assert len(said) <= 3000
    assert said.endswith(";…")


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (404, "no_service", Impeded),
        (410, "channel_is_archived", Impeded),
        (400, "channel_not_found", Impeded),
        (403, "invalid_token", Impeded),
        (400, "invalid_payload", Permanent),
        (400, "invalid_blocks", Permanent),
    ],
)
async def test_the_word_slack_refuses_with_is_handed_on(
    status: int, word: str, kind: type[Exception]
) -> None:
    async with always(status, word) as (url, session, _):
        with pytest.raises(kind, match=f"{status} .{word}."):
            await Slack(session=session, url=url).deliver(FAILED)


@pytest.mark.parametrize("status", [302, 400, 404, 502])
async def test_the_page_of_a_proxy_is_no_answer_of_slack(status: int) -> None:
    async with always(status, "\n <!DOCTYPE html><html>Log in to the lab's network") as (
        url,
        session,
        _,
    ):
        with pytest.raises(Transient, match=f"HTTP {status}"):
            await Slack(session=session, url=url).deliver(FAILED)


async def test_a_webhook_is_signed_so_that_receivers_can_check_it() -> None:
    async with always(204) as (url, session, heard):
        await a_webhook(url, session).deliver(FAILED)
    (post,) = heard
    signature = post.headers[SIGNATURE]
    late = timedelta(seconds=301)
    assert post.headers["Content-Type"] == "application/json"
    assert post.headers[DELIVERY] == "HG002-run7/7"
    assert verify(WEBHOOK_SECRET, signature, post.body, NOW)
    assert not verify(WEBHOOK_SECRET, signature, post.body + b" ", NOW)
    assert not verify("another", signature, post.body, NOW)
    assert not verify(WEBHOOK_SECRET, signature, post.body, NOW + late)
    assert not verify(WEBHOOK_SECRET, signature, post.body, NOW - late)
    assert not verify(WEBHOOK_SECRET, signature.replace("t=", "t=1"), post.body, NOW)
    assert not verify(WEBHOOK_SECRET, "", post.body, NOW)


async def test_the_receiver_in_the_guide_agrees_with_what_is_sent() -> None:
    (snippet,) = [
        s for s in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "hmac" in s
    ]
    guide: dict[str, Any] = {}
    exec(compile(snippet, str(GUIDE), "exec"), guide)
    is_genuine: Callable[..., bool] = guide["is_genuine"]
    async with always(204) as (url, session, heard):
        await a_webhook(url, session).deliver(FAILED)
    signature, body = heard[0].headers[SIGNATURE], heard[0].body
    assert is_genuine(WEBHOOK_SECRET, signature, body, NOW.timestamp())
    assert not is_genuine(WEBHOOK_SECRET, signature, body + b" ", NOW.timestamp())
    assert not is_genuine(WEBHOOK_SECRET, signature, body, NOW.timestamp() + 301)


async def test_without_a_secret_nothing_is_signed() -> None:
    async with always(204) as (url, session, heard):
        await a_webhook(url, session, "").deliver(FAILED)
    assert SIGNATURE not in heard[0].headers


@pytest.mark.parametrize(
    ("priority", "kind", "expected"),
    [
        (Priority.URGENT, RecordType.COMPLETION, 1),
        (Priority.URGENT, RecordType.ERROR, 1),
        (Priority.NORMAL, RecordType.ERROR, 2),
        (Priority.LOW, RecordType.COMPLETION, 3),
    ],
)
async def test_an_issue_reads_as_readers_of_the_old_system_know_it(
    priority: Priority, kind: RecordType, expected: int
) -> None:
    created = {"data": {"issueCreate": {"success": True}}}
    async with always(200, created) as (url, session, heard):
        await a_linear(url, session).deliver(a_record(priority=priority, type=kind))
    (post,) = heard
    issue = post.json["variables"]["input"]
    assert issue["title"] == "[Daylily] HG002-run7 - failed"
    assert issue["teamId"] == "team-1"
    assert issue["priority"] == expected
    assert post.headers["Authorization"] == LINEAR_KEY
    assert LINEAR_KEY not in post.body.decode() + post.path


def test_an_issue_id_is_fixed_by_the_record_and_of_the_version_linear_documents() -> None:
    assert issue_id(FAILED) == issue_id(a_record(message="told again, in other words"))
    assert issue_id(FAILED) != issue_id(a_record(seq=8))
    assert UUID(issue_id(FAILED)).version == 4


@pytest.mark.parametrize(
    "kind", sorted(set(RecordType) - {RecordType.ERROR, RecordType.COMPLETION})
)
async def test_only_errors_and_completions_become_issues(kind: RecordType) -> None:
    async with always(500) as (url, session, heard):
        await a_linear(url, session).deliver(a_record(type=kind))
    assert heard == []


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "errors",
    [
        linear_error("conflict on insert of Issue", "INPUT_ERROR"),
        linear_error("Conflict on insert of Issue - Entity Issue already exists.", "INVALID_INPUT"),
        linear_error(
            "bad", "INPUT_ERROR", f"Entity Issue with id {issue_id(FAILED)} already exists."
        ),
        {"errors": [{"message": "conflict on insert of Issue", "extensions": None}]},
    ],
)
async def test_an_issue_that_is_there_already_is_a_notice_delivered(
    status: int, errors: dict[str, Any]
) -> None:
    async with always(status, errors) as (url, session, _):
        await a_linear(url, session).deliver(FAILED)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "11"}, 11.0),
        (
            {"X-RateLimit-Requests-Remaining": "0", "X-RateLimit-Requests-Reset": "1772366490000"},
            90.0,
        ),
        (
            {
                "X-RateLimit-Requests-Remaining": "5",
                "X-RateLimit-Requests-Reset": "1772369999000",
                "X-RateLimit-Complexity-Remaining": "0",
                "X-RateLimit-Complexity-Reset": "1772366430000",
            },
            30.0,
        ),
        ({"X-RateLimit-Requests-Remaining": "0", "X-RateLimit-Requests-Reset": "soon"}, None),
        ({}, None),
    ],
)
async def test_linear_says_how_long_to_wait_by_its_used_up_budget(
    headers: dict[str, str], expected: float | None
) -> None:
    async with always(400, linear_error("slow", "RATELIMITED"), NOON | headers) as (
        url,
        session,
        _,
    ):
        with pytest.raises(Transient) as caught:
            await a_linear(url, session).deliver(FAILED)
    assert caught.value.retry_after_s == expected


@pytest.mark.parametrize("status", [200, 400, 401])
@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("AUTHENTICATION_ERROR", Impeded, ""),
        ("authentication error", Impeded, ""),
        ("FORBIDDEN", Impeded, ""),
        ("USER_ERROR", Impeded, "usage limit exceeded"),
        ("GRAPHQL_VALIDATION_FAILED", Impeded, ""),
        ("INPUT_ERROR", Impeded, "Entity not found: Team"),
        ("INVALID_INPUT", Impeded, "teamId must be a UUID."),
        ("INPUT_ERROR", Permanent, "title is too long"),
    ],
)
async def test_a_refusal_by_linear_names_the_code_and_never_the_key(
    status: int, code: str, kind: type[Exception], words: str
) -> None:
    said = linear_error(f"the key {LINEAR_KEY}\nis wrong {words}", code)
    async with always(status, said) as (url, session, _):
        with pytest.raises(kind, match=r"the key … is wrong.* Check the API key") as caught:
            await a_linear(url, session).deliver(FAILED)
    assert LINEAR_KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, linear_error("oops", "INTERNAL_SERVER_ERROR")),
        (400, linear_error("oops", "INTERNAL_SERVER_ERROR")),
        (200, {"data": {"issueCreate": {"success": False}}}),
        (200, {"data": None}),
        (200, {"errors": "nonsense"}),
        (200, []),
        (200, "[" * 50_000),
        (502, "<html>Bad gateway"),
    ],
)
async def test_an_unclear_answer_of_linear_is_unknown_and_not_a_failure(
    status: int, body: Any
) -> None:
    async with always(status, body) as (url, session, _):
        with pytest.raises(Transient):
            await a_linear(url, session).deliver(FAILED)


async def test_sns_gets_subject_text_and_attributes_to_filter_by(moto_url: str) -> None:
    async with BENCHES["sns"].open(moto_url, 20.0) as bench:
        await bench.channel.deliver(FAILED)
        form = _form(bench.receiver)
    assert form["Subject"] == "Daylily Workset Error: HG002-run7"
    assert form["Message"].startswith("Workset: HG002-run7\n")
    assert _attributes(form) == {
        "workset_id": ("String", "HG002-run7"),
        "event_type": ("String", "error"),
        "state": ("String", "failed"),
        "priority": ("String", "normal"),
    }
    assert "MessageGroupId" not in form


async def test_a_fifo_topic_gets_the_workset_as_group_and_an_id_to_drop_repeats_by(
    moto_url: str,
) -> None:
    async with BENCHES["sns_fifo"].open(moto_url, 20.0) as bench:
        await bench.channel.deliver(FAILED)
        first = _form(bench.receiver)
        await bench.channel.deliver(a_record(seq=8))
        assert await bench.told() == ["HG002-run7/7", "HG002-run7/8"]
    assert first["MessageGroupId"] == "HG002-run7"
    assert re.fullmatch("[0-9a-f]{64}", first["MessageDeduplicationId"])


def _form(receiver: Receiver | None) -> dict[str, str]:
    assert receiver is not None
    return {name: values[0] for name, values in parse_qs(receiver.heard[-1].body.decode()).items()}


def _attributes(form: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    entry = "MessageAttributes.entry.{}."
    found = {}
    for n in range(1, 10):
        if name := form.get(entry.format(n) + "Name"):
            value = entry.format(n) + "Value."
            found[name] = (form[value + "DataType"], form[value + "StringValue"])
    return found


IN_PROGRESS: Final = FAILED.prefix + "daylily.in_progress"
ERROR: Final = FAILED.prefix + "daylily.error"


class Folder:
    """A workset's folder, and the turns of its state that the channel is told of."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self._channel = S3Sentinels(self.objects)

    async def turns(
        self, state: State, kind: RecordType = RecordType.STATE_CHANGE, **more: Any
    ) -> None:
        await self._channel.deliver(a_record(state=state, type=kind, **more))

    async def files(self) -> dict[str, str]:
        found = {}
        for info in await self.objects.list(FAILED.bucket, FAILED.prefix):
            body = await self.objects.read(FAILED.bucket, info.key, 2000)
            found[info.key.removeprefix(FAILED.prefix)] = (body or b"").decode()
        return found


async def test_sentinels_follow_a_workset_through_failure_and_retry_to_its_end() -> None:
    folder = Folder()
    await folder.turns(State.READY)
    assert await folder.files() == {}
    await folder.turns(State.IN_PROGRESS)
    assert await folder.files() == {"daylily.in_progress": "20260301T123005"}
    await folder.turns(State.FAILED, RecordType.ERROR, message="step run\nfailed\t(WS-RES-002)")
    error = (await folder.files())["daylily.error"]
    assert error == "20260301T123005\tstep run failed (WS-RES-002)"
    await folder.turns(State.READY)
    assert set(await folder.files()) == {"daylily.in_progress"}
    await folder.turns(State.COMPLETE, RecordType.COMPLETION)
    assert await folder.files() == {
        "daylily.in_progress": "20260301T123005",
        "daylily.complete": "20260301T123005",
    }


@pytest.mark.parametrize("state", [State.READY, State.IN_PROGRESS, State.COMPLETE])
async def test_a_stale_error_is_removed_since_readers_take_it_before_all_else(state: State) -> None:
    folder = Folder()
    await folder.objects.put(FAILED.bucket, ERROR, b"20260101T000000\told")
    await folder.turns(state)
    assert "daylily.error" not in await folder.files()


async def test_refused_input_leaves_its_error_beside_it() -> None:
    folder = Folder()
    await folder.turns(State.ERROR, RecordType.ERROR, message="", error_details="no\nsheet")
    assert await folder.files() == {"daylily.error": "20260301T123005\tno sheet"}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", RecordType)
async def test_what_would_trigger_or_park_a_workset_is_never_touched(
    state: State, kind: RecordType
) -> None:
    folder = Folder()
    await folder.turns(state, kind)
    touched = {key.removeprefix(FAILED.prefix) for _, key in folder.objects.calls}
    assert touched <= {"daylily.in_progress", "daylily.complete", "daylily.error"}


async def test_a_record_that_changes_no_state_leaves_the_times_in_the_sentinels_alone() -> None:
    folder = Folder()
    await folder.objects.put(FAILED.bucket, IN_PROGRESS, b"20260101T000000")
    await folder.turns(State.IN_PROGRESS, RecordType.LOCK_TIMEOUT)
    assert await folder.files() == {"daylily.in_progress": "20260101T000000"}
