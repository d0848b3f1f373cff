"""The map of the house: no module imports from a layer above its own, and none from one that imports it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import phosphene

LAYERS = (  # from the ground up; what stands on one line may import each other, without circles
    "errors versions extras defaults default_progress interruption processes hardware torch_state files user_folders "
    "run_folders tables",
    "image_formats display images png planes",
    "pixels",
    "networks",
    "photographs",
    "dictionaries",
    "units",
    "recipes",
    "ascent",
    "provenance picture background",
    "draw",
    "judges",
    "result run_page",
    "devices",
    "api",
    "tuning reproduce doctor atlas comparison attribution",
    "studio cli",
    "__init__ __main__",
)
ROOT = Path(phosphene.__file__).parent
MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}


def imports(path):
    """The modules of this package that a module imports, also within functions and for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [alias.name for alias in getattr(node, "names", ())]
            if isinstance(node, ast.Import | ast.ImportFrom)
            else []
        )
        for name in names:
            places = (f"{node.module}.{name}", node.module) if isinstance(node, ast.ImportFrom) else (name,)
            yield from [place for place in (*places, *(f"{each}.__init__" for each in places)) if place in MODULES][:1]


def test_no_module_imports_from_a_layer_above_and_there_is_no_circle():
    level = {name: height for height, names in enumerate(LAYERS) for name in names.split()}
    graph = {module: set(imports(path)) - {module} for module, path in MODULES.items()}
    climbs = [(a, b) for a in graph for b in graph[a] if level[b.split(".")[1]] > level[a.split(".")[1]]]
    assert not climbs
    TopologicalSorter(graph).prepare()  # raises CycleError
