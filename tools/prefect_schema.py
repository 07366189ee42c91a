"""Write down the schema to which the migrations of the installed Prefect lead on SQLite.

`services.local.prefect_schema` makes new databases of it. Run this with each version that is to start quickly.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from services.local.prefect_schema import SCHEMAS, migrations_digest  # noqa: E402 - needs the path


def migrated_schema() -> str:
    """What Prefect's migrations make of an empty database, as the statements that make it again."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "prefect.db"
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": folder,
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
            "DO_NOT_TRACK": "1",
        }
        code = (
            "import asyncio\n"
            "from prefect.server.database import provide_database_interface\n"
            "asyncio.run(provide_database_interface().create_db())"
        )
        subprocess.run(  # noqa: S603 - the code is ours
            [sys.executable, "-c", code], env=env, cwd=folder, check=True, timeout=300
        )
        with closing(sqlite3.connect(database)) as connection:
            return "\n".join(connection.iterdump()) + "\n"


if __name__ == "__main__":
    file = SCHEMAS / f"{migrations_digest()}.sql"
    SCHEMAS.mkdir(exist_ok=True)
    file.write_text(migrated_schema(), encoding="utf-8")
    print(file.relative_to(ROOT))
