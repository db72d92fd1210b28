"""The digest of the code that computes a stage, so that a changed formula recomputes and a comment does not."""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Modules that move bytes or describe shapes; they do not decide what a stage computes.
_TRANSPARENT = (
    "rlhf.adapters",
    "schemas.config",
    "schemas.errors",
    "schemas.evaluation",
    "schemas.pipeline",
    "schemas.record",
    "schemas.refs",
    "schemas.registry",
    "schemas.reports",
    "schemas.reward_quality",
    "schemas.settings",
)

_PROJECT = ("rlhf", "schemas")


def code_digest(*modules: str) -> str:
    """Return the sha256 over the syntax trees of the modules and of all project modules that they import.

    Comments, docstrings and formatting do not count. Imports inside functions do.
    """
    seen: dict[str, str] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in seen or name.startswith(_TRANSPARENT):
            continue
        seen[name], imported = _read(name)
        pending.extend(imported)
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(f"{module} has no source file; the digest of its code cannot be taken")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    imported = frozenset(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def _source(module: str) -> Path | None:
    """Return a module's file without importing anything: a look at its parents would load torch for a re-used run."""
    package, *names = module.split(".")
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, *names)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            # `from rlhf.training import reward` names a module, `from rlhf.models.loading import load` does not.
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] in _PROJECT and _source(name) is not None}
