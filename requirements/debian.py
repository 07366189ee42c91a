"""What the base image brings, Debian packages and Python, as components of a bill of materials (CycloneDX) on stdout.

Run by the Dockerfile before anything is installed that only the build needs.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

FIELDS = ("db:Status-Abbrev", "Package", "Version", "Architecture", "source:Package", "source:Version")
DOCUMENTS = Path("/usr/share/doc")


def components() -> Iterator[dict[str, Any]]:
    """A component for each installed package, and for Python where it is none of them."""
    command = ["dpkg-query", "--show", "--showformat", "\t".join(f"${{{name}}}" for name in FIELDS) + "\n"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own words
    release = platform.freedesktop_os_release()
    distribution = f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', 'testing')}"
    for line in told.splitlines():
        status, name, version, architecture, source, source_version = line.split("\t")
        if status.startswith("ii"):
            place = f"pkg:deb/{release.get('ID', 'debian')}/{quote(name)}@{quote(version)}"
            purl = f"{place}?arch={architecture}&distro={distribution}"
            yield {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                "licenses": [{"license": {"name": licence}} for licence in licences(name)],
                "properties": [{"name": "sluice:debian:source", "value": f"{source} {source_version}"}],
            }
    if not Path(sys.executable).resolve().is_relative_to("/usr/bin"):
        version = platform.python_version()
        purl = f"pkg:generic/python@{version}"
        yield {
            "type": "application",
            "bom-ref": purl,
            "name": "python",
            "version": version,
            "purl": purl,
            "licenses": [{"license": {"name": "Python Software Foundation License"}}],
        }


def licences(package: str) -> list[str]:
    """The names of licences in the package's file of copyrights; the file itself where it has none in that form."""
    file = DOCUMENTS / package / "copyright"
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ["unknown"]
    found = sorted(set(re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE)))
    return found or [f"see {file}"]


if __name__ == "__main__":
    json.dump(list(components()), sys.stdout)
