"""Policy files in YAML or JSON, with the line of every problem."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.document_file import DocumentFileError, read_document_file
from domain.currencies import currency_fault
from domain.policy.linting import contradictions
from domain.policy.model import Policy
from domain.policy.parsing import PolicyError, PolicyProblem, parse_policy

if TYPE_CHECKING:
    from app.document_file import DocumentFile


class PolicyFileFinding(NamedTuple):
    """A problem with its place in the file."""

    line: int
    field: str
    message: str
    serious: bool
    column: int = 1


class PolicyFileCheck(NamedTuple):
    """A file's policy if it is valid, and the findings."""

    policy: Policy | None
    findings: list[PolicyFileFinding]


def check_policy_file(path: Path) -> PolicyFileCheck:
    """Return the result of checking a policy file; all its problems are findings."""
    try:
        file = read_document_file(path)
    except DocumentFileError as error:
        finding = PolicyFileFinding(error.line, "", error.message, serious=True, column=error.column)
        return PolicyFileCheck(None, [finding])
    try:
        policy = parse_policy(file.document)
    except PolicyError as error:
        return PolicyFileCheck(None, [_finding(file, problem, serious=True) for problem in error.problems])
    notes = [*_withdrawn(policy), *contradictions(policy), *_unnamed(policy)]
    return PolicyFileCheck(policy, [_finding(file, problem, serious=False) for problem in notes])


def _withdrawn(policy: Policy) -> list[PolicyProblem]:
    """Return a note if the policy's currency is not valid at its start or today, except in history mode."""
    fault = currency_fault(policy.currency, max(datetime.now(UTC), policy.effective_from))
    return [PolicyProblem(("currency",), f"{fault}, unless this is for `up --history`")] if fault else []


def _unnamed(policy: Policy) -> list[PolicyProblem]:
    """Return a note for each role with a cap of customers: the cap of goodwill that names no customer."""
    notes = []
    for name, role in policy.roles.items():
        cap = role.per_customer
        if cap is None:
            continue
        message = "goodwill that names no customer has no cap: `unnamed` is unlimited"
        if cap.unnamed is not None:
            default = (
                "" if "unnamed" in policy.document["roles"][name]["per_customer"] else ", by default the same amount"
            )
            message = (
                f"without naming a customer, each agent gives at most {cap.unnamed.text} in {cap.days} days{default}"
            )
        notes.append(PolicyProblem(("roles", name, "per_customer"), message))
    return notes


def _finding(file: DocumentFile, problem: PolicyProblem, *, serious: bool) -> PolicyFileFinding:
    line, column = file.place(problem.path)
    return PolicyFileFinding(line, problem.field, problem.message, serious, column)


def shipped_policies() -> list[Path]:
    """Return the paths of the shipped example policies."""
    return sorted((Path(__file__).resolve().parent.parent / "config" / "policies").glob("*.yaml"))
