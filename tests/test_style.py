"""The house's style, as far as a machine can tell: small functions, one class of a name, American names, and tests that
use public names only.
"""

import ast
import re
from collections import Counter
from pathlib import Path

from test_layers import LAYERS

import phosphene

SRC = Path(phosphene.__file__).parent
TESTS = Path(__file__).parent
TREES = {
    path.relative_to(SRC).with_suffix("").as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SRC.rglob("*.py"))
}
MAX_LINES, MAX_PARAMETERS = 60, 8
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
FOREIGN = {
    "_attn_implementation",
    "_parameters",
    "_render_traceback_",
    "_repr_html_",
    "_repr_png_",
    "_weights",
}  # of transformers, torch, IPython, overcomplete
SERIALIZED = {"recipes/settings:colours", "recipes/transforms:colour"}  # fields of recipes
BRITISH = re.compile(r"colour|grey|(normal|initial|recogn|optim|maxim|minim|visual|serial)is|labell|centre|neighbour")


def functions():
    """Every function, with the place at which it stands: module:Class.function."""

    def within(node, place):
        for child in ast.iter_child_nodes(node):
            inner = place
            if isinstance(child, FUNCTION | ast.ClassDef):
                inner = f"{place}{'' if place.endswith(':') else '.'}{child.name}"
            if isinstance(child, FUNCTION):
                yield inner, child
            yield from within(child, inner)

    for module, tree in TREES.items():
        yield from within(tree, f"{module}:")


def line_count(function):
    """Lines from the first to the last, its docstring not counted."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= first.end_lineno - first.lineno + 1
    return lines


def parameter_count(function):
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def identifiers():
    """Every name that the source defines, with its module."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTION | ast.ClassDef):
                yield module, node.name
            elif isinstance(node, ast.arg):
                yield module, node.arg
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield module, node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield module, node.attr


def private_uses():
    """Every private name of the package that a test uses, as file:name."""
    private = {name for _, name in identifiers() if re.match(r"_[a-zA-Z]", name)}
    for path in sorted(TESTS.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, FUNCTION | ast.ClassDef)}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phosphene"):
                names = [alias.name for alias in node.names if alias.name.startswith("_")]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = [node.value.rpartition(".")[2]] if re.fullmatch(r"[\w.]+", node.value) else []
            yield from (f"{path.name}:{name}" for name in names if name in private - FOREIGN and name not in own)


def check(found, exceptions=frozenset()):
    """Whatever is found is an exception, and every exception is found."""
    found = set(found)
    assert sorted(found - exceptions) == []
    assert sorted(exceptions - found) == [], "no exceptions any more: take them off the list"


def test_functions_are_short():
    check({place for place, function in functions() if line_count(function) > MAX_LINES})


def test_functions_have_few_parameters():
    check({place for place, function in functions() if parameter_count(function) > MAX_PARAMETERS})


def test_no_two_classes_have_one_name():
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    check({name for name, count in names.items() if count > 1})


def test_identifiers_are_in_american_spelling():
    found = {f"{module}:{name}" for module, name in identifiers() if BRITISH.search(name.lower())}
    check(found, SERIALIZED)


def test_tests_use_public_names_only():
    check(private_uses())


def test_the_page_on_how_it_is_built_names_what_is_there():
    page = (TESTS.parent / "docs" / "built.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?!phosphene\.)([a-z_]+(?:\.[a-z_]+)+)(?<!\.png)(?<!\.json)`", page))
    gone = []
    for name in named:
        path = name.replace(".", "/")
        module, _, inner = path.rpartition("/")
        defined = {node.name for node in ast.walk(TREES.get(module, ast.Module([], []))) if hasattr(node, "name")}
        if path not in TREES and f"{path}/__init__" not in TREES and inner not in defined:
            gone.append(name)
    assert named
    assert gone == []
    rows = [set(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)]
    assert rows == [set(names.split()) for names in LAYERS[:-1]]


def test_docstrings_name_parameters_that_there_are():
    wrong = []
    for place, function in functions():
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", ast.get_docstring(function) or "", re.MULTILINE)
        named = re.findall(r"^    ([a-z_][\w, ]*):", section[1], re.MULTILINE) if section else []
        arguments = function.args
        there = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        there |= {each.arg for each in (arguments.vararg, arguments.kwarg) if each}
        names = {name.strip() for group in named for name in group.split(",")}
        if names - there and not (arguments.kwarg and isinstance(arguments.kwarg.annotation, ast.Subscript)):
            wrong.append((place, sorted(names - there)))
    assert wrong == []
