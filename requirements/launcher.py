"""Put Sluice into the environment of the Python that runs this: the `sluice` command, and the `sluice` package alone.

The application runs from its checkout. Its packages `services`, `flows`, `events` and `config` are not put on the
path of that environment, because a user's own project may have packages of those names.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# The kernel takes no interpreter with a space in its path, or with more than 127 characters: sh reads the second and
# third line, of which Python makes a text. Nothing is absolute, so that a checkout can be moved with its environment.
COMMAND = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" "$0" "$@"
' '''
import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.joinpath({checkout!r}).resolve()))

gc.disable()
from services.cli import main

sys.exit(main())
"""


def install() -> None:
    """Write the command beside the interpreter and link the client library into its site-packages."""
    command = Path(sys.executable).parent / "sluice"
    command.write_text(COMMAND.format(checkout=os.path.relpath(CHECKOUT, command.parent.resolve())), encoding="utf-8")
    command.chmod(0o755)
    library = Path(sysconfig.get_path("purelib")) / "sluice"
    if library.is_symlink():
        library.unlink()
    library.symlink_to(os.path.relpath(CHECKOUT / "sluice", library.parent.resolve()), target_is_directory=True)


if __name__ == "__main__":
    install()
