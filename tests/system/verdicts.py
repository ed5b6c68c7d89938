"""minivault-admin check and the server judge a damaged directory alike: where the server refuses to
start, check says so; where it starts and says that something is lost, check finds damage; and where it
starts and says nothing, check finds damage only in what a start does not read.

Both run as another user than root, so that what is not readable is not readable to them.
"""
import concurrent.futures
import os
import random
import re
import shutil
import subprocess

from admin import take_image
from harness import Server, Skip, test
from images import BLOCK, Image, Mutation, copy
from mutation import build

SOUND, DAMAGED, CANNOT = 0, 1, 3
NOBODY = 65534
AT_ONCE = 2
FINDING = re.compile(r"(?P<file>.+?): \d+: (?P<mark>note: |stop: )?(?P<what>.*)")
LOUD_WARNING = re.compile(r"checkpoint-\w+ cannot be used|torn or corrupt|header is corrupt")
# What no start reads: records of segments and blocks of value files.
UNREAD = re.compile(r"the record |the checksum of the block|the file ends too early|its record does not")


# ---- directories ----

class Young:
    """Of a server that was stopped before anything had come to a segment."""

    def __init__(self, context, shards, end):
        server = context.server("-cache", "1", "-shards", str(shards),
                                directory=context.directory / f"young{shards}{end.__name__}")
        with server.client() as client:
            for number in range(60):
                client.set(b"key %d" % number, b"value %d" % number)
        end(server)
        self.image, self.older, self.shards = Image(server.directory), [], shards


class Grown:
    def __init__(self, context, clean, shards):
        outer = context.directory
        context.directory = outer / f"grown{shards[-1]}"
        context.directory.mkdir()
        self.image, self.older, _ = build(context, clean, shards)
        self.shards = shards[-1]
        context.directory = outer


class Indexed:
    """With an index checkpoint."""

    def __init__(self, context):
        self.image, self.older, self.shards = Image(take_image(context)[1]), [], 1
        assert self.image.names("checkpoint")


def images(context):
    return [Grown(context, False, (1, 1, 1, 1)), Young(context, 1, Server.kill), Indexed(context),
            Grown(context, True, (3, 1, 2, 3)), Young(context, 2, Server.terminate)]


# ---- damage ----

class Damage:
    """Of one kind; `apply` does it to a directory, str() says what it is."""

    def __init__(self, chance, image, older):
        self.chance, self.image, self.older = chance, image, older
        self.locked, self.name, self.mutation = [], "", None
        self.does = chance.choice(
            (self.mutate,) * 10 + (self.make_unreadable,) * 2 +
            (self.exchange, self.harm_superblock, self.harm_reserve, self.lose_folder,
             self.put_file_for_folder))
        if self.does == self.mutate:
            self.mutation = Mutation(chance, image, older, whole_file=chance.random() < 0.6)

    def __str__(self):
        return str(self.mutation or f"{self.does.__name__} {self.name}")

    def apply(self, directory):
        self.does(directory)

    def mutate(self, directory):
        self.mutation.apply(directory)

    def choose(self, directory, is_wanted):
        found = sorted(path for path in directory.rglob("*") if is_wanted(path))
        chosen = self.chance.choice(found)
        self.name += f" {chosen.relative_to(directory)}"
        return chosen

    def choose_folder(self, directory):
        """Of those with something in them."""
        kind = self.chance.choice(("log", "shard-[0-9]+", "[0-9a-f]{2}"))
        fitting = [path for path in directory.rglob("*") if path.is_dir() and any(path.iterdir())
                   and re.fullmatch(kind, path.name)]
        return self.choose(directory, (fitting or [directory / "log"]).__contains__)

    def make_unreadable(self, directory):
        self.locked.append(self.choose_folder(directory) if self.chance.random() < 0.2 else
                           self.choose(directory, lambda path: path.is_file()))

    def exchange(self, directory):
        """Two files of a kind."""
        kinds = [kind for kind in self.image.files if len(self.image.names(kind)) > 1]
        one, other = self.chance.sample(self.image.names(self.chance.choice(kinds)), 2)
        self.name = f"{one} {other}"
        os.rename(directory / one, directory / "between")
        os.rename(directory / other, directory / one)
        os.rename(directory / "between", directory / other)

    def harm_superblock(self, directory):
        path = self.choose(directory, lambda path: path.name == "superblock")
        if self.chance.random() < 0.3:
            os.truncate(path, self.chance.choice((0, 100, BLOCK, BLOCK + 100)))
            return
        content = bytearray(path.read_bytes())
        for copy_at in self.chance.choice(((0,), (BLOCK,), (0, BLOCK))):
            content[copy_at + self.chance.randrange(BLOCK)] ^= 1 << self.chance.randrange(8)
        path.write_bytes(content)

    def harm_reserve(self, directory):
        found = list(directory.rglob("reserve"))
        if not found:
            return
        path = self.chance.choice(sorted(found))
        self.name = self.chance.choice(("lost", "cut", "unreadable"))
        if self.name == "lost":
            path.unlink()
        elif self.name == "cut":
            os.truncate(path, 5)
        else:
            self.locked.append(path)

    def lose_folder(self, directory):
        shutil.rmtree(self.choose_folder(directory))

    def put_file_for_folder(self, directory):
        path = self.choose_folder(directory)
        shutil.rmtree(path)
        path.write_text("a file")


def give_away(directory, locked):
    """To the user that both programs run as, all but `locked`."""
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(directory)], check=True)
    for path in locked:
        if path.exists():
            os.chown(path, 0, 0)
            path.chmod(0o700 if path.is_dir() else 0o600)


# ---- the two verdicts ----

class NobodysServer(Server):
    def enter_limits(self):
        super().enter_limits()
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def check(context, directory):
    """(exit code, findings, all that it says)."""
    tool = context.binary.with_name("minivault-admin")
    result = subprocess.run([str(tool), "check", "--quiet", str(directory)], capture_output=True,
                            check=False, user=NOBODY, group=NOBODY, extra_groups=[], timeout=100)
    text = (result.stdout + result.stderr).decode("utf-8", "replace")
    assert "Sanitizer" not in text and "runtime error:" not in text, text
    return result.returncode, [m for m in map(FINDING.fullmatch, text.splitlines()) if m], text


def start(context, directory, shards):
    """(the server, whether it has started, whether it said that something is lost)."""
    server = NobodysServer(context.binary, directory, (
        "-cache", "1", "-connections", "100", "-scrub", "off", "-shards", str(shards)), wait=False)
    try:
        server.wait_ready()
        has_started = True
    except AssertionError:
        code = server.wait_exit(5)
        assert code == 1, f"died ({code})"
        has_started = False
    loud = any(" ERROR " in line or (" WARN " in line and LOUD_WARNING.search(line))
               for line in list(server.lines))
    assert has_started or loud, "refuses to start and says nothing"
    return server, has_started, loud


def judge(checked, has_started, loud, is_indexed):
    """What does not fit; None: they agree. `is_indexed`: of a segment a start may read nothing."""
    code, findings, text = checked
    stops = "; a server refuses to start" in text
    if not has_started:
        return None if code == CANNOT or (code == DAMAGED and stops) else "the server refuses to start"
    if stops:
        return "the server starts"
    if code == CANNOT:
        return None if "cannot be opened: Permission denied" in text else "the server starts"
    if loud:
        return None if code == DAMAGED else "the server says that something is lost"
    damage = [m for m in findings if not m["mark"]]
    unexplained = [m[0] for m in damage if not UNREAD.match(m["what"]) and not (
        is_indexed and "/seg-" in m["file"] and "missing" not in m["what"])]
    return f"the server starts without a word of {unexplained}" if unexplained else None


def data_files(directory):
    return {str(path) for path in directory.rglob("*")
            if re.fullmatch(r"seg-.*|wal-.*|manifest-\d+|[0-9a-f]{16}-[0-9a-f]{24}", path.name)}


def compare(context, directory, shards):
    """(whether it started, exit code of check). Raises when they differ."""
    checked, before = check(context, directory), data_files(directory)
    is_indexed = any(directory.rglob("checkpoint-*"))
    server, has_started, loud = start(context, directory, shards)
    try:
        problem = judge(checked, has_started, loud, is_indexed)
        if has_started:
            assert server.terminate() == 0, "it does not end well"
        elif shards == 1 and not before <= data_files(directory):  # other shards may have started
            problem = f"a start that was refused removed {before - data_files(directory)}"
        assert not problem, f"{problem}; check: {checked[0]}"
    except AssertionError as error:
        raise AssertionError(f"{error}\n--- check:\n{checked[2][-3000:]}\n--- server:\n"
                             + server.log()) from None
    finally:
        if server.process.poll() is None:
            server.kill()
    return has_started, checked[0]


def try_round(context, grown, number):
    """(outcome, None) or (None, what went wrong)."""
    chance = random.Random(f"{context.options.seed} {number}")
    damages = [Damage(chance, grown.image, grown.older)]
    if chance.random() < 0.15:
        damages.append(Damage(chance, grown.image, grown.older))
    directory = context.directory / f"round{number}"
    copy(grown.image.directory, directory)
    try:
        for damage in damages:
            try:
                damage.apply(directory)
            except (FileNotFoundError, NotADirectoryError, IndexError):
                pass  # there is none, or the first has taken it away
        give_away(directory, [path for damage in damages for path in damage.locked])
        outcome = compare(context, directory, grown.shards)
        if number % 3 == 0:  # what that start has changed is judged alike, too
            again = compare(context, directory, grown.shards)
            assert again[0] or not outcome[0], "it started once, and refuses now"
            assert outcome[0] or not again[0], "it refused once, and starts now"
        return outcome, None
    except (AssertionError, OSError, EOFError) as error:
        return None, (f"--seed {context.options.seed}, round {number}, of {grown.image.directory}: "
                      f"{' and '.join(map(str, damages))}: {type(error).__name__}: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@test(slow=True, seconds=6 * 3600)  # as another user LeakSanitizer cannot look at its own process
def check_and_the_server_judge_alike(context):
    """Six times --rounds of them: 60 in `make test`, 3,000 in `make soak`."""
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")
    count = 6 * context.options.rounds
    grown = images(context)
    context.servers.clear()  # they have ended; their logs say nothing of a round
    print(f"        seed {context.options.seed}, {count} rounds")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda number: try_round(context, grown[number % len(grown)], number),
                                range(count)))
    failures = [failure for _, failure in results if failure]
    outcomes = [outcome for outcome, _ in results if outcome]
    refused = sum(not has_started for has_started, _ in outcomes)
    print(f"        {refused} refused, {sum(s for s, _ in outcomes)} started; check: " + ", ".join(
        f"{sum(c == code for _, c in outcomes)} with {code}" for code in (SOUND, DAMAGED, CANNOT)))
    assert not failures, "\n".join([f"{len(failures)} of {count} rounds:",
                                    *(failure.splitlines()[0] for failure in failures), "",
                                    *failures[:4]])
