"""The server under images/seccomp.json."""
import pathlib
import re
import stat
import subprocess
import sys

from harness import KIB, MIB, OK, ROOT, Skip, get, hello, set_, stats, test

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
