#!/usr/bin/env python3
"""Plants a violation of each rule of check.py and cycles.py into a small tree and asserts that it is
found."""
import pathlib
import subprocess
import sys
import tempfile

import check
import cycles

CLEAN = {
    "src/base/list.h": "struct list_node { int x; };\n",
    "src/base/compress.c": "#include <zstd.h>\n",
    "src/io/io.h": '#include "base/list.h"\n',
    "src/io/io_uring.c": '#include "io/io.h"\n#include <liburing.h>\n'
                         "int f(void)\n{\n    return open(0, 0);\n}\n",
    "src/store/wal.c": '#include "io/io.h"\n#include "store/wal.h"\n'
                       "/* open(2) and time() may be talked about. */\n"
                       'const char *g(void)\n{\n    return wal_open(x->time(0), "open(");\n}\n',
    "src/store/wal.h": '#include "base/list.h"\n',
    "src/proto/binary.h": '#include "minivault/protocol.h"\n',
    "src/shard/shard.c": '#include "store/wal.h"\n#include "proto/binary.h"\n',
    "src/net/connection.c": '#include "shard/shard.h"\n',
    "src/main.c": '#include "net/connection.h"\n#include "flags.h"\n',
    "src/flags.h": '#include "base/list.h"\n',
    "src/admin/admin.c": '#include "admin/admin.h"\n#include "store/wal.h"\n#include "io/io.h"\n',
    "src/admin/admin.h": '#include "base/list.h"\n',
    "src/admin/read/admin_files.c": "int f(void)\n{\n    return open(0, 0);\n}\n",
    "include/minivault/protocol.h": "enum { A };\n",
    "bpf/steer.h": "#include <stdint.h>\n",
    "src/net/steer/steer.h": '#include "bpf/steer.h"\n',
    "src/net/steer/steer.c": '#include "build/bpf/steer.skel.h"\n'
                             '#include "net/steer/steer.h"\n',
}

# name, file, content, what the complaint says
PLANTED = [
    ("base_includes_io", "src/base/a.c", '#include "io/io.h"\n', "base must not include io/io.h"),
    ("io_includes_store", "src/io/a.c", '#include "store/wal.h"\n', "io must not include"),
    ("store_includes_proto", "src/store/a.c", '#include "proto/binary.h"\n', "store must not"),
    ("proto_includes_store", "src/proto/a.h", '# include "store/wal.h"\n', "proto must not"),
    ("cluster_includes_store", "src/cluster/a.c", '#include "store/wal.h"\n', "cluster must not"),
    ("store_includes_cluster", "src/store/a.c", '#include "cluster/x.h"\n', "store must not"),
    ("shard_includes_net", "src/shard/a.c", '#include "net/connection.h"\n', "shard must not"),
    ("public_header_includes_src", "include/minivault/a.h", '#include "base/list.h"\n',
     "minivault must not"),
    ("net_includes_flags", "src/net/a.c", '#include "flags.h"\n', "not written from src/"),
    ("admin_includes_net", "src/admin/a.c", '#include "net/connection.h"\n', "admin must not"),
    ("store_includes_admin", "src/store/a.c", '#include "admin/admin.h"\n', "store must not"),
    ("main_includes_admin", "src/main.c", '#include "admin/admin.h"\n', "main must not"),
    ("disk_around_io", "src/admin/a.c", "int f(void)\n{\n    return pread(0, 0, 0, 0);\n}\n",
     "goes around io.h"),
    ("wal_includes_mover", "src/store/wal/a.c", '#include "store/mover/mover.h"\n',
     "store/wal must not include store/mover/mover.h"),
    ("wal_includes_segment", "src/store/wal/a.h", '#include "store/segment/segments.h"\n',
     "store/wal must not include store/segment/segments.h"),
    ("wal_includes_store", "src/store/wal/a.c", '#include "store/store.h"\n',
     "store/wal must not include store/store.h"),
    ("http_includes_binary", "src/net/http/a.c", '#include "net/binary/request.h"\n',
     "net/http must not include"),
    ("net_includes_node", "src/net/a.c", '#include "node/loop.h"\n', "net must not include"),
    ("unknown_folder", "src/store/misc/a.c", "\n", "no floor has the folder 'store/misc'"),
    ("relative_include", "src/store/a.c", '#include "wal.h"\n', "not written from src/"),
    ("included_source", "src/store/a.c", '#include "store/wal.c"\n', "includes the source"),
    ("unknown_layer", "src/util/a.c", "\n", "no layer is called 'util'"),
    ("second_liburing", "src/io/io_uring_disk.c", "#include <liburing.h>\n", "only one file"),
    ("liburing_elsewhere", "src/net/a.c", "#include <liburing.h>\n", "must not include the library"),
    ("second_zstd", "src/store/a.c", "#include <zstd.h>\n", "must not include the library"),
    ("libbpf_elsewhere", "src/io/a.c", "#include <bpf/libbpf.h>\n", "must not include the library"),
    ("skeleton_elsewhere", "src/net/a.c", '#include "build/bpf/steer.skel.h"\n',
     "must not include the library"),
    ("io_includes_bpf", "src/io/a.c", '#include "bpf/steer.h"\n', "io must not include"),
    ("bpf_includes_src", "bpf/a.h", '#include "base/list.h"\n', "bpf must not include"),
    ("second_sodium", "src/net/a.c", "#include <sodium.h>\n", "only one file"),
    ("clock_around_io", "src/store/a.c", "int f(void)\n{\n    return clock_gettime(0, 0);\n}\n",
     "goes around io.h"),
    ("chance_around_io", "src/base/a.c", "int f(void)\n{\n    return !getrandom(0, 0, 0);\n}\n",
     "goes around io.h"),
    ("forgotten_plant", "src/base/plant.h", "enum plant {\n    PLANT_NONE,\n    PLANT_A,\n};\n",
     "PLANT_A is planted nowhere"),
    ("long_file", "src/store/a.c", "\n" * 601, "601 lines"),
    ("long_function", "tests/base/a.c", "int f(void)\n{\n" + "    x();\n" * 69 + "}\n",
     "a function of 71 lines"),
]
SODIUM_FIRST = ("src/base/secret.c", "#include <sodium.h>\n")

# name, source, whether it is mutable state
STATES = [
    ("initialised", "int state = 1;", True),
    ("zero", "static int state; int *f(void) { return &state; }", True),
    ("within_a_function", "int *f(void) { static int state; return &state; }", True),
    ("thread_local", "__thread int state;", True),
    ("table", "int f(int i); int f(int i) { static const int t[] = {1, 2, 3}; return t[i & 1]; }",
     False),
    ("table_of_pointers", "void g(void); void (*const table[])(void) = {g};", False),
    ("text", 'const char *f(void) { return "text"; }', False),
]


# name, {file: the files whose functions it calls}, what the complaint says; None: nothing
CIRCLES = [
    ("one_direction", {"a/one": ["a/two"], "a/two": ["b/one"], "b/one": []}, None),
    ("four_files", {"a/1": ["a/2"], "a/2": ["a/3"], "a/3": ["a/4"], "a/4": ["a/1"]}, None),
    ("five_files", {"a/1": ["a/2"], "a/2": ["a/3"], "a/3": ["a/4"], "a/4": ["a/5"], "a/5": ["a/1"]},
     "5 files in a circle: a/1, a/2, a/3, a/4, a/5"),
    ("folders", {"a/one": ["b/one"], "b/two": ["a/two"], "a/two": [], "b/one": []},
     "folders in a circle: a, b"),
    ("seven_circles", {f"a/{x}{i}": [f"a/{y}{i}"] for i in range(7) for x, y in ("pq", "qp")},
     "7 circles of files within folders"),
]


def circle_complaints(calls):
    """Compiles a tree in which each file defines a function and calls those of others."""
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for name, others in calls.items():
            path = root / name
            path.parent.mkdir(exist_ok=True)
            functions = [other.replace("/", "_") for other in others]
            path.with_suffix(".c").write_text(
                "".join(f"void {function}(void);\n" for function in functions) +
                f"void {name.replace('/', '_')}(void)\n{{\n" +
                "".join(f"    {function}();\n" for function in functions) + "}\n")
            subprocess.run(["gcc", "-c", "-o", path.with_suffix(".o"), path.with_suffix(".c")],
                           check=True)
        return list(cycles.check(cycles.load(root, root)))


def complaints(planted):
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for name, content in {**CLEAN, **planted}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        return check.check(root, None)


def state_complaints(source):
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        (root / "a.c").write_text(source + "\n")
        subprocess.run(["gcc", "-O2", "-fPIE", "-c", "-o", root / "a.o", root / "a.c"], check=True)
        return list(check.check_state(root))


def main():
    passed = failed = 0

    def verdict(name, good, found):
        nonlocal passed, failed
        passed, failed = passed + good, failed + (not good)
        if not good:
            print(f"FAILED {name}: {found}")

    found = complaints({})
    verdict("clean_tree", found == [], found)
    for name, path, content, expected in PLANTED:
        extra = dict([SODIUM_FIRST]) if name == "second_sodium" else {}
        found = complaints({path: content, **extra})
        verdict(name, len(found) >= 1 and any(expected in text for text in found), found)
    for count in (check.FOLDER_FILES_MAX, check.FOLDER_FILES_MAX + 1):
        found = complaints({f"src/proto/a{i}.c": "\n" for i in range(count - 1)})  # binary.h is there
        is_found = any("src/proto: 26 files" in text for text in found)
        verdict(f"folder_of_{count}", is_found == (count > check.FOLDER_FILES_MAX), found)
    for name, calls, expected in CIRCLES:
        found = circle_complaints(calls)
        good = not found if expected is None else any(expected in text for text in found)
        verdict(f"circle_{name}", good, found)
    for name, source, mutable in STATES:
        found = state_complaints(source)
        verdict(f"state_{name}", bool(found) == mutable, found)
    print(f"layers: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
