"""SELECT statements as trees (DuckDB's ``json_serialize_sql``): their columns, functions and conditions, and rewriting.

Each node of a statement that reads rows of the files also returns ``_row``, the first row that its result comes from,
and ``_bad``, the first row with a value that could not be read. Rows of a ``WHERE`` that is undecided because of such
a value are kept and marked, so that they are rejected with their line and never dropped silently.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

type Node = dict[str, Any]
"""A node of DuckDB's serialised tree: an open JSON object."""

_TEXT_FUNCTIONS = {"||", "->>", "concat", "json_extract_string", "left", "lower", "ltrim", "nullif", "regexp_extract"}
_TEXT_FUNCTIONS |= {"regexp_replace", "replace", "right", "rtrim", "split_part", "substr", "substring", "trim", "upper"}
_TRIES = ("try_strptime",)
_SCOPES = ("SUBQUERY", "WINDOW")
_COMPARE = ("COMPARISON", "BETWEEN")


def walk(tree: object, into: Callable[[Node], bool] = lambda _: True) -> Iterator[Node]:
    """Yield each node of a tree, parents first; the children of a node only if ``into`` allows it."""
    if isinstance(tree, dict):
        yield tree
        if into(tree):
            for value in tree.values():
                yield from walk(value, into)
    elif isinstance(tree, list):
        for value in tree:
            yield from walk(value, into)


def columns_of(tree: object) -> list[str]:
    """Return the names of the columns that a tree mentions, each once, in its order."""
    found = {node["column_names"][-1]: None for node in walk(tree) if node.get("class") == "COLUMN_REF"}
    return list(found)


def names_in(statement: object) -> set[str]:
    """Return every name that may be a column, in lower case: also parts of qualified names, and those of USING."""
    found: set[str] = set()
    for node in walk(statement):
        if node.get("class") == "COLUMN_REF":
            found.update(name.lower() for name in node["column_names"])
        found.update(name.lower() for name in node.get("using_columns") or ())
    return found


def takes_all_columns(statement: object, tables: Collection[str]) -> bool:
    """Return whether a statement takes every column of one of the tables, by a `*` or in another way."""
    names = {name.lower() for name in tables}
    for select in walk(statement):
        if select.get("type") == "PIVOT" or select.get("ref_type") == "NATURAL":
            return True
        if select.get("type") != "SELECT_NODE" or not tables_of(source := select.get("from_table")) & names:
            continue
        rows = names | {str(node["alias"]).lower() for node in walk(source) if node.get("alias")}
        for node in walk([part for name, part in select.items() if name not in ("from_table", "cte_map")]):
            column = node.get("column_names", ())
            if node.get("class") == "STAR" or (len(column) == 1 and column[0].lower() in rows):
                return True
    return False


def functions_of(statement: object) -> set[str]:
    """Return the names of the functions that a statement calls."""
    return {node["function_name"].lower() for node in walk(statement) if node.get("function_name")}


def tables_of(statement: object) -> set[str]:
    """Return the names of the tables and common table expressions that a statement reads, in lower case."""
    return {node["table_name"].lower() for node in walk(statement) if node.get("type") == "BASE_TABLE"}


def select_nodes(node: Node) -> list[Node]:
    """Return the SELECTs that give a statement's rows: one, or the parts of a UNION."""
    if node["type"] == "SELECT_NODE":
        return [node]
    return [one for child in node.get("children", ()) for one in select_nodes(child)]


def outputs_of(node: Node) -> dict[str, list[str]]:
    """Return the columns that each result column of a statement is made of, by its name in lower case."""
    found: dict[str, list[str]] = {}
    for select in select_nodes(node):
        for item in select["select_list"]:
            name = item.get("alias") or (columns_of(item) or [""])[-1]
            found.setdefault(name.lower(), []).extend(columns_of(item))
    return found


def conditions_of(select: Node) -> list[Node]:
    """Return the single conditions of a SELECT: the parts of its WHERE, and those of its CASE expressions."""
    found: list[Node] = []
    if select.get("where_clause"):
        found += _parts(select["where_clause"])
    for node in walk(select["select_list"], lambda one: one.get("class") not in _SCOPES):
        for check in node.get("case_checks") or ():
            found += _parts(check["when_expr"])
    return [one for one in found if not any(_is_scope(node) or node.get("aggregate") for node in walk(one))]


def _parts(condition: Node) -> list[Node]:
    if condition.get("class") == "CONJUNCTION":
        return [part for child in condition["children"] for part in _parts(child)]
    return [condition]


def _is_scope(node: Node) -> bool:
    return node.get("class") in _SCOPES


@dataclass
class Relation:
    """A table, common table expression or subquery in a FROM, with traced rows; ``alias`` may be empty."""

    alias: str


@dataclass
class SelectRewriter:
    """Rewrites statements; ``parse`` returns the tree of an expression in SQL, ``aggregates`` are names of functions.

    With ``careful``, every expression is evaluated so that an error marks its row instead of ending the statement.
    """

    parse: Callable[[str], Node]
    aggregates: frozenset[str]
    signs: Mapping[str, tuple[str, str]]
    """Decimal and thousands signs of the text columns of the files, by the column's name in lower case."""
    numbers: Mapping[str, bool]
    """Numeric types by their names in lower case; true for those of whole numbers."""
    careful: bool = False
    suspects: list[Node] = field(default_factory=list)
    """The expressions that may fail, for the explanation of a marked row."""

    def rewritten(self, statement: Node) -> Node | None:
        """Return the statement with ``_row`` and ``_bad``; None if its rows cannot be traced to rows of the files."""
        made = self.with_exact_numbers(statement)
        return made if self._trace(made["statements"][0]["node"], {}) else None

    def with_exact_numbers(self, statement: Node) -> Node:
        """Return a copy with comparisons and casts of text cells that read numbers exactly."""
        made = copy.deepcopy(statement)
        for node in list(walk(made)):
            if node.get("class") in _COMPARE:
                self._compare_as_numbers(node)
            elif node.get("class") == "CAST" and _type_name(node).lower() in self.numbers:
                self._cast_exactly(node)
            elif self.careful and node.get("function_name") == "timezone" and len(node["arguments"]) > 1:
                zone = node["arguments"][0]
                zone["expression"] = self._template("_time_zone(a__)", a__=zone["expression"])
        return made

    def _compare_as_numbers(self, node: Node) -> None:
        """Compare a text with a number as numbers, since DuckDB would compare whole numbers (`'0.40' > 0` is false)."""
        sides = [side for side in ("left", "right", "input", "lower", "upper") if isinstance(node.get(side), dict)]
        kinds = {_constant_kind(node[side]) for side in sides} - {None}
        wanted = "BOOLEAN" if kinds == {"BOOLEAN"} else "DOUBLE" if kinds and kinds <= {"INTEGER", "NUMERIC"} else None
        for side in sides:
            if wanted is not None and self._is_text(node[side]):
                child = node[side] if wanted == "BOOLEAN" else self._plain_number(node[side])
                node[side] = self._template(f"TRY_CAST(a__ AS {wanted})", a__=child)

    def _cast_exactly(self, node: Node) -> None:
        cell = node["child"]
        if self._is_text(cell):
            node["child"] = self._plain_number(cell)
            if self.numbers[_type_name(node).lower()]:
                node["child"] = self._template("_whole_number(a__, b__)", a__=cell, b__=node["child"])

    def _is_text(self, node: Node) -> bool:
        if node.get("class") == "COLUMN_REF":
            return node["column_names"][-1].lower() in self.signs
        if node.get("class") == "FUNCTION":
            return node["function_name"].lower() in _TEXT_FUNCTIONS
        if node.get("class") == "CASE":
            return any(map(self._is_text, [node["else_expr"], *(one["then_expr"] for one in node["case_checks"])]))
        return node.get("type") == "OPERATOR_COALESCE" and any(map(self._is_text, node["children"]))

    def _plain_number(self, node: Node) -> Node:
        """Return an expression for a number's text with a point; text that is no decimal number becomes unreadable."""
        names = [name.lower() for name in columns_of(node)]
        decimal, thousands = next((self.signs[name] for name in names if name in self.signs), (".", ""))
        return self._template(f"_number(a__, {_literal(decimal)}, {_literal(thousands)})", a__=node)

    # ------------------------------------------------------------------ rows

    def _trace(self, node: Node, traced: dict[str, bool]) -> bool:
        known = dict(traced)
        for entry in (node.get("cte_map") or {}).get("map", ()):
            inner = entry["value"]["query_node"]
            known[entry["key"].lower()] = inner["type"] == "SELECT_NODE" and self._trace(inner, known)
        if node["type"] == "SET_OPERATION_NODE":
            every = [self._trace(child, known) for child in node["children"]]
            return node.get("setop_type") == "UNION" and node.get("setop_all") is True and all(every)
        if node["type"] != "SELECT_NODE":
            return False
        relations = self._relations(node.get("from_table"), known)
        if not relations:
            return False
        grouped = self._is_grouped(node)
        distinct = [one for one in node["modifiers"] if one["type"] == "DISTINCT_MODIFIER"]
        if any(not one.get("distinct_on_targets") for one in distinct):
            if grouped or any(_is_scope(one) for one in walk(node["select_list"])):
                return False
            node["modifiers"] = [one for one in node["modifiers"] if one not in distinct]
            node["aggregate_handling"], grouped = "FORCE_AGGREGATES", True
        self._mark(node, relations, grouped=grouped)
        return True

    def _relations(self, source: Node | None, known: Mapping[str, bool]) -> list[Relation]:
        """Return the traced relations of a FROM, the leftmost first; none if the leftmost is not traced."""
        if source is None:
            return []
        if source["type"] == "BASE_TABLE":
            name = source["table_name"]
            return [Relation(source.get("alias") or name)] if known.get(name.lower(), True) else []
        if source["type"] == "SUBQUERY":
            return [Relation(source.get("alias") or "")] if self._trace(source["subquery"]["node"], dict(known)) else []
        if source["type"] == "JOIN":
            left = self._relations(source["left"], known)
            right = self._relations(source["right"], known)
            return left + right if left and source.get("join_type") not in ("SEMI", "ANTI") else left
        return []

    def _is_grouped(self, node: Node) -> bool:
        if node.get("group_expressions") or node.get("aggregate_handling") == "FORCE_AGGREGATES" or node.get("having"):
            return True
        return any(self._is_aggregate(one) for one in walk(node["select_list"], lambda one: not _is_scope(one)))

    def _is_aggregate(self, node: Node) -> bool:
        return node.get("class") == "FUNCTION" and node["function_name"].lower() in self.aggregates

    def _mark(self, node: Node, relations: Sequence[Relation], *, grouped: bool) -> None:
        """Add ``_row`` and ``_bad`` to the result of a SELECT."""
        own = _qualified(relations[0].alias, "_row")
        marks = ", ".join(_qualified(one.alias, "_bad") for one in relations)
        faults = self._guard_where(node) + (self._guard_items(node, grouped=grouped) if self.careful else [])
        bad = f"coalesce({marks}, NULL)"
        parts: dict[str, Node] = {f"f{number}__": fault for number, fault in enumerate(faults)}
        if parts:
            bad = f"CASE WHEN {' OR '.join(f'coalesce({name}, false)' for name in parts)} THEN {own} ELSE {bad} END"
        for item in walk(node["select_list"], lambda one: not _is_scope(one)):
            if item.get("class") == "STAR":
                item["exclude_list"] = [*item.get("exclude_list", ()), "_row", "_bad"]
        texts = (f"min({own})", f"min({bad})") if grouped else (own, bad)
        for alias, text in zip(("_row", "_bad"), texts, strict=True):
            node["select_list"].append(self._template(text, **parts) | {"alias": alias})

    def _guard_where(self, node: Node) -> list[Node]:
        """Keep rows with a WHERE that an unreadable value leaves undecided; return the conditions that mark them."""
        where = node.get("where_clause")
        if not where or any(_is_scope(one) for one in walk(where)):
            return []
        faults: list[Node] = []
        tries = [one for one in walk(where) if _is_try(one)]
        if tries:
            failed = [
                self._template("(a__ IS NOT NULL AND b__ IS NULL)", a__=_tried(one), b__=copy.deepcopy(one))
                for one in tries
            ]
            names = {f"t{number}__": one for number, one in enumerate(failed)}
            undecided = self._template(f"((a__) IS NULL AND ({' OR '.join(names)}))", a__=where, **names)
            faults.append(self._template("TRY(a__)", a__=undecided) if self.careful else undecided)
            self.suspects += tries
        if self.careful:
            faults.append(self._template("(TRY((a__) IS NULL) IS NULL)", a__=where))
            self.suspects.append(where)
            where = self._template("TRY(a__)", a__=where)
        if faults:
            parts = {f"f{number}__": fault for number, fault in enumerate(faults)}
            text = " OR ".join(f"coalesce({name}, false)" for name in parts)
            node["where_clause"] = self._template(f"coalesce(a__, false) OR {text}", a__=where, **parts)
        return [copy.deepcopy(fault) for fault in faults]

    def _guard_items(self, node: Node, *, grouped: bool) -> list[Node]:
        """Wrap the expressions of a select list in TRY; return the conditions under which one of them failed."""
        faults: list[Node] = []
        items = node["select_list"]
        for place, item in enumerate(items):
            if any(_is_scope(one) or one.get("class") == "STAR" for one in walk(item)):
                continue
            if any(self._is_aggregate(one) for one in walk(item)):
                for call in [one for one in walk(item) if self._is_aggregate(one)]:
                    for argument in call["arguments"]:
                        argument["expression"] = self._tried(argument["expression"], faults)
            elif not grouped and item.get("class") not in ("COLUMN_REF", "CONSTANT"):
                alias = item.get("alias", "")
                items[place] = self._tried(item, faults) | {"alias": alias}
        return faults

    def _tried(self, node: Node, faults: list[Node]) -> Node:
        if node.get("class") in ("COLUMN_REF", "CONSTANT"):
            return node
        if node.get("function_name") == "struct_pack":  # a struct is never NULL
            for argument in node["arguments"]:
                argument["expression"] = self._tried(argument["expression"], faults)
            return node
        plain = copy.deepcopy(node) | {"alias": ""}
        self.suspects.append(plain)
        faults.append(self._template("(TRY((a__) IS NULL) IS NULL)", a__=plain))
        return self._template("TRY(a__)", a__=plain)

    def _template(self, text: str, **parts: Node) -> Node:
        """Return the tree of an expression in SQL, with trees in the places of names."""
        filled: Node = _filled(self.parse(text), parts)
        return filled


def _filled(node: Any, parts: Mapping[str, Node]) -> Any:
    if isinstance(node, list):
        return [_filled(one, parts) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") == "COLUMN_REF" and node["column_names"][-1] in parts:
        return copy.deepcopy(parts[node["column_names"][-1]]) | {"alias": node.get("alias", "")}
    return {name: _filled(value, parts) for name, value in node.items()}


def _qualified(alias: str, column: str) -> str:
    return f'"{alias.replace(chr(34), chr(34) * 2)}".{column}' if alias else column


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _type_name(node: Node) -> str:
    return str((node.get("type_expr") or {}).get("type_name", "")).upper()


def _constant_kind(node: Node) -> str | None:
    if node.get("class") == "CONSTANT":
        return str(node["literal"]["kind"])
    is_boolean = node.get("class") == "CAST" and _type_name(node) == "BOOLEAN"
    return "BOOLEAN" if is_boolean and node["child"].get("class") == "CONSTANT" else None


def _is_try(node: Node) -> bool:
    if node.get("class") == "CAST":
        return bool(node.get("try_cast"))
    return node.get("class") == "FUNCTION" and node["function_name"].lower() in _TRIES


def _tried(node: Node) -> Node:
    child = node["child"] if node.get("class") == "CAST" else node["arguments"][0]["expression"]
    return copy.deepcopy(child)
