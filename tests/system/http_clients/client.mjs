// Node's own HTTP client, keep-alive: client.mjs PORT. Says what went wrong, else how much it did.
import assert from "node:assert/strict";
import http from "node:http";

const port = Number(process.argv[2]);
const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const large = Buffer.alloc(1 << 20, (i) => i);
for (let i = 0; i < large.length; i++) large[i] = (i * 7) % 251;
let requests = 0;

// One connection, kept: whatever opens another one is a failure.
class Client {
  constructor() {
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    this.sockets = new Set();
  }

  // `body`: a Buffer or text, which has a length; or an array of Buffers, which goes in chunks.
  ask(method, path, body, headers = {}) {
    return new Promise((resolve, reject) => {
      const where = { host: "127.0.0.1", port, agent: this.agent, timeout: 20000 };
      const request = http.request({ ...where, method, path, headers });
      request.on("error", (error) => reject(new Error(`${method} ${path}: ${error}`)));
      request.on("timeout", () => request.destroy(new Error("timeout")));
      request.on("response", (reply) => {
        this.sockets.add(reply.socket);
        const pieces = [];
        reply.on("data", (piece) => pieces.push(piece));
        reply.on("end", () => {
          requests++;
          const body = Buffer.concat(pieces);
          resolve({ status: reply.statusCode, headers: reply.headers, body });
        });
        reply.on("error", reject);
      });
      if (headers.Expect) {
        request.on("continue", () => request.end(body));
        request.flushHeaders();
      } else if (Array.isArray(body)) {
        for (const piece of body) request.write(piece);
        request.end();
      } else {
        request.end(body);
      }
    });
  }

  async expect(status, method, path, body, headers) {
    const reply = await this.ask(method, path, body, headers);
    const text = `${method} ${path}: ${reply.status} ${reply.body.subarray(0, 200)}`;
    assert.equal(reply.status, status, text);
    return reply;
  }

  async put(path, text) {
    const body = `{"value": ${text}}`;
    const headers = { "Content-Length": Buffer.byteLength(body) };
    const reply = await this.expect(200, "PUT", path, body, headers);
    assert.deepEqual(JSON.parse(reply.body), { success: true });
  }

  // The text of the value, as it was sent.
  async get(path) {
    const text = (await this.expect(200, "GET", path)).body.toString();
    assert.ok(text.startsWith('{"success":true,"data":') && text.endsWith("}"), text);
    return text.slice('{"success":true,"data":'.length, -1);
  }

  end() {
    assert.equal(this.sockets.size, 1, "the connection was not kept");
    this.agent.destroy();
  }
}

async function json(client) {
  const numbers = ["9007199254740993", "1e400", "-0"];
  for (const text of [...numbers, '"hello"', "null", '"grüße"', '{"a":[1,2,{"b":null}]}']) {
    await client.put("/node/json", text);
    assert.equal(await client.get("/node/json"), text);
  }
  const head = await client.expect(200, "HEAD", "/node/json");
  assert.ok(Number(head.headers["content-length"]) > 0 && head.body.length === 0);
  const wrong = await client.expect(400, "PUT", "/node/json", "{");
  assert.deepEqual(JSON.parse(wrong.body), { success: false, error: "invalid json" });
  await client.expect(200, "POST", "/node/json", '{"value": 1}');
  await client.expect(200, "DELETE", "/node/json");
  const gone = await client.expect(404, "GET", "/node/json");
  assert.deepEqual(JSON.parse(gone.body), { success: false, error: "not found" });
}

async function raw(client) {
  for (const value of [Buffer.alloc(0), all, large]) {
    const path = `/v1/kv/node/${value.length}`;
    await client.expect(204, "PUT", path, value, { "Content-Length": value.length });
    const reply = await client.expect(200, "GET", path);
    assert.ok(reply.body.equals(value), `${reply.body.length} bytes`);
    assert.equal(reply.headers["content-type"], "application/octet-stream");
    const head = await client.expect(200, "HEAD", path);
    assert.equal(Number(head.headers["content-length"]), value.length);
    await client.expect(204, "DELETE", path);
    await client.expect(404, "GET", path);
  }
  const pieces = [];
  for (let at = 0; at < large.length; at += 100000) pieces.push(large.subarray(at, at + 100000));
  await client.expect(204, "PUT", "/v1/kv/node/chunked", pieces);
  assert.ok((await client.expect(200, "GET", "/v1/kv/node/chunked")).body.equals(large));
  const expecting = { Expect: "100-continue", "Content-Length": all.length };
  await client.expect(204, "PUT", "/v1/kv/node/expect", all, expecting);
  assert.ok((await client.expect(200, "GET", "/v1/kv/node/expect")).body.equals(all));
  await client.expect(204, "DELETE", "/v1/kv/node/chunked");
  await client.expect(204, "DELETE", "/v1/kv/node/expect");
}

async function many(client, name) {
  for (let number = 0; number < 200; number++) {
    const path = `/node/${name}/${number}`;
    await client.put(path, number);
    assert.equal(await client.get(path), String(number));
    await client.expect(200, "DELETE", path);
  }
}

const client = new Client();
await json(client);
await raw(client);
const clients = Array.from({ length: 8 }, () => new Client());
await Promise.all(clients.map((each, name) => many(each, name)));
for (const each of [client, ...clients]) each.end();
console.log(`${requests} requests, ${1 + clients.length} connections`);
