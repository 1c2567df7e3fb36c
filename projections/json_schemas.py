"""JSON Schemas (2020-12) of the documents that the product stores, receives and sends, made from their classes.

A class may be a ``msgspec.Struct``, a ``TypedDict`` or a ``NamedTuple``. The description of a field is the text below
it in its class, else its meaning in ``projections/field_meanings.py``, which also has an example for each name.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    TypeAliasType,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from domain.command_fields import LEDGERS_OWN
from domain.documents.rows import SignedMoney
from domain.ids import ID_SCHEMA
from domain.money import AMOUNT_PATTERN, Money
from domain.serialization import Json, encode
from projections.field_meanings import example_in, meaning_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.serialization import JsonObject

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MONEY_EXAMPLE = {"amount": "5.00", "currency": "GBP"}
_TIME_EXAMPLE = "2026-11-21T10:00:00Z"
_MONEY: JsonObject = {
    "type": "object",
    "description": "An amount as text, and its currency (ISO 4217), with at most the currency's digits.",
    "required": ["amount", "currency"],
    "properties": {
        "amount": {
            "type": "string",
            "pattern": f"^{AMOUNT_PATTERN.pattern}$",
            "description": "The amount as text, never a JSON number.",
            "examples": ["5.00"],
        },
        "currency": {
            "type": "string",
            "pattern": "^[A-Z]{3}$",
            "description": "The currency, by ISO 4217.",
            "examples": ["GBP"],
        },
    },
    "examples": [MONEY_EXAMPLE],
}
_ID: JsonObject = {"type": "string", **ID_SCHEMA, "examples": ["A-7"]}
_PRIMITIVES: dict[object, JsonObject] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    Any: {},
    object: {},
    msgspec.Raw: {},
}
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "pattern": "pattern",
    "min_length": "minLength",
    "max_length": "maxLength",
    "description": "description",
}
_OURS = ("domain", "ledger", "projections", "consumers", "dashboard")
_MONEY_TEXTS = dict[str, str]
"""The type by which reports show an amount."""


class Field(NamedTuple):
    """A field of a document."""

    name: str
    hint: object
    required: bool
    default: Json = msgspec.UNSET


class SchemaBook:
    """The schemas of classes, each by one name; ``template`` is the form of references between them.

    ``requests`` refuse unknown fields. ``optional`` are fields of requests that are not required here.
    ``open_classes`` hold fields that no class describes. A text with known values may have others in a later version,
    except in requests and ``facts``, where the ledger rejects others.
    """

    def __init__(
        self,
        template: str = "#/components/schemas/{}",
        requests: Collection[type] = (),
        optional: Collection[str] = (),
        names: Mapping[type, str] | None = None,
        open_classes: Collection[type] = (),
        facts: Collection[type] = (),
    ) -> None:
        self.schemas: dict[str, JsonObject] = {}
        self._template = template
        self._requests = frozenset(requests)
        self._optional = frozenset(optional)
        self._open = frozenset(open_classes)
        self._facts = frozenset(facts)
        self._names = dict(names or {})
        self._owners: dict[str, object] = {}

    def ref(self, name: str) -> JsonObject:
        """Return a reference to a schema."""
        return {"$ref": self._template.format(name)}

    def add(self, name: str, schema: JsonObject, owner: object = None) -> JsonObject:
        """Add a schema under a name; return a reference to it.

        Raises:
            ValueError: another class has this name.

        """
        if self._owners.setdefault(name, owner or name) != (owner or name):
            raise ValueError(f"{name} names two schemas: {self._owners[name]} and {owner}")
        self.schemas[name] = schema
        return self.ref(name)

    def of(self, hint: object, *, closed: bool = False) -> JsonObject:
        """Return the schema of a type; classes are added, and referred to by name."""
        if isinstance(hint, TypeAliasType):
            return self.of(hint.__value__, closed=closed)
        if get_origin(hint) is Annotated:
            return self._annotated(hint, closed=closed)
        if hint in (Money, SignedMoney, _MONEY_TEXTS):
            return self._money("Money" if hint is Money else "SignedMoney", closed=closed)
        if hint in _PRIMITIVES:
            return dict(_PRIMITIVES[hint])
        if is_document(get_origin(hint) or hint):
            return self._document(hint)
        return self._composite(hint, closed=closed)

    def _annotated(self, hint: object, *, closed: bool) -> JsonObject:
        inner, *metas = get_args(hint)
        schema = self.of(inner, closed=closed)
        for meta in metas:
            if isinstance(meta, msgspec.Meta):
                schema |= {name: value for own, name in _BOUNDS.items() if (value := getattr(meta, own)) is not None}
                schema |= meta.extra_json_schema or {}
        return self.add("Id", _ID) if schema == {"type": "string", **ID_SCHEMA} else schema

    def _money(self, name: str, *, closed: bool) -> JsonObject:
        if name == "SignedMoney":
            return self._document(SignedMoney)
        if closed:
            return self.add("RequestMoney", _MONEY | {"additionalProperties": False})
        return self.add("Money", _MONEY)

    def _composite(self, hint: object, *, closed: bool) -> JsonObject:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Literal:
            kinds = {type(one) for one in arguments}
            schema = {"type": "string"} if kinds == {str} else {"type": "integer"}
            return schema | ({"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)})
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(one, closed=closed) for one in arguments]}
        if origin is tuple and arguments[-1] is not Ellipsis:
            parts = [self.of(one, closed=closed) for one in arguments]
            same = {encode(one) for one in parts}
            items = parts[0] if len(same) == 1 else {"anyOf": list({encode(one): one for one in parts}.values())}
            return {"type": "array", "items": items, "minItems": len(parts), "maxItems": len(parts)}
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1], closed=closed)}
        if isinstance(origin, type) and issubclass(origin, Sequence | Collection):
            return {"type": "array", "items": self.of(arguments[0], closed=closed)}
        raise TypeError(f"no schema for {hint!r}")

    def _document(self, hint: object) -> JsonObject:
        """Add the schema of a class, once; return a reference to it."""
        cls = get_origin(hint) or hint
        assert isinstance(cls, type)
        name = self._names.get(cls) or name_of(hint)
        if name in self._owners:
            return self.add(name, self.schemas[name], hint)
        self.add(name, {}, hint)  # a class may contain itself
        closed = cls in self._requests
        fields = [one for one in fields_of(hint) if not (closed and one.name in LEDGERS_OWN)]
        properties = {one.name: self._property(cls, one, closed=closed) for one in fields}
        required = [one.name for one in fields if one.required and not (closed and one.name in self._optional)]
        schema: JsonObject = {"type": "object", "description": description_of(cls), "properties": properties}
        if required:
            schema["required"] = required
        if closed or not properties or cls in self._open:
            schema["additionalProperties"] = not closed
        schema["examples"] = [_document_example(hint)]
        self.schemas[name] = schema
        return self.ref(name)

    def _property(self, cls: type, field: Field, *, closed: bool) -> JsonObject:
        schema = self.of(field.hint, closed=closed)
        if not closed and cls not in self._facts:
            schema = _with_open_values(schema)
        text = field_text(cls, field.name)
        example = example_of(field.hint, cls, field.name)
        described: JsonObject = {"description": text}
        if field.default is not msgspec.UNSET and field.default not in (None, "", 0, ()):
            described["default"] = field.default
        return schema | described | {"examples": [example]}


def _with_open_values(schema: JsonObject) -> JsonObject:
    """Return a schema that allows other texts beside known ones: `{"anyOf": [{"enum": [...]}, {"type": "string"}]}`.

    So a generated client takes a value that a later version adds, instead of failing.
    """
    if "enum" in schema and schema["type"] == "string":
        return {"anyOf": [schema, {"type": "string"}]}
    if "anyOf" in schema:
        parts = [one for part in _alternatives(schema) for one in _alternatives(_with_open_values(part))]
        return schema | {"anyOf": [one for number, one in enumerate(parts) if one not in parts[:number]]}
    inner = {name: one for name in ("items", "additionalProperties") if isinstance(one := schema.get(name), dict)}
    return schema | {name: _with_open_values(one) for name, one in inner.items()}


def _alternatives(schema: JsonObject) -> list[JsonObject]:
    found = schema.get("anyOf")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else [schema]


def name_of(hint: object) -> str:
    """Return the name of a class's schema; those of generic classes are such as ``ActionPage`` and ``PointMoney``."""
    name = str(getattr(get_origin(hint) or hint, "__name__", "")).lstrip("_")
    for argument in get_args(hint):
        one = argument.__value__ if isinstance(argument, TypeAliasType) else argument
        if is_document(one) and one is not SignedMoney:
            name = name_of(one).removesuffix("Row") + "Page"
        else:
            name += "Money" if one in (_MONEY_TEXTS, SignedMoney) else "Number"
    return name


def is_document(cls: object) -> bool:
    """Return whether a type is a class of documents."""
    if not isinstance(cls, type):
        return False
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return is_typeddict(cls) or issubclass(cls, msgspec.Struct) or is_named_tuple


def fields_of(hint: object) -> Iterator[Field]:
    """Yield the fields of a class, those of a generic class with its arguments."""
    cls = get_origin(hint) or hint
    assert isinstance(cls, type)
    filled = dict(zip(getattr(cls, "__type_params__", ()), get_args(hint), strict=False))
    hints = {name: _filled(one, filled) for name, one in hints_of(cls).items()}
    if issubclass(cls, msgspec.Struct):
        for field in msgspec.structs.fields(cls):
            default = field.default if isinstance(field.default, str | int | float | bool) else msgspec.UNSET
            yield Field(field.encode_name, hints[field.name], field.required, default)
        return
    required = getattr(cls, "__required_keys__", hints.keys())
    for name, one in hints.items():
        is_optional = get_origin(one) is NotRequired
        plain = get_args(one)[0] if get_origin(one) in (NotRequired, Required) else one
        yield Field(name, plain, name in required and not is_optional)


def _filled(hint: object, filled: Mapping[object, object]) -> object:
    """Return a type with the arguments of its generic class."""
    if isinstance(hint, TypeVar):
        return filled[hint]
    arguments = get_args(hint)
    if not filled or not arguments or get_origin(hint) in (Literal, Annotated):
        return hint
    parts = tuple(_filled(one, filled) for one in arguments)
    origin: Any = get_origin(hint)
    if origin in (Union, types.UnionType):
        return Union[parts]  # noqa: UP007 - the parts are known at run time alone
    return origin[parts[0]] if origin is NotRequired else origin[parts]


@lru_cache(maxsize=512)
def hints_of(cls: type) -> dict[str, object]:
    """Return the types of a class's fields."""
    names: dict[str, object] = {}
    for owner in (cls, *getattr(cls, "__orig_bases__", ()), *cls.__mro__):
        names |= _typing_names(getattr(get_origin(owner) or owner, "__module__", ""))
    hints = get_type_hints(cls, localns=names, include_extras=True)
    return {name: one for name, one in hints.items() if get_origin(one) is not ClassVar}


@lru_cache(maxsize=128)
def _typing_names(module: str) -> dict[str, object]:
    """Return the names that a module of ours imports for type checkers alone."""
    found = sys.modules.get(module)
    if found is None or module.partition(".")[0] not in _OURS:
        return {}
    blocks = [node for node in ast.parse(inspect.getsource(found)).body if isinstance(node, ast.If)]
    imports = [one for block in blocks for one in block.body if isinstance(one, ast.ImportFrom) and one.module]
    return {
        alias.name: getattr(import_module(str(one.module)), alias.name, None) for one in imports for alias in one.names
    }


def description_of(cls: type) -> str:
    """Return the first paragraph of a class's docstring."""
    text = (cls.__doc__ or "").partition("\n\n")[0] or meaning_of("", cls.__name__)
    return " ".join(text.replace("``", "`").split())


def field_text(cls: type, name: str) -> str:
    """Return the description of a field: the text below it in its class, else its meaning."""
    for owner in getattr(cls, "__orig_bases__", ()) if is_typeddict(cls) else ():
        if is_document(base := get_origin(owner) or owner) and name in hints_of(base):
            return field_text(base, name) if name not in _texts(cls) else _texts(cls)[name]
    for owner in cls.__mro__:
        if is_document(owner) and name in _texts(owner):
            return _texts(owner)[name]
    return meaning_of(cls.__name__, name)


@lru_cache(maxsize=512)
def _texts(cls: type) -> dict[str, str]:
    """Return the texts that stand below the fields of a class."""
    if sys.modules[cls.__module__].__name__ == "builtins":
        return {}
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # a class that was made at run time
        return {}
    (tree,) = ast.parse(source).body
    found: dict[str, str] = {}
    field = ""
    for node in getattr(tree, "body", ()):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            field = node.target.id
        elif field and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[field] = " ".join(str(node.value.value).replace("``", "`").split())
        else:
            field = ""
    return found


def example_of(hint: object, cls: type | None = None, name: str = "") -> Json:
    """Return an example of a type; ``cls`` and ``name`` are the field that has it."""
    if cls is not None and not _says_enough(hint):
        example = example_in(cls.__name__, name)
        if _fits(hint, example):
            return example
    return _example(hint)


def _says_enough(hint: object) -> bool:
    """Return whether a type has few values, so that one of them is an example."""
    parts = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) in (Union, types.UnionType):
        return all(_says_enough(one) for one in parts)
    inner = hint.__value__ if isinstance(hint, TypeAliasType) else hint
    is_money = inner in (Money, SignedMoney, _MONEY_TEXTS)
    return get_origin(inner) is Literal or is_money or is_document(get_origin(inner) or inner)


def _fits(hint: object, example: Json) -> bool:
    """Return whether an example has the JSON type of a field."""
    inner = hint.__value__ if isinstance(hint, TypeAliasType) else hint
    origin, arguments = get_origin(inner), get_args(inner)
    if example is msgspec.UNSET or is_document(origin or inner):
        return False
    if origin is Annotated:
        return _fits(arguments[0], example)
    if origin in (Union, types.UnionType):
        return any(_fits(one, example) for one in arguments)
    if isinstance(origin, type):
        if issubclass(origin, Mapping):
            return isinstance(example, dict) and all(_fits(arguments[1], one) for one in example.values())
        return isinstance(example, list) and all(_fits(arguments[0], one) for one in example)
    of_json: dict[object, type] = {bool: bool, int: int, float: float, str: str, datetime: str}
    return type(example) is of_json[inner] if inner in of_json else inner in (Any, object, msgspec.Raw)


def _example(hint: object) -> Json:
    """Return an example that the type alone suggests."""
    inner = hint.__value__ if isinstance(hint, TypeAliasType) else hint
    origin, arguments = get_origin(inner), get_args(inner)
    if inner in (Money, SignedMoney, _MONEY_TEXTS):
        return MONEY_EXAMPLE
    if is_document(origin or inner):
        return _document_example(inner)
    if origin is Literal:
        return arguments[0]
    if origin in (Annotated, Union, types.UnionType):
        return _example(arguments[0])
    if isinstance(origin, type):
        items = [_example(one) for one in arguments if one is not Ellipsis]
        return {"refund": items[1]} if issubclass(origin, Mapping) else items
    samples: dict[object, Json] = {bool: True, int: 1, float: 0.5, str: "text", datetime: _TIME_EXAMPLE}
    return samples.get(inner, {})


def _document_example(hint: object) -> JsonObject:
    """Return a document with all fields but those of errors and of further documents of the same class."""
    cls = get_origin(hint) or hint
    assert isinstance(cls, type)
    shown = [one for one in fields_of(hint) if one.required or one.name not in ("error", "items", *LEDGERS_OWN)]
    return {one.name: example_of(one.hint, cls, one.name) for one in shown}
