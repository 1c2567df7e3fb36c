"""Policies in files: YAML or JSON, with the line of every problem."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.document_file import DocumentFileError, read_document_file
from domain.currencies import currency_fault
from domain.policy.linting import contradictions
from domain.policy.model import Policy
from domain.policy.parsing import PolicyError, Problem, parse_policy

if TYPE_CHECKING:
    from app.document_file import DocumentFile


class Finding(NamedTuple):
    """A problem with its place in the file."""

    line: int
    field: str
    message: str
    serious: bool
    column: int = 1


class Checked(NamedTuple):
    """A file's document, its policy where it is one, and what was found."""

    document: Any
    policy: Policy | None
    findings: list[Finding]


def check_policy_file(path: Path) -> Checked:
    """Read and check a policy file; all that is wrong in it is returned as findings."""
    try:
        file = read_document_file(path)
    except DocumentFileError as error:
        return Checked(None, None, [Finding(error.line, "", error.message, serious=True, column=error.column)])
    try:
        policy = parse_policy(file.document)
    except PolicyError as error:
        return Checked(file.document, None, [_finding(file, problem, serious=True) for problem in error.problems])
    notes = [*_withdrawn(policy), *contradictions(policy)]
    return Checked(file.document, policy, [_finding(file, problem, serious=False) for problem in notes])


def _withdrawn(policy: Policy) -> list[Problem]:
    """Note a currency that is not valid when the policy begins, or today: only history mode takes that."""
    fault = currency_fault(policy.currency, max(datetime.now(UTC), policy.effective_from))
    return [Problem(("currency",), f"{fault}, unless this is for `up --history`")] if fault else []


def _finding(file: DocumentFile, problem: Problem, *, serious: bool) -> Finding:
    line, column = file.place(problem.path)
    return Finding(line, problem.field, problem.message, serious, column)


def shipped_policies() -> list[Path]:
    """The example policies that are shipped."""
    return sorted((Path(__file__).resolve().parent.parent / "config" / "policies").glob("*.yaml"))
