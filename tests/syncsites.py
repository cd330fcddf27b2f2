"""Where backy asks for something to last: all calls of a sync in its source, and its code without one.

    sites()["repository.quarantine.set_aside"]        where it stands
    BACKY_WITHOUT_SYNC=NAME pytest -p syncsites …     a run in which that call is not made

A second call in one function is `NAME#2`, and so on. Each of them is needed: by a power cut in
test_power_cut_model, or by the test that is NOTICED here; or it is HARMLESS to do without, and says why.

Limits: finds calls by their names; those that only pass a call on are no sites. Leaves out calls of one
module, in the process that runs the tests.
"""

import ast
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import backy

ENVIRONMENT = "BACKY_WITHOUT_SYNC"
_SOURCE = Path(str(backy.__file__)).parent
_NAMES = {"fsync", "sync", "syncfs", "sync_all", "sync_directory"}
# They are what the others call.
_PASSED_ON = {
    "ground.durable.Batch.sync",
    "ground.durable.UnnamedFile.sync",
    "ground.durable.sync_all",
    "ground.durable.sync_directory",
    "ground.linux.syncfs",
    "target.direct.DirectWriter.sync",
}


# Syncs without which a power cut costs nothing, with the reason why they are there all the same.
HARMLESS = {
    "operation.collect._Run._condemn": "as Generation.sync, which it calls",
    "operation.collect._Run._seal_where_needed": "as Generation.sync, which it calls",
    "repository.garbage.Generation.seal": "after a power cut no writer of a census lives",
    "repository.garbage.Generation.sync": "a condemned chunk is in the store or in the trash",
    "repository.garbage.Generation.sync#2": "a condemned chunk is in the store or in the trash",
    "repository.garbage.new_generation": "a generation that is lost is made again",
    "repository.quarantine._move": "a rename is one change; the report, which is synced, lies beside it",
    "repository.quarantine._move#2": "as above; where the folders are logged apart, it keeps a name",
    "repository.reserve.restore": "a reserve that is lost is made again",
    "repository.trust._forget": "a mark that comes back has hits read once more",
}

# What shows without them, beside the power cuts of test_power_cut_model, which come by all others.
NOTICED = {
    "daemon.prepare._prepare_job": "model/test_lossy_repository.py::test_a_configuration_that_the",
    "ground.pagecache.UncachedFile.read": "unit/test_pagecache.py::test_a_file_without_direct_reads",
    "repository.damage.refresh": "model/test_lossy_repository.py::test_damage_that_is_found",
    "repository.garbage.Generation._link_back": "unit/test_trash_generations.py::test_marked_chunk",
    "repository.quarantine._link_back": "model/test_lossy_quarantine.py::test_a_good_chunk_that_is",
    "repository.quarantine._link_back#2": "model/test_lossy_quarantine.py::test_a_good_chunk_that_re",
    "repository.quarantine.delete": "model/test_lossy_repository.py::test_a_case_that_was_deleted",
    "repository.quarantine.set_aside": "model/test_lossy_quarantine.py::test_a_bad_chunk_that_was_moved",
    "repository.remembered._remove": "model/test_lossy_repository.py::test_a_list_that_was_forgotten",
    "repository.repository.create": "model/test_lossy_repository.py::test_a_repository_that_was_made",
    "repository.repository.create#2": "unit/test_repository_create.py::test_format_file_comes",
    "repository.repository.create#3": "model/test_lossy_repository.py::test_a_repository_that_was_made",
    "repository.repository.create#4": "model/test_lossy_repository.py::test_a_repository_that_was_made",
    "repository.repository.create_job": "model/test_lossy_repository.py::test_a_job_that_was_made",
    "repository.repository.create_job#2": "model/test_lossy_repository.py::test_a_job_that_was_made",
    "repository.reserve.give_up": "unit/test_reserve.py::test_its_room_is_there_as_soon",
    "repository.reserve.make": "model/test_lossy_repository.py::test_a_reserve_is_whole",
    "repository.trust._renew": "model/test_lossy_repository.py::test_a_mark_of_distrust_that_somebody",
    "repository.trust.sync_folder": "unit/test_healing_rules.py::test_the_name_of_a_new_chunk_lasts",
    "source.clone._make": "contract/test_clone_refusals.py::test_clone_is_synced",
    "source.clone._make#2": "contract/test_clone_refusals.py::test_clone_is_synced",
    "source.clonefiles._remove": "contract/test_clone_files.py::test_a_clone_that_was_removed",
    "source.file.FileSnapshot._stamp": "contract/test_file_source.py::test_image_that_is_written",
    "target.device.DeviceTarget.finish": "contract/test_target_failures.py::test_device_that_fails",
    "target.file.FileTarget.finish": "contract/test_target_failures.py::test_a_restored_file",
    "target.file.FileTarget.finish#2": "contract/test_target_failures.py::test_a_restored_file",
    "target.stream.StreamTarget.finish": "contract/test_target_failures.py::test_device_behind",
}


class Site(NamedTuple):
    """A call: the module below `backy`, the function's qualified name there, and line and column."""

    module: str
    function: str
    line: int
    column: int


def sites() -> dict[str, Site]:
    """All of them, by name."""
    found: dict[str, Site] = {}
    for path in sorted(_SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(_SOURCE).with_suffix("").parts)
        for site in _calls(ast.parse(path.read_bytes()), Site(module, "", 0, 0)):
            name, number = f"{site.module}.{site.function}", 1
            if name in _PASSED_ON:
                continue
            while name in found:
                number += 1
                name = f"{site.module}.{site.function}#{number}"
            found[name] = site
    return found


def _calls(node: ast.AST, within: Site) -> list[Site]:
    found = []
    for child in ast.iter_child_nodes(node):
        inner = within
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            inner = within._replace(function=f"{within.function}.{child.name}".lstrip("."))
        elif isinstance(child, ast.Call) and _called(child) in _NAMES:
            found.append(within._replace(line=child.lineno, column=child.col_offset))
        found += _calls(child, inner)
    return found


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


# ..A run without one...........................................................................


class _Without(ast.NodeTransformer):
    """Puts nothing in the place of a call."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Nothing, or the call with what is in it."""
        at = node.lineno, node.col_offset
        if at == (self._site.line, self._site.column) and _called(node) in _NAMES:
            return ast.copy_location(ast.Constant(None), node)
        return self.generic_visit(node)


class _Loader(SourceFileLoader):
    """Compiles a module without a call; what was compiled before does not count."""

    def __init__(self, path: str, site: Site) -> None:
        super().__init__(f"backy.{site.module}", path)
        self._site = site

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader`."""
        tree = _Without(self._site).visit(ast.parse(self.get_data(self.path)))
        return compile(tree, self.path, "exec")


class _Finder(MetaPathFinder):
    """Finds the module of a call before anybody else does."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if fullname != f"backy.{self._site.module}":
            return None
        found = PathFinder.find_spec(fullname, path)
        assert found is not None
        assert found.origin is not None
        found.loader = _Loader(found.origin, self._site)
        return found


def _install(site: Site) -> None:
    """As a plugin, which is imported before anything of backy is."""
    assert f"backy.{site.module}" not in sys.modules
    sys.meta_path.insert(0, _Finder(site))


if wanted := os.environ.get(ENVIRONMENT):
    _install(sites()[wanted])
