"""Policies in files: YAML or JSON, with the line of every problem."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from domain.currencies import currency_fault
from domain.policy import Policy
from domain.policy_check import contradictions
from domain.policy_document import PolicyError, Problem, parse_policy

if TYPE_CHECKING:
    from domain.policy_document import Path as FieldPath


class _Loader(yaml.SafeLoader):
    """Times stay texts, as in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Finding(NamedTuple):
    """A problem with its place in the file."""

    line: int
    field: str
    message: str
    serious: bool


class Checked(NamedTuple):
    """A file's document, its policy where it is one, and what was found."""

    document: Any
    policy: Policy | None
    findings: list[Finding]


def check_policy_file(path: Path) -> Checked:
    """Read and check a policy file. Nothing is raised for what is wrong in it: all is a finding."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, less the time stamps
    except UnicodeDecodeError as error:
        return Checked(None, None, [Finding(1, "", f"not UTF-8 text: {error.reason}", serious=True)])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        return Checked(None, None, [Finding(mark.line + 1 if mark else 1, "", f"not YAML: {problem}", serious=True)])
    try:
        policy = parse_policy(document)
    except PolicyError as error:
        return Checked(document, None, [_finding(node, problem, serious=True) for problem in error.problems])
    notes = [*_withdrawn(policy), *contradictions(policy)]
    return Checked(document, policy, [_finding(node, problem, serious=False) for problem in notes])


def _withdrawn(policy: Policy) -> list[Problem]:
    """Note a currency that is not valid when the policy begins, or today: only history mode takes that."""
    fault = currency_fault(policy.currency, max(datetime.now(UTC), policy.effective_from))
    return [Problem(("currency",), f"{fault}, unless this is for `up --history`")] if fault else []


def _finding(node: yaml.Node | None, problem: Problem, *, serious: bool) -> Finding:
    return Finding(_line_of(node, problem.path), problem.field, problem.message, serious)


def _line_of(node: yaml.Node | None, path: FieldPath) -> int:
    """The line of the deepest part of the path that is there."""
    line = node.start_mark.line if node else 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1


def shipped_policies() -> list[Path]:
    """The example policies that are shipped."""
    return sorted((Path(__file__).resolve().parent.parent / "config" / "policies").glob("*.yaml"))
