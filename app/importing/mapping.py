"""Mappings: an envelope in YAML around one SELECT for each event type (docs/integrate/importing.md)."""

from __future__ import annotations

import codecs
import re
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.document_file import DocumentFileError, read_document
from domain.events.facts import FACTS
from domain.money import shown

if TYPE_CHECKING:
    from collections.abc import Mapping as Document
    from collections.abc import Sequence

    from app.document_file import DocumentFile
    from domain.serialization import Json, JsonObject

type Disambiguation = Literal["earlier", "later", "reject"]
"""The choice for local times that a clock change skips or repeats, as ``disambiguation`` of ECMAScript's Temporal."""
FORMATS = ("csv", "jsonl", "parquet", "xlsx")
_KEYS = ("source", "time_zone", "ambiguous", "id_prefix", "files", "views", "events")
_FILE_KEYS = ("format", "encoding", "delimiter", "decimal", "thousands", "blank", "sheet", "optional", "required")
_EVENT_KEYS = ("type", "select")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}", re.ASCII)
_SIGNS = (".", ",", "'", " ", "\u00a0", "\u202f", "")
_NAME_CHARACTERS = 40


class MappingError(ValueError):
    """An invalid mapping; the message names the part and the remedy."""


class TableOptions(NamedTuple):
    """A table of a mapping: its name, and the form of the file that it is read from."""

    name: str
    format: str | None = None
    """One of ``FORMATS``; None: by the file's name."""
    encoding: str | None = None
    """None: by the byte order mark, else UTF-8, else Windows-1252 with a warning."""
    delimiter: str = ","
    decimal: str = "."
    thousands: str = ""
    blank: tuple[str, ...] = ("",)
    """Cells, without white space at their ends, that become NULL."""
    sheet: str | None = None
    optional: tuple[str, ...] = ()
    """Columns that are NULL where the file has no such column."""
    required: tuple[str, ...] = ()
    """Columns that the file must have; `import --guess` knows an export by them."""


class EventSelect(NamedTuple):
    """A SELECT, and the type of the events that its rows are."""

    type: str
    select: str
    at: str


class NamedSelect(NamedTuple):
    """A SELECT that later SELECTs of the mapping read by name."""

    name: str
    select: str
    at: str


class ImportMapping(NamedTuple):
    """A parsed mapping."""

    text: bytes
    source: str
    zone: ZoneInfo | None
    ambiguous: Disambiguation
    id_prefix: str
    tables: tuple[TableOptions, ...]
    """Empty: a table for each file, named after it."""
    events: tuple[EventSelect, ...]
    views: tuple[NamedSelect, ...] = ()

    @property
    def hashes(self) -> bool:
        """True if a SELECT hashes texts with the ledger's key."""
        selects = (*(view.select for view in self.views), *(event.select for event in self.events))
        return any("_hash" in select.lower() for select in selects)


def short_name(type_name: str) -> str:
    """Return a type of events as a mapping names it, such as ``purchase.returned``."""
    return type_name.removeprefix("resolution.").removesuffix(".v1")


def load_mapping(name: str) -> ImportMapping:
    """Return a mapping from a YAML file, or a shipped mapping by its name.

    Raises:
        MappingError: no such file, not YAML, or not a mapping.

    """
    path = Path(name)
    if not path.exists():
        path = shipped_mappings().get(name.removesuffix(".yaml"), path)
        if not path.exists():
            names = ", ".join(sorted(shipped_mappings()))
            raise MappingError(f"no mapping {name}: give a YAML file, or the name of a shipped mapping ({names})")
    text = path.read_bytes()
    try:
        file = read_document(text)
    except DocumentFileError as error:
        raise MappingError(f"{path}: {error}") from None
    try:
        return build_mapping(file.document, text)
    except MappingError as error:
        line, column = _place_of(file, str(error))
        raise MappingError(f"{path}: line {line}, column {column}: {error}") from None


def shipped_mappings() -> dict[str, Path]:
    """Return the files of the mappings that come with the program, by name."""
    folder = Path(str(resources.files("config") / "mappings"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _place_of(file: DocumentFile, message: str) -> tuple[int, int]:
    """Return the place of the part at the start of a message, e.g. ``events[0].select: ...``."""
    found: tuple[int, int, int] = (0, 1, 1)
    for path, place in file.places.items():
        part = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")
        if message.startswith((f"{part}:", f"{part}.", f"{part}[")):
            found = max(found, (len(part), *place))
    return found[1:]


def build_mapping(document: Json, text: bytes = b"") -> ImportMapping:
    """Return a mapping from its YAML document.

    Raises:
        MappingError: with the invalid part and its remedy.

    """
    if not isinstance(document, dict):
        raise MappingError("a mapping is a YAML mapping that begins with `source:`")
    _check_names(document, _KEYS, "")
    source, ambiguous = document.get("source"), document.get("ambiguous", "reject")
    if not isinstance(source, str) or not source.strip():
        raise MappingError("source: name the source of these events, e.g. `source: online-retail`")
    if ambiguous not in ("earlier", "later", "reject"):
        raise MappingError(f"ambiguous: must be earlier, later or reject, not {shown(ambiguous)}")
    events = document.get("events")
    if not isinstance(events, list) or not events:
        raise MappingError("events: list at least one event, each with `type` and `select`")
    return ImportMapping(
        text=text,
        source=source,
        zone=_time_zone(document.get("time_zone")),
        ambiguous=ambiguous,
        id_prefix=_text(document.get("id_prefix", ""), "id_prefix"),
        tables=_tables(document.get("files")),
        events=tuple(_event(item, f"events[{number}]") for number, item in enumerate(events)),
        views=_views(document.get("views"), [name.lower() for name in _mapping(document.get("files") or {}, "files")]),
    )


def _views(spec: Json, tables: Sequence[str]) -> tuple[NamedSelect, ...]:
    found: list[NamedSelect] = []
    for name, select in _mapping({} if spec is None else spec, "views").items():
        if not _NAME.fullmatch(name) or name.lower() in tables:
            raise MappingError(f"views.{name}: letters, digits and _, and a name that no file and no other view has")
        found.append(NamedSelect(name, _text(select, f"views.{name}"), f"views.{name}"))
    return tuple(found)


def _event(item: Json, at: str) -> EventSelect:
    spec = _mapping(item, at)
    _check_names(spec, _EVENT_KEYS, at)
    for required in _EVENT_KEYS:
        if required not in spec:
            raise MappingError(f"{at}.{required}: is required")
    name = f"resolution.{spec['type']}.v1"
    if name not in FACTS or spec["type"] == "fact.corrected":
        known = [short_name(one) for one in FACTS]
        near = get_close_matches(str(spec["type"]), known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise MappingError(f"{at}.type: {shown(spec['type'])} is not a fact such as purchase.completed{hint}")
    return EventSelect(name, _text(spec["select"], f"{at}.select"), f"{at}.select")


def _tables(spec: Json) -> tuple[TableOptions, ...]:
    if spec is None:
        return ()
    tables = tuple(_table(name, options) for name, options in _mapping(spec, "files").items())
    names = [table.name.lower() for table in tables]
    if len(set(names)) < len(names):
        raise MappingError("files: two tables have the same name; case does not count in SQL")
    return tables


def _table(name: str, options: Json) -> TableOptions:
    at = f"files.{name}"
    if not _NAME.fullmatch(name):
        raise MappingError(f"{at}: a table's name has letters, digits and _ and begins with a letter")
    spec = _mapping({} if options is None else options, at)
    _check_names(spec, _FILE_KEYS, at)
    form, sheet = spec.get("format"), spec.get("sheet")
    if form is not None and form not in FORMATS:
        raise MappingError(f"{at}.format: must be {', '.join(FORMATS)}, not {shown(form)}")
    decimal, thousands = (_sign(spec.get(key, default), f"{at}.{key}") for key, default in _SIGN_DEFAULTS)
    if not decimal or decimal == thousands:
        raise MappingError(f"{at}.decimal: must be one sign, and another one than `thousands`")
    return TableOptions(
        name=name,
        format=str(form) if form is not None else None,
        encoding=None if spec.get("encoding") is None else _encoding(spec["encoding"], f"{at}.encoding"),
        delimiter=_delimiter(spec.get("delimiter", ","), f"{at}.delimiter"),
        decimal=decimal,
        thousands=thousands,
        blank=("", *_texts(spec.get("blank", []), f"{at}.blank")),
        sheet=None if sheet is None else _text(sheet, f"{at}.sheet"),
        optional=_texts(spec.get("optional", []), f"{at}.optional"),
        required=_texts(spec.get("required", []), f"{at}.required"),
    )


_SIGN_DEFAULTS = (("decimal", "."), ("thousands", ""))


def _check_names(spec: Document[str, Json], names: Sequence[str], at: str) -> None:
    """Reject unknown names; ``at`` is empty for the document itself."""
    for name in spec:
        if name not in names:
            part = name if name.isprintable() and len(name) <= _NAME_CHARACTERS else shown(name)
            raise MappingError(f"{f'{at}.' if at else ''}{part}: unknown name; known are {', '.join(names)}")


def _mapping(spec: Json, at: str) -> JsonObject:
    if not isinstance(spec, dict):
        raise MappingError(f"{at}: must be a mapping, not {shown(spec)}")
    return spec


def _text(spec: Json, at: str) -> str:
    if isinstance(spec, bool) or not isinstance(spec, (str, int)):
        raise MappingError(f"{at}: must be a text, in quotes where it looks like something else, not {shown(spec)}")
    return str(spec)


def _texts(spec: Json, at: str) -> tuple[str, ...]:
    return tuple(_text(one, at).strip() for one in (spec if isinstance(spec, list) else [spec]))


def _sign(spec: Json, at: str) -> str:
    if not isinstance(spec, str) or spec not in _SIGNS:
        raise MappingError(f"{at}: must be one of . , ' or a space, in quotes, not {shown(spec)}")
    return spec


def _encoding(name: Json, at: str) -> str:
    try:
        "a".encode(str(name))  # some codecs are no text encodings
        return codecs.lookup(str(name)).name
    except (LookupError, TypeError, ValueError):
        message = f"{at}: must be a text encoding such as utf-8, utf-16 or cp1252, not {shown(name)}"
        raise MappingError(message) from None


def _delimiter(spec: Json, at: str) -> str:
    if spec == "\\t":
        return "\t"
    if not isinstance(spec, str) or len(spec) != 1 or spec in '\r\n"':
        raise MappingError(f'{at}: must be one character such as ";" in quotes, not {shown(spec)}')
    return spec


def _time_zone(name: Json) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise MappingError(f"time_zone: must be an IANA zone such as Europe/London, not {shown(name)}") from None
