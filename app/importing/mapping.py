"""Column mappings: rules that turn the rows of a CSV file into events (docs/integrate/importing.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

from app.importing.mapping_fields import FieldReader, Pattern
from app.importing.mapping_parts import (
    Condition,
    MappingError,
    Row,
    RowContext,
    Test,
    Value,
    ValueProblem,
    changed,
    constant,
    decimal_of,
    first,
    not_first,
    number,
    on_column,
    on_previous,
    on_sum,
)
from domain.currencies import EXPONENTS
from domain.events.facts import FACTS
from domain.money import shown
from ledger.store.cloudevents import parse_time, time_text

_COLUMN = re.compile(r"\$\{([^}]+)\}")


class Emission(NamedTuple):
    """A kind of event that a row, or the first row of a group, may make."""

    type: str
    when: Condition
    once: bool
    id: Value
    time: Value
    data: dict[str, Value]


class Skip(NamedTuple):
    """A condition of rows that make no event, and the reason."""

    when: Condition
    reason: str


class ColumnMapping(NamedTuple):
    """A parsed mapping."""

    source: str
    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    group_by: str | None
    order_by: str | None
    each: str
    sums: dict[str, Callable[[Row], Decimal]]
    only_with: Condition | None
    only_with_reason: str
    skips: tuple[Skip, ...]
    emissions: tuple[Emission, ...]


def build_mapping(document: Any) -> ColumnMapping:
    """Return a mapping from its YAML document.

    Raises:
        MappingError: with the invalid part and its remedy.

    """
    return _Builder(document).build()


_KEYS = (
    "source",
    "encoding",
    "delimiter",
    "time_zone",
    "group_by",
    "order_by",
    "each",
    "sums",
    "only_with",
    "skip",
    "events",
)
_VALUES = (
    "text",
    "column",
    "strip_suffix",
    "extract",
    "pattern",
    "otherwise",
    "money",
    "currency",
    "number",
    "integer",
    "map",
    "cases",
    "const",
    "time",
    "format",
    "zone",
    "previous",
)
_TESTS = ("matches", "not", "above", "below", "is", "blank")


class _Builder(FieldReader):
    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict):
            raise MappingError("a mapping is a YAML mapping that begins with `source:`")
        super().__init__()
        self.document = document
        self.sums: dict[str, Callable[[Row], Decimal]] = {}
        self.check_names(document, _KEYS, "")
        self.zone = self.time_zone(document.get("time_zone"))

    def build(self) -> ColumnMapping:
        document = self.document
        source = document.get("source")
        if not isinstance(source, str) or not source:
            raise MappingError("source: name the source of these events, e.g. `source: online-retail`")
        for name, factors in self.mapping(document.get("sums", {}), "sums").items():
            self.sums[name] = self._product(factors, f"sums.{name}")
        group_by, order_by = (
            None if document.get(name) is None else self.column(document[name]) for name in ("group_by", "order_by")
        )
        only = self.mapping(document.get("only_with", {}), "only_with")
        self.check_names(only, ("when", "reason"), "only_with")
        each = document.get("each", "row")
        if each not in ("row", "group"):
            raise MappingError(f"each: must be row or group, not {shown(each)}")
        skips, events = (self.items(document.get(name, []), name) for name in ("skip", "events"))
        if not events:
            raise MappingError("events: list at least one event")
        return ColumnMapping(
            source=source,
            encoding=self.encoding(document.get("encoding", "utf-8")),
            delimiter=self.delimiter(document.get("delimiter", ",")),
            group_by=group_by if group_by is None else self.column(group_by),
            order_by=order_by if order_by is None else self.column(order_by),
            each=each,
            sums=self.sums,
            only_with=self._condition(only.get("when", {}), "only_with.when") if only else None,
            only_with_reason=str(only.get("reason", "no row that makes an event")),
            skips=tuple(self._skip(item, number) for number, item in enumerate(skips)),
            emissions=tuple(self._emission(item, number) for number, item in enumerate(events)),
            columns=tuple(self.used),
        )

    def _skip(self, item: Any, number: int) -> Skip:
        at = f"skip[{number}]"
        spec = self.mapping(item, at)
        self.check_names(spec, ("when", "reason"), at)
        return Skip(self._condition(spec.get("when", {}), f"{at}.when"), str(spec.get("reason", at)))

    def _emission(self, item: Any, number: int) -> Emission:
        at = f"events[{number}]"
        spec = self.mapping(item, at)
        self.check_names(spec, ("type", "when", "once", "id", "time", "data"), at)
        name = f"resolution.{spec.get('type')}.v1"
        if name not in FACTS:
            raise MappingError(f"{at}.type: {shown(spec.get('type'))} is not a fact such as purchase.completed")
        for required in ("id", "time", "data"):
            if required not in spec:
                raise MappingError(f"{at}.{required}: is required")
        fields = FACTS[name].__struct_fields__
        data = self.mapping(spec["data"], f"{at}.data")
        for field in data:
            if field not in fields:
                raise MappingError(f"{at}.data.{field}: {spec['type']} has no such field; it has {', '.join(fields)}")
        time = spec["time"] if isinstance(spec["time"], dict) else {"column": spec["time"]}
        return Emission(
            type=name,
            when=self._condition(spec.get("when", {}), f"{at}.when"),
            once=self.truth(spec.get("once", False), f"{at}.once"),
            id=self._id(spec["id"], f"{at}.id"),
            time=self._time(time),
            data={field: self._value(spec, f"{at}.data.{field}") for field, spec in data.items()},
        )

    def _id(self, spec: Any, at: str) -> Value:
        """Return a value that is never blank, including each ${column} of a text."""
        value = self._value(spec, at)
        in_text = [] if isinstance(spec, dict) else _COLUMN.findall(str(spec))
        named = next((spec[key] for key in _VALUES if key in spec), "id") if isinstance(spec, dict) else "id"

        def filled(context: RowContext) -> Any:
            blank = [column for column in in_text if not context.row[column].strip()]
            found = None if blank else value(context)
            if found is None or not str(found).strip():
                raise ValueProblem(f"{blank[0] if blank else named} is blank, and an id needs it", "id")
            return found

        return filled

    # ------------------------------------------------------------------ conditions

    def _condition(self, spec: Any, at: str) -> Condition:
        parts: list[Condition] = []
        for name, test in self.mapping(spec, at).items():
            path = f"{at}.{name}"
            if name == "first":
                parts.append(first if self.truth(test, path) else not_first)
            elif name == "changed":
                columns = [self.column(column) for column in (test if isinstance(test, list) else [test])]
                parts.append(changed(columns))
            elif name == "previous":
                inner = [(self.column(c), self._test(t, f"{path}.{c}")) for c, t in self.mapping(test, path).items()]
                parts.append(on_previous(inner))
            elif name in self.sums:
                parts.append(on_sum(name, self._test(test, path)))
            else:
                parts.append(on_column(self.column(name), self._test(test, path)))
        return lambda context: all(part(context) for part in parts)

    def _test(self, spec: Any, at: str) -> Test:
        if isinstance(spec, list):
            tests = [self.equality(item, at) for item in spec]
            return lambda value: any(test(value) for test in tests)
        if not isinstance(spec, dict):
            return self.equality(spec, at)
        self.check_names(spec, _TESTS, at)
        parts = [self._one_test(name, argument, f"{at}.{name}") for name, argument in spec.items()]
        return lambda value: all(test(value) for test in parts)

    def _one_test(self, name: str, argument: Any, at: str) -> Test:
        match name:
            case "matches":
                pattern = self.pattern(argument, at)
                return lambda value: pattern.fullmatch(value) is not None
            case "not":
                inner = self._test(argument, at)
                return lambda value: not inner(value)
            case "blank":
                expected = self.truth(argument, at)
                return lambda value: (not value.strip()) is expected
        number = self.decimal(argument, at)
        match name:
            case "above":
                return lambda value: Decimal(value) > number
            case "below":
                return lambda value: Decimal(value) < number
        return lambda value: Decimal(value) == number

    # ------------------------------------------------------------------ values

    def _value(self, spec: Any, at: str) -> Value:  # noqa: PLR0911 - one form of value after the other
        if not isinstance(spec, dict):
            return self._text(self.text(spec, at))
        self.check_names(spec, _VALUES, at)
        if "const" in spec:
            return constant(spec["const"])
        if "money" in spec:
            return self._money(spec, at)
        if "number" in spec or "integer" in spec:
            column = self.column(spec.get("number", spec.get("integer")))
            kind = float if "number" in spec else int
            return lambda context: number(context.row[column], kind, column)
        if "map" in spec:
            column, cases = self.column(spec["map"]), self.mapping(spec.get("cases", {}), f"{at}.cases")
            return lambda context: cases.get(context.row[column], spec.get("otherwise"))
        if "extract" in spec:
            column, pattern = self.column(spec["extract"]), self.pattern(spec.get("pattern"), at)
            return self._extract(column, pattern, spec)
        if "time" in spec:
            moment = self._time({**spec, "column": spec["time"]})
            return lambda context: time_text(moment(context))
        if "previous" in spec:
            column = self.column(spec["previous"])
            return lambda context: None if context.previous is None else context.previous[column].strip() or None
        if "column" in spec:
            column, suffix = self.column(spec["column"]), str(spec.get("strip_suffix", ""))
            return lambda context: context.row[column].strip().removesuffix(suffix) or None
        raise MappingError(f"{at}: say column, money, number, integer, extract, map, time or const")

    def _text(self, template: str) -> Value:
        """Return a text with ${columns} filled in; None if all of them are blank."""
        columns = [self.column(name) for name in _COLUMN.findall(template)]
        if not columns:
            return constant(template)
        if template == "${" + columns[0] + "}":
            return lambda context: context.row[columns[0]].strip() or None

        def fill(context: RowContext) -> str | None:
            if all(not context.row[column].strip() for column in columns):
                return None
            return _COLUMN.sub(lambda found: context.row[found[1]].strip(), template)

        return fill

    def _money(self, spec: Mapping[str, Any], at: str) -> Value:
        currency = spec.get("currency")
        if not isinstance(currency, str) or currency not in EXPONENTS:
            raise MappingError(f"{at}.currency: an ISO 4217 code such as GBP is needed, not {shown(currency)}")
        name, cents = str(spec["money"]), Decimal(1).scaleb(-EXPONENTS[currency])
        if name not in self.sums:
            self.column(name)

        def money(context: RowContext) -> dict[str, str] | None:
            raw = context.group.sums[name] if name in self.sums else decimal_of(context.row[name], name)
            if raw is None:
                return None
            amount = abs(raw).quantize(cents, rounding=ROUND_HALF_EVEN)
            return {"amount": f"{amount:f}", "currency": currency}

        return money

    @staticmethod
    def _extract(column: str, pattern: Pattern, spec: Mapping[str, Any]) -> Value:
        otherwise, whole = spec.get("otherwise"), pattern.groups > 0

        def extract(context: RowContext) -> Any:
            found = pattern.search(context.row[column])
            if found is None:
                return otherwise
            text = found[1] if whole else found[0]
            return number(text, int, column) if isinstance(otherwise, int) else text

        return extract

    def _time(self, spec: Mapping[str, Any]) -> Callable[[RowContext], datetime]:
        column, form = self.column(spec.get("column")), spec.get("format")
        if form is not None and not isinstance(form, str):
            raise MappingError(f"format: must be a text such as '%d/%m/%Y %H:%M', not {shown(form)}")
        zone = self.time_zone(spec["zone"]) if "zone" in spec else self.zone

        def moment(context: RowContext) -> datetime:
            text = context.row[column].strip()
            try:
                if form is None and zone is None:
                    return parse_time(text)
                naive = datetime.strptime(text, form) if form else datetime.fromisoformat(text)  # noqa: DTZ007 - its zone follows
                if naive.tzinfo is None:
                    if zone is None:
                        raise ValueProblem(f"{column} {text!r} has no zone: give the mapping a time_zone", column)
                    naive = naive.replace(tzinfo=zone)
                return naive.astimezone(UTC)
            except (ValueError, OverflowError) as error:
                raise ValueProblem(f"{column} {text[:40]!r} is not a time: {error}", column) from None

        return moment

    # ------------------------------------------------------------------ parts

    def _product(self, spec: Any, at: str) -> Callable[[Row], Decimal]:
        factors = [self.column(name) for name in (spec if isinstance(spec, list) else [spec])]
        if not factors:
            raise MappingError(f"{at}: name the columns whose product is summed")

        def product(row: Row) -> Decimal:
            result = decimal_of(row[factors[0]], factors[0]) or Decimal(0)
            for column in factors[1:]:
                result *= decimal_of(row[column], column) or Decimal(0)
            return result

        return product
