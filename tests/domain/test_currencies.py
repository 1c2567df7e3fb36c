"""Currencies: new amounts are valid at their time, stored ones are read for ever."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_origin

import iso4217
import msgspec
import pytest
from babel.core import get_global
from hypothesis import given
from hypothesis import strategies as st

from app.policy_file import check_policy_file
from app.runtime.session import Session
from consumers.runtime.request_form import read_form
from domain import commands
from domain.currencies import CURRENCIES, GRACE, UNLISTED_DIGITS, currency_fault
from domain.events.facts import FACTS
from domain.money import Money, MoneyError, money_from_wire
from domain.policy.parsing import PolicyError, parse_policy, read_policy
from domain.serialization import decode, encode
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import Upstream, upstream_of

CODES = st.sampled_from(sorted(CURRENCIES))
LISTED = {currency.code: currency for currency in iso4217.Currency if currency.exponent is not None}


def noon(year: int, month: int = 7, day: int = 1) -> datetime:
    return datetime(year, month, day, 12, tzinfo=UTC)


# ------------------------------------------------------------------ the table, beside other tables


def test_current_currencies_are_those_of_iso_4217() -> None:
    current = {code: (found.digits, found.name) for code, found in CURRENCIES.items() if found.until is None}
    assert {code: digits for code, (digits, _) in current.items()} == {
        code: currency.exponent for code, currency in LISTED.items()
    }
    unlisted = {currency.code for currency in iso4217.Currency} - set(LISTED)
    assert unlisted.isdisjoint(CURRENCIES)  # gold, tests, nothing at all


def _tender() -> dict[str, list[tuple[date | None, date | None]]]:
    """From when to when each currency was one somewhere, by CLDR."""
    found = defaultdict(list)
    for entries in get_global("territory_currencies").values():
        for code, begins, ends, _ in entries:
            found[code].append((date(*begins) if begins else None, date(*ends) if ends else None))
    return found


def test_the_years_are_those_of_cldr_and_the_lists_of_withdrawn_codes() -> None:
    tender = _tender()
    for code, currency in CURRENCIES.items():
        if code not in tender:
            continue
        begins = [begin.year for begin, _ in tender[code] if begin is not None]
        if begins:
            assert currency.since == (min(begins) if min(begins) >= 1970 else None), code
        ends = [end for _, end in tender[code]]
        if currency.until is None:
            assert None in ends or code == "SVC", code  # the colon is listed, though El Salvador pays in dollars
        elif currency.until.year >= 2000:  # before, CLDR and ISO differ by years
            last = max(end for end in ends if end is not None)
            assert last <= currency.until < last + timedelta(days=2200), code
    euro = {"BGN": date(2026, 1, 31), "HRK": date(2023, 1, 31), "DEM": date(2002, 5, 15), "LTL": date(2014, 12, 31)}
    assert {code: CURRENCIES[code].until for code in euro} == euro


def test_digits_of_withdrawn_currencies() -> None:
    """ISO 4217 decides; CLDR gives no digits to some currencies without valuable coins, and two to some without coins."""
    fractions = get_global("currency_fractions")
    differ = {
        code
        for code, currency in CURRENCIES.items()
        if currency.until and currency.digits != fractions.get(code, fractions["DEFAULT"])[0]
    }
    assert differ == {"BEF", "BYB", "GRD", "MRO", "PTE", "SLL", "STD", "TMM", "TPE", "ZMK", "ZWD"}
    none = {code for code, currency in CURRENCIES.items() if currency.until and not currency.digits}
    assert none == {"ADP", "BEF", "BYB", "BYR", "ESP", "GRD", "ITL", "LUF", "MGF", "PTE", "TPE", "TRL"}
    assert {CURRENCIES[code].digits for code in ("BGN", "HRK", "EEK", "LTL", "LVL", "SKK", "SIT", "MTL", "CYP")} == {2}


@given(CODES, st.integers(1960, 2040))
def test_a_currency_is_valid_in_the_years_of_the_table(code: str, year: int) -> None:
    currency = CURRENCIES[code]
    begun = currency.since is None or currency.since <= year
    ended = currency.until is not None and currency.until < date(year, 7, 1)
    fault = currency_fault(code, noon(year))
    assert (fault is None) == (begun and not ended)
    if ended and begun and currency.until is not None:
        assert fault is not None
        assert f"was valid until {currency.until}" in fault
        assert currency_fault(code, noon(*currency.until.timetuple()[:3]) + GRACE, GRACE) is None
        assert currency_fault(code, noon(*currency.until.timetuple()[:3]) + GRACE + timedelta(days=2), GRACE)
    assert currency_fault(code) is None  # it was valid once


# ------------------------------------------------------------------ what is stored is read


@given(st.from_regex(r"\A[A-Z]{3}\Z"), st.integers(0, 10**12))
def test_amounts_in_any_code_are_read_and_shown(code: str, minor: int) -> None:
    text = Money(minor, code).text
    money = money_from_wire({"amount": text, "currency": code})
    assert (money.minor, money.text) == (minor, text)
    assert Money(-minor, code).text == (f"-{text}" if minor else text)


@pytest.mark.parametrize("amount", ["5.00", "5.1", "5.125", "0.0001", "5"])
def test_a_code_that_is_not_known_keeps_its_value(amount: str) -> None:
    money = Money.read(amount, "QQQ")
    assert money.minor == round(float(amount) * 10**UNLISTED_DIGITS)
    assert float(money.text) == float(amount)
    assert len(money.text.partition(".")[2]) >= 2
    with pytest.raises(MoneyError, match="ISO 4217"):
        Money.parse(amount, "QQQ")


def test_a_policy_that_was_published_is_read_in_any_currency() -> None:
    assert read_policy(BASIC_POLICY | {"currency": "QQQ"}).roles["agent"].budget.text == "200.00"
    for currency in ("QQQ", "XAU", "gbp", None):
        with pytest.raises(PolicyError, match="ISO 4217"):
            parse_policy(BASIC_POLICY | {"currency": currency})
    assert parse_policy(BASIC_POLICY | {"currency": "BGN"}).currency == "BGN"


def test_every_amount_of_a_fact_and_of_a_request_is_looked_at() -> None:
    """`check_currencies` looks at fields and at records in fields; an amount within a list would slip through."""
    kinds = [one for one in vars(commands).values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    for cls in (*FACTS.values(), *kinds):
        for field in msgspec.structs.fields(cls):
            of_lists = [
                part
                for one in (field.type, *get_args(field.type))
                for part in get_args(one)
                if get_origin(one) is tuple
            ]
            assert not any(isinstance(part, type) and issubclass(part, msgspec.Struct) for part in of_lists), (
                cls,
                field.name,
            )


EVIDENCE: Document = {
    "position": 3,
    "role": "agent",
    "kind": "refund",
    "limit": gbp("5.00"),
    "days": 3.5,
    "given_at_once": 1,
    "escalations_spared": 2,
    "not_approved": gbp("5.00"),
    "would_escalate": 0,
}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"limit": {"amount": "5.00", "currency": "QQQ"}}, "evidence.limit.currency"),
        ({"people_of": "a\u0000b"}, "evidence.people_of"),
        ({"role": " "}, "evidence.role"),
        ({"position": -5}, "evidence.position"),
        ({"would_escalate": 10**30}, "evidence.would_escalate"),
        ({"days": -1}, "evidence.days"),
        ({"nonsense": 1}, "evidence.nonsense"),
        ({"limit": gbp("5.00") | {"nonsense": 1}}, "evidence.limit.nonsense"),
    ],
)
def test_a_record_within_a_request_is_checked_like_the_request(changed: Document, field: str) -> None:
    request = {"request_id": "r", "operation": "propose", "policy": {}, "replaces": 1, "proposed_by": "M-1"}
    assert read_form(commands.PolicyProposal, encode(request | {"evidence": EVIDENCE})).refusal is None
    with pytest.raises(commands.RequestError) as refused:
        raise (
            read_form(commands.PolicyProposal, encode(request | {"evidence": EVIDENCE | changed})).refusal
            or AssertionError
        )
    assert refused.value.field == field


# ------------------------------------------------------------------ what comes in


def money(amount: str, currency: str) -> dict[str, str]:
    return {"amount": amount, "currency": currency}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("time", "currency", "says"),
    [
        ("2025-06-01T10:00:00Z", "BGN", None),
        ("2026-01-31T23:30:00-11:00", "BGN", None),
        ("2026-04-30T10:00:00Z", "BGN", None),
        ("2026-05-03T10:00:00Z", "BGN", "BGN (Bulgarian Lev) was valid until 2026-01-31"),
        ("1998-07-01T10:00:00Z", "EUR", "EUR (Euro) is valid from 1999 on"),
        ("1999-01-01T00:00:00+13:00", "EUR", None),
        ("2020-01-01T00:00:00Z", "XAU", "must be an ISO 4217 code"),
        ("2020-01-01T00:00:00Z", "QQQ", "must be an ISO 4217 code"),
        ("2001-12-01T00:00:00Z", "DEM", None),
    ],
)
async def test_a_fact_is_taken_in_a_currency_of_its_time(
    shared_upstream: Upstream, time: str, currency: str, says: str | None
) -> None:
    name = f"{currency} {time}"
    fact = event(name, "purchase.completed", time=time, order_id="O-1", total=money("5.00", currency))
    await shared_upstream.publish(fact)
    receipt = await shared_upstream.receipt(name)
    if says is None:
        assert receipt["status"] == "recorded"
        assert (await shared_upstream.replay())[-1]["data"]["total"] == money("5.00", currency)
    else:
        error = receipt["error"]
        assert (receipt["status"], error["code"], error["field"]) == ("rejected", "invalid", "data.total.currency")
        assert says in error["message"]


async def test_a_correction_is_of_the_time_of_its_fact(upstream: Upstream) -> None:
    await upstream.record(
        event("p-1", "purchase.completed", time="2025-06-01T10:00:00Z", order_id="O-1", total=money("5.00", "BGN"))
    )
    wrong: Document = {"source_of": "crm", "id_of": "p-1", "reason": "digits changed places"}
    for name, currency, status in (("c-1", "BGN", "recorded"), ("c-2", "ZWG", "recorded"), ("c-3", "HRK", "rejected")):
        right = {"order_id": "O-1", "total": money("7.00", currency)}
        await upstream.publish(event(name, "fact.corrected", data=right, time="2026-11-01T10:00:00Z", **wrong))
        receipt = await upstream.receipt(name)
        assert receipt["status"] == status
    assert receipt["error"]["field"] == "data.data.total.currency"


async def test_an_open_budget_is_used_to_its_end_and_no_new_one_opens(session: Session) -> None:
    """The currency is withdrawn while a budget is open, an amount is held and an escalation waits."""
    agent = BASIC_POLICY["roles"]["agent"] | {"limits": {"refund": "50.00"}}
    manager = BASIC_POLICY["roles"]["manager"] | {"approves": {"refund": "500.00"}}
    levs = BASIC_POLICY | {"currency": "BGN", "period": "quarter", "roles": {"agent": agent, "manager": manager}}
    levs |= {"escalation": {"payer": "approver", "after_hours": 5000}}
    async with upstream_of(session, history=True) as upstream:

        async def asks(what: str, name: str, month: str, amount: Any = "5.00", **fields: Any) -> Document:
            of = money(amount, "BGN") if isinstance(amount, str) else amount
            named = {"agent_id": "A-1", "kind": "refund", "reason": "late", "amount": of}
            return await upstream.ask(what, request_id=name, time=f"{month}-15T12:00:00Z", **(named | fields))

        async def follows(what: str, name: str, month: str, **fields: Any) -> Document:
            return await upstream.ask(what, request_id=name, time=f"{month}-15T12:00:00Z", **fields)

        answer = await upstream.ask(
            "policy", request_id="p", policy=levs, published_by="o", time="2026-01-01T00:00:00Z"
        )
        assert answer["outcome"] == "done"
        for name, role in (("A-1", "agent"), ("M-1", "manager")):
            await upstream.record(event(f"join-{name}", "employee.joined", employee_id=name, role=role, team_ids=[]))
        taken = await asks("action", "r-1", "2026-01")
        waiting = await asks("escalation", "e-1", "2026-01", "70.00", operation="request")
        held = await asks("action", "h-1", "2026-03", hold=True)
        assert [one["outcome"] for one in (taken, waiting, held)] == ["taken", "done", "held"]  # open until April

        settled = await upstream.ask(
            "hold", request_id="h-2", action_id=held["action_id"], operation="settle", time="2026-03-20T12:00:00Z"
        )
        assert settled["outcome"] == "done"
        owed = await asks("action", "r-4", "2026-03", money("5.00", "HRK"), basis="correction")
        assert (owed["error"]["code"], owed["error"]["field"]) == ("invalid", "amount.currency")

        for what in ("action", "preview"):
            refused = (await asks(what, "r-2", "2026-04"))["error"]
            assert (refused["code"], refused["field"]) == ("invalid", "amount.currency")
            assert "BGN (Bulgarian Lev) was valid until 2026-01-31" in refused["message"]
            assert "publish another first" in refused["message"]
        grant = {"operation": "grant", "holder": "agent:A-1", "granted_by": "M-1", "amount": money("5.00", "BGN")}
        assert (await follows("budget", "g-1", "2026-04", reason="busy", **grant))["error"]["code"] == "invalid"
        approved = await follows(
            "escalation",
            "e-2",
            "2026-04",
            operation="approve",
            decided_by="M-1",
            escalation_id=waiting["escalation_id"],
        )
        assert (approved["outcome"], approved["status"]) == ("done", "approved")
        undone = await follows(
            "reversal",
            "v-1",
            "2026-04",
            action_id=taken["action_id"],
            reversed_by="M-1",
            reason="wrong",
            recovered=True,
        )
        assert undone["outcome"] == "done"
        assert (await asks("action", "r-3", "2026-04"))["outcome"] == "error"  # what followed opened it, for itself
        again = await follows(
            "policy", "p-2", "2026-04", policy=levs | {"effective_from": "2026-04-01T00:00:00Z"}, published_by="o"
        )
        assert (again["error"]["code"], again["error"]["field"]) == ("invalid", "policy.currency")


def test_checking_a_policy_says_that_its_currency_is_withdrawn(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_bytes(encode(BASIC_POLICY | {"currency": "BGN"}))
    checked = check_policy_file(file)
    assert checked.policy is not None  # a ledger in history mode may take it
    assert any(
        finding.field == "currency" and "was valid until 2026-01-31" in finding.message for finding in checked.findings
    )


def test_stored_facts_are_read_in_any_currency() -> None:
    for currency in ("BGN", "QQQ"):
        cls = FACTS["resolution.purchase.completed.v1"]
        fact: Any = decode(cls, encode({"order_id": "O-1", "total": money("5.00", currency)}))
        assert fact.total.text == "5.00"
    assert gbp("5.00") == Money.parse("5.00", "GBP").wire()


@given(CODES, st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]))
def test_the_ends_of_time_are_moments_like_others(code: str, moment: str) -> None:
    currency = CURRENCIES[code]
    fault = currency_fault(code, datetime.fromisoformat(moment), GRACE)
    early = moment.startswith("0001")
    assert (fault is None) == (currency.since is None if early else currency.until is None)
