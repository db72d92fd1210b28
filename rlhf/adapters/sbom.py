"""What a model was made with: every Python package of the environment, as a CycloneDX 1.6 document."""

import json
import re
from functools import cache
from importlib import metadata
from typing import NamedTuple


class Package(NamedTuple):
    """One installed distribution."""

    name: str
    version: str
    expression: str | None
    """Its licence as an SPDX expression (PEP 639), where it has one."""
    licences: tuple[str, ...]
    """Else what it says of its licence: classifiers, or free text."""

    @property
    def purl(self) -> str:
        """Return the package URL (ECMA-427): lower case, dashes."""
        return f"pkg:pypi/{re.sub(r'[-_.]+', '-', self.name).lower()}@{self.version}"


@cache
def packages() -> tuple[Package, ...]:
    """Return what is installed, sorted; headers are read as text, which costs a tenth of a second, not a second."""
    found: dict[str, Package] = {}
    for installed in metadata.distributions():
        text = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
        head = text.partition("\n\n")[0]
        name, version = _field("Name", head), _field("Version", head)
        if name and version:
            package = Package(
                name[0], version[0], next(iter(_field("License-Expression", head)), None), _said(head)
            )
            found.setdefault(
                package.purl.partition("@")[0], package
            )  # the first on the path is what is imported
    return tuple(found[purl] for purl in sorted(found))


def sbom(subject: str, digest: str | None = None) -> bytes:
    """Return the document of a program or, with its digest (`sha256:...`), of a model made with these packages.

    Equal environments give equal bytes.
    """
    component: dict[str, object] = {
        "type": "machine-learning-model" if digest else "application",
        "name": subject,
    }
    if digest:
        component["hashes"] = [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component},
        "components": [_component(package) for package in packages()],
    }
    return json.dumps(document, indent=1).encode()


def _component(package: Package) -> dict[str, object]:
    licences: list[dict[str, object]] = [{"license": {"name": name}} for name in package.licences]
    if package.expression:
        licences = [{"expression": package.expression}]
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        **({"licenses": licences} if licences else {}),
    }


def _said(head: str) -> tuple[str, ...]:
    named = [text for text in _field("Classifier", head) if text.startswith("License :: ")]
    classified = tuple(text.removeprefix("License :: ").removeprefix("OSI Approved :: ") for text in named)
    # A whole licence text in the field is of no use as a name.
    return classified or tuple(text for text in _field("License", head) if len(text) < 80)


def _field(name: str, head: str) -> list[str]:
    return re.findall(rf"^{name}: (.+)$", head, re.MULTILINE)
