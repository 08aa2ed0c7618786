"""OCSF's own schema, to which events are held: required attributes, types, enumerations, and nothing that it lacks."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema_rs import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from sojourn.ocsf.schema import VERSION

Value = Mapping[str, Any]


@cache
def schema() -> Value:
    """The schema as OCSF exports it."""
    found: Value = get_ocsf_schema(VERSION)
    return found


def faults(event: Value) -> list[str]:
    """All that an event has otherwise than the schema of its version and its profiles. None: it is a good event."""
    known = {each["uid"]: each for each in schema()["classes"].values()}.get(event.get("class_uid"))
    if known is None:
        return ["there is no such class"]
    profiles = tuple(event.get("metadata", {}).get("profiles", ()))
    found = [str(each.message) for each in _validator(known["name"], profiles).iter_errors(event)]
    if found:
        return found
    return [*_unknown_profiles(known, profiles), *_deprecated(event, known), *_names(event, known)]


@cache
def _validator(name: str, profiles: tuple[str, ...]) -> Draft202012Validator:
    return Draft202012Validator(_embedded().get_class_schema(name, list(profiles)))


@cache
def _embedded() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(dict(schema()))


def _unknown_profiles(known: Value, profiles: tuple[str, ...]) -> Iterator[str]:
    yield from (f"the class has no profile {each}" for each in profiles if each not in known["profiles"])


def _deprecated(value: Value, known: Value) -> Iterator[str]:
    """The class and attributes that are not to be used any more, at any depth."""
    if "@deprecated" in known:
        yield f"{known['name']} is deprecated"
    for name, each in value.items():
        attribute = known["attributes"].get(name)
        if attribute is None or name == "unmapped":
            continue
        if "@deprecated" in attribute:
            yield f"{known['name']}.{name} is deprecated"
        if attribute["type"] == "object_t":
            of = schema()["objects"][attribute["object_type"]]
            for one in each if isinstance(each, list) else [each]:
                yield from _deprecated(one, of)


def _names(event: Value, known: Value) -> Iterator[str]:
    """Numbers that belong together, and names that stand beside numbers."""
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        yield "type_uid is of another activity"
    if event["class_name"] != known["caption"]:
        yield "class_name is another's"
    activities = known["attributes"]["activity_id"]["enum"]
    if event["activity_id"] != 99 and event["activity_name"] != activities[str(event["activity_id"])]["caption"]:
        yield "activity_name is another's"
    if event["status_id"] == 99 and not event.get("status"):
        yield "a status of our own has no name"
    if event.get("auth_protocol_id", 99) != 99:
        protocols = known["attributes"]["auth_protocol_id"]["enum"]
        if event["auth_protocol"] != protocols[str(event["auth_protocol_id"])]["caption"]:
            yield "auth_protocol is another's"
