#!/usr/bin/env node
// A handler that takes five seconds, on an event loop (Node) and on a thread per connection (threadcast): how
// long do the others wait?
//
//     node tests/browser/event_loop.js [--json] [BINARY]
//
// needs nothing but Node, and a release build of the server. `--json` prints what www/recorded.json has as
// `eventLoop`, which the Compare view shows. Clients and servers are processes of their own.
'use strict';
const { execFileSync, fork } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { startServer } = require('./server.js');

const BUSY_MS = 5000;
const CLIENTS = 20;
const EVENT_EVERY_MS = 100;
const SETTLE_MS = 1000;
const later = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** The event loop: an event to all every 100 ms, /healthz, and a handler that sleeps or computes. */
function serve() {
  process.on('disconnect', () => process.exit()); // with its parent
  const clients = new Set();
  setInterval(() => { for (const client of clients) client.write('data: tick\n\n'); }, EVENT_EVERY_MS);
  const server = http.createServer(async (request, response) => {
    if (request.url === '/events') {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.flushHeaders();
      clients.add(response);
      response.on('close', () => clients.delete(response));
      return;
    }
    if (request.url === '/sleep') await later(BUSY_MS);
    if (request.url === '/compute') for (const end = Date.now() + BUSY_MS; Date.now() < end;);
    response.end('done');
  });
  server.listen(0, '127.0.0.1', () => process.send(server.address().port));
}

/** An event stream that notes the longest pause between two pieces. */
function watch(url) {
  const watcher = { longest: 0 };
  watcher.request = http.get(`${url}/events`, { agent: false }, (response) => {
    let last = performance.now();
    response.on('data', () => {
      const now = performance.now();
      watcher.longest = Math.max(watcher.longest, now - last);
      last = now;
    });
    response.on('error', () => {});
  }).on('error', () => {});
  return watcher;
}

/** One request on a connection of its own. */
const request = (url) => new Promise((resolve, reject) => {
  http.get(url, { agent: false }, (response) => response.resume().on('end', resolve)).on('error', reject);
});

/** Others' longest pause and longest wait for /healthz, while `keepBusy` is under way. */
async function measure(url, keepBusy) {
  const watchers = Array.from({ length: CLIENTS }, () => watch(url));
  await later(SETTLE_MS);
  for (const watcher of watchers) watcher.longest = 0;
  let isOver = false;
  let requests = 0;
  const busy = keepBusy().then(() => { isOver = true; });
  while (!isOver) {
    const start = performance.now();
    await request(`${url}/healthz`);
    requests = Math.max(requests, performance.now() - start);
    await later(50);
  }
  await busy;
  await later(2 * EVENT_EVERY_MS);
  for (const watcher of watchers) watcher.request.destroy();
  return { events: Math.round(Math.max(...watchers.map(({ longest }) => longest))), requests: Math.round(requests) };
}

/** Tells the server's own handler to be busy, over /lab, as the page does. (A WebSocket client in small: one
 * short message, and answers that are only searched.) */
function busyInLab(url, what) {
  const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' };
  return new Promise((resolve, reject) => {
    const asking = http.get(`${url}/lab`, { headers, agent: false }, ({ statusCode }) => reject(new Error(`/lab: ${statusCode}`)));
    asking.on('error', reject);
    asking.on('upgrade', (response, socket, first) => {
      const command = Buffer.from(JSON.stringify({ do: what, ms: BUSY_MS, ref: 1 }));
      // A whole text message, masked with zeros (RFC 6455 section 5.2).
      socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | command.length, 0, 0, 0, 0]), command]));
      let text = String(first);
      socket.on('data', (data) => {
        text += data;
        if (text.includes('"lab":"error"')) reject(new Error(text));
        if (text.includes('"lab":"done"')) resolve(socket.destroy());
      });
      socket.on('error', reject);
    });
  });
}

async function main() {
  const [binary = path.join(__dirname, '../../target/release/threadcast')] = process.argv.slice(2).filter((one) => one !== '--json');
  if (!fs.existsSync(binary)) throw new Error(`${binary} is not there; run: cargo build --release`);
  const runs = [];
  const child = fork(__filename, ['serve']);
  const port = await new Promise((resolve) => { child.once('message', resolve); });
  for (const handler of ['sleep', 'compute']) {
    const url = `http://127.0.0.1:${port}`;
    runs.push({ server: 'Node', handler, ...await measure(url, () => request(`${url}/${handler}`)) });
  }
  child.kill();
  const server = await startServer(binary, ['--tick', `${EVENT_EVERY_MS}ms`, '--demo']);
  for (const handler of ['sleep', 'compute']) {
    runs.push({ server: 'threadcast', handler, ...await measure(server.url, () => busyInLab(server.url, handler)) });
  }
  await server.stop();
  const version = execFileSync(binary, ['--version'], { encoding: 'utf8' }).trim();
  const machine = `${os.cpus()[0].model.trim()}, ${os.cpus().length} cores, ${os.type()} ${os.release().split('-')[0]}`;
  const versions = [`Node ${process.version}`, version];
  if (process.argv.includes('--json')) {
    console.log(JSON.stringify({ date: new Date().toISOString().slice(0, 10), machine, versions, runs }, null, 2));
    return;
  }
  console.log(`A handler takes ${BUSY_MS / 1000} seconds, and ${CLIENTS} others get an event every ${EVENT_EVERY_MS} ms. ${versions.join(', ')}; ${machine}`);
  console.table(runs.map(({ server: name, handler, events, requests }) => ({
    server: name, handler: `${handler}s`, 'longest pause between events, ms': events, 'longest wait for /healthz, ms': requests,
  })));
}

if (process.argv[2] === 'serve') serve();
else {
  main().catch((error) => {
    console.error(`event_loop.js: ${error.message}`);
    process.exit(1);
  });
}
