"""Entries in files, as messages for the agent. What a file may say is in identity/entry_documents.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sojourn.errors import InvalidInput
from sojourn.identity import entry_documents
from sojourn.limits import ENTRIES_FILE_MAX_BYTES


def read(path: Path) -> list[Any]:
    """Read a file, or every file of a folder in the order of their names. Raise InvalidConfig with all faults."""
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if entry_documents.is_ours(each.name))
        if not files:
            raise InvalidInput(f"{str(path)!r} has no file of entries: their names end in .yaml, .yml or .json")
    found = entry_documents.collect((str(file), lambda file=file: _text(file)) for file in files)  # type: ignore[misc]
    return [_message(each.fields) for each in found]


def _text(file: Path) -> str:
    try:
        if not file.is_file() or file.stat().st_size > ENTRIES_FILE_MAX_BYTES:
            raise InvalidInput(f"not a regular file of at most {ENTRIES_FILE_MAX_BYTES} bytes")
        return file.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error.reason} at byte {error.start}") from error


def _message(fields: Mapping[str, Any]) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types

    message = types.Entry()
    for name, value in fields.items():
        match name:
            case "spiffe_id" | "parent_id":
                id_message = types.SPIFFEID(trust_domain=value.trust_domain.name, path=value.path)
                getattr(message, name).CopyFrom(id_message)
            case "jwt_claims":
                message.jwt_claims.update(value.declared)
            case "selectors":
                message.selectors.extend(types.Selector(type=each.type, value=each.value) for each in sorted(value))
            case "federates_with":
                message.federates_with.extend(domain.name for domain in value)
            case "dns_names":
                message.dns_names.extend(value)
            case "disable_x509_svid_prefetch" | "jwt_svid_include_jti":
                setattr(message.additional_attributes, name, value)
            case _:
                setattr(message, name, value)
    return message
