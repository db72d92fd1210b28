"""The key of a stage follows what the code computes, not how it is written."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tasks import code_digest as module


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes rlhf_sample (a project package for the occasion) and digests it."""
    monkeypatch.setattr(module, "_PROJECT", ("rlhf_sample",))
    package = tmp_path / "rlhf_sample"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def digest(main: str, helper: str = "def half(x):\n    return x / 2\n") -> str:
        (package / "main.py").write_text(textwrap.dedent(main))
        (package / "helper.py").write_text(helper)
        module._read.cache_clear()
        for name in [name for name in sys.modules if name.startswith("rlhf_sample")]:
            del sys.modules[name]
        return module.code_digest("rlhf_sample.main")

    return digest


PLAIN = "from rlhf_sample import helper\n\ndef f(x):\n    return helper.half(x) + 1\n"


def test_a_comment_a_docstring_and_formatting_change_nothing(digest_of):
    dressed = '''
    """Say what it is."""
    from rlhf_sample import helper


    def f(x):
        """Return a number."""
        return (helper.half(x)
                + 1)  # because
    '''
    assert digest_of(PLAIN) == digest_of(dressed)


def test_a_changed_formula_changes_it(digest_of):
    assert digest_of(PLAIN) != digest_of(PLAIN.replace("+ 1", "+ 2"))


def test_a_changed_formula_in_an_imported_module_changes_it(digest_of):
    assert digest_of(PLAIN) != digest_of(PLAIN, "def half(x):\n    return x / 3\n")


def test_an_import_inside_a_function_counts(digest_of):
    lazy = "def f(x):\n    from rlhf_sample.helper import half\n    return half(x)\n"
    assert digest_of(lazy) != digest_of(lazy, "def half(x):\n    return x / 3\n")


def test_a_module_without_source_is_an_error(digest_of):
    with pytest.raises(ModuleNotFoundError, match="no source file"):
        module.code_digest("rlhf_sample_missing")


def test_taking_it_imports_nothing():
    # A re-used run must not pay for torch only to learn that nothing has changed.
    code = (
        "import sys\nfrom tasks.code_digest import code_digest\n"
        "code_digest('tasks.ppo', 'tasks.dpo', 'tasks.evaluate')\n"
        "print(sorted({'torch', 'transformers', 'trl', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
