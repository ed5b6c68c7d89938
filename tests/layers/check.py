#!/usr/bin/env python3
"""Checks the shape of the tree: who may include whom, who may use which library, how long things are.

    check.py [--root DIR] [--objects DIR]

base <- io <- {proto, store, cluster} <- shard <- net <- node <- main, store <- admin (the offline
tools), bpf <- net, and nothing else; within store, net and admin the floors of FLOORS. `--objects` names a build's objects (build/release/src): they show
mutable state at file scope, which is forbidden.
`self_test.py` plants a violation of each rule and asserts that it is found.
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FOLDER_FILES_MAX = 25

# The floors of src, from the bottom up. A folder may include its own files and those of every floor
# below, within the bounds of LAYERS; folders of one floor know nothing of each other.
FLOORS = {
    "store": [
        ["store/disk", "store/record", "store/memory"],
        ["store/unit"],
        ["store/wal", "store/segment", "store/catalog", "store/value"],
        ["store/mover"],
        ["store/scrub"],
        ["store"],
        ["store/start"],
        ["store/reshard"],
    ],
    "net": [
        ["net/steer", "net/watch"],
        ["net/client"],
        ["net/binary", "net/http", "net/peer"],
        ["net"],
    ],
    "admin": [
        ["admin/read"],
        ["admin"],
    ],
}

# layer: the layers it may include, besides its own
LAYERS = {
    "base": set(),
    "io": {"base"},
    "proto": {"base", "io", "minivault"},
    "store": {"base", "io", "minivault"},
    "cluster": {"base", "io", "minivault"},
    "shard": {"base", "io", "minivault", "proto", "store", "cluster"},
    "net": {"base", "io", "minivault", "proto", "store", "cluster", "shard", "bpf", "build"},
    "node": {"base", "io", "minivault", "proto", "store", "cluster", "shard", "net"},
    "admin": {"base", "io", "minivault", "store"},
    "main": {"base", "io", "minivault", "proto", "store", "cluster", "shard", "net", "node"},
    "minivault": set(),
    "bpf": set(),  # runs in the kernel
}

# library header: the files that may include it; of them, and of all of src, one does
LIBRARIES = {
    r"liburing(\.h|/.*)": r"src/io/io_uring\w*\.[ch]",
    r"linux/io_uring\.h": r"src/io/io_uring\w*\.[ch]",
    r"zstd(_\w+)?\.h": r"src/base/compress\.c",
    r"sodium(\.h|/.*)": r"src/[\w/]+\.c",
    r"bpf/(?!steer\.h$).*|build/.*|linux/bpf\.h": r"src/net/steer/steer\.c",
    r"xxhash\.h": r"src/base/\w+\.[ch]",
    r"isa-l(\.h|/.*)": r"src/base/\w+\.c",
    r"llhttp\.h": r"src/proto/\w+\.c",
    r"yyjson\.h": r"src/proto/\w+\.c",
}

# What only src/io may call: sockets, disk, clocks and chance go through io.h. main.c is the edge.
WORLD_CALLS = (
    "socket|bind|listen|accept4?|connect|recv|recvfrom|recvmsg|send|sendto|sendmsg|epoll_\\w+|poll|"
    "select|open|openat|creat|fopen|pread|pwrite|preadv2?|pwritev2?|fsync|fdatasync|fallocate|"
    "ftruncate|rename|renameat2?|unlink|unlinkat|mkdir|opendir|readdir|clock_gettime|gettimeofday|"
    "time|usleep|nanosleep|sleep|getrandom|getentropy|rand|random|srand|arc4random|randombytes_\\w+"
)
WORLD_CALL = re.compile(rf"(?<![\w.>])(?:{WORLD_CALLS})\(")
WORLD_EXEMPT = {
    "src/main.c",      # the edge
    "src/node/secret.c",    # and what it reads there
    "src/node/settings.c",
    "src/node/cgroup.c",  # what the kernel shows of the process
    "src/base/log.c",  # a line to stderr, with the wall clock's time
    "src/node/log_writer.c",  # the only one that may wait for stderr
    "src/admin/read/admin_files.c",  # files for reading, that a server has closed
    "src/net/steer/steer.c", # loads a program into the kernel
}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def blank(match):
    """As many lines as before, and nothing that looks like code."""
    return "\n" * match.group(0).count("\n")


def sources(root, *folders):
    for folder in folders:
        for suffix in ("*.c", "*.h"):
            yield from sorted((root / folder).rglob(suffix))


def layer_of(path):
    if path.parts[0] == "include":
        return "minivault"
    if path.parts[0] == "bpf":
        return "bpf"
    return path.parts[1] if len(path.parts) > 2 else "main"


def floor_of(folder, layer):
    """The folder's place in its layer, from the bottom up; None: the layer has one floor."""
    for floor, folders in enumerate(FLOORS.get(layer, [])):
        if folder in folders:
            return floor
    return None


def check_floor(folder, layer, name):
    """Whether a file of the folder may include the file `name` of its own layer."""
    other = "/".join(name.split("/")[:-1])
    if other == folder:
        return True
    mine, its = floor_of(folder, layer), floor_of(other, layer)
    return mine is not None and its is not None and its < mine


def check_includes(path, text):
    layer = layer_of(path)
    if layer not in LAYERS:
        yield f"{path}: no layer is called '{layer}'"
        return
    allowed = LAYERS[layer] | {layer}
    folder = "/".join(path.parts[1:-1])
    if path.parts[0] == "src" and layer in FLOORS and floor_of(folder, layer) is None:
        yield f"{path}: no floor has the folder '{folder}'"
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        kind, name = match.groups()
        if kind == '"' and "/" not in name and layer != "main":
            yield f'{path}:{number}: "{name}" is not written from src/ or include/'
        elif kind == '"' and "/" in name and name.split("/")[0] not in allowed:
            yield f"{path}:{number}: {layer} must not include {name}"
        elif kind == '"' and name.split("/")[0] == layer and path.parts[0] == "src" and \
                not check_floor(folder, layer, name):
            yield f"{path}:{number}: {folder} must not include {name}, which is not below it"
        elif name.endswith(".c"):
            yield f"{path}:{number}: includes the source {name}"


def check_libraries(files):
    """files: (path, text) pairs of src."""
    for header, allowed in LIBRARIES.items():
        users = []
        for path, text in files:
            names = [m.group(2) for m in map(INCLUDE.match, text.splitlines()) if m]
            if any(re.fullmatch(header, name) for name in names):
                users.append(str(path))
        for user in users:
            if not re.fullmatch(allowed, user):
                yield f"{user}: must not include the library header {header}"
        if len(users) > 1:
            yield f"{', '.join(users)}: only one file may include {header}"


def check_world(path, code):
    if path.parts[:2] == ("src", "io") or str(path) in WORLD_EXEMPT:
        return
    for number, line in enumerate(code.splitlines(), 1):
        match = WORLD_CALL.search(line)
        if match and not line.startswith(("static ", "int ", "void ")):
            yield f"{path}:{number}: {match.group(0)}) goes around io.h"


def check_sizes(path, text):
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX:
        yield f"{path}: {len(lines)} lines, more than {FILE_LINES_MAX}"
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start:
            if number - start + 1 > FUNCTION_LINES_MAX:
                yield (f"{path}:{start}: a function of {number - start + 1} lines, "
                       f"more than {FUNCTION_LINES_MAX}")
            start = None


def check_folders(paths):
    """A folder of src that holds more than one can look over."""
    for folder, count in sorted(collections.Counter(path.parent for path in paths).items()):
        if count > FOLDER_FILES_MAX:
            yield f"{folder}: {count} files, more than {FOLDER_FILES_MAX}"


def check_plants(files):
    """A bug of base/plant.h that is planted nowhere: its simulator could find nothing."""
    texts = {str(path): text for path, text in files}
    names = re.findall(r"^\s+(PLANT_\w+),", texts.get("src/base/plant.h", ""), re.MULTILINE)
    for name in names:
        if name != "PLANT_NONE" and not any(f"plant_is({name})" in t for t in texts.values()):
            yield f"src/base/plant.h: {name} is planted nowhere"


def check_state(objects):
    """Mutable state shows as a symbol in .data, .bss, .tdata, .tbss or COMMON."""
    for path in sorted(objects.rglob("*.o")):
        table = subprocess.run(["objdump", "-t", str(path)], capture_output=True, text=True,
                               check=True).stdout
        for line in table.splitlines():
            match = re.match(r"[0-9a-f]{16} .{7} (\S+)\s+([0-9a-f]{16})\s+(.*)", line)
            if not match or int(match.group(2), 16) == 0:
                continue
            section, _, name = match.groups()
            mutable = re.match(r"\.t?(data|bss)(\.|$)|\*COM\*", section)
            if mutable and not section.startswith(".data.rel.ro"):
                yield f"{path}: mutable state at file scope: {name}"


def check(root, objects):
    problems = []
    files = []
    for path in sources(root, "src", "include", "bpf"):
        text = path.read_text()
        short = path.relative_to(root)
        if short.parts[0] == "src":
            files.append((short, text))
            problems += check_world(short, COMMENT_OR_STRING.sub(blank, text))
        problems += check_includes(short, text)
    problems += check_libraries(files)
    problems += check_folders(path for path, _ in files)
    problems += check_plants(files)
    for path in sources(root, "src", "include", "bpf", "tests", "perf"):
        problems += check_sizes(path.relative_to(root), path.read_text())
    if objects:
        problems += check_state(objects)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parents[2])
    parser.add_argument("--objects", type=pathlib.Path)
    arguments = parser.parse_args()
    problems = check(arguments.root, arguments.objects)
    for problem in problems:
        print(problem)
    print(f"layers: {0 if problems else 1} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
