"""The floors of the house, and that every import keeps to them.

Read `HOUSE` from the bottom up: a module may import what stands on lower floors, and its own room, never a
neighbor across ``|`` nor anything above. Imports under ``TYPE_CHECKING`` and inside functions count too.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import p2psip

HOUSE = """
    service cli | testing | plugins                    # only service and cli import a reactor
    administration directory_administration routes
    authority directory publishing renewal phones gateway running ports sipcertificate webpage | simulator
    joining selfsigned startup options gateway_options control logs lan
    usages | enrollment
    node | sip
    storage.replication | topology | transport | links
    state
    ======== the line: above it IReactorTime and Deferred; below it `now` and `random` are arguments ========
    framing reliability congestion pathmtu | storage | topology.ring topology.__init__ | forwarding
    interfaces
    config
    security
    wire
    __init__ errors hostport ids throttle plugins.__init__
"""
"""A name stands for a module, or a package and all in it that has no more specific name of its own;
``plugins.__init__`` for the package's own module alone."""

SANS_IO = (
    *("sip.errors", "sip.grammar", "sip.headers", "sip.machines", "sip.message", "sip.numbers"),
    *("sip.reasons", "sip.stream", "sip.transaction", "sip.uri"),
    *("sip.media.nat", "sip.media.ng", "sip.media.sdp"),
    *("sip.proxy.answers", "sip.proxy.deadlines", "sip.proxy.headers", "sip.proxy.loops"),
)
"""Above the line, yet without input and output: ``twisted.internet`` is as closed to them as below it."""

PURE = {"twisted.internet.defer", "twisted.internet.interfaces"}
MAY_IMPORT_REACTOR = ("service", "cli")
MOST_LINES = 500


@dataclass(frozen=True)
class Place:
    """Where a module stands: floors count from 0 at the bottom, rooms within a floor."""

    floor: int
    room: int
    below_line: bool


def read_house(house: str) -> dict[str, Place]:
    """The place of each name in the drawing."""
    floors = [line.partition("#")[0].strip() for line in reversed(house.strip().splitlines())]
    line = next(number for number, floor in enumerate(floors) if floor.startswith("==="))
    return {
        name: Place(number, room, number < line)
        for number, floor in enumerate(floors)
        if number != line
        for room, names in enumerate(floor.split("|"))
        for name in names.split()
    }


@dataclass
class Module:
    """One module of the tree, by its name without the leading ``p2psip.``."""

    name: str
    lines: int
    imports: list[str] = field(default_factory=list)
    """Modules of the tree that it names, its own ancestors left out."""
    implied: list[str] = field(default_factory=list)
    """Packages that Python runs on the way to those modules."""
    foreign: list[str] = field(default_factory=list)
    """Dotted names from outside the tree."""


def read_tree(sources: Mapping[str, str]) -> dict[str, Module]:
    """The modules of a package, from its sources by relative path (``wire/codec.py``)."""
    names = {path: path.removesuffix(".py").replace("/", ".") for path in sources}
    known = set(names.values())
    modules = {}
    for path, source in sources.items():
        module = Module(names[path], source.count("\n"))
        for dotted in imported_names(ast.parse(source, path), path):
            if dotted != "p2psip" and not dotted.startswith("p2psip."):
                module.foreign.append(dotted)
                continue
            target = resolve(dotted, known)
            module.imports.append(target)
            parts = target.removesuffix(".__init__").split(".")
            ancestors = {".".join([*parts[:depth], "__init__"]) for depth in range(len(parts))}
            own = module.name.split(".")
            ancestors -= {".".join([*own[:depth], "__init__"]) for depth in range(len(own))}
            module.implied.extend(sorted(ancestors & known - {target}))
        modules[module.name] = module
    return modules


def imported_names(tree: ast.Module, path: str) -> Iterator[str]:
    """Every dotted name that a module imports, relative imports made absolute."""
    package = ["p2psip", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def resolve(dotted: str, known: set[str]) -> str:
    """The module that ``import p2psip.a.b`` or ``from p2psip.a import b`` runs last."""
    parts = dotted.split(".")[1:]
    while parts:
        for name in (".".join(parts), ".".join([*parts, "__init__"])):
            if name in known:
                return name
        parts.pop()
    return "__init__"


def place_of(name: str, places: Mapping[str, Place]) -> Place | None:
    """The place of the most specific name that covers the module."""
    if name in places:
        return places[name]
    parts = name.split(".")[:-1]
    while parts:
        if ".".join(parts) in places:
            return places[".".join(parts)]
        parts.pop()
    return None


def faults(sources: Mapping[str, str], house: str = HOUSE, sans_io: tuple[str, ...] = SANS_IO) -> list[str]:
    """What is wrong with a tree of sources, one line for each fault."""
    places = read_house(house)
    modules = read_tree(sources)
    found = []
    for module in modules.values():
        place = place_of(module.name, places)
        if place is None:
            found.append(f"{module.name} has no place in the house")
            continue
        found += [
            f"{module.name} imports {target}, which {relation}"
            for target in dict.fromkeys(module.imports + module.implied)
            if (relation := misplaced(place, place_of(target, places)))
        ]
        pure = place.below_line or covered(module.name, sans_io)
        found += foreign_faults(module, pure)
        if module.lines > MOST_LINES:
            found.append(f"{module.name} has {module.lines} lines, more than {MOST_LINES}")
    found += [f"imports in a circle: {' -> '.join(circle)}" for circle in circles(modules)]
    return found


def misplaced(here: Place, there: Place | None) -> str:
    """How `there` stands to `here` when it must not be imported from here, else nothing."""
    if there is None:
        return "has no place in the house"
    if there.floor > here.floor:
        return "stands on a higher floor"
    if there.floor == here.floor and there.room != here.room:
        return "is another room of the same floor"
    return ""


def covered(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def foreign_faults(module: Module, pure: bool) -> Iterator[str]:
    """A reactor outside service and cli; twisted.internet where neither time nor network belongs."""
    for dotted in module.foreign:
        if not (dotted == "twisted.internet" or dotted.startswith("twisted.internet.")):
            continue
        part = ".".join(dotted.split(".")[:3])
        if part.endswith("reactor"):
            if not covered(module.name, MAY_IMPORT_REACTOR):
                yield f"{module.name} imports a reactor ({dotted})"
        elif pure and part not in PURE:
            yield f"{module.name} imports {dotted}, but is free of time and network"


def circles(modules: Mapping[str, Module]) -> list[list[str]]:
    """Each circle of imports that a walk over the tree closes."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for target in modules[name].imports:
                if target != name:
                    walk(target, [*path, name])
            done.add(name)

    for name in modules:
        walk(name, [])
    return found


class HouseTests(SynchronousTestCase):
    """The tree of p2psip itself, as installed."""

    def setUp(self) -> None:
        root = Path(p2psip.__file__).parent
        self.sources = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}

    def test_p2psip_has_no_fault(self) -> None:
        self.assertEqual(faults(self.sources), [])

    def test_what_is_to_be_free_of_io_exists(self) -> None:
        """A name that stands for nothing would check nothing."""
        names = set(read_tree(self.sources))
        self.assertEqual([name for name in SANS_IO if not {name, f"{name}.__init__"} & names], [])


class CheckerTests(SynchronousTestCase):
    """The checker sees each kind of fault in a small house."""

    house = """
        service | plugins
        links | talk
        ========
        storage | ring
        ids errors __init__ plugins.__init__
    """

    def faults(self, **sources: str) -> list[str]:
        """`sources` by module name, ``__`` standing for a dot; ``ids`` and the packages are there anyway."""
        tree = {"__init__.py": "", "ids.py": ""}
        tree |= {f"{name.replace('__', '/')}.py": textwrap.dedent(text) for name, text in sources.items()}
        return faults(tree, self.house, sans_io=("talk",))

    def test_downward_and_within_a_room(self) -> None:
        self.assertEqual(
            self.faults(
                links="from p2psip import ids\nfrom p2psip.storage import Store\nimport twisted.internet.tcp",
                storage="from .ids import NodeId\nfrom twisted.internet.defer import Deferred",
                errors="import p2psip.ids",
                service="from twisted.internet import reactor",
            ),
            [],
        )

    def test_upward(self) -> None:
        fault = ["storage imports links, which stands on a higher floor"]
        for text in (
            "import p2psip.links",
            "from p2psip import links",
            "from p2psip.links import TLS",
            "from . import links",
            "from .links import TLS",
            "def late():\n    import p2psip.links",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p2psip.links import TLS",
        ):
            self.assertEqual(self.faults(links="", storage=text), fault, text)

    def test_across_rooms(self) -> None:
        fault = ["storage imports ring, which is another room of the same floor"]
        self.assertEqual(self.faults(ring="", storage="from p2psip.ring import Ring"), fault)

    def test_by_way_of_a_package(self) -> None:
        """To import a module runs its packages; they have to stand low enough as well."""
        sources = {"__init__.py": "", "storage.py": "import p2psip.a.low"}
        sources |= {"a/__init__.py": "", "a/low.py": ""}
        house = "a\n====\nstorage\na.low\n__init__"
        fault = ["storage imports a.__init__, which stands on a higher floor"]
        self.assertEqual(faults(sources, house, ()), fault)

    def test_the_most_specific_name_counts(self) -> None:
        """A plug-in stands at the top, the package that finds plug-ins at the bottom."""
        tree = {
            "__init__.py": "",
            "plugins/__init__.py": "",
            "plugins/mine.py": "import p2psip.links",
            "links.py": "from p2psip import plugins",
        }
        self.assertEqual(faults(tree, self.house, ()), [])

    def test_circle(self) -> None:
        self.assertEqual(
            self.faults(errors="import p2psip.ids", ids="from p2psip.errors import RELOADError"),
            ["imports in a circle: ids -> errors -> ids"],
        )

    def test_twisted_internet_below_the_line(self) -> None:
        for text, name in (
            ("from twisted.internet import task", "twisted.internet.task"),
            ("from twisted.internet.task import Clock", "twisted.internet.task.Clock"),
            ("import twisted.internet.protocol", "twisted.internet.protocol"),
        ):
            for module in ("storage", "talk"):
                fault = [f"{module} imports {name}, but is free of time and network"]
                self.assertEqual(self.faults(**{module: text}), fault, text)
            self.assertEqual(self.faults(links=text), [])

    def test_reactor(self) -> None:
        for text, name in (
            ("from twisted.internet import reactor", "twisted.internet.reactor"),
            ("import twisted.internet.reactor", "twisted.internet.reactor"),
            ("from twisted.internet import asyncioreactor", "twisted.internet.asyncioreactor"),
        ):
            self.assertEqual(self.faults(links=text), [f"links imports a reactor ({name})"])

    def test_unknown_module(self) -> None:
        self.assertEqual(self.faults(attic=""), ["attic has no place in the house"])

    def test_long_module(self) -> None:
        self.assertEqual(self.faults(storage="\n" * MOST_LINES), [])
        fault = [f"storage has {MOST_LINES + 1} lines, more than {MOST_LINES}"]
        self.assertEqual(self.faults(storage="\n" * (MOST_LINES + 1)), fault)
