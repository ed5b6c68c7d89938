"""The server under images/seccomp.json."""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys

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


def bundle_of(context, port, no_new_privileges):
    """An OCI bundle: the host's root below the runtime, the profile, and few capabilities."""
    profile = json.loads(PROFILE.read_text())
    rules = [{key: rule[key] for key in ("names", "action", "errnoRet", "args") if key in rule}
             for rule in profile["syscalls"] if "includes" not in rule]
    capabilities = ["CAP_NET_BIND_SERVICE", "CAP_DAC_OVERRIDE"]
    bundle = context.directory / "bundle"
    (bundle / "root").mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_text(json.dumps({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/usr/bin:/bin"],
            "args": [str(context.binary), "-data", str(context.directory / "data"), "-port", str(port),
                     "-cache", "16"],
            "noNewPrivileges": no_new_privileges,
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")}},
        "root": {"path": "root"}, "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}],
                  "seccomp": {"defaultAction": profile["defaultAction"],
                              "defaultErrnoRet": profile["defaultErrnoRet"], "syscalls": rules}}}))
    return bundle


@test()
def real_runtimes_start_the_server_behind_it(context):
    """Their own init runs behind the profile, unless the container asks for no new privileges."""
    runtimes = {"crun": "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; "
                        "exec crun --cgroup-manager=disabled",
                "runc": "exec runc"}
    if "asan" in str(context.binary) or os.geteuid() != 0 or not all(map(shutil.which, runtimes)):
        raise Skip("needs root, crun and runc, and no sanitizer")
    (context.directory / "data").mkdir()
    for name, command in runtimes.items():
        for no_new_privileges in True, False:
            port = free_port()
            bundle = bundle_of(context, port, no_new_privileges)
            container = f"minivault-test-{os.getpid()}-{port}"
            log = context.directory / f"{name}.log"
            with open(log, "wb") as output:
                process = subprocess.Popen(
                    ["unshare", "-m", "sh", "-c", f'mount --bind / "$0/root"; {command} run --bundle "$0" "$1"',
                     str(bundle), container], stdout=output, stderr=output)
                try:
                    eventually(lambda: Client(port).close())
                    with Client(port) as client:
                        client.set(b"key", b"value")
                        assert client.get(b"key") == b"value"
                    process.send_signal(signal.SIGTERM)  # which the runtime hands on
                    assert process.wait(20) == 0
                except Exception:
                    print(f"{name}, no_new_privileges {no_new_privileges}:\n{log.read_text()}")
                    raise
                finally:
                    process.kill()
                    process.wait()
                    subprocess.run([name, "delete", "--force", container], check=False, capture_output=True)
