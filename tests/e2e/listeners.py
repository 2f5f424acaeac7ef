"""Who is told of a lab's worksets: a webhook and a mail box at the topic, which outlive every daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

from daylily_daemon.adapters.notifiers.webhook import DELIVERY
from tests.e2e.harness import Lab

DELIVERY_LINE: Final = re.compile(r"^Delivery: (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Told:
    """What one listener was told, in the order of its arrival."""

    bodies: list[tuple[str, str]] = field(default_factory=list)
    """Delivery id and content."""

    def add(self, delivery: str, body: str) -> None:
        self.bodies.append((delivery, body))

    @property
    def once(self) -> list[str]:
        """The delivery ids as a listener has them that drops repeats."""
        return list(dict.fromkeys(delivery for delivery, _ in self.bodies))

    @property
    def repeats(self) -> int:
        return len(self.bodies) - len(self.once)

    def of(self, workset: str) -> list[str]:
        return [delivery for delivery in self.once if delivery.rpartition("/")[0] == workset]

    def changed(self) -> list[str]:
        """Return the delivery ids whose repeats do not say the same; there must be none."""
        known: dict[str, str] = {}
        return [d for d, body in self.bodies if known.setdefault(d, body) != body]


@contextmanager
def webhook(lab: Lab) -> Iterator[Told]:
    """Switch the webhook on and listen; call it before a daemon starts."""
    told = Told()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.add(self.headers[DELIVERY], json.dumps(json.loads(body), sort_keys=True))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing on the terminal of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        lab.configure(notifications={"webhook": {"enabled": True, "url": url}})
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class MailBox:
    """A queue that is subscribed to the topic of a lab."""

    sqs: Any
    url: str

    def empty(self) -> Told:
        """Take out everything there is."""
        told = Told()
        while messages := self._receive():
            for message in messages:
                text = json.loads(message["Body"])["Message"]
                told.add(_delivery(text), text)
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return told

    def _receive(self) -> Iterable[Any]:
        answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        return list(answer.get("Messages", []))


def mail_box(lab: Lab) -> MailBox:
    """Subscribe to the lab's topic, which must be there already."""
    sqs, sns = lab.aws("sqs"), lab.aws("sns")
    url = sqs.create_queue(QueueName=f"mail-{lab.topic}")["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    topic = sns.create_topic(Name=lab.topic)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=found["QueueArn"])
    return MailBox(sqs, url)


def _delivery(text: str) -> str:
    found = DELIVERY_LINE.search(text)
    assert found, text
    return found[1]
