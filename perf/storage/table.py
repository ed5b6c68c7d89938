"""A table of rows: measures them one by one, prints them, and says whether the required was reached.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile

import tools
from tools import Absent, Failure, Report, say


# ---- the command line ----

def parser(description, rows):
    """With what every table understands. `rows`: name: (title, function)."""
    width = max(map(len, rows)) + 2
    result = argparse.ArgumentParser(
        prog="compare", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=description + "\nrows:\n" + "\n".join(
            f"  {name:{width}}{title}" for name, (title, _) in rows.items()))
    result.add_argument("--only", default=",".join(rows), metavar="ROW,...", help="these rows")
    result.add_argument("--warmup", type=float, default=0.5,
                        help="seconds before those that are measured [%(default)s]")
    result.add_argument("--minivault", type=os.path.abspath,
                        default=os.path.join(tools.ROOT, "minivault"),
                        help="the server's binary [%(default)s]")
    result.add_argument("--minivault-flags", default="", help="more flags for it, in one word")
    result.add_argument("--bin", type=os.path.abspath,
                        default=os.path.join(tools.ROOT, "build", "release", "bin"),
                        help="mvload and the others [%(default)s]")
    result.add_argument("--data-root", type=os.path.abspath,
                        default=os.path.join(tools.ROOT, "build"),
                        help="where the temporary folder is made: on a real disk [%(default)s]")
    result.add_argument("--urgent", action="store_true", help="nice -20 (as root)")
    result.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    return result


def parse(known, rows):
    arguments = known.parse_args()
    arguments.only = arguments.only.split(",")
    for row in arguments.only:
        if row not in rows:
            known.error(f'unknown row "{row}": choose from {", ".join(rows)}')
    return arguments


def require(arguments, built, programs):
    """That our own programs are built and those of others installed."""
    for path in [os.path.join(arguments.bin, name) for name in built] + [arguments.minivault]:
        if not os.access(path, os.X_OK):
            raise Failure(f"{path} is not built: make build perf")
    for program in programs:
        if shutil.which(program) is None:
            raise Failure(f"{program} is not there: .ci/deps bench installs it")
    os.makedirs(arguments.data_root, exist_ok=True)
    if (os.cpu_count() or 1) < 2 and not arguments.no_pin:
        say("one cpu only: not pinned")
        arguments.no_pin = True


# ---- the rows ----

def measure_row(bench, rows, name):
    """A row that breaks does not take the others with it. `rows`: name: (title, function)."""
    title, function = rows[name]
    say(f"{name}: {title}")
    report, error, absent = Report(), None, None
    try:
        report = function(bench)
    except Absent as reason:
        absent = str(reason)
        say(f"{name}: not in this build: {absent}")
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        error = str(failure)
        say(f"{name}: {failure}")
    finally:
        bench.stop_all()
        for entry in os.listdir(bench.folder):
            path = os.path.join(bench.folder, entry)
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
        os.sync()
    return {"row": name, "title": title, "what": " ".join((function.__doc__ or "").split()),
            "unit": report.unit, "contenders": report.contenders, "values": report.values,
            "checks": report.checks, "notes": report.notes, "error": error, "absent": absent}


def exit_code(entries):
    """0; 1 when something that is required was missed; 2 when a row broke."""
    if any(entry["error"] is not None for entry in entries):
        return 2
    missed = any(check["result"] == "MISS" for entry in entries for check in entry["checks"])
    return 1 if missed else 0


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def print_contenders(entry):
    shown = {name: figures for name, figures in entry["contenders"].items()
             if "alias" not in figures}
    if not shown:
        return
    print(f'  {entry["unit"]:32} {"median":>10} {"least":>10} {"most":>10} {"p50 us":>9} '
          f'{"p99 us":>9} {"p99.9 us":>9} {"client":>7}')
    for name, figures in shown.items():
        client = f'{figures["client"]:7.0%}' if "client" in figures else ""
        print(f'  {name:32} {number(figures["rate"]):>10} {number(figures["least"]):>10} '
              f'{number(figures["most"]):>10} {figures["p50"]:9,.0f} {figures["p99"]:9,.0f} '
              f'{figures["p99.9"]:9,.0f} {client}')


def print_row(entry):
    print(f'\n{entry["title"]}  [{entry["row"]}]')
    print_contenders(entry)
    for check in entry["checks"]:
        required = ("" if check["required"] is None else
                    f'{check["sense"]} {check["required"]:<5} {check["result"]}')
        print(f'  {check["what"]:46} {check["value"]:9.2f} {check["unit"]:2} {required}')
    for value in entry["values"]:
        print(f'  {value["what"]:46} {number(value["value"]):>9} {value["unit"]}')
    for name, figures in entry["contenders"].items():
        if "alias" in figures:
            print(f'  {name}: {figures["alias"]}')
    for note in entry["notes"]:
        print(f'  ({note})')
    if entry["absent"] is not None:
        print("  not in this build: " + entry["absent"])
    if entry["error"] is not None:
        print("  BROKEN: " + entry["error"].splitlines()[0])


# ---- the whole ----

def describe(arguments, entries):
    """As JSON: how it was measured, and the rows."""
    told = {name: getattr(arguments, name)
            for name in ("rounds", "seconds", "sustained", "quick", "urgent")
            if hasattr(arguments, name)}
    return {**told, "pinned": not arguments.no_pin, "kernel": os.uname().release,
            "cpus": os.cpu_count(), "load": os.getloadavg(), "rows": entries}


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def main(prefix, arguments, check_surroundings, measure, print_report):
    """The exit code. `prefix`: of the temporary folder; `measure`: one row."""
    signal.signal(signal.SIGTERM, interrupt)
    entries, bench = [], None
    try:
        check_surroundings(arguments)
        bench = tools.Bench(arguments, tempfile.mkdtemp(prefix=prefix, dir=arguments.data_root))
        for row in arguments.only:
            entries.append(measure(bench, row))
    except Failure as failure:
        say(str(failure))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        if bench is not None:
            bench.stop_all()
            shutil.rmtree(bench.folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(describe(arguments, entries), indent=2))
    else:
        print_report(arguments, entries)
    return exit_code(entries)
