"""Nothing in the program loads a file in a way that could run code of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from slo import strict_yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("guard", "slo", "exporters", "registry", "rag", "lora", "alerts", "dashboards")
MODULES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
CALLS = {"eval", "exec", "__import__"}
SAFE_LOADERS = {"_StrictLoader"}
"""Of ours, below yaml.SafeLoader: `test_our_loader_is_safe`."""
YAML_LOADERS = {"load", "load_all", "full_load", "unsafe_load", "unsafe_load_all"}


ALLOWED = {
    ("slo/drafts.py", "exec"): "writes a constructor from the names of its own dataclass fields",
    ("lora/training/checkpoint.py", "pickle"): "names the exception that torch.load raises when it refuses one",
}
"""File and what it does -> why that loads nothing from outside."""


def mistakes(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            loader = ast.unparse(node.args[1]) if len(node.args) > 1 else given.get("Loader", "")
            unsafe_yaml = (
                name.startswith("yaml.")
                and name[5:] in YAML_LOADERS
                and "Safe" not in loader
                and loader not in SAFE_LOADERS
            )
            unsafe_torch = name == "torch.load" and given.get("weights_only") != "True"
            unsafe_numpy = given.get("allow_pickle", "False") != "False"
            unsafe_weights = name.rpartition(".")[2] in ("SentenceTransformer", "CrossEncoder") and (
                "'use_safetensors': True" not in given.get("model_kwargs", "")
            )
            remote = given.get("trust_remote_code", "False") != "False"
            if name in CALLS or unsafe_yaml or unsafe_torch or unsafe_numpy or unsafe_weights or remote:
                found.append(f"{name} in line {node.lineno}")
    return found


def test_our_loader_is_safe() -> None:
    assert issubclass(strict_yaml._StrictLoader, yaml.SafeLoader)
    assert not issubclass(strict_yaml._StrictLoader, yaml.FullLoader)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_loads_what_can_run_code(package: str) -> None:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        wrong = [
            w for w in mistakes(ast.parse(path.read_text(encoding="utf-8"))) if (name, w.split()[0]) not in ALLOWED
        ]
        if wrong:
            found[name] = wrong
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "SentenceTransformer(name)",
        "eval(text)",
    ],
)
def test_the_search_finds(code: str) -> None:
    assert mistakes(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "yaml.load(t, Loader=SafeLoader)",
        "torch.load(p, weights_only=True)",
        "np.load(p, allow_pickle=False)",
        "CrossEncoder(p, model_kwargs={'use_safetensors': True})",
    ],
)
def test_the_search_lets_pass(code: str) -> None:
    assert not mistakes(ast.parse(code))
