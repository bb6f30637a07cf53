"""The rules of layout: layers, rooms, docstrings, and facts that exist once."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import cases
import naive
import overparam
import pytest
import stubs
from overparam import results

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "overparam"
CPP = ROOT / "cpp"
DOCS = ROOT / "docs"


def text_of(path):
    return path.read_text(encoding="utf-8")


def named(paths, base=ROOT):
    """Parametrise by files, which are named by their path below a folder."""
    return [pytest.param(path, id=str(path.relative_to(base))) for path in sorted(paths)]


def is_room(path):
    """Whether a module defines a `Problem`."""
    return any(
        isinstance(node, ast.ClassDef) and node.name == "Problem"
        for node in ast.parse(text_of(path)).body
    )


ROOMS = sorted(path.stem for path in PACKAGE.glob("[!_]*.py") if is_room(path))
CLAIMED = sorted(path.stem for path in (PACKAGE / "claims").glob("[!_]*.py"))
over_rooms = pytest.mark.parametrize("room", ROOMS)

# ---- layers of the compiled core -----------------------------------------------------------------

LAYERS = ("base", "math", "networks", "models", "bind")
SOURCES = [path for path in CPP.rglob("*") if path.suffix in (".cpp", ".hpp")]
over_sources = pytest.mark.parametrize("path", named(SOURCES, CPP))


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text_of(path), re.MULTILINE)


@over_sources
def test_layers_include_downwards_only(path):
    layer, *rest = path.relative_to(CPP).parts
    assert layer in LAYERS
    assert len(rest) == 1
    for header in includes(path):
        target, _, name = header.partition("/")
        if target not in LAYERS:
            assert not (path.parent / header).exists(), f"{header} must be named with its layer"
            continue
        assert (CPP / header).exists()
        assert LAYERS.index(target) <= LAYERS.index(layer), f"{header} is a layer above"
        if layer == target == "models":
            assert room_of(Path(name).stem) == room_of(path.stem), f"{header} is another model"


def room_of(stem):
    """The model that a file such as sgd_chain belongs to: the shortest header it starts with."""
    headers = {path.stem for path in (CPP / "models").glob("*.hpp")}
    return min((m for m in headers if stem == m or stem.startswith(f"{m}_")), key=len)


@over_sources
def test_only_one_file_knows_threads_and_one_layer_knows_python(path):
    place, code = path.relative_to(CPP), text_of(path)
    if str(place) != "base/threads.cpp":
        assert not re.search(r"#\s*pragma\s+omp|\bomp_\w+|<omp\.h>|#\s*include\s*<thread>", code)
    if place.parts[0] != "bind":
        assert not [name for name in includes(path) if "pybind11" in name or "Python.h" in name]
        assert "py::" not in code
    elif place.name != "array.hpp":
        assert "py::array" not in code


def test_every_source_is_built():
    lists = text_of(ROOT / "CMakeLists.txt")
    for path in (*SOURCES, *(ROOT / "tests" / "cpp").glob("*.cpp")):
        if path.suffix == ".cpp":
            assert str(path.relative_to(ROOT)) in lists


def test_every_stream_of_random_numbers_is_used():
    (body,) = re.findall(r"enum class Purpose[^{]*\{([^}]*)\}", text_of(CPP / "base" / "rng.hpp"))
    purposes = re.findall(r"^\s*([A-Z_]+)", body, re.MULTILINE)
    code = "".join(map(text_of, SOURCES))
    assert len(purposes) > 1
    for purpose in purposes:
        assert f"Purpose::{purpose}" in code


# ---- rooms and what belongs to each --------------------------------------------------------------


def imported(path):
    """Modules of the package that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("overparam.").split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "overparam":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            if node.module.startswith("overparam."):
                found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", named(PACKAGE.rglob("*.py"), PACKAGE))
def test_rooms_are_imported_by_claims_only(path):
    """Rooms do not know each other, nor does shared machinery; claims may use several."""
    if path == PACKAGE / "__init__.py":
        return
    if not (path.parent.name == "claims" and path.stem in CLAIMED):
        assert not imported(path) & set(ROOMS)


@over_rooms
def test_a_room_has_all_its_parts(room):
    assert room in overparam.__all__
    assert re.search(rf"^{room}$", overparam.__doc__, re.MULTILINE)
    assert getattr(overparam, room).Problem.room == room
    assert room in cases.ROOMS
    assert re.search(rf"^# {room}\b", text_of(Path(naive.__file__)), re.MULTILINE)
    for part in (
        CPP / "models" / f"{room}.hpp",
        CPP / "bind" / f"bind_{room}.cpp",
        PACKAGE / "claims" / f"{room}.py",
        ROOT / "tests" / f"test_{room}.py",
        ROOT / "tests" / "reference" / f"{room}.json",
        ROOT / "bench" / f"bench_{room}.py",
        DOCS / "papers" / f"{room}.md",
    ):
        assert part.exists()


@pytest.mark.parametrize("module", CLAIMED)
def test_claims_are_those_of_a_module(module):
    claims = importlib.import_module(f"overparam.claims.{module}").CLAIMS
    assert claims
    assert all(claim.id.startswith(f"{module}/") for claim in claims)
    assert all(claim.statement and claim.source for claim in claims)


def test_parts_belong_to_a_room():
    """Claims may also be of shared machinery, or of one function of a room."""
    functions = {name for room in ROOMS for name in getattr(overparam, room).__all__}
    assert ROOMS
    assert set(cases.ROOMS) == set(ROOMS)
    assert set(ROOMS) <= set(CLAIMED) <= set(overparam.__all__) | functions
    assert {path.stem for path in (DOCS / "papers").glob("*.md")} == set(ROOMS)


# ---- public names and their docstrings -----------------------------------------------------------

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(overparam.__path__, "overparam.")
    if not info.name.endswith("._core")
]
PUBLIC = [module for module in MODULES if hasattr(module, "__all__")]
over_public_modules = pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)


def is_api(entry):
    return inspect.isfunction(entry) or inspect.isclass(entry)


def defined(module):
    """Functions and classes without underscore that a module defines itself."""
    return {
        name
        for name, entry in vars(module).items()
        if not name.startswith("_") and is_api(entry) and entry.__module__ == module.__name__
    }


def test_every_public_module_says_what_is_public():
    public = {name for _, name, _ in pkgutil.iter_modules(overparam.__path__) if name[0] != "_"}
    assert {f"overparam.{name}" for name in public} <= {module.__name__ for module in PUBLIC}


@over_public_modules
def test_all_is_what_the_module_defines(module):
    """Shared machinery may define more, for other modules of the package."""
    listed, own = set(module.__all__), defined(module)
    assert len(listed) == len(module.__all__)
    for name in listed - own:
        entry = getattr(module, name)
        assert not is_api(entry) or entry.__module__ == "overparam._core"
    helpers = own - listed
    if module.__name__.removeprefix("overparam.") in ROOMS:
        assert not helpers
    elsewhere = "".join(text_of(path) for path in PACKAGE.rglob("*.py"))
    for name in helpers:
        used = rf"import [^#]*\b{name}\b|\b{module.__name__.split('.')[-1]}\.{name}\b"
        assert re.search(used, elsewhere), f"{name} is neither public nor used"


def test_the_package_lists_its_modules():
    for name in overparam.__all__:
        assert getattr(overparam, name) is not None
    assert set(dir(overparam)) == set(overparam.__all__)
    for module in PUBLIC:
        _, _, name = module.__name__.partition(".")
        assert name in overparam.__all__ or "." in name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        overparam.nothing  # noqa: B018


def section(doc, title):
    """The text of a section of a docstring; None if it has none."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", doc, re.MULTILINE | re.DOTALL)
    return found and found.group(1)


def documented_names(parameters):
    """Names of a section `Parameters`: lines that are not indented, before the colon."""
    lines = re.findall(r"^(?! )([*\w, ]+?)(?: :.*)?$", parameters or "", re.MULTILINE)
    return [name.strip() for line in lines for name in line.split(",")]


def parameters_of(function):
    star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        star.get(p.kind, "") + name
        for name, p in inspect.signature(function).parameters.items()
        if name not in ("self", "cls")
    ]


def check_docstring(function, *, room):
    doc = inspect.getdoc(function)
    assert doc, "no docstring"
    assert re.match(r"[A-Z].*\.$", doc.splitlines()[0])
    assert documented_names(section(doc, "Parameters")) == parameters_of(function)
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert section(doc, "Returns") or section(doc, "Yields"), "no section Returns"
    raises = room or re.search(r"\braise \b|\b_check\.", inspect.getsource(function))
    assert not raises or section(doc, "Raises"), "no section Raises"
    assert ">>> " in (section(doc, "Examples") or ""), "no example"
    assert not room or re.search(r"\bSource:\s", section(doc, "Notes") or ""), "no source"


def functions_of(module):
    """Public functions of a module and, for a room, the methods of its classes, by name."""
    room = module.__name__.removeprefix("overparam.") in ROOMS
    for name in module.__all__:
        entry = getattr(module, name)
        if inspect.isfunction(entry):
            yield name, entry, room
        elif inspect.isclass(entry) and room:
            for method, value in vars(entry).items():
                value = getattr(value, "__func__", value)
                if not method.startswith("_") and inspect.isfunction(value):
                    yield f"{name}.{method}", value, room


FUNCTIONS = [
    pytest.param(function, room, id=f"{module.__name__.partition('.')[2]}.{name}")
    for module in PUBLIC
    for name, function, room in functions_of(module)
]
CLASSES = [
    pytest.param(entry, id=f"{module.__name__.partition('.')[2]}.{name}")
    for module in PUBLIC
    for name in module.__all__
    if inspect.isclass(entry := getattr(module, name)) and name in defined(module)
]


@pytest.mark.parametrize(("function", "room"), FUNCTIONS)
def test_public_functions_are_documented(function, room):
    check_docstring(function, room=room)


@pytest.mark.parametrize("kind", CLASSES)
def test_public_classes_are_documented(kind):
    doc = inspect.getdoc(kind)
    assert ">>> " in (section(doc, "Examples") or "")
    if kind.__module__.removeprefix("overparam.") in ROOMS:
        assert section(doc, "Parameters") or section(doc, "Attributes")
        assert re.search(r"\bSource:\s", section(doc, "Notes") or "")
    for name, entry in vars(kind).items():
        entry = getattr(entry, "__func__", entry)
        if not name.startswith("_") and (inspect.isfunction(entry) or isinstance(entry, property)):
            assert inspect.getdoc(entry)


@over_rooms
def test_docstrings_cite_sections_that_exist(room):
    page = text_of(DOCS / "papers" / f"{room}.md")
    known = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\b", page, re.MULTILINE))
    cited = re.findall(
        rf"docs/papers/{room}\.md``\s+sections?\s+((?:\d[\d.]*\d|\d)(?:(?:,|\s|and|-)+\d[\d.]*)*)",
        text_of(PACKAGE / f"{room}.py"),
    )
    numbers = {n.rstrip(".") for text in cited for n in re.findall(r"\d[\d.]*", text)}
    assert numbers
    assert numbers <= known


@pytest.mark.parametrize("module", [overparam, *MODULES], ids=lambda module: module.__name__)
def test_examples_of_docstrings_run(module, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "_interrupted", None)
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(module)
    assert failed == 0


# ---- pages ---------------------------------------------------------------------------------------

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
over_pages = pytest.mark.parametrize("path", named(PAGES))


@over_pages
def test_code_of_pages_runs(path, monkeypatch, tmp_path):
    """Each block in its own folder; the blocks of a page continue each other."""
    scope = {"__name__": path.stem}
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", text_of(path), re.M | re.S)):
        folder = tmp_path / str(i)
        folder.mkdir()
        monkeypatch.chdir(folder)
        exec(compile(block, f"{path.name}[{i}]", "exec"), scope)


@over_pages
def test_links_of_pages_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path)):
        assert re.match(r"https?://|mailto:", link) or (path.parent / link).exists(), link


# ---- facts that exist once -----------------------------------------------------------------------


def project_files():
    """All text of the project that people wrote, without what tools leave behind."""
    left_behind = re.compile(r"\.(?!ci$)|build$|dist$|figures$|__pycache__$|.*\.egg-info$")
    for path in ROOT.rglob("*"):
        folders = path.relative_to(ROOT).parts[:-1]
        if path.is_file() and not any(map(left_behind.match, folders)):
            yield path


def test_the_version_exists_once():
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    assert overparam.__version__ == version
    assert re.search(r"^version: (.*)$", text_of(ROOT / "CITATION.cff"), re.M).group(1) == version
    released = re.search(r"^## \[(\d.*?)\]", text_of(ROOT / "CHANGELOG.md"), re.M).group(1)
    assert released == version
    suffixes = {".py", ".pyi", ".md", ".toml", ".txt", ".cpp", ".hpp", ".json", ".cff", ".yml", ""}
    literal = re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d.])")
    holders = {
        path.relative_to(ROOT).as_posix()
        for path in project_files()
        if path.suffix in suffixes and literal.search(text_of(path))
    }
    assert holders == {"pyproject.toml", "CHANGELOG.md", "CITATION.cff"}


def test_the_stub_is_what_the_core_says():
    assert text_of(stubs.PATH) == stubs.generate()


IMPORT = """
import sys
import overparam
print(*{"matplotlib", "scipy", "xarray"} & set(sys.modules))
"""


def test_import_is_light():
    command = [sys.executable, "-c", IMPORT]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
