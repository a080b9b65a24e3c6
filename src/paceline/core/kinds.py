"""Of which kind a method is, where a family has several, read without importing it."""

import ast

from paceline.core.discovery import PACKAGE


def base(family: str, method: str) -> str:
    """What a method's own class derives from, as its file writes it: in `data`, `Task` or `Selector`, say."""
    wanted = method.replace("_", "")
    for node in ast.parse((PACKAGE / family / f"{method}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.lower() == wanted and node.bases:
            return ast.unparse(node.bases[0])
    return ""
