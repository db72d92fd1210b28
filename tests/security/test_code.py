"""What this project's own code may not contain, read from its syntax trees."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "rlhf", "schemas", "recipes", "infra", "benchmarks")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN = {
    "os.system", "os.popen", "os.spawnl", "os.spawnv", "eval", "exec", "torch.load", "numpy.load", "np.load",
    "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load",
    "mlflow.pyfunc.load_model", "shutil.unpack_archive", "tempfile.mktemp", "subprocess.getoutput",
    "subprocess.getstatusoutput", "commands.getoutput", "asyncio.create_subprocess_shell",
}  # fmt: skip


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def offences(source: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN or name.endswith((".extractall", ".unpickle")):
                found.append(name)
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                harmless = keyword.arg == "verify" or value is False
                if keyword.arg in {"shell", "trust_remote_code", "allow_pickle"} and not harmless:
                    found.append(f"{name}({keyword.arg}={ast.unparse(keyword.value)})")
                if keyword.arg == "verify" and value is False:
                    found.append(f"{name}(verify=False)")
                if keyword.arg in {"weights_only", "use_safetensors"} and value is not True:
                    found.append(f"{name}({keyword.arg}={ast.unparse(keyword.value)})")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from dill import loads", "subprocess.run('ls', shell=True)", "os.system('ls')",
        "torch.load('x', weights_only=False)", "AutoModel.from_pretrained('x', trust_remote_code=config.trust)",
        "archive.extractall('.')", "yaml.load(text)", "httpx.get(url, verify=False)", "eval(text)",
    ],
)  # fmt: skip
def test_an_offence_is_noticed(source: str) -> None:
    assert offences(source)


def test_no_file_unpickles_starts_a_shell_or_trusts_code() -> None:
    assert len(FILES) > 150
    found = {
        str(file.relative_to(ROOT)): bad
        for file in FILES
        if (bad := offences(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_every_model_is_loaded_with_remote_code_off() -> None:
    loaders = {"AutoTokenizer.from_pretrained", "kind.from_pretrained"}
    seen = 0
    for file in FILES:
        # Conformance suite and benchmarks load the models that they have just made.
        if file.relative_to(ROOT).parts[0] == "benchmarks" or "conformance" in file.parts:
            continue
        for name, call in calls(file):
            if name in loaders or re.match(r"Auto\w+\.from_pretrained", name):
                seen += 1
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("trust_remote_code") == "False", (file, call.lineno)
    assert seen >= 2


def test_nothing_binds_to_every_address_by_default() -> None:
    for package in ("flows", "tasks", "rlhf", "schemas"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert node.value not in {"0.0.0.0", "::"}, file  # noqa: S104 - what is looked for


def test_every_server_of_the_command_line_listens_on_loopback() -> None:
    import inspect

    from flows import commands_label, commands_serve, servers

    assert servers.HOST == "127.0.0.1"
    for command in (commands_label.serve, commands_serve.serve):
        assert inspect.signature(command).parameters["host"].default == "127.0.0.1"
