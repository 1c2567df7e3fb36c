"""YAML and JSON from people: each fault is said with its line and column, within a second; nothing is misread."""

import json
import random
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.document_file import MOST_LEVELS, DocumentFileError, read_document
from app.importing.mapping import MappingError, build_mapping
from app.policy_file import check_policy_file, shipped_policies
from config.settings import SettingsError, load_settings
from domain.policy.document import DocumentError, check_document, read_json
from domain.policy.parsing import PolicyError, parse_policy
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY

ROOT = Path(__file__).resolve().parents[2]
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
MERGED_LAUGHS = "a0: &a0 {k0: x, l0: x}\n" + "".join(
    f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: *a{n - 1}, l{n}: *a{n - 1}}}\n" for n in range(1, 60)
)
FAULTS: dict[str, tuple[bytes, str]] = {
    "billion laughs": (LAUGHS.encode(), "line 5, column"),
    "billion laughs by merge keys": (MERGED_LAUGHS.encode(), "aliases counted"),
    "an alias inside itself": (b"a: &a [1, *a]", "line 1, column 11"),
    "a merge of itself": (b"a: &a\n  <<: *a", "line 2, column 7"),
    "an unknown alias": (b"a: 1\nb: *nothing", "line 2, column 4"),
    "deep lists": (b"a: " + b"[" * 200_000, "line 1, column 54"),
    "deep mappings": (b"{a: " * 50_000, "deeper than"),
    "deep blocks": (b"\n".join(b" " * n + b"a:" for n in range(600)), "line 52, column 52"),
    "many digits": (b"a: 1" + b"0" * 10_000, "line 1, column 4"),
    "a long fraction": (b"a: 1." + b"0" * 10_000, "line 1, column 4"),
    "a huge exponent": (b"a: 1e999", "line 1, column 4"),
    "a key twice": (b"a: 1\nb: 2\na: 3", "line 3, column 1"),
    "a key twice, quoted": (b'{"a": 1,\n "a": 2}', "line 2, column 2"),
    "a list as a key": (b"a: 1\n? [x]\n: 2", "line 2, column 3"),
    "a mapping as a key": (b"{a: 1}: 2", "line 1, column 1"),
    "a tag of Python's": (b"a: !!python/object/apply:os.system [ls]", "line 1, column 4"),
    "a tag of one's own": (b"a:\n  - !mine x", "line 2, column 5"),
    "a tag on a key": (b"!!int 1: 2", "line 1, column 1"),
    "a set": (b"a: !!set {x}", "line 1, column 4"),
    "binary": (b"a: !!binary aGFsbG8=", "line 1, column 4"),
    "NUL": (b"a: 1\nb: \x00", "line 2, column 4"),
    "NUL in quotes": (b'a: "\x00"', "line 1, column 5"),
    "an escape": (b"a: \x1b[31m", "line 1, column 4"),
    "UTF-16": ("a: 1".encode("utf-16"), "UTF-16"),
    "not UTF-8": (b"a: 1\nb: caf\xe9", "line 2, column 7"),
    "half a surrogate": (b"a: \xed\xa0\x80", "line 1, column 4"),
    "two documents": (b"a: 1\n---\nb: 2", "line 2, column 1"),
    "too many bytes": (b"a: " + b"x" * 300_000, "262144 bytes"),
    "too many values": (b"a: [" + b"1," * 30_000 + b"]", "line 1, column"),
    "an open quote": (b'a: "x\nb: 1\n', "line 3, column 1"),
    "an open list": (b"a: [1,\n", "line 2, column 1"),
    "a tab": (b"a:\n\t- 1", "line 2, column 1"),
    "a merge of text": (b"a: 1\n<<: x", "line 2, column 1"),
    "an unknown directive": (b"%YAML 7.7\n---\na: 1", "line 1, column 1"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_in_a_document_is_reported_with_its_place(kind: str) -> None:
    data, says = FAULTS[kind]
    begun = time.process_time()
    with pytest.raises(DocumentFileError) as caught:
        read_document(data)
    assert says in str(caught.value)
    assert str(caught.value).startswith("line ")
    assert len(str(caught.value)) < 400
    assert time.process_time() - begun < 1


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["billion laughs", "deep lists", "many digits", "NUL", "UTF-16"])
def test_commands_report_a_faulty_document_in_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_bytes(FAULTS[kind][0])
    (tmp_path / "file.csv").write_text("a\n1\n")
    for words, status in ((("policy", "check", "file.yaml"), 1), (("import", "file.yaml", "file.csv", "--dry-run"), 2)):
        done = subprocess.run(
            [sys.executable, "-m", "app", *words],
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            text=True,
            check=False,
        )
        assert done.returncode in {1, status}, done
        assert "Traceback" not in done.stdout + done.stderr
        assert "file.yaml" in done.stdout + done.stderr


def test_written_documents_read_back() -> None:
    text = """
    country: NO
    answer: yes
    off: on
    1: a
    2026-01-01: 2026-01-01T00:00:00Z
    till: 007
    octal: 0o17
    hexadecimal: 0x1F
    minutes: 1:30
    price: 1_000
    plus: +1
    dot: .5
    inf: .inf
    nan: .nan
    whole: 12
    share: 0.5
    small: 1e-3
    truth: true
    nothing: null
    blank:
    tilde: ~
    quoted: "12"
    null: x
    true: y
    tagged: !!str 5
    NO: z
    """
    assert read_document(text.encode()).document == {
        "country": "NO",
        "answer": "yes",
        "off": "on",
        "1": "a",
        "2026-01-01": "2026-01-01T00:00:00Z",
        "till": "007",
        "octal": "0o17",
        "hexadecimal": "0x1F",
        "minutes": "1:30",
        "price": "1_000",
        "plus": "+1",
        "dot": ".5",
        "inf": ".inf",
        "nan": ".nan",
        "whole": 12,
        "share": 0.5,
        "small": 0.001,
        "truth": True,
        "nothing": None,
        "blank": None,
        "tilde": None,
        "quoted": "12",
        "null": "x",
        "true": "y",
        "tagged": "5",
        "NO": "z",
    }
    assert read_document(b"\xef\xbb\xbfa: 1").document == {"a": 1}
    assert read_document(b"").document is None
    assert read_document(b"a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\nf: {b: 9, <<: [*x, {g: 3, b: 4}]}").document == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
        "f": {"b": 9, "g": 3},
    }


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef<", max_size=5), inner, max_size=4),
    max_leaves=30,
)


@settings(max_examples=2 * settings().max_examples)
@given(json_values)
def test_json_is_read_as_json(document: object) -> None:
    """JSON's own reader is the oracle; a name that is a merge key is no merge key in quotes."""
    assert read_document(json.dumps(document, ensure_ascii=False).encode()).document == document


@pytest.mark.parametrize(
    "path", [*shipped_policies(), *sorted((ROOT / "config" / "mappings").glob("*.yaml"))], ids=lambda path: path.stem
)
def test_shipped_files_mean_the_same_to_pyyaml(path: Path) -> None:
    class AsText(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
            first: [one for one in resolvers if not one[0].endswith("timestamp")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    assert read_document(path.read_bytes()).document == yaml.load(path.read_text(), AsText)


WRONG_POLICIES: Document = {
    "currency": [["GBP"], {"a": 1}, 10**400, None, True],
    "time_zone": ["\x00", "x" * 10_000, ["UTC"], "Europe", "/etc/passwd", 5],
    "effective_from": [
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00",
        "10000-01-01T00:00:00Z",
        5,
        [],
        "9" * 10_000,
    ],
    "roles": [
        {"a": {"budget": "1" * 10_000, "limits": {}}},
        {"a": {"budget": float("nan"), "limits": {}}},
        {"\ud800": {}},
        {"a": []},
    ],
    "privacy": [{"surprise": True}, {"pseudonyms": 1}, []],
    "default_role": [["agent"], {}],
    "guidelines": [[5], [[[[[[]]]]]], {}],
    "sources": [{"crm": [["agent"]]}, {"crm": [{}]}, []],
    "costs": [{"agent_hour": 10**30}, {"agent_hour": "1e3"}],
    "escalation": [
        {"payer": "team", "after_hours": 10**400},
        {"payer": "team", "after_hours": float("inf")},
        {"payer": ["team"]},
    ],
    "teams": [{"t": {"limits": {"agent": {"refund": ["5"]}}}}, {"t": {"pool": {"amount": "5"}}}, {"t": 5}],
    "trial": [
        {
            "limit": {"role": ["a"], "kind": ["refund"], "amount": "1"},
            "share_of_teams": 0.5,
            "seed": 10**400,
            "until": "x",
        }
    ],
    "period": [["month"], {}],
    "mode": [["shadow"], 1],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, one) for name, some in WRONG_POLICIES.items() for one in some],
    ids=lambda one: ascii(one)[:40],
)
def test_a_wrong_policy_is_a_problem_also_as_json(name: str, value: object) -> None:
    begun = time.process_time()
    with pytest.raises(PolicyError) as caught:
        parse_policy(BASIC_POLICY | {name: value})
    assert all(problem.field.split(".")[0] == name for problem in caught.value.problems)
    assert time.process_time() - begun < 1


def test_endless_and_deeply_nested_policies_are_refused() -> None:
    role = {"budget": "1.00", "limits": {}, "per_customer": {"amount": "1.00", "days": 10**9}}
    with pytest.raises(PolicyError, match="days"):
        parse_policy(BASIC_POLICY | {"roles": {"agent": role}})
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PolicyError, match="nested deeper"):
        parse_policy(BASIC_POLICY | {"guidelines": deep})
    with pytest.raises(PolicyError, match="more than"):
        parse_policy(BASIC_POLICY | {"guidelines": [{"id": "a", "text": "b"}] * 60_000})


MANY: dict[str, str] = {
    "unknown fields": "".join(f"k{n}: 1\n" for n in range(9_500)),
    "empty roles": "roles:\n" + "".join(f"  r{n}: {{}}\n" for n in range(9_000)),
    "guidelines without text": "guidelines: [" + "{a: 1}," * 9_000 + "]\n",
    "unknown kinds": "roles: {agent: {budget: 1, limits: {" + "".join(f"r{n}: 1," for n in range(9_000)) + "}}}\n",
    "unknown roles in sources": "roles: {"
    + "".join(f"r{n}: {{}}," for n in range(5_000))
    + "}\nsources:\n"
    + "".join(f"  s{n}: [y]\n" for n in range(5_000)),
    "limits above every budget": "roles:\n"
    + "".join(f'  r{n}: {{budget: "1", limits: {{refund: "{n + 2}"}}}}\n' for n in range(4_500)),
    "long names": "roles:\n  ? " + "r" * 200_000 + "\n  : {" + ",".join(f"k{n}: 1" for n in range(90)) + "}\n",
}


@pytest.mark.parametrize("kind", MANY)
def test_many_faults_are_reported_together_and_briefly(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    others = {name: value for name, value in BASIC_POLICY.items() if f"{name}:" not in MANY[kind]}
    file.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in others.items()) + MANY[kind])
    begun = time.process_time()
    findings = check_policy_file(file).findings
    assert time.process_time() - begun < 1
    assert len(findings) > 80
    if kind != "limits above every budget":  # a policy, and each of these is told
        assert len(findings) <= 100
        assert sum(len(one.message) + len(one.field) for one in findings) < 60_000


def places(document: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    10**18,
    1.5,
    -0.0,
    "",
    "x",
    "NO",
    "\u202e",
    "9" * 500,
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    {"a": []},
]


@pytest.mark.parametrize("kind", ["policy", "mapping"])
def test_a_random_document_is_valid_or_an_error(kind: str) -> None:
    """Shipped documents with one or two parts replaced: read, or refused by the error that is meant for it."""
    folder = ROOT / "config" / ("policies" if kind == "policy" else "mappings")
    shipped = [read_document(path.read_bytes()).document for path in sorted(folder.glob("*.yaml"))]
    chance = random.Random(17)
    for _ in range(1_500):
        document = {"root": deepcopy(chance.choice(shipped))}
        for _ in range(chance.choice((1, 1, 2))):
            *above, last = chance.choice(places(document)[1:])
            part: Any = document
            for name in above:
                part = part[name]
            if isinstance(part, dict) and chance.random() < 0.3:
                part[chance.choice(["", "x", "root", "when", "first", "money"])] = part.pop(last)
                break
            part[last] = deepcopy(chance.choice(ODD))
        try:
            if kind == "policy":
                parse_policy(document.get("root"))
            else:
                build_mapping(document.get("root"))
        except (PolicyError, MappingError) as error:
            assert len(str(error)) < 50_000  # noqa: PT017 - the kind is what is checked
    assert MOST_LEVELS > 10


@pytest.mark.integration
def test_strict_json() -> None:
    for data, says in (
        (b'{"a": 1, "a": 2}', "a: occurs twice"),
        (b"NaN", "NaN"),
        (b"[1e400]", "out of range"),
        (b"[" * 99_999, "deeper"),
        (b"[" * 70 + b"]" * 70, "deeper"),
        (b"1" * 5_000, "digits"),
        (rb'"\ud800"', "surrogate"),
        (rb'{"a": {"\ud800": 1}}', "a: the name"),
        (b"18446744073709551616", "out of range"),
        (b"\xff", "byte 1"),
        (b"", "not JSON"),
        (b"{'a': 1}", "line 1, column 2"),
    ):
        with pytest.raises(DocumentError, match=says):
            read_json(data)
    assert read_json(rb'{"a": ["\ud83d\ude00", 1.5, null, 18446744073709551615]}') == {
        "a": ["😀", 1.5, None, 2**64 - 1]
    }
    with pytest.raises(DocumentError, match="not text"):
        check_document({1: "a"})


@pytest.mark.parametrize(
    "text",
    [
        "replicas = 1" + "0" * 5_000,
        "a = " + "[" * 50_000,
        "data_dir = '\x00'",
        "\ufeffdata_dir = 'x'",
        "data_dir",
        "a = 1\na = 2",
        "replicas = nan",
        "replicas = [1]",
        "data_dir = {x = 1}",
        "replicas = 1e400",
        "data_dir = 1979-05-27",
    ],
)
def test_a_settings_file_with_odd_text_is_an_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError):
        load_settings({}, {}, file)
    file.write_bytes("data_dir = 'x'".encode("utf-16"))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, {}, file)


def test_a_policy_file_names_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("currency: GBP\ncurrency: EUR\n")
    (finding,) = check_policy_file(file).findings
    assert (finding.line, finding.column, "twice" in finding.message) == (2, 1, True)
