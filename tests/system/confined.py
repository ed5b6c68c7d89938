"""The server under images/seccomp.json."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

from harness import (
    KIB, MIB, OK, ROOT, Client, Skip, eventually, free_port, get, hello, set_, stats, test)

PROFILE = ROOT / "images" / "seccomp.json"
CONFINE = pathlib.Path(__file__).with_name("confine.py")


def confined(*command):
    return [sys.executable, str(CONFINE), str(PROFILE), *command]


def wrapper(context):
    """A program that is the server behind the profile."""
    if "asan" in str(context.binary):
        raise Skip("the sanitizers do what the profile forbids")
    if subprocess.run(confined("/bin/true"), check=False).returncode:
        raise Skip("needs libseccomp2")
    path = context.directory / "confined-minivault"
    path.write_text("#!/bin/sh\nexec " + " ".join(confined(str(context.binary))) + ' "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@test()
def the_profile_lets_the_server_do_everything(context):
    context.binary = wrapper(context)
    secret = context.directory / "secret"
    secret.write_text("before\n")
    server = context.server("-cache", "16", "-auth-file", str(secret), "-authmode", "none",
                            "-slowlog", "1", "-probe")
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), "it is not confined at all"
    large = bytes(range(256)) * (2 * MIB // 256)
    for round_ in range(3):
        with server.client() as client:
            assert client.call(hello())[0] == OK
            client.send(b"".join(set_(b"k %d %d" % (round_, n), b"v" * 20 * KIB) for n in range(2000)))
            for _ in range(2000):
                assert client.answer() == (OK, b"")
            client.send(set_(b"large", large))
            assert client.answer() == (OK, b"")
            assert client.call(get(b"large")) == (OK, large)
            assert client.call(get(b"k 0 7")) == (OK, b"v" * 20 * KIB), "from the disk"
            assert client.call(stats())[0] == OK
        server.process.send_signal(1)
        server.wait_line(r"reloaded:")
        server.restart()
    problems = [line for line in server.lines if re.search(r"not permitted|EPERM", line)]
    assert not problems, problems


@test()
def the_profile_lets_nobody_start_a_program(context):
    wrapper(context)
    for command in ("/bin/true; /bin/true", "/bin/true & wait $!"):
        done = subprocess.run(confined("/bin/sh", "-c", command), check=False, capture_output=True)
        assert done.returncode, (command, done)
        assert b"ork" in done.stderr, done.stderr  # "Cannot fork", "fork: retry"
    done = subprocess.run(confined(sys.executable, "-c", "import socket; socket.socket(socket.AF_UNIX)"),
                          check=False, capture_output=True)
    assert b"PermissionError" in done.stderr, done.stderr
    for name in ("ptrace", "mount", "connect", "execveat", "fork", "vfork", "unshare", "setns",
                 "init_module", "kexec_load", "process_vm_readv", "open_by_handle_at"):
        assert f'"{name}"' not in PROFILE.read_text(), name


# What each runtime needs of the machine, in a mount namespace of its own.
CGROUP_2 = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup;"
RUNTIMES = {"crun": CGROUP_2, "runc": "", "podman": CGROUP_2}
CAPABILITIES = ["CAP_NET_BIND_SERVICE", "CAP_DAC_OVERRIDE", "CAP_BPF"]
SERVER = ["/mnt/minivault", "-data", "/mnt/data", "-cache", "16", "-shards", "2", "-port"]


def debian_13():
    """A root of its libraries, once a build directory."""
    root = ROOT / "build" / "debian-13"
    with contextlib.suppress(subprocess.TimeoutExpired):
        if not root.exists():
            subprocess.run([ROOT / ".ci" / "deps", "--debian-13", root], check=False, timeout=60,
                           stdin=subprocess.DEVNULL, capture_output=True)
    if not root.exists():
        raise Skip("apt does not get Debian 13's packages here: .ci/deps --debian-13 FOLDER says why")
    return root


def libbpf_of(root):
    """Its version, as "1.5.0"."""
    return next(root.glob("usr/lib/*/libbpf.so.1.*")).name.partition(".so.")[2]


def podman(store):
    """With everything that it keeps in a folder, whose name may have 50 characters at most."""
    return ["podman", f"--root={store}/root", f"--runroot={store}/run", f"--tmpdir={store}/tmp",
            "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=crun"]


class Container:
    """The server behind the profile, started by a real runtime: below `root`, with the test's folder at
    /mnt. `without`: a capability that it is not granted, or a call that the profile does not have."""

    def __init__(self, context, runtime, root, without=None, no_new_privileges=True):
        self.what = (runtime, root, without, no_new_privileges)
        self.folder, self.store, self.bundle = context.directory, context.store, context.directory / "bundle"
        self.port = free_port()
        self.name = f"minivault-test-{os.getpid()}-{self.port}"
        self.capabilities = [name for name in CAPABILITIES if name != without]
        self.log = self.bundle / "log"
        (self.bundle / "root").mkdir(parents=True, exist_ok=True)
        self.write_profile(without)
        self.write_config(no_new_privileges)
        words, self.remove = {
            "crun": (["crun", "--cgroup-manager=disabled", "run", "--bundle", self.bundle, self.name],
                     ["crun", "delete", "--force", self.name]),
            "runc": (["runc", "run", "--bundle", self.bundle, self.name],
                     ["runc", "delete", "--force", self.name]),
            "podman": (self.podman_words(no_new_privileges),
                       [*podman(self.store), "rm", "--force", "--ignore", self.name]),
        }[runtime]
        script = f'mount --bind "$0" "$1"; mount -t tmpfs none "$1/run"; shift; {RUNTIMES[runtime]} exec "$@"'
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", script, root, self.bundle / "root", *words],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def write_profile(self, without):
        self.profile = json.loads(PROFILE.read_text())
        for rule in self.profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name != without]
        (self.bundle / "seccomp.json").write_text(json.dumps(self.profile))

    def write_config(self, no_new_privileges):
        """For a runtime alone, which knows nothing of rules for capabilities."""
        rules = [{key: rule[key] for key in ("names", "action", "errnoRet", "args") if key in rule}
                 for rule in self.profile["syscalls"]
                 if set(rule.get("includes", {}).get("caps", [])) <= set(self.capabilities)]
        (self.bundle / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/usr/bin:/bin"],
                "args": [*SERVER, str(self.port)], "noNewPrivileges": no_new_privileges,
                "capabilities": {kind: self.capabilities for kind in ("bounding", "effective", "permitted")}},
            "root": {"path": "root"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/mnt", "source": str(self.folder), "options": ["bind"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}],
                      "seccomp": {"defaultAction": self.profile["defaultAction"],
                                  "defaultErrnoRet": self.profile["defaultErrnoRet"], "syscalls": rules}}}))

    def podman_words(self, no_new_privileges):
        return [*podman(self.store), "run", "--rm", f"--name={self.name}", "--network=host",
                "--cgroups=disabled", "--ulimit=nofile=10000:10000", "--ulimit=nproc=1000:1000", "--cap-drop=all",
                *(f"--cap-add={name}" for name in self.capabilities),
                f"--security-opt=seccomp={self.bundle}/seccomp.json",
                *(["--security-opt=no-new-privileges"] if no_new_privileges else []),
                f"--volume={self.folder}:/mnt", "--rootfs", self.bundle / "root", *SERVER, str(self.port)]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print(*self.what, self.log.read_text(), sep="\n")
        subprocess.run(self.remove, check=False, capture_output=True)
        self.process.kill()
        self.process.wait()

    def decisions(self):
        """Of steering, after some connections; None when it is off. The first ones come before it is
        attached: not all shards listen yet."""
        def ask():
            with Client(self.port) as client:
                assert client.call(hello())[0] == OK
                assert client.call(set_(b"key", b"value")) == (OK, b"")
                assert client.call(get(b"key")) == (OK, b"value")
                found = json.loads(client.call(stats())[1]).get("steering_decisions")
            assert found is None or found["local"] + found["least_loaded"] >= 2, found
            return found
        return eventually(ask)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)  # which the runtime hands on
        assert self.process.wait(20) == 0
        return self.log.read_text()


def prepare(context):
    """The runtimes that there are."""
    if "asan" in str(context.binary) or os.geteuid() != 0 or not all(map(shutil.which, RUNTIMES)):
        raise Skip("needs root, crun, runc and podman, and no sanitizer")
    shutil.copy(context.binary, context.directory)
    (context.directory / "data").mkdir()
    context.store = context.stack.enter_context(tempfile.TemporaryDirectory())
    done = subprocess.run([*podman(context.store), "info"], check=False, capture_output=True)
    if done.returncode:
        print(f"podman cannot run here: {done.stderr.decode()}")
        return ["crun", "runc"]
    return list(RUNTIMES)


def starts_and_steers(context, root, runtimes):
    """A runtime's own init runs behind the profile, unless the container asks for no new privileges."""
    for runtime in runtimes:
        for no_new_privileges in True, False:
            with Container(context, runtime, root, None, no_new_privileges) as container:
                decisions = container.decisions()
                log = container.stop()
                assert decisions, log
                assert decisions["fallback"] == 0, decisions


def says_what_steering_lacks(context, root, runtime):
    """The profile decides: without one of its calls the log names that one."""
    calls = {"bpf", "memfd_create", "dup3"}
    needed = calls if libbpf_of(root) >= "1.4" else {"bpf"}
    for without in *calls, "CAP_BPF":
        with Container(context, runtime, root, without) as container:
            decisions = container.decisions()
            log = container.stop()
            if without == "CAP_BPF":
                assert decisions is None and re.search("INFO .*CAP_BPF is missing", log), log
            elif without in needed:
                assert decisions is None, decisions
                assert re.search(rf"WARN .* {without}\(2\) is refused .* container's seccomp profile", log), log
            else:
                assert decisions, log


@test()
def real_runtimes_start_the_server_behind_it(context):
    runtimes, root = prepare(context), pathlib.Path("/")
    starts_and_steers(context, root, runtimes)
    says_what_steering_lacks(context, root, runtimes[-1])


@test()
def and_on_debian_13s_libraries(context):
    """libbpf 1.5 makes calls that 1.1 does not."""
    runtimes, root = prepare(context), debian_13()
    assert libbpf_of(root) >= "1.5"
    starts_and_steers(context, root, runtimes)
    says_what_steering_lacks(context, root, runtimes[-1])
