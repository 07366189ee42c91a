"""Put Sluice into the environment of the Python that runs this: the `sluice` command, and the `sluice` package alone.

The application runs from its checkout. Its packages `services`, `flows`, `events` and `config` are not put on the
path of that environment, because a user's own project may have packages of those names.
"""

from __future__ import annotations

import shlex
import sys
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# The kernel takes no interpreter with a space in its path, or with more than 127 characters: sh reads the second and
# third line, of which Python makes a text.
COMMAND = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys

sys.path.insert(0, {checkout!r})

from services.cli import main

sys.exit(main())
"""


def install() -> None:
    """Write the command beside the interpreter and link the client library into its site-packages."""
    command = Path(sys.executable).parent / "sluice"
    command.write_text(COMMAND.format(python=shlex.quote(sys.executable), checkout=str(CHECKOUT)), encoding="utf-8")
    command.chmod(0o755)
    library = Path(sysconfig.get_path("purelib")) / "sluice"
    if library.is_symlink():
        library.unlink()
    library.symlink_to(CHECKOUT / "sluice", target_is_directory=True)


if __name__ == "__main__":
    install()
