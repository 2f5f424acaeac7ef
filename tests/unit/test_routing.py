from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.domain.model import Priority, Record, RecordType, State
from daylily_daemon.domain.routing import Filter, Routing
from tests.records import a_record

CUSTOMERS = ("lab-1", "lab-2", "")
FIELDS: dict[str, Callable[[Record], Any]] = {
    "event_types": lambda r: r.type,
    "states": lambda r: r.state,
    "priorities": lambda r: r.priority,
    "customers": lambda r: r.customer_id,
}

filters = st.builds(
    Filter,
    event_types=st.frozensets(st.sampled_from(RecordType)),
    states=st.frozensets(st.sampled_from(State)),
    priorities=st.frozensets(st.sampled_from(Priority)),
    customers=st.frozensets(st.sampled_from(CUSTOMERS)),
)
records = st.builds(
    a_record,
    type=st.sampled_from(RecordType),
    state=st.sampled_from(State),
    priority=st.sampled_from(Priority),
    customer_id=st.sampled_from(CUSTOMERS),
)
routings = st.dictionaries(st.sampled_from(["sns", "slack", "linear"]), filters).map(Routing)


@given(records)
def test_an_empty_filter_admits_everything(record: Record) -> None:
    assert Filter().admits(record)


@given(filters, records)
def test_a_filter_admits_what_each_of_its_sets_admits_alone(wanted: Filter, record: Record) -> None:
    alone = [Filter(**{name: getattr(wanted, name)}).admits(record) for name in FIELDS]
    assert wanted.admits(record) == all(alone)


@given(st.sampled_from(sorted(FIELDS)), filters, records)
def test_a_set_that_is_not_empty_admits_its_members_only(
    name: str, wanted: Filter, record: Record
) -> None:
    chosen = getattr(wanted, name)
    value = FIELDS[name](record)
    assert Filter(**{name: chosen}).admits(record) == (not chosen or value in chosen)


@given(filters, st.frozensets(st.sampled_from(State)), records)
def test_a_state_that_ends_something_is_told_whatever_the_sets_say(
    wanted: Filter, always: frozenset[State], record: Record
) -> None:
    told = replace(wanted, always=always).admits(record)
    assert told == (record.state in always or wanted.admits(record))


@given(routings, records)
def test_every_channel_whose_filter_admits_a_record_is_owed_it_and_no_other(
    routing: Routing, record: Record
) -> None:
    owed = routing.owed(record)
    assert owed <= routing.channels.keys()
    assert all((name in owed) == wanted.admits(record) for name, wanted in routing.channels.items())


@given(routings, records)
def test_a_record_for_the_audit_trail_alone_is_owed_to_nobody(
    routing: Routing, record: Record
) -> None:
    assert routing.owed(replace(record, notify=False)) == frozenset()


def test_without_channels_nothing_is_owed() -> None:
    assert Routing().owed(a_record()) == frozenset()
