"""Output without a reader, space or encoding ends no run and changes no exit code."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdx.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PRINTS = """
import logging, subprocess, sys, warnings
from pathlib import Path
from rich.console import Console
from tqdm import tqdm
from sdx.process import terminal

terminal.outlive()
terminal.outlive()
logging.basicConfig(level=logging.INFO, handlers=[
    logging.StreamHandler(sys.stdout), logging.StreamHandler(), logging.FileHandler(sys.argv[1])
])
terminal.outlive_log()
for n in tqdm(range(1500), mininterval=0, miniters=1):
    print("สวัสดี", n)
    logging.info("ไทย %d", n)
console = Console()
console.print("ตาราง " * 5000)
warnings.warn("คำเตือน")
subprocess.run(["sh", "-c", "echo child; echo child >&2"])
print(sys.stdin.read(), file=sys.stderr)
Path("done").touch()
sys.exit(7)
"""
FAULTS = {
    "a reader that has enough": "| head -1 > first",
    "errors to a reader that has enough": "2>&1 >/dev/null | head -1 > first",
    "a reader that is gone": "| true",
    "both full": ">/dev/full 2>/dev/full",
    "full, a broken pipe": "2>/dev/full | head -1 > first",
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "all closed": "<&- >&- 2>&-",
}


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Exits as the first command of the pipe does."""
    return subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize(("fault", "options"), [*((fault, "") for fault in FAULTS), ("full, a broken pipe", "-u")])
def test_output_that_goes_away(fault: str, options: str, tmp_path: Path):
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    log = "/dev/full" if "full" in fault else "log"
    done = shell(f"{sys.executable} {options} prints.py {log} {FAULTS[fault]}", tmp_path)
    assert done.returncode == 7, done.stderr
    assert (tmp_path / "done").exists()
    for sign in ("Traceback", "Logging error", "Exception ignored"):
        assert sign not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1:strict"},
    ],
)
def test_characters_that_the_locale_lacks(environment: dict[str, str], tmp_path: Path):
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    done = shell(f"{sys.executable} prints.py log", tmp_path, **environment)
    assert done.returncode == 7, done.stderr
    assert r"\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 1499" in done.stdout
    assert "Traceback" not in done.stderr
    assert "ไทย 1499" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize("to", [">/dev/full 2>/dev/full", ">&- 2>&-", "| true"])
@pytest.mark.parametrize(
    ("door", "code"),
    [("sdx --help", 0), ("sdx.report --help", 0), ("sdx.status nowhere", 2), ("sdx.dashboard --help", 0)],
)
def test_every_entry_point(door: str, code: int, to: str, tmp_path: Path):
    done = shell(f"{sys.executable} -m {door} {to}", tmp_path)
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (code, False, False)


def test_every_file_that_sdx_opens_names_its_encoding():
    """Otherwise the encoding would be the locale's. Binary files have none."""
    found = []
    for path in sorted((ROOT / "sdx").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and not _encoded(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def _encoded(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    texts = [part.value for argument in call.args for part in ast.walk(argument) if isinstance(part, ast.Constant)]
    if name in ("run", "Popen", "check_output"):
        return "text" not in given
    if name in ("read_text", "write_text"):
        return "encoding" in given or "utf-8" in texts
    owner = getattr(getattr(function, "value", None), "id", "")
    if name not in ("open", "fdopen") or owner in ("os", "archive", "tarfile", "gzip"):
        return True
    return "encoding" in given or any(isinstance(text, str) and "b" in text for text in texts)


@pytest.mark.parametrize("door", [*COMMANDS, "main"])
def test_every_entry_point_makes_its_output_last(door: str):
    tree = ast.parse((ROOT / "sdx/cli" / f"{door}.py").read_text(encoding="utf-8"))
    [main] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    decorators = list(map(ast.unparse, main.decorator_list))
    assert "terminal.outlive()" in map(ast.unparse, main.body) if door == "main" else decorators == ["command()"]
