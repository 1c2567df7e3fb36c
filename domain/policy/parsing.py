"""Read a policy document into typed rules, and report every problem with its path."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, TypeGuard, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from domain.currencies import is_code, is_known
from domain.events.facts import AgentKind
from domain.money import Money, MoneyError, shown
from domain.periods import PeriodKind
from domain.policy.document import DocumentError, check_document
from domain.policy.governance import Governance, GrantRight, PolicyChanges, Reach
from domain.policy.model import (
    CASES_PER_WEEK,
    KINDS,
    AskingMinutes,
    EscalationRules,
    Limits,
    PerCustomer,
    Policy,
    Privacy,
    Role,
    Team,
    Trial,
)
from domain.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Path = tuple[str | int, ...]


class PolicyProblem(msgspec.Struct, frozen=True):
    """A problem of a document: its path, a message with a remedy, and a stable code."""

    path: Path
    message: str
    code: str = "invalid"

    @property
    def field(self) -> str:
        """The path as text, e.g. ``roles.agent.limits.refund``; long names are cut short."""
        return ".".join(str(part)[:_SHOWN] for part in self.path)


class PolicyError(ValueError):
    """An error about an invalid policy document; ``problems`` lists all that was found."""

    def __init__(self, problems: list[PolicyProblem]) -> None:
        super().__init__("; ".join(f"{p.field or 'policy'}: {p.message}" for p in problems))
        self.problems = problems


def parse_policy(document: object) -> Policy:
    """Return the rules in a document that is to be published.

    Raises:
        PolicyError: with the problems found, each with its path.

    """
    return _policy(document, stored=False)


def _policy(document: object, *, stored: bool) -> Policy:
    try:
        check_document(document)
    except DocumentError as error:
        raise PolicyError([PolicyProblem(error.path, error.message)]) from None
    reader, is_currency = _Reader(), is_code if stored else is_known
    if not isinstance(document, dict):
        raise PolicyError([PolicyProblem((), "a policy is a mapping that begins with `currency:`")])
    reader.known(document, (), required=_REQUIRED, optional=_OPTIONAL)
    currency = document.get("currency")
    if not isinstance(currency, str) or not is_currency(currency):
        reader.add(("currency",), f"an ISO 4217 code such as GBP, not {shown(currency)}")
        raise PolicyError(reader.problems)
    reader.currency = currency
    roles = {
        str(name): reader.role(value, ("roles", name))
        for name, value in reader.mapping(document.get("roles"), ("roles",)).items()
    }
    teams = reader.mapping(document.get("teams", {}), ("teams",))
    policy = Policy(
        currency=currency,
        time_zone=reader.zone(document.get("time_zone"), stored=stored),
        period=reader.one_of(document.get("period"), get_args(PeriodKind), ("period",)),
        effective_from=reader.moment(document.get("effective_from"), ("effective_from",)),
        mode=reader.one_of(document.get("mode", "enforced"), ("enforced", "shadow"), ("mode",)),
        default_role=reader.default_role(document.get("default_role"), roles),
        roles=roles,
        teams={str(name): reader.team(value, roles, ("teams", name)) for name, value in teams.items()},
        trial=reader.trial(document.get("trial"), roles),
        escalation=reader.escalation(document.get("escalation")),
        sources=reader.sources(document.get("sources"), roles),
        costs=reader.costs(document.get("costs", {})),
        asking=reader.asking(document.get("asking", {})),
        privacy=reader.privacy(document.get("privacy", {})),
        governance=reader.governance(document.get("governance")),
        cases_per_week=reader.cases_per_week(document.get("cases_per_week", CASES_PER_WEEK)),
        basis_limits=reader.basis_limits(document.get("basis_limits", {}), roles),
        document=document,
        ai_roles=frozenset(name for name, role in roles.items() if role.kind == "ai"),
    )
    reader.guidelines(document.get("guidelines", []))
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


def read_policy(document: object) -> Policy:
    """Return the rules in a published document, even if its currency or time zone is not known any more.

    Raises:
        PolicyError: the document is invalid, which publication prevents.

    """
    return _policy(document, stored=True)


_REQUIRED = ("currency", "time_zone", "period", "effective_from", "roles")
_OPTIONAL = (
    "mode",
    "default_role",
    "guidelines",
    "teams",
    "trial",
    "escalation",
    "sources",
    "costs",
    "asking",
    "privacy",
    "governance",
    "cases_per_week",
    "basis_limits",
)
_COSTS = ("agent_hour", "manager_hour", "return_processing", "customer_hour")


_MOST_PROBLEMS, _MOST_NAMES, _SHOWN = 100, 20, 80
"""Bounds of a report: its problems, the names in one message, the characters of a name."""


def _listed(names: Iterable[str]) -> str:
    """Return names for a message, cut to the first ones."""
    first = [name[:_SHOWN] for name in islice(names, _MOST_NAMES + 1)]
    return ", ".join([*first[:_MOST_NAMES], "..."] if len(first) > _MOST_NAMES else first)


class _Reader:
    """A reader that collects problems instead of stopping at the first; each method reads one kind of value."""

    def __init__(self) -> None:
        self._found: dict[Path, PolicyProblem] = {}
        self.currency = ""

    @property
    def problems(self) -> list[PolicyProblem]:
        return list(self._found.values())

    def add(self, path: Path, message: str, code: str = "invalid") -> None:
        """Add the first problem of a path; further ones at the same path are consequences of it.

        Raises:
            PolicyError: the number of problems has reached ``_MOST_PROBLEMS``.

        """
        self._found.setdefault(path, PolicyProblem(path, message, code))
        if len(self._found) == _MOST_PROBLEMS:
            raise PolicyError(self.problems)

    def mapping(self, value: object, path: Path) -> dict[str, object]:
        if isinstance(value, dict):
            return value
        self.add(path, f"must be a mapping, not {shown(value)}")
        return {}

    def known(
        self, value: Mapping[str, object], path: Path, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> None:
        for name in required:
            if name not in value:
                self.add((*path, name), "is required")
        for name in value:
            if name not in (*required, *optional):
                near = nearest(str(name), (*required, *optional))
                names = f"did you mean `{near}`?" if near else f"known are {', '.join((*required, *optional))}"
                self.add((*path, str(name)), f"is not known here; {names}", "unknown_field")

    def money(self, value: object, path: Path) -> Money:
        try:
            return Money.read(value, self.currency)
        except MoneyError as error:
            hint = '; write it in quotes, e.g. "50.00"' if isinstance(value, (int, float)) else ""
            self.add(path, f"{error}{hint}")
            return Money(0, self.currency)

    def optional_money(self, value: object, path: Path) -> Money | None:
        return None if value is None else self.money(value, path)

    def limits(self, value: object, path: Path) -> Limits:
        limits: Limits = {}
        for kind, limit in self.mapping(value, path).items():
            if kind not in KINDS:
                self.add((*path, str(kind)), f"is not a kind of action; kinds are {', '.join(KINDS)}")
            else:
                limits[kind] = self.limit(limit, (*path, kind))
        return limits

    def basis_limits(self, value: object, roles: Mapping[str, Role]) -> dict[str, dict[str, Limits]]:
        path: Path = ("basis_limits",)
        found: dict[str, dict[str, Limits]] = {}
        for name, kinds in self.mapping(value, path).items():
            self.role_name(name, roles, (*path, name))
            of_role = found[str(name)] = {}
            for kind, limits in self.mapping(kinds, (*path, name)).items():
                at: Path = (*path, name, kind)
                if kind not in KINDS:
                    self.add(at, f"is not a kind of action; kinds are {', '.join(KINDS)}")
                given = self.mapping(limits, at)
                self.known(given, at, (), ("entitlement", "correction"))
                of_role[kind] = {str(basis): self.limit(limit, (*at, basis)) for basis, limit in given.items()}
        return found

    def limit(self, value: object, path: Path) -> Money | None:
        return None if value == "unlimited" else self.money(value, path)

    def one_of[T: str](self, value: object, choices: Sequence[T], path: Path) -> T:
        if value not in choices:
            self.add(path, f"must be one of {', '.join(choices)}, not {shown(value)}")
            return choices[0]
        return next(choice for choice in choices if choice == value)

    def number(self, value: object, path: Path, check: Callable[[float], bool], rule: str) -> None:
        if not _is_number(value) or not check(value):
            self.add(path, f"must be {rule}, not {shown(value)}")

    def zone(self, value: object, *, stored: bool) -> str:
        if stored and isinstance(value, str):
            return value  # `zone_of` falls back to UTC for a zone that is gone
        try:
            ZoneInfo(cast("str", value))
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            self.add(("time_zone",), f"must be an IANA zone such as Europe/London, not {shown(value)}")
            return "UTC"
        return str(value)

    def moment(self, value: object, path: Path) -> datetime:
        moment = value
        if isinstance(value, str):
            try:
                moment = msgspec.convert(value, datetime)
                moment.astimezone(UTC)  # the calendar's first and last hours have no time in UTC
            except (msgspec.ValidationError, OverflowError):
                moment = None
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            self.add(path, f"must be a time with its zone such as 2026-01-01T00:00:00Z, not {shown(value)}")
            return datetime(1970, 1, 1, tzinfo=UTC)
        return moment

    def names(self, value: object, path: Path) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.add(path, f"must be a list of names, not {shown(value)}")
            return ()
        return tuple(value)

    def role_name(self, value: object, roles: Mapping[str, Role], path: Path) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or value not in roles:
            self.add(path, f"is not a role of this policy; roles are {_listed(roles)}, not {shown(value)}")
        return str(value)

    def default_role(self, value: object, roles: Mapping[str, Role]) -> str | None:
        name = self.role_name(value, roles, ("default_role",))
        if name is not None and name in roles and roles[name].kind == "ai":
            self.add(("default_role",), "agents that no fact announced count as people, and this role is for AI agents")
        return name

    def role(self, value: object, path: Path) -> Role:
        given = self.mapping(value, path)
        optional = ("carry_over", "per_interaction", "per_customer", "requires", "approves", "kind")
        self.known(given, path, required=("budget", "limits"), optional=optional)
        requires = self.mapping(given.get("requires", {}), (*path, "requires"))
        for kind in requires:
            if kind not in KINDS:
                self.add((*path, "requires", str(kind)), f"is not a kind of action; kinds are {', '.join(KINDS)}")
        agents = self.one_of(given.get("kind", "human"), get_args(AgentKind), (*path, "kind"))
        if agents == "ai" and given.get("approves"):
            self.add((*path, "approves"), "an AI agent approves nothing: give this right to a role of people")
        return Role(
            kind=agents,
            budget=self.money(given.get("budget", "0"), (*path, "budget")),
            carry_over=self.money(given.get("carry_over", "0"), (*path, "carry_over")),
            limits=self.limits(given.get("limits", {}), (*path, "limits")),
            per_interaction=self.optional_money(given.get("per_interaction"), (*path, "per_interaction")),
            per_customer=self.per_customer(given.get("per_customer"), (*path, "per_customer")),
            requires={str(kind): self.names(v, (*path, "requires", kind)) for kind, v in requires.items()},
            approves=self.limits(given.get("approves", {}), (*path, "approves")),
        )

    def per_customer(self, value: object, path: Path) -> PerCustomer | None:
        if value is None:
            return None
        given = self.mapping(value, path)
        self.known(given, path, required=("amount", "days"), optional=("hard_above", "unnamed"))
        days = given.get("days")
        self.number(days, (*path, "days"), lambda n: 1 <= n <= _MOST_DAYS and n == int(n), "a whole number of days")
        amount = self.money(given.get("amount", "0"), (*path, "amount"))
        unnamed = given.get("unnamed")
        return PerCustomer(
            amount=amount,
            days=days if isinstance(days, int) else 1,
            hard_above=self.optional_money(given.get("hard_above"), (*path, "hard_above")),
            unnamed=amount if unnamed is None else self.limit(unnamed, (*path, "unnamed")),
        )

    def team(self, value: object, roles: Mapping[str, Role], path: Path) -> Team:
        given = self.mapping(value, path)
        self.known(given, path, required=(), optional=("pool", "draw_at_most", "limits"))
        limits = self.mapping(given.get("limits", {}), (*path, "limits"))
        for name in limits:
            self.role_name(name, roles, (*path, "limits", name))
        return Team(
            pool=self.optional_money(given.get("pool"), (*path, "pool")),
            draw_at_most=self.optional_money(given.get("draw_at_most"), (*path, "draw_at_most")),
            limits={str(name): self.limits(v, (*path, "limits", name)) for name, v in limits.items()},
        )

    def sources(self, value: object, roles: Mapping[str, Role]) -> dict[str, tuple[str, ...]] | None:
        if value is None:
            return None
        given = self.mapping(value, ("sources",))
        result = {str(name): self.names(v, ("sources", name)) for name, v in given.items()}
        for name, allowed in result.items():
            for role in allowed:
                self.role_name(role, roles, ("sources", name))
        return result

    def cases_per_week(self, value: object) -> float:
        rule = f"cases a week for 100 people, up to {_MOST_CASES}"
        self.number(value, ("cases_per_week",), lambda n: 0 <= n <= _MOST_CASES, rule)
        return float(value) if _is_number(value) else CASES_PER_WEEK

    def privacy(self, value: object) -> Privacy:
        fields = self.mapping(value, ("privacy",))
        self.known(fields, ("privacy",), (), Privacy.__struct_fields__)
        for name in Privacy.__struct_fields__:
            if not isinstance(value := fields.get(name, False), bool):
                self.add(("privacy", name), f"must be true or false, not {shown(value)}")
                return Privacy()
        return Privacy(*(fields.get(name) is True for name in Privacy.__struct_fields__))

    def governance(self, value: object) -> Governance | None:
        if value is None:
            return None
        path: Path = ("governance",)
        given = self.mapping(value, path)
        self.known(given, path, (), Governance.__struct_fields__)
        grants = self.mapping(given.get("grants", {}), (*path, "grants"))
        transfers = self.mapping(given.get("transfers", {}), (*path, "transfers"))
        return Governance(
            policies=self.policy_changes(given.get("policies"), (*path, "policies")),
            grants={str(role): self.grant_right(right, (*path, "grants", role)) for role, right in grants.items()},
            transfers={
                str(role): self.one_of(reach, get_args(Reach), (*path, "transfers", role))
                for role, reach in transfers.items()
            },
            reviews=self.people(given.get("reviews", []), (*path, "reviews")),
        )

    def policy_changes(self, value: object, path: Path) -> PolicyChanges | None:
        if value is None:
            return None
        given = self.mapping(value, path)
        self.known(given, path, ("propose",), ("approvals", "after_hours"))
        hours = given.get("after_hours")
        approvals = given.get("approvals", 1 if hours is None else 0)
        self.number(approvals, (*path, "approvals"), lambda n: n == int(n) and 0 <= n <= _MOST_APPROVALS, "0 to 20")
        if hours is not None:
            self.number(hours, (*path, "after_hours"), lambda n: 0 < n <= _MOST_HOURS, "hours above 0")
        elif approvals == 0:
            self.add((*path, "after_hours"), "is required where no approval is: the time in which others may object")
        return PolicyChanges(
            propose=self.people(given.get("propose", []), (*path, "propose")),
            approvals=approvals if isinstance(approvals, int) else 1,
            after=timedelta(hours=hours) if _is_number(hours) and 0 < hours <= _MOST_HOURS else None,
        )

    def grant_right(self, value: object, path: Path) -> GrantRight:
        given = self.mapping(value, path)
        self.known(given, path, ("per_period", "to"), ())
        return GrantRight(
            per_period=self.money(given.get("per_period", "0"), (*path, "per_period")),
            to=self.one_of(given.get("to", "own_teams"), get_args(Reach), (*path, "to")),
        )

    def people(self, value: object, path: Path) -> tuple[str, ...]:
        names = self.names(value, path)
        for number, name in enumerate(names):
            kind, _, rest = name.partition(":")
            if kind not in ("role", "agent") or not rest:
                self.add((*path, number), f'must be "role:<name>" or "agent:<id>", not {shown(name)}')
        return names

    def guidelines(self, value: object) -> None:
        if not isinstance(value, list):
            self.add(("guidelines",), "must be a list of {id, text}")
            return
        for number, line in enumerate(value):
            self.known(self.mapping(line, ("guidelines", number)), ("guidelines", number), ("id", "text"), ())

    def costs(self, value: object) -> dict[str, Money]:
        costs = self.mapping(value, ("costs",))
        self.known(costs, ("costs",), (), _COSTS)
        return {str(name): self.money(amount, ("costs", str(name))) for name, amount in costs.items()}

    def asking(self, value: object) -> AskingMinutes:
        given = self.mapping(value, ("asking",))
        names = ("agent_minutes", "approver_minutes")
        self.known(given, ("asking",), (), names)
        usual = AskingMinutes()
        found: list[float] = []
        for name, minutes in zip(names, (usual.agent, usual.approver), strict=True):
            one = given.get(name, minutes)
            self.number(one, ("asking", name), lambda n: 0 <= n <= _MOST_MINUTES, f"minutes up to {_MOST_MINUTES:,}")
            found.append(one if _is_number(one) and 0 <= one <= _MOST_MINUTES else minutes)
        return AskingMinutes(*found)

    def escalation(self, value: object) -> EscalationRules:
        if value is None:
            return EscalationRules()
        path: Path = ("escalation",)
        given = self.mapping(value, path)
        self.known(given, path, ("payer",), ("after_hours", "then"))
        hours = given.get("after_hours", 48)
        self.number(hours, (*path, "after_hours"), lambda n: 0 < n <= _MOST_HOURS, "hours above 0")
        return EscalationRules(
            payer=self.one_of(given.get("payer"), ("team", "approver"), (*path, "payer")),
            after=timedelta(hours=hours if _is_number(hours) and 0 < hours <= _MOST_HOURS else 48),
            then=self.one_of(given.get("then", "next_level"), ("next_level", "expire"), (*path, "then")),
        )

    def trial(self, value: object, roles: Mapping[str, Role]) -> Trial | None:
        if value is None:
            return None
        path: Path = ("trial",)
        given = self.mapping(value, path)
        self.known(given, path, ("limit", "share_of_teams", "seed", "until"), ())
        limit = self.mapping(given.get("limit", {}), (*path, "limit"))
        self.known(limit, (*path, "limit"), ("role", "kind", "amount"), ())
        self.role_name(limit.get("role", ""), roles, (*path, "limit", "role"))
        share, seed = given.get("share_of_teams"), given.get("seed")
        self.number(share, (*path, "share_of_teams"), lambda n: 0 < n < 1, "a share between 0 and 1")
        self.number(seed, (*path, "seed"), lambda n: n == int(n), "a whole number")
        return Trial(
            role=str(limit.get("role")),
            kind=self.one_of(limit.get("kind"), KINDS, (*path, "limit", "kind")),
            amount=self.money(limit.get("amount"), (*path, "limit", "amount")),
            share_of_teams=float(share) if _is_number(share) else 0.5,
            seed=int(seed) if _is_number(seed) else 0,
            until=self.moment(given.get("until"), (*path, "until")),
        )


_MOST_CASES = 100
_MOST_HOURS = 24 * 366
_MOST_MINUTES = 24 * 60
_MOST_APPROVALS = 20
_MOST_DAYS = 700_000
"""A longer window would begin before the first day of the calendar (0001-01-01)."""


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
