"""HTTP clients that people use: curl, wrk, those of Go, Node and Python; all keep connections."""
import json
import os
import pathlib
import re
import subprocess

from harness import ROOT, http_server, test

CLIENTS = pathlib.Path(__file__).parent / "http_clients"
SECONDS = 100


def run(*command, check=True, **more):
    """(standard output, exit code) of a client that ends by itself."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=SECONDS, check=False, **more)
    assert not check or done.returncode == 0, (
        f"{' '.join(command)[:200]}: {done.returncode}\n{done.stdout[-2000:].decode()}\n"
        f"{done.stderr[-2000:].decode()}")
    return done.stdout, done.returncode


def curl(*arguments):
    return run("curl", "--silent", "--show-error", "--max-time", "20", *arguments)[0]


@test()
def python_keeps_its_connections(context):
    server = http_server(context)
    run("python3", str(CLIENTS / "client.py"), str(server.http_port))


@test()
def node_keeps_its_connections(context):
    server = http_server(context)
    run("node", str(CLIENTS / "client.mjs"), str(server.http_port))


@test(slow=True, seconds=240)
def go_keeps_its_connections(context):
    server = http_server(context)
    environment = {**os.environ, "GOCACHE": str(ROOT / "build" / "go"), "GOFLAGS": "",
                   "GO111MODULE": "off"}
    run("go", "run", str(CLIENTS / "client.go"), str(server.http_port), env=environment)


@test()
def curl_does_what_the_document_shows(context):
    server = http_server(context)
    base = f"http://localhost:{server.http_port}"
    done, value = b'{"success":true}', b'{"success":true,"data":"hello"}'
    assert curl("-X", "PUT", f"{base}/greeting", "-d", '{"value": "hello"}') == done
    assert curl(f"{base}/greeting") == value
    assert curl("-X", "DELETE", f"{base}/greeting") == done
    code = ["-o", "/dev/null", "-w", "%{http_code}"]
    assert curl(*code, f"{base}/greeting") == b"404"
    health = json.loads(curl(f"{base}/health"))
    assert isinstance(health["uptime_seconds"], int), health
    for route in "livez", "readyz":
        assert curl(*code, f"{base}/{route}") == b"200", route


@test()
def curl_sends_files_with_expect_and_in_chunks(context):
    """curl asks for 100 Continue by itself when a body has more than 1 MiB."""
    server = http_server(context)
    url = f"http://127.0.0.1:{server.http_port}/v1/kv/picture"
    path = context.directory / "picture"
    picture = os.urandom(3 << 20)
    path.write_bytes(picture)
    code = ["-o", "/dev/null", "-w", "%{http_code}"]
    assert curl(*code, "-T", str(path), url) == b"204"
    assert curl(url) == picture
    assert curl(*code, "-X", "DELETE", url) == b"204"
    assert curl(*code, "-T", str(path), "-H", "Transfer-Encoding: chunked", url) == b"204"
    assert curl(url) == picture
    head = curl("--head", url)
    assert b"\r\nContent-Length: 3145728\r\n".lower() in head.lower(), head


@test()
def curl_keeps_its_connection(context):
    server = http_server(context)
    base = f"http://127.0.0.1:{server.http_port}"
    told = curl("-w", "%{num_connects} %{http_code}\n", "-o", "/dev/null", f"{base}/livez", "-o",
                "/dev/null", f"{base}/absent", "-o", "/dev/null", f"{base}/health")
    assert told == b"1 200\n0 404\n0 200\n", told


@test(slow=True)
def wrk_sees_no_error(context):
    """64 connections for two seconds, alone and with 16 requests pipelined."""
    server = http_server(context)
    base = f"http://127.0.0.1:{server.http_port}"
    curl("-X", "PUT", f"{base}/k", "-d", '{"value": 1}')
    script = context.directory / "pipeline.lua"
    script.write_text('init = function() local all = {}\n'
                      'for i = 1, 16 do all[i] = wrk.format("GET", "/k") end\n'
                      "sixteen = table.concat(all) end\nrequest = function() return sixteen end\n")
    for more in [], ["-s", str(script)]:
        output, _ = run("wrk", "-t1", "-c64", "-d2", *more, f"{base}/k")
        text = output.decode()
        assert "Socket errors" not in text and "Non-2xx" not in text, text
        assert int(re.search(r"(\d+) requests in", text)[1]) > 64, text
