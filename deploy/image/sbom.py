"""What is in the image, as a CycloneDX 1.6 document: Debian's packages and Python's, each with version and purl."""

import json
import uuid
from collections.abc import Iterable
from typing import Any

from debian_files import SUITE, Package
from python_files import Distribution


def document(version: str, debian: Iterable[Package], python: Iterable[Distribution]) -> str:
    """JSON. Two images of the same parts have the same."""
    components = [_of_debian(each) for each in debian] + [_of_python(each) for each in python if each.name != "sojourn"]
    about = {"type": "application", "bom-ref": "sojourn", "name": "sojourn", "version": version}
    about["purl"] = f"pkg:pypi/sojourn@{version}"
    bom: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**about, "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": components,
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))
    return json.dumps({"serialNumber": f"urn:uuid:{number}", **bom}, indent=1, sort_keys=True) + "\n"


def _of_debian(package: Package) -> dict[str, Any]:
    version = package.version.replace(":", "%3A").replace("+", "%2B")
    purl = f"pkg:deb/debian/{package.name.replace('+', '%2B')}@{version}?arch={package.architecture}&distro={SUITE}"
    hashes = [{"alg": "SHA-256", "content": package.sha256}]
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": hashes,
    }


def _of_python(found: Distribution) -> dict[str, Any]:
    purl = f"pkg:pypi/{found.name.lower().replace('_', '-')}@{found.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": found.name,
        "version": found.version,
        "purl": purl,
        "licenses": [{"license": {"name": found.license}}],
    }
