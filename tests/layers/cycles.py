#!/usr/bin/env python3
"""Shows which .c files depend on each other in a circle, by the symbols of a build's objects.

    cycles.py [--objects build/release/src] [--verbose]

Across folders there is none. Within a folder there are at most FOLDER_CYCLES_MAX over the whole
tree, each of at most CYCLE_FILES_MAX files: where one idea needs two files.
"""
import argparse
import collections
import pathlib
import subprocess
import sys

FOLDER_CYCLES_MAX = 6
CYCLE_FILES_MAX = 4

SOURCES = pathlib.Path(__file__).parents[2] / "src"


def symbols(path):
    """(defined, needed) global symbols of an object."""
    defined, needed = set(), set()
    table = subprocess.run(["nm", "-g", str(path)], capture_output=True, text=True,
                           check=True).stdout
    for line in table.splitlines():
        *_, kind, name = line.split()
        (needed if kind in "Uw" else defined).add(name)
    return defined, needed


def world(path):
    """The real world and the simulated one define the same functions, and are never linked together.
    None: it is in both."""
    return next((each for each in ("io_uring", "io_sim") if path.name.startswith(each)), None)


def load(objects, sources=SOURCES):
    """file: {files that it calls: the symbols}. Files are named without .o, from the root."""
    tables = {}
    for path in sorted(objects.rglob("*.o")):
        name = path.relative_to(objects).with_suffix("")
        if (sources / name).with_suffix(".c").exists():  # else it was left by an earlier build
            tables[name] = symbols(path)
    home = collections.defaultdict(set)
    for path, (defined, _) in tables.items():
        for name in defined:
            home[name].add(path)
    graph = {}
    for path, (_, needed) in tables.items():
        calls = collections.defaultdict(set)
        for name in needed:
            for target in home.get(name, ()):
                worlds = {world(path), world(target)} - {None}
                if target != path and len(worlds) < 2:
                    calls[target].add(name)
        graph[path] = calls
    return graph


def components(graph):
    """Strongly connected components of more than one node (Tarjan 1972), without recursion."""
    index, low, stack, on_stack, found = {}, {}, [], set(), []
    for root in graph:
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, edges = work[-1]
            for target in edges:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(graph.get(target, ()))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    members = []
                    while not members or members[-1] != node:
                        members.append(stack.pop())
                        on_stack.discard(members[-1])
                    if len(members) > 1:
                        found.append(sorted(members))
    return found


def by_folder(graph):
    folders = collections.defaultdict(lambda: collections.defaultdict(set))
    for path, calls in graph.items():
        for target in calls:
            if target.parent != path.parent:
                folders[path.parent][target.parent].add((path.name, target.name))
        _ = folders[path.parent]
    return folders


def within_folders(graph):
    inner = {path: {t: names for t, names in calls.items() if t.parent == path.parent}
             for path, calls in graph.items()}
    return components(inner)


def check(graph, verbose=False):
    folders = by_folder(graph)
    for members in components(folders):
        yield f"folders in a circle: {', '.join(map(str, members))}"
        for a in members if verbose else ():
            for b in members:
                for pair in sorted(folders[a].get(b, ())):
                    print(f"    {a}/{pair[0]} calls {b}/{pair[1]}")
    inner = within_folders(graph)
    for members in inner:
        if verbose:
            print(f"circle: {', '.join(map(str, members))}")
            for a in members:
                for b in members:
                    if graph[a].get(b):
                        print(f"    {a.name} -> {b.name}: {', '.join(sorted(graph[a][b]))}")
        if len(members) > CYCLE_FILES_MAX:
            yield f"{len(members)} files in a circle: {', '.join(map(str, members))}"
    if len(inner) > FOLDER_CYCLES_MAX:
        yield f"{len(inner)} circles of files within folders, more than {FOLDER_CYCLES_MAX}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=pathlib.Path, default=pathlib.Path("build/release/src"))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    problems = list(check(load(arguments.objects), arguments.verbose))
    for problem in problems:
        print(problem)
    print(f"cycles: {0 if problems else 1} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
