"""What all commands have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading

from typer.testing import CliRunner

from services.cli.commands import Commands


def test_ctrl_c_ends_a_command_whose_code_swallows_a_cancellation() -> None:
    app = Commands()
    started = threading.Event()

    @app.command("look")
    async def look() -> None:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    def press() -> None:
        started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    key = threading.Thread(target=press)
    key.start()
    ended = CliRunner().invoke(app, [])
    key.join()
    assert ended.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
