"""A lab that is told by mail and by PagerDuty: a real daemon, a mail server under TLS, an alarm that ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from anyio.from_thread import start_blocking_portal

from daylily_daemon.domain.model import State
from tests.contract.mail_receivers import (
    HOST,
    PASSWORD,
    RECIPIENTS,
    SENDER,
    USER,
    PostOffice,
    certificate,
    serving,
)
from tests.contract.pager_receiver import PATH, ROUTING_KEY, Pager
from tests.contract.receivers import Receiver
from tests.e2e.harness import Lab
from tests.e2e.processes import Daemon, until


@dataclass
class Reached:
    """Who is told, and how the settings name them."""

    office: PostOffice
    pager: Pager
    smtp_port: int
    pager_url: str

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]).partition(":")[0] for mail in self.office.taken]

    def switch(self, lab: Lab, daemon: Daemon, *, on: bool) -> None:
        """Switch both on or off in a daemon that runs, and wait until it has done so."""
        before = len(daemon.said("reloaded"))
        mail = {
            "enabled": on,
            "sender": SENDER,
            "recipients": list(RECIPIENTS),
            "smtp_host": HOST,
            "smtp_port": self.smtp_port,
            "smtp_user": USER,
            "smtp_password_file": "smtp_password",
        }
        pager = {
            "enabled": on,
            "url": self.pager_url,
            "routing_key_file": "routing_key",
            "states": ["failed"],
        }
        lab.configure(notifications={"email": mail, "pagerduty": pager})
        daemon.send(signal.SIGHUP)
        until(lambda: len(daemon.said("reloaded")) > before, why=daemon.log_text)


@pytest.fixture
def reached(lab: Lab) -> Iterator[Reached]:
    (lab.folder / "smtp_password").write_text(PASSWORD)
    (lab.folder / "routing_key").write_text(ROUTING_KEY)
    (lab.folder / "bundle.pem").write_text(certificate().pem)
    lab.outside = {**os.environ, "AWS_CA_BUNDLE": str(lab.folder / "bundle.pem")}
    pager = Pager()
    with start_blocking_portal() as portal:
        office = portal.call(PostOffice)
        with (
            portal.wrap_async_context_manager(serving(office)) as port,
            portal.wrap_async_context_manager(Receiver(pager.answer).serving()) as url,
        ):
            yield Reached(office, pager, port, str(url.with_path(PATH)))


def test_an_alarm_and_mails_follow_a_workset_from_its_failure_to_its_end(
    lab: Lab, reached: Reached
) -> None:
    lab.pipeline("flaky", run='[ "$attempt" -gt 1 ]')
    lab.configure(pipelines={"default": "flaky"}, retry={"max_retries": 0})
    daemon = lab.start()
    reached.switch(lab, daemon, on=True)

    patient = lab.drop_sample("patient")
    lab.wait_for(patient, State.FAILED)
    lab.wait_paid(patient)
    assert [alert.open for alert in reached.pager.alerts] == [True]
    assert reached.subjects == ["[Daylily] patient failed"]
    assert reached.office.logins == ["PLAIN"]

    assert lab.run_cli("retry", patient).code == 0
    lab.wait_for(patient, State.COMPLETE)
    lab.wait_paid(patient)
    assert [alert.open for alert in reached.pager.alerts] == [False]
    assert reached.subjects == ["[Daylily] patient failed", "[Daylily] patient complete"]
    assert len({str(mail["References"]) for mail in reached.office.taken}) == 1

    reached.switch(lab, daemon, on=False)
    lab.wait_for(lab.drop_sample("second"), State.FAILED)
    lab.wait_paid("second")
    assert (len(reached.pager.alerts), len(reached.office.taken)) == (1, 2)

    shown = lab.run_cli("check-config")
    assert "notifications.email.smtp_password" in shown.words
    said = f"{shown.words} {lab.run_cli('status').words} {daemon.log_text()}"
    assert "vErYsEcReT" not in said
    assert daemon.terminate() == 0
