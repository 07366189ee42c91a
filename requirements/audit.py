"""What the service installs: licences, a bill of materials, and known vulnerabilities where they can be looked up.

Run by `make audit` in an environment of its own, and with ``--offline``, which leaves the vulnerabilities out, by the
Dockerfile. Exit code 1 if a package has no allowed licence, or a version is known
to be vulnerable. Where the vulnerability data cannot be reached this is said, and is not taken for an answer.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON = CHECKOUT / ".venv" / "bin" / "python"
TOOLS = Path(sys.executable).parent
BUILD = CHECKOUT / "build"

ALLOWED = re.compile(
    r"Apache|Artistic|\bMIT\b|\bBSD\b|BSD-\d|\bISC\b|\bPSF\b|Python Software Foundation|MPL|Mozilla|LGPL|Unlicense|Zlib"
)
"""A package is allowed if one of its licences is: those under which it may be installed beside an MIT program."""


def licences() -> list[str]:
    """Packages whose licence is not an allowed one; all of them are written to ``build/licences.json``."""
    command = [TOOLS / "pip-licenses", "--python", PYTHON, "--from=mixed", "--format=json", "--with-urls"]
    found = json.loads(_output(command))
    (BUILD / "licences.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"licences: {len(found)} packages, listed in build/licences.json")
    return [f"{one['Name']} {one['Version']}: {one['License']}" for one in found if not ALLOWED.search(one["License"])]


def bill_of_materials() -> None:
    """Write ``build/sbom.json`` (CycloneDX), with what ``build/base.json`` has of the base image, if it is there."""
    file = BUILD / "sbom.json"
    _output([TOOLS / "cyclonedx-py", "environment", PYTHON, "--output-file", file])
    base = BUILD / "base.json"
    if base.exists():
        bill = json.loads(file.read_text(encoding="utf-8"))
        bill["components"] += json.loads(base.read_text(encoding="utf-8"))
        file.write_text(json.dumps(bill, indent=1), encoding="utf-8")
    components = json.loads(file.read_text(encoding="utf-8"))["components"]
    of_base = sum(not one.get("purl", "").startswith("pkg:pypi/") for one in components)
    print(f"bill of materials: {len(components)} components, {of_base} not from PyPI, in build/sbom.json (CycloneDX)")


def vulnerabilities() -> list[str]:
    """What is known of the locked versions."""
    locked = CHECKOUT / "requirements" / "service.txt"
    command = [TOOLS / "pip-audit", "-r", locked, "--disable-pip", "--require-hashes", "--format=json", "--timeout=10"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own tools
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except ValueError:
        print(f"vulnerabilities: NOT CHECKED, pip-audit failed: {ended.stderr.strip()[-300:]}")
        return []
    audited = [one for one in packages if "vulns" in one]
    print(f"vulnerabilities: {len(audited)} of {len(packages)} packages checked")
    if len(audited) < len(packages):
        print("vulnerabilities: the others were NOT CHECKED: no vulnerability data could be reached for them")
    return [f"{one['name']} {one['version']}: {flaw['id']}" for one in audited for flaw in one["vulns"]]


def _output(command: list[Any]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own tools


def main() -> int:
    """Print what was found; 1 if something has to be done."""
    BUILD.mkdir(exist_ok=True)
    faults = licences()
    bill_of_materials()
    if "--offline" not in sys.argv:
        faults += vulnerabilities()
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
