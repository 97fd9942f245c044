"""What `zocore` itself offers: every name is there, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from importlib import import_module

import zocore
from tests.support.places import ROOT


def test_every_name_comes_from_where_type_checkers_think() -> None:
    """The names that are exported, those for type checkers and those found when asked for are the same."""
    tree = ast.parse((ROOT / "zocore" / "__init__.py").read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imports = {
        name.name: node.module.removeprefix("zocore.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }
    assert imports == zocore._HOME_OF
    assert sorted(imports) == sorted(zocore.__all__)
    for name, home in imports.items():
        assert getattr(zocore, name) is getattr(import_module(f"zocore.{home}"), name)


def test_importing_the_package_imports_nothing_slow() -> None:
    """torch and transformers wait until a name is asked for; the settings alone need no transformers."""
    loaded = "print(*(name for name in ('torch', 'transformers', 'numba') if name in sys.modules))"
    for statement, slow in (("import zocore", ""), ("from zocore import RunConfig", "torch numba")):
        command = [sys.executable, "-c", f"import sys; {statement}; {loaded}"]
        assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == slow
