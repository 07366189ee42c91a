"""Write down what the migrations of the installed Prefect lead to on SQLite, and the types of blocks that it registers.

`services.local.prefect_schema` makes new databases of both. Run this with each version that is to start quickly.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from services.local.prefect_schema import SCHEMAS, blocks_file, migrations_digest  # noqa: E402 - needs the path

_MIGRATE = """
import asyncio
from prefect.server.database import provide_database_interface
db = provide_database_interface()
asyncio.run(db.create_db())
"""
_REGISTER = """
from prefect.server.models.block_registration import run_block_auto_registration
async def register():
    async with await db.session() as session:
        await run_block_auto_registration(session=session)
asyncio.run(register())
"""


def migrated_schema() -> str:
    """What Prefect's migrations make of an empty database, as the statements that make it again."""
    return "\n".join(_dump(_MIGRATE)) + "\n"


def registered_blocks() -> str:
    """The statements that add the types of blocks that Prefect registers when it first starts."""
    lines = _dump(_MIGRATE + _REGISTER)
    return "".join(f"{line}\n" for line in lines if line.startswith('INSERT INTO "block_'))


def _dump(code: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "prefect.db"
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": folder,
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
            "DO_NOT_TRACK": "1",
        }
        subprocess.run(  # noqa: S603 - the code is ours
            [sys.executable, "-c", code], env=env, cwd=folder, check=True, timeout=300
        )
        with closing(sqlite3.connect(database)) as connection:
            return list(connection.iterdump())


if __name__ == "__main__":
    SCHEMAS.mkdir(exist_ok=True)
    schema = SCHEMAS / f"{migrations_digest()}.sql"
    schema.write_text(migrated_schema(), encoding="utf-8")
    blocks_file().write_bytes(gzip.compress(registered_blocks().encode(), mtime=0))
    print(schema.relative_to(ROOT), blocks_file().relative_to(ROOT), sep="\n")
