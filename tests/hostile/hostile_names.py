"""Two hundred names that break simpler programs: traversal, controls, lookalikes, metacharacters.

    NAMES                  all of them, once each
    FINE_JOBS, FINE_TAGS   those that doc and DESIGN allow all the same

Limits: every one is a text that Python can hold; some (NUL) no command line could pass on.
"""

import unicodedata

TRAVERSAL = [
    "..", ".", "../..", "../outside", "../../outside", "../../../../../../etc/passwd", "/", "//",
    "/etc", "/etc/passwd", "a/b", "a/../b", "a/../../outside", "./a", "a/", "/a", "vm/", "vm/.",
    "vm/..", "vm//", "chunks/../vm", "chunks/ab", "chunks/format", ".history", ".backup",
    ".hidden", "...", "..a", "a/./b", "..\\outside", "..\\..\\outside", "a\\b", "C:\\a", "C:",
    "\\\\host\\share", "file:///etc/passwd", "http://localhost/", "%2e%2e", "%2e%2e%2foutside",
    "..%2foutside", "%00", "%252e%252e", "..%c0%afoutside", "..%ef%bc%8foutside", "&#46;&#46;/",
    "....//outside", "..;/outside", "~", "~root", "~/x", "$HOME", "${HOME}/x", "-", "--", "-r",
    "--help", "-b/", "/dev/null", "/dev/zero", "/proc/self/root", "/dev/fd/0",
]  # fmt: skip
CONTROLS = [f"a{chr(code)}b" for code in (*range(32), 127, 0x80, 0x85, 0x9B)]
LOOKALIKES = [
    "\uff0e\uff0e", "\uff0e\uff0e\uff0foutside", "\u2024\u2024/outside", "\u2025", "\u2026",
    "a\u2215b", "a\u2044b", "a\u29f8b", "\u0430", "v\u043c", "\u202evm", "vm\u202e", "vm\u200b",
    "\u200bvm", "vm\u00ad", "\ufeffvm", "vm\u0301", "\u0660\u0661", "\u00bd", "\u2460",
    "\uff56\uff4d", "\u1d5b\u1d50", "vm\u00a0", "\u3000", "\U0001f4be", "\ud800", "\udcff",
    "vm\udc80", "\u017fm", "\u212a", "\u0130", "\u00df",
]  # fmt: skip
SHELL = [
    "", " ", "  ", " vm", "vm ", "v m", "\t", "vm;id", "vm|id", "vm&id", "vm&&id", "`id`",
    "$(id)", "vm>x", "vm<x", "*", "?", "[a]", "{a,b}", "!", "#", "'", '"', "''", '""', "'vm'",
    "\\", "^", "=", "a=b", "@", "+", "vm\\0", "vm\\n", "%s", "%n%n%n", "{0}", "{}",
    "{0.__class__}", "${jndi:ldap://x}", "<b>", "&lt;", "a,b", ",", ",,", "null", "None", "true",
    "NaN", "-1", "0x0", "1e9", "a:b", ":", "::", "manual:", "manual:/", "manual:..", "manual:a/b",
    "manual: a", "manual:\n", "tag:", "server:", "(", ")", "()", "((", "not(", "..(",
]  # fmt: skip
LONG = ["x" * 63, "x" * 64, "x" * 255, "x" * 256, "x" * 5000, "x" * 200_000, "../" * 2000, "/" * 5000]
FINE = [
    "vm", "VM", "vm01", "0", "9vm", "a.b", "a..b", "a.", "a-", "a_", "a-b_c.d", "con", "nul",
    "aux", "vm.rev", "chunk", "Chunks", "chunksx", "00000000-0000-4000-8000-000000000000",
]  # fmt: skip

NAMES = list(dict.fromkeys([*TRAVERSAL, *CONTROLS, *LOOKALIKES, *SHELL, *LONG, *FINE, "chunks"]))


def is_fine_job(name: str) -> bool:
    """DESIGN's rule for job names, said in other words than the program's."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    allowed = letters + letters.upper() + "0123456789._-"
    return (
        1 <= len(name) <= 63
        and name[0] not in "._-"
        and all(one in allowed for one in name)
        and name != "chunks"
    )


def is_fine_tag(name: str) -> bool:
    """Letters, digits and some signs, of which `:` parts `manual:` from the rest."""
    return (
        1 <= len(name) <= 63
        and name[0] not in ".:+-"
        and all(one.isascii() and (one.isalnum() or one in "_.:+-") for one in name)
    )


def shown(name: str) -> str:
    """A name as a test's id."""
    return ascii(name)[:30] if name else "(empty)"


def controls_in(text: str) -> set[str]:
    """Characters that could steer a terminal, line ends aside."""
    return {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs") and one != "\n"}
