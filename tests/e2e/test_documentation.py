"""The documentation is true: commands, codes, links, bytes and examples as the code has them."""

import functools
import hashlib
import importlib
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from pages import DOC, FENCE, LINK, PAGES, ROOT, first_block, first_table, prose, table_rows

from backy.cli import edge
from backy.cli.main import ALIASES, COMMANDS, cli
from backy.domain import chunk, revision, revspec
from backy.domain.chunk import Encoder, chunk_id, parse_codec
from backy.domain.chunkmap import NO_DISK, Entry, Layout
from backy.domain.health import State
from backy.domain.revision import (
    MapDigest,
    Origin,
    Reading,
    Revision,
    SourceIdentity,
    Stats,
    Trust,
    View,
)
from backy.ground import errors
from backy.ground.directory import Directory
from backy.ground.errors import BackyError, SpecError
from backy.repository import layout
from backy.repository.maps import MapWriter
from goldenstore import held_by, unpack
from testsite import Site

SECTIONS = ["Name", "Synopsis", "Description", "Options", "Exit codes", "Examples", "See also"]

UUID = "00000000-0000-4000-8000-000000000001"
BASE, CHANGED = bytes(4096) + b"base.", bytes(4096) + b"delta"


def names(pages: list[Path]) -> list[str]:
    """Ids of pages in pytest's report."""
    return [str(page.relative_to(ROOT)) for page in pages]


# ..Commands..................................................................................


def command_of(name: str) -> click.Command:
    """The click command of that name."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def options_of(command: click.Command) -> set[str]:
    """All spellings of a command's options, the help's included."""
    context = click.Context(command, info_name=command.name, help_option_names=["-h", "--help"])
    return {
        word
        for one in command.get_params(context)
        if isinstance(one, click.Option)
        for word in (*one.opts, *one.secondary_opts)
    }


def documented_options(page: str) -> set[str]:
    """The spellings that the option list of a page defines."""
    section = page.split("## Options\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("`")]
    return {word.split()[0] for line in lines for word in re.findall(r"`(-[^`]+)`", line)}


def page_of(name: str) -> str:
    """The page of a command, or of the whole."""
    return (DOC / "commands" / f"{name}.md").read_text()


def test_every_command_has_a_page_and_every_page_a_command() -> None:
    """Pages and commands are the same set."""
    pages = {page.stem for page in (DOC / "commands").glob("*.md")}

    assert {"backy", *COMMANDS} == pages


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_page_has_exactly_the_options_of_its_command(name: str) -> None:
    """No option is undocumented, and none is documented that does not exist."""
    assert options_of(command_of(name)) == documented_options(page_of(name))


def test_the_main_page_has_exactly_the_global_options() -> None:
    """The options before the command are documented like the others."""
    assert options_of(cli) == documented_options(page_of("backy"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_page_names_every_argument(name: str) -> None:
    """The synopsis shows what has to follow the options."""
    synopsis = page_of(name).split("## Synopsis\n", 1)[1].split("\n## ", 1)[0]
    arguments = [one for one in command_of(name).params if isinstance(one, click.Argument)]
    words = [
        word
        for one in arguments
        for word in (
            one.type.choices
            if isinstance(one.type, click.Choice)
            else [(one.metavar or one.name or "").upper()]
        )
    ]

    assert [] == [word for word in words if word not in synopsis]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_page_has_the_sections_of_a_manual_page_in_order(name: str) -> None:
    """Pages are laid out alike, with name, synopsis, and so on."""
    assert SECTIONS == re.findall(r"^## (.*)$", page_of(name), re.MULTILINE)


def test_commands_and_aliases_are_listed_on_the_main_page() -> None:
    """Each command links to its page and stands beside its other name."""
    rows = {row[0]: row for row in table_rows(page_of("backy"))}
    aliases = {name: alias for alias, name in ALIASES.items()}

    assert {name: aliases.get(name, "") for name in COMMANDS} == {
        name: rows[f"[{name}]({name}.md)"][1] for name in COMMANDS
    }


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_a_command_page_names_its_alias(alias: str, name: str) -> None:
    """Whoever looks up an alias by its name finds the page."""
    assert f"backy {alias}" in page_of(name)


def shown_command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, arguments) of every `backy` that follows a prompt in a code block."""
    for page in PAGES:
        for _, block in FENCE.findall(page.read_text()):
            for line in re.findall(r"^ *\$ (.*)$", block, re.MULTILINE):
                lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
                lexer.whitespace_split = True
                words: list[str] = []
                for word in [*lexer, "|"]:
                    if word not in ("|", "&&", "&"):
                        words.append(word)
                        continue
                    if words[:1] == ["backy"]:
                        yield str(page.relative_to(ROOT)), words[1:]
                    words = []


@pytest.mark.parametrize(("page", "words"), list(shown_command_lines()))
def test_a_shown_command_line_is_accepted(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every example of the documentation has options and arguments that exist."""
    for listed in COMMANDS.values():
        command = importlib.import_module(f"backy.cli.{listed.module}").command
        monkeypatch.setattr(command, "callback", lambda **_: None)

    cli.main(words, prog_name="backy", standalone_mode=False)


def test_targets_of_make_that_the_readme_names_exist() -> None:
    """`make demo` and the others are in the Makefile."""
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"demo", "test"} <= named <= targets


# ..Exit codes, decisions.....................................................................


def error_classes() -> dict[str, str]:
    """Exit code of every error that backy raises on purpose."""
    found = [one for one in vars(errors).values() if isinstance(one, type)]
    return {one.__name__: str(one.exit_code) for one in found if issubclass(one, BackyError)}


def test_the_table_of_errors_has_every_error_with_its_exit_code() -> None:
    """Code and table agree, in both directions."""
    section = (DOC / "exit-codes.md").read_text().split("## By error\n", 1)[1]

    assert error_classes() == {row[0]: row[1] for row in table_rows(section)}


def test_the_table_of_exit_codes_has_every_code() -> None:
    """Codes of errors, of signals, of `check`, and of success are explained."""
    text = (DOC / "exit-codes.md").read_text().split("## By error\n", 1)[0]
    codes = {"0", str(edge.INTERRUPTED), str(edge.TERMINATED), *error_classes().values()}
    codes |= {str(state.value) for state in State}

    assert codes == {row[0] for row in table_rows(text)}


def test_every_dependency_has_its_line() -> None:
    """What pyproject.toml asks for is explained in ADR 2, and nothing else is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    rows = table_rows((DOC / "adr" / "0002-dependencies.md").read_text())

    assert {re.split(r"[>=<]", one)[0] for one in wanted} == {row[0] for row in rows}


def test_every_decision_is_in_the_index() -> None:
    """The index of decisions lists each file once."""
    files = sorted(path.name for path in (DOC / "adr").glob("[0-9]*.md"))

    assert files == re.findall(r"\]\(([0-9][^)]*)\)", (DOC / "adr" / "README.md").read_text())


# ..Links.....................................................................................


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made from Markdown."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_relative_links_lead_somewhere(page: Path) -> None:
    """The file of every relative link exists, and so does the heading that it points to."""
    dead = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)

    assert [] == dead


def test_every_page_is_reached_from_the_readme() -> None:
    """Nobody has to know that a page is there."""
    reached: set[Path] = set()
    following = {ROOT / "README.md"}
    while following:
        page = following.pop()
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(prose(page)))
        following |= {(page.parent / link).resolve() for link in links} & set(PAGES) - reached

    assert set(PAGES) == reached


# ..Formats...................................................................................


def known_answers() -> dict[str, str]:
    """The blocks of doc/format.md that say what bytes the code writes, by their marks."""
    text = (DOC / "format.md").read_text()
    marks = re.findall(r"<!-- (known answer: .*?) -->", text)
    return {mark.removeprefix("known answer: "): first_block(text, mark) for mark in marks}


def unhexed(block: str) -> bytes:
    """Bytes of a hex dump with addresses, which are checked."""
    content = b""
    for line in block.splitlines():
        address, _, digits = line.strip().partition("  ")
        assert len(content) == int(address, 16), line
        content += bytes.fromhex(digits)
    return content


def joined(frame: list[chunk.Buffer]) -> bytes:
    """A frame as the file that it becomes."""
    return b"".join(bytes(part) for part in frame)


@functools.cache
def example_map(folder: str) -> tuple[MapDigest, bytes]:
    """The map of the example, as the real writer makes it."""
    with Directory.open(folder) as job:
        writer = MapWriter(job, UUID, NO_DISK, Layout(8192, 8192 + len(CHANGED)))
        writer.expect(1)
        writer.set(1, Entry(chunk_id(CHANGED), chunk_id(BASE)))
        digest = writer.seal()
        writer.link()
        writer.close()
    return digest, (Path(folder) / layout.map_name(UUID)).read_bytes()


def example_record(digest: MapDigest) -> Revision:
    """The record of the example."""
    return Revision(
        uuid=UUID,
        taken_at=datetime(2026, 11, 1, 3, 0, tzinfo=UTC),
        tags={"daily": Origin.SCHEDULE, "manual:before-upgrade": Origin.MANUAL},
        maps=(digest,),
        source=SourceIdentity(
            type="file",
            path="/srv/images/vm01.raw",
            inode=12,
            changed_ns=1793502000000000000,
            size=12293,
            view=View.IN_PLACE,
        ),
        stats=Stats(
            duration=0.25,
            bytes_scanned=4101,
            bytes_changed=5,
            bytes_read=4101,
            bytes_new=5,
            bytes_written=81,
            chunks=2,
            chunks_zero=1,
            chunks_new=1,
            seconds={"snapshot": 0.01, "read": 0.17, "commit": 0.05},
        ),
        reading=Reading(
            last_full="00000000-0000-4000-8000-000000000001", why="the image is read in place"
        ),
    )


def test_documented_formats_are_what_the_code_writes(tmp_path: Path) -> None:
    """Format file, frames, map and record of doc/format.md are computed again, byte by byte."""
    answers = known_answers()
    none = Encoder(parse_codec("none"))
    found = layout.StoreFormat(repository="00000000-0000-4000-8000-0000000000aa")
    digest, content = example_map(str(tmp_path))
    full = chunk.encode_full(chunk_id(b"backy"), b"backy", none)
    delta = chunk.encode_delta(chunk_id(CHANGED), CHANGED, chunk_id(BASE), BASE, 0, none)

    assert layout.serialise_format(found).decode() == answers.pop("format")
    assert joined(full) == unhexed(answers.pop('frame, none, "backy"'))
    assert joined(delta) == unhexed(answers.pop("frame, delta"))
    assert content == unhexed(answers.pop("map"))
    assert revision.serialise(example_record(digest)).decode() == answers.pop("record")
    for codec in ("lz4", "zstd"):
        frame = unhexed(answers.pop(f'frame, {codec}, 20 times "backy"'))
        plain = b"backy" * 20
        assert plain == chunk.decode(chunk_id(plain), frame)
        assert parse_codec(codec).number == frame[5]
    assert {} == answers


def test_documented_delta_decodes_to_its_chunk() -> None:
    """The example of a delta is one, against the base that the text names."""
    frame = unhexed(known_answers()["frame, delta"])

    assert CHANGED == chunk.decode(chunk_id(CHANGED), frame, {chunk_id(BASE): BASE}.__getitem__)


def test_documented_chunk_ids_are_right() -> None:
    """The table of ids has BLAKE3 of the plain bytes that it names."""
    section = (DOC / "format.md").read_text().split("## Chunks\n", 1)[1].split("\n## ", 1)[0]
    rows = [row[1] for row in table_rows(section)]

    assert [chunk_id(one).hex() for one in (b"backy", b"backy" * 20, BASE, CHANGED)] == rows


def test_the_documented_reader_restores_the_golden_store(tmp_path: Path) -> None:
    """The program in doc/format.md, which knows nothing of backy, reads every form of the format."""
    program = first_block((DOC / "format.md").read_text(), "reader")
    base, image = tmp_path / "base", tmp_path / "image.raw"
    unpack("store-1", base)
    expected = held_by("store-1")

    assert "import backy" not in program
    assert expected
    for uuid, described in expected.items():
        arguments = [str(base), "vm", uuid, str(image)]
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=120)
        with image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        assert described == {"size": image.stat().st_size, "sha256": digest}


def test_the_documented_reader_restores_a_disk(tmp_path: Path) -> None:
    """One of several, by its name."""
    program = first_block((DOC / "format.md").read_text(), "reader")
    site = Site(tmp_path)
    images = {name: tmp_path / name for name in ("root", "data")}
    for name, path in images.items():
        path.write_bytes(name.encode() * 3000)
    site.add_disks("guest", images)
    revision = site.backup(job="guest")

    for name, path in images.items():
        arguments = [str(site.base), "guest", revision.uuid, str(tmp_path / "image"), name]
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=120)
        assert path.read_bytes() == (tmp_path / "image").read_bytes()


# ..Revision specs............................................................................


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host whose zone is UTC, as the examples say."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def documented_history() -> dict[str, Revision]:
    """The history of doc/revision-specs.md, by the names that its examples use."""
    rows = first_table((DOC / "revision-specs.md").read_text(), "history")
    return {
        name: Revision(
            uuid=uuid,
            taken_at=datetime.fromisoformat(taken_at).replace(tzinfo=UTC),
            tags=dict.fromkeys(tags.split(), Origin.SCHEDULE),
            trust=Trust(trust),
            maps=(),
            source=SourceIdentity(type="file"),
            stats=Stats(),
        )
        for name, uuid, taken_at, tags, trust in rows
    }


def outcome(spec: str, history: dict[str, Revision]) -> str:
    """What a spec names, in the words of the examples."""
    named = {one.uuid: name for name, one in history.items()}
    try:
        found = revspec.select(spec, list(history.values()))
    except SpecError as error:
        return f"error at {error.position + 1}: {error.why}"
    return ", ".join(named[one.uuid] for one in found) or "none"


@pytest.mark.parametrize(
    ("spec", "expected"), first_table((DOC / "revision-specs.md").read_text(), "examples")
)
@pytest.mark.usefixtures("utc")
def test_examples_of_revision_specs_give_what_they_say(spec: str, expected: str) -> None:
    """Each example of doc/revision-specs.md is evaluated on the history above it."""
    assert expected == outcome(spec, documented_history())


def test_grammar_of_revision_specs_stands_in_the_page_as_in_the_code() -> None:
    """The rules that the parser's docstring gives for operators are the page's, but for the words."""
    page = (DOC / "revision-specs.md").read_text()
    rules = ("spec", "term", "range", "function")
    shown, parsed = (
        [line.split() for line in text.splitlines() if line.strip().startswith(rules) and " = " in line]
        for text in (page, revspec.__doc__ or "")
    )

    assert len(rules) == len(parsed)
    assert parsed == shown
