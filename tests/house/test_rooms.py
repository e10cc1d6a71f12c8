"""Rooms are entered by their door: another room's names come from its package, never from a module inside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = {"ssm": REPOSITORY / "ssm", "ssm_platform": REPOSITORY / "platform" / "ssm_platform"}
BEHIND = {
    "ssm_platform.base.figures",  # matplotlib: paid for by whoever draws
    "ssm_platform.corpora.readers",  # a table of modules, one a corpus
}


def room(module: str) -> str:
    """`ssm.model.text` -> `ssm.model`."""
    return ".".join(module.split(".")[:2])


def imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def test_other_rooms_are_entered_by_their_door() -> None:
    files = [(name, file) for name, root in ROOTS.items() for file in sorted(root.rglob("*.py"))]
    assert len(files) > 100
    windows = [
        f"{file.relative_to(REPOSITORY)}:{line} imports {module}"
        for name, file in files
        for line, module in imported(file)
        if module.split(".")[0] in ROOTS and module.count(".") >= 2
        if room(module) != room(".".join((name, *file.relative_to(ROOTS[name]).parts)))
        if not any(module == each or module.startswith(f"{each}.") for each in BEHIND)
        if not _is_room(module)
    ]
    assert windows == [], "\n".join(windows)


def _is_room(module: str) -> bool:
    """A room within a room has a door too: `ssm_platform.base.storage`."""
    root, *parts = module.split(".")
    return (ROOTS[root].joinpath(*parts) / "__init__.pyi").is_file()


def test_no_name_at_a_door_is_that_of_a_module_behind_it() -> None:
    """Whoever imports the module first would leave it standing at the door in place of the name."""
    doors = [door for root in ROOTS.values() for door in root.rglob("__init__.pyi")]
    assert len(doors) > 20
    twins = [
        f"{door.parent.name}.{alias.name}"
        for door in doors
        for node in ast.walk(ast.parse(door.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (door.parent / f"{alias.name}.py").exists()
    ]
    assert twins == []
