"""The service around the contacts of a world: transfers, resolutions, feedback, praise, returning customers, staff.

It is derived from the events that a world has already, with chances of its own. Customers come back more often
after a decision on the spot, so the trial of a higher limit has an effect.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from app.demo.organisation import ABROAD, DAYS, HEAD, OFFLINE, TRIAL_DAY, the_trial
from app.demo.organisations.organisation import Person
from app.demo.organisations.world import BEGIN
from domain.abuse.history import DAY, HOUR
from domain.events import decisions, facts
from domain.money import Money

if TYPE_CHECKING:
    from app.demo.organisations.organisation import PlannedTeam
    from app.demo.organisations.world import World

_MINUTE = 60.0
_COURSES = ("goodwill-basics", "fees-and-billing")
_COMES_BACK = {"spot": 0.45, "nothing": 0.2, "waited": 0.25, "denied": 0.1}
_TRIAL_BRINGS = 0.2
"""More customers of a team with the trial's limit come back: its agents promise nothing that they cannot keep."""
_SATISFIED = {"spot": 0.9, "nothing": 0.6, "waited": 0.55, "denied": 0.25}
_IDEAS = (
    "Print the return label on the invoice.",
    "Tell drivers about substitutions before the doorstep.",
    "Show the last three contacts when a call comes in.",
    "One text for delays instead of five.",
    "Let chat send a voucher without a ticket.",
    "Call back in the evening instead of holding.",
    "Pack fragile items with the recycled paper.",
    "A page with the open recalls for everybody.",
)
_DECISIONS = ("accepted", "accepted", "tried out", "declined", "declined")
_OBSTACLES = (
    "I could not replace the item, because the form asks for a manager.",
    "The fee is our own mistake, and I may not waive it.",
    "The customer waited a week, and I could offer nothing.",
    "An upgrade would have cost less than the return.",
)
_ANSWERS = ("The course of this month opens it.", "The trial tests a higher limit.", "Forward it to me next time.")
_PRAISE = (
    "stayed until it was solved",
    "explained it without a script",
    "called back as promised",
    "put it right at once",
)
_COMMENTS = ("Solved in minutes.", "I had to tell my story three times.", "Friendly, but slow.", "Very helpful.")


class CustomerMatter(NamedTuple):
    """An interaction of a world: its opening, the end of its work, its outcome, and the action's number if any."""

    at: float
    person: Person
    customer: str
    opened: facts.InteractionOpened
    outcome: str
    """``spot``, ``waited``, ``denied`` or ``nothing``."""
    ends: float


def add_service_days(world: World) -> None:
    """Add the service around the contacts of a world, and the events of its staff."""
    days = _ServiceDays(world)
    matters = days.matters()
    for matter in matters:
        days.serve(matter)
    days.regulars(matters)
    days.staff()


class _ServiceDays:
    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"service {world.organisation.seed}")
        self._people = {person.employee_id: person for person in world.organisation.people}
        self._trial, self._drawn = the_trial()

    # ------------------------------------------------------------------ matters

    def matters(self) -> list[CustomerMatter]:
        """Return the interactions so far, in order of their openings."""
        opened: dict[str, tuple[float, facts.InteractionOpened]] = {}
        outcomes: dict[str, str] = {}
        ends: dict[str, float] = {}
        for event in self._world.happened():
            body, at = event.body, event.at - BEGIN
            match body:
                case facts.InteractionOpened():
                    opened[body.interaction_id] = at, body
                case decisions.ActionTaken() if body.interaction_id:
                    outcomes.setdefault(body.interaction_id, "waited" if body.decided_by else "spot")
                    ends[body.interaction_id] = max(at, ends.get(body.interaction_id, 0.0))
                case decisions.AuthorityFellShort() if body.interaction_id:
                    spot = self._in_trial(body, at)
                    outcomes.setdefault(body.interaction_id, "spot" if spot else "denied")
                    ends[body.interaction_id] = at
                case decisions.EscalationApproved() if outcomes.get(body.interaction_id or "") == "denied":
                    outcomes[body.interaction_id or ""] = "waited"
                case _:
                    pass
        return [
            CustomerMatter(
                at,
                self._people[body.agent_id],
                body.customer_id,
                body,
                outcomes.get(name, "nothing"),
                ends.get(name, at),
            )
            for name, (at, body) in opened.items()
            if body.agent_id and body.customer_id
        ]

    def _in_trial(self, body: decisions.AuthorityFellShort, at: float) -> bool:
        """Return whether the trial lets an agent give what the role's limit would not."""
        person, trial = self._people[body.agent_id], self._trial
        return (
            self._tries(person, at)
            and (person.role, body.kind) == (trial.role, trial.kind)
            and body.amount is not None
            and body.amount.minor <= trial.amount.minor
        )

    def _tries(self, person: Person, at: float) -> bool:
        """Return whether a person's team takes part in the trial at a time."""
        ends = self._trial.until.timestamp() - BEGIN
        return TRIAL_DAY * DAY <= at < ends and person.team.team_id in self._drawn

    def serve(self, matter: CustomerMatter) -> None:
        """Add the way of one matter: transfers, its resolution, feedback, praise, and a later purchase."""
        random, world = self._random, self._world
        name, outcome = matter.opened.interaction_id, matter.outcome
        if matter.person.team.team_id != ABROAD:
            at, last = max(matter.at + random.expovariate(1 / 6) * _MINUTE, matter.ends + _MINUTE), matter.person
            if outcome == "nothing" and random.random() < 0.3:
                at, last = self._transfers(matter, at)
            at += random.expovariate(1 / 10) * _MINUTE
            if random.random() < 0.95:
                resolved = facts.InteractionResolved(interaction_id=name, agent_id=last.employee_id)
                world.add(at, resolved)
                if random.random() < (0.04 if outcome == "spot" else 0.09):
                    world.add(at + 5 * HOUR, facts.InteractionReopened(interaction_id=name, reason="happened again"))
            self._feedback(matter, at)
        if random.random() < _COMES_BACK[outcome] + (_TRIAL_BRINGS if self._tries(matter.person, matter.at) else 0):
            self._buys(matter.at + random.uniform(2, 28) * DAY, matter.customer, matter.person.team)

    def _transfers(self, matter: CustomerMatter, at: float) -> tuple[float, Person]:
        """Add the transfers of a matter; return the time and the person after them."""
        random, world, last = self._random, self._world, matter.person
        line = 1
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            back = line > 1 and random.random() < 0.3
            team = matter.person.team if back else random.choice(world.organisation.teams)
            others = [one for one in team.members if one is not last and one.here(int(at // DAY))]
            if not others or team.team_id == ABROAD:
                continue
            person, line = random.choice(others), 1 if back else min(line + 1, 3)
            moved = facts.InteractionTransferred(
                interaction_id=matter.opened.interaction_id,
                from_agent_id=last.employee_id,
                from_team_id=last.team.team_id,
                to_agent_id=person.employee_id,
                to_team_id=team.team_id,
                line=line,
                story_repeated=random.random() < 0.45,
                waited_seconds=round(random.expovariate(1 / 240)),
            )
            world.add(at, moved)
            at, last = at + random.expovariate(1 / 12) * _MINUTE + _MINUTE, person
        return at, last

    def _feedback(self, matter: CustomerMatter, at: float) -> None:
        random, world, team = self._random, self._world, matter.person.team
        name, pleased = matter.opened.interaction_id, random.random() < _SATISFIED[matter.outcome]
        if random.random() < 0.25:
            nps = team.channel == "e-mail"
            high, low = ((9, 10), (0, 8)) if nps else ((4, 5), (1, 3))
            answer = facts.FeedbackReceived(
                customer_id=matter.customer,
                instrument="nps" if nps else "csat",
                score=random.randint(*(high if pleased else low)),
                best=10 if nps else 5,
                worst=0 if nps else 1,
                interaction_id=name,
                comment=random.choice(_COMMENTS) if random.random() < 0.1 else None,
            )
            world.add(at + random.uniform(0.5, 30) * HOUR, answer)
        if matter.outcome == "spot" and pleased and random.random() < 0.05:
            praise = facts.RecognitionGiven(
                recognition_id=world.new("T"),
                giver_id=matter.customer,
                receiver_id=matter.person.employee_id,
                reason=random.choice(_PRAISE),
                points=10,
                interaction_id=name,
                giver_kind="customer",
            )
            world.add(at + random.uniform(1, 20) * HOUR, praise)

    # ------------------------------------------------------------------ customers

    def regulars(self, matters: list[CustomerMatter]) -> None:
        """Add purchases before and beside the matters, returned goods, and referred customers."""
        random, world = self._random, self._world
        known: dict[str, CustomerMatter] = {}
        for matter in matters:
            known.setdefault(matter.customer, matter)
        for customer, matter in known.items():
            for _ in range(random.choice((0, 1, 1, 2))):
                self._buys(random.uniform(-60, matter.at / DAY) * DAY, customer, matter.person.team)
        for matter in random.sample(matters, len(matters) // 50):
            if matter.opened.order_id and matter.opened.reason in {"damaged", "wrong item", "quality"}:
                total = Money(random.randrange(900, 6_000), matter.person.team.currency)
                back = facts.PurchaseReturned(customer_id=matter.customer, order_id=matter.opened.order_id, total=total)
                world.add(matter.at + random.uniform(1, 9) * DAY, back)
        for matter in random.sample([one for one in matters if one.outcome == "spot"], 30):
            sent = facts.CustomerReferred(customer_id=matter.customer, referred_customer_id=world.new("C"))
            world.add(matter.at + random.uniform(2, 20) * DAY, sent)

    def _buys(self, at: float, customer: str, team: PlannedTeam) -> None:
        minor = round(self._random.lognormvariate(3.5, 0.6) * 100)
        self._world.add(
            at,
            facts.PurchaseCompleted(
                order_id=self._world.new("O"),
                customer_id=customer,
                total=Money(minor, team.currency),
            ),
        )

    # ------------------------------------------------------------------ staff

    def staff(self) -> None:
        """Add training, promotions, ideas, obstacles, morale, and a manager's holiday."""
        world, random = self._world, self._random
        for person in self._people.values():
            joined = person.joined_day
            if random.random() < 0.9 or joined > 0:
                at = random.uniform(-20, -2) if joined < 0 else joined + random.uniform(1, 6)
                self._course(person, _COURSES[0], at)
            if random.random() < 0.55 and joined < 20:
                self._course(person, _COURSES[1], random.uniform(20, 45))
        there = [one for one in self._people.values() if one.left_day is None and one.joined_day < 0]
        busy = {name for misuse in world.truth for name in misuse.subjects}
        honest = [one for one in there if f"agent:{one.employee_id}" not in busy]
        for person in random.sample([one for one in honest if one.role == "agent" and one.team.desk not in OFFLINE], 6):
            self._promote(person)
        for number in range(16):
            self._voice(random.choice(honest), number)
        for team in world.organisation.teams:
            for month in range(3):
                self._morale(team, month)
        away, stands_in = random.sample([one for one in world.organisation.managers if one.team.currency == "GBP"], 2)
        declared = facts.DelegationDeclared(
            from_employee_id=away.employee_id,
            to_employee_id=stands_in.employee_id,
            from_time=_moment(64 * DAY),
            until_time=_moment(71 * DAY),
        )
        world.add(63 * DAY, declared)

    def _course(self, person: Person, course: str, day: float) -> None:
        done = facts.TrainingCompleted(employee_id=person.employee_id, course_id=course, valid_until=_moment(400 * DAY))
        self._world.add(day * DAY, done)

    def _promote(self, person: Person) -> None:
        body = facts.EmployeeChanged(
            employee_id=person.employee_id,
            role="senior",
            team_ids=(person.team.team_id,),
            manager_id=person.team.members[0].employee_id,
        )
        self._world.add(62 * DAY, body)

    def _voice(self, person: Person, number: int) -> None:
        """Add an idea and an obstacle; most are answered within days."""
        random, world, name = self._random, self._world, person.employee_id
        manager = person.team.members[0].employee_id
        answers = HEAD if name == manager else manager
        at = random.uniform(3, DAYS - 20) * DAY
        idea = world.new("idea")
        world.add(at, facts.IdeaSubmitted(idea_id=idea, employee_id=name, text=_IDEAS[number % len(_IDEAS)]))
        if random.random() < 0.8:
            decided = facts.IdeaDecided(idea_id=idea, decision=random.choice(_DECISIONS), decided_by=HEAD)
            world.add(at + random.expovariate(1 / 9) * DAY, decided)
        at, obstacle = at + DAY, world.new("obstacle")
        reported = facts.ObstacleReported(
            obstacle_id=obstacle,
            employee_id=name,
            text=_OBSTACLES[number % len(_OBSTACLES)],
            kind=("replacement", "fee_waiver", "credit", "upgrade")[number % 4],
            amount=Money(random.randrange(1_500, 6_000), "GBP"),
        )
        world.add(at, reported)
        if random.random() < 0.8:
            answer = facts.ObstacleAnswered(
                obstacle_id=obstacle, answered_by=answers, text=_ANSWERS[number % len(_ANSWERS)]
            )
            world.add(at + random.expovariate(1 / 4) * DAY, answer)

    def _morale(self, team: PlannedTeam, month: int) -> None:
        random = self._random
        invited = len(team.members)
        surveyed = facts.MoraleSurveyed(
            team_id=team.team_id,
            period=f"2026-{month + 1:02d}",
            invited=invited,
            respondents=4 if month == 1 and team.team_id == "returns" else random.randint(max(5, invited - 3), invited),
            score=round(min(10.0, random.gauss(6.8 + 0.3 * month, 0.7)), 1),
            best=10,
            worst=0,
        )
        self._world.add((24 + 30 * month) * DAY, surveyed)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(BEGIN + at, UTC)
