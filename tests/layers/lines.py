#!/usr/bin/env python3
"""Prints by folder how many lines of code src has, and how densely it asserts.

    lines.py [--root DIR]

Code: what is left without comments, blank lines and asserts (assert and static_assert, over all
their lines). The density is asserts per 100 lines of code.
"""
import argparse
import collections
import pathlib
import re

COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
ASSERT = re.compile(r"^\s*(?:static_)?assert\s*\(")


def strip(match):
    """Comments go; of a string its quotes stay, so that its line counts and its brackets do not."""
    text = match.group(0)
    return '""' if text.startswith('"') else re.sub(r"[^\n]", "", text)


def count(text):
    """(lines of code, asserts) of one source."""
    code = asserts = depth = 0
    for line in COMMENT_OR_STRING.sub(strip, text).splitlines():
        if depth > 0 or ASSERT.match(line):
            asserts += depth == 0 and not line.lstrip().startswith("static_")
            depth += line.count("(") - line.count(")")
        elif line.strip():
            code += 1
    return code, asserts


def by_folder(root):
    folders = collections.defaultdict(lambda: [0, 0, 0])
    for path in sorted((root / "src").rglob("*.[ch]")):
        code, asserts = count(path.read_text())
        sums = folders[str(path.parent.relative_to(root))]
        sums[0], sums[1], sums[2] = sums[0] + 1, sums[1] + code, sums[2] + asserts
    return folders


def row(name, files, code, asserts):
    print(f"{name:24}{files:7}{code:8}{asserts:9}{100 * asserts / max(code, 1):9.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parents[2])
    folders = by_folder(parser.parse_args().root)
    print(f"{'folder':24}{'files':>7}{'code':>8}{'asserts':>9}{'per 100':>9}")
    for name, sums in sorted(folders.items()):
        row(name, *sums)
    for name in ("src/store", "src"):
        within = [s for f, s in folders.items() if f == name or f.startswith(name + "/")]
        row(f"all of {name}", *(sum(column) for column in zip(*within)))


if __name__ == "__main__":
    main()
