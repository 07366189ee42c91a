"""A role that is not on a terminal writes lines of JSON and nothing else, whoever writes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from config.settings import CHECKOUT

SCRIPT = """
import gc, logging, os, sys, threading, warnings
import structlog
from config.logs import configure_logging, speak_as_parent
from config.settings import LogSettings

early = logging.StreamHandler()
early.setFormatter(logging.Formatter("%(asctime)s | %(message)s"))
logging.getLogger("early").addHandler(early)

class Coloured(logging.StreamHandler):
    def emit(self, record):
        self.stream.write("\\x1b[35m" + self.format(record) + "\\x1b[0m\\n")

logging.getLogger("coloured").addHandler(Coloured())
configure_logging(LogSettings(), role="drill")
structlog.get_logger().info("ours", url="redis://:s3cret@host", nested={"a": "b\\nc"})
logging.getLogger("early").warning("a library with a handler\\nof its own: %s", "redis://:s3cret@host")
logging.getLogger("coloured").warning("with colours")
logging.getLogger("late").warning("a library without one")
logging.getLogger("quiet").info("not shown")
warnings.warn("a warning")
print("printed", end="")
print(" in parts")
print('{"event": "printed as JSON"}')
sys.stdout.reconfigure(line_buffering=True)
sys.stderr.write("to standard error\\n\\n")
try:
    raise ValueError("told")
except ValueError:
    logging.getLogger("late").exception("caught")

class Dying:
    def __del__(self):
        raise ValueError("unraisable")

Dying()
def in_a_thread():
    structlog.get_logger().info("in a thread")
    1 / 0

thread = threading.Thread(target=in_a_thread)
thread.start()
thread.join()
if not os.fork():
    speak_as_parent("drill")
    print("from a fork")
    sys.stdout.flush()
    os._exit(0)
os.wait()
print("without an end", end="")
raise SystemError("at the end")
"""


def lines_of(script: str, **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert "s3cret" not in done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_whatever_a_role_writes_is_one_json_object_a_line() -> None:
    lines = lines_of(SCRIPT)
    said = {line["event"]: line for line in lines}
    assert {
        "ours", "in a thread", "with colours",
        "a library with a handler\\nof its own: redis://:***@host", "a library without one", "printed in parts",
        "printed as JSON", "to standard error", "caught", "ValueError: unraisable", "from a fork", "without an end",
        "ZeroDivisionError: division by zero", "SystemError: at the end",
    } <= set(said)  # fmt: skip
    (warning,) = (line for event, line in said.items() if "UserWarning: a warning" in event)
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert len(lines) == len(said) == 15
    ours = [line for line in lines if line["event"] != "printed as JSON"]
    assert {line["role"] for line in ours} == {"drill"}
    assert all({"level", "timestamp"} <= set(line) for line in ours)
    assert said["a library without one"] | {"timestamp": ""} == {
        "logger": "late", "level": "warning", "event": "a library without one", "role": "drill", "timestamp": "",
    }  # fmt: skip
    assert said["caught"]["exception"].startswith("Traceback")
    assert said["ours"]["nested"] == {"a": "b\\nc"}
    assert said["SystemError: at the end"]["level"] == "critical"


def test_a_format_for_people_stays_one() -> None:
    script = SCRIPT.replace("LogSettings()", "LogSettings(format='console')")
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "printed in parts\n" in done.stdout
    assert "a library without one\n" in done.stderr
