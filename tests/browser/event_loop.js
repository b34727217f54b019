#!/usr/bin/env node
// A handler that takes five seconds, on an event loop (Node) and on a thread per connection (threadcast): how
// long do the others wait?
//
//     NODE_PATH=target/clients/npm/node_modules node tests/browser/event_loop.js [BINARY]
//
// prints the rounds as JSON: what www/recorded.json has as `eventLoop`, which the Compare view shows. Clients
// and servers are processes of their own.
'use strict';
const { execFileSync, fork } = require('node:child_process');
const http = require('node:http');
const os = require('node:os');
const { startServer } = require('./server.js');

const BUSY_MS = 5000;
const CLIENTS = 20;
const EVENT_EVERY_MS = 100;
const SETTLE_MS = 1000;
const later = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** The event loop: an event to all every 100 ms, /healthz, and a handler that sleeps or computes. */
function serve() {
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

/** Tells the server's own handler to be busy, over /lab, as the page does. */
function busyInLab(url, what) {
  const { WebSocket } = require('ws');
  const socket = new WebSocket(`${url.replace('http', 'ws')}/lab`);
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (data) => {
      const message = JSON.parse(data);
      if (message.lab === 'hello') socket.send(JSON.stringify({ do: what, ms: BUSY_MS, ref: 1 }));
      else if (message.lab === 'done') resolve(socket.close());
      else reject(new Error(message.message));
    });
  });
}

async function main() {
  const binary = process.argv[2] ?? 'target/release/threadcast';
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
  console.log(JSON.stringify({
    date: new Date().toISOString().slice(0, 10),
    machine: `${os.cpus()[0].model.trim()}, ${os.cpus().length} cores, ${os.type()} ${os.release().split('-')[0]}`,
    versions: [`Node ${process.version}`, version],
    runs,
  }, null, 2));
}

if (process.argv[2] === 'serve') serve();
else main();
