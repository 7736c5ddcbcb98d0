"""The storeys of the house: a module imports from its own room and from lower floors, and never in a circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("cli",),
    ("sweeps",),
    ("run",),
    ("workers",),
    ("planning", "tracking"),
    ("methods", "reporting"),
    ("evaluation",),
    ("stacking", "translation"),
    ("generation", "training"),
    ("data", "models", "tasks"),
    ("config", "offline", "sources"),
    ("options", "store"),
    ("process", "text"),
    ("__init__", "languages"),
)
"""From the top down; rooms on one floor do not know each other."""
LONGEST_LINES, MEDIAN_LINES = 500, 200
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "sdx").rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """The modules of sdx that one imports anywhere, also inside functions and for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {node.module}
    return found


def room(module: str) -> str:
    name = [*module.split("."), "__init__"][1]
    return "cli" if name == "__main__" else name


def test_imports_run_downhill() -> None:
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    assert {room(module) for module in MODULES} == floor.keys()
    uphill = [
        f"{module} -> {other}"
        for module, path in MODULES.items()
        for other in imports(path)
        if room(module) != room(other) and floor[room(other)] <= floor[room(module)]
    ]
    assert not uphill


def test_there_is_no_circle() -> None:
    TopologicalSorter({module: imports(path) for module, path in MODULES.items()}).prepare()


def test_modules_are_small() -> None:
    lines = sorted((len(path.read_text().splitlines()), module) for module, path in MODULES.items())
    assert lines[len(lines) // 2][0] <= MEDIAN_LINES
    assert [one for one in lines if one[0] > LONGEST_LINES] == []


def test_what_tests_share_lies_in_the_kit() -> None:
    """Nothing imports a test module, neither a test nor the kit."""
    imports = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "tests").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(from|import) tests(?!\.kit\b)\b", line)
    ]
    assert not imports
    assert not [*(ROOT / "tests/kit").rglob("test_*.py")]
