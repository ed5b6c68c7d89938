"""HTTP, beside a server that answers from its configuration."""

import os
import re
import subprocess

import front
import tools
from tools import Report

CONNECTIONS = 64
# What a GET's body has, from either server: the JSON route puts 26 bytes around 38 letters.
BODY_SIZE = 64
JSON_VALUE_SIZE = 38
FIRST_RAW_KEY = 1_000_000
NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type text/plain;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}
}}
"""


def nginx(bench):
    """One worker, without a master above it: it dies with us."""
    server = front.Server(bench, "nginx", "http",
                          ["nginx", "-p", "{folder}", "-c", "{folder}/nginx.conf"])
    with open(os.path.join(server.folder, "nginx.conf"), "w", encoding="ascii") as file:
        file.write(NGINX.format(folder=server.folder, port=server.port, body="n" * BODY_SIZE))
    server.start()
    return server


def version(program):
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return re.search(r"\S+/[\d.]+", done.stderr + done.stdout)[0]


def json_words():
    return ["--protocol", "http", "--http-json", "--keys", front.KEYS, "--value-size",
            JSON_VALUE_SIZE]


def raw_words():
    return ["--protocol", "http", "--keys", front.KEYS, "--first-key", FIRST_RAW_KEY,
            "--value-size", BODY_SIZE]


def minivault(bench, durability):
    """With the keys of both routes."""
    server = front.minivault(bench, "-http", "{http}", durability=durability)
    for words in json_words(), raw_words():
        front.load(bench, server, *words, "--prefill", "--seconds", 0, port=server.http_port)
    return server


def measure(bench, server, depth, *words, op="get"):
    """mvload checks every reply's status, and the length of a GET's."""
    port = server.port if server.protocol == "http" else server.http_port
    return tools.loaded(front.load(
        bench, server, *words, "--op", op, "--connections", CONNECTIONS, "--depth", depth,
        *tools.times(bench), port=port))


def beside_nginx(bench, depth, required):
    ours, theirs = minivault(bench, "commit"), nginx(bench)
    report = Report()
    report.contenders = tools.interleave(bench, {
        "nginx": lambda: measure(bench, theirs, depth, *raw_words()),
        "minivault, JSON route": lambda: measure(bench, ours, depth, *json_words()),
        "minivault, raw route": lambda: measure(bench, ours, depth, *raw_words())})
    report.ratio("minivault, JSON route", "nginx", required)
    report.ratio("minivault, raw route", "nginx", required)
    report.note(f"{version('nginx')}, one worker, return 200 with {BODY_SIZE} bytes; the client is "
                "mvload for all")
    return report


def http_get(bench):
    """GET on 64 keep-alive connections, bodies of 64 bytes, from either route; nginx answers any
    path with `return 200`. One shard and one worker on one CPU, the client on the other."""
    return beside_nginx(bench, 1, 0.9)


def http_pipelined(bench):
    """The same with 16 requests in flight on each connection."""
    return beside_nginx(bench, 16, 2)


def http_put(bench):
    """PUT of JSON beside GET of JSON, -durability interval."""
    server = minivault(bench, "interval")
    contenders, report = {}, Report()
    for depth in 1, 16:
        for op in "get", "set":
            contenders[f"{'PUT' if op == 'set' else 'GET'} x {depth}"] = (
                lambda op=op, depth=depth: measure(bench, server, depth, *json_words(), op=op))
    report.contenders = tools.interleave(bench, contenders)
    report.ratio("PUT x 1", "GET x 1", 0.7)
    report.ratio("PUT x 16", "GET x 16", None)
    return report
