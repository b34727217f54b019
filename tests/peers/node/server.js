// threadcast's contract on express and ws, as much of it as the load generator uses.
//
// One process: Node has one event loop, and a second process would need a bus between the two for
// every event. Made as fast as it fairly can be: no compression of messages, each event encoded
// once for everybody, a response written without express in the way once the stream is open.

import http from 'node:http';
import express from 'express';
import { WebSocketServer } from 'ws';

const DEFAULT_TOPIC = 'default';
const BACKLOG = 4096;
// What a subscriber may be behind, in bytes, before it is cut off.
const MOST_BEHIND = 4 * 1024 * 1024;

const at = process.argv.indexOf('--listen');
const [host, port] = (at > 0 ? process.argv[at + 1] : '127.0.0.1:0').split(':');

// Topic to its subscribers, in the two forms there are.
const topics = new Map();
let sequence = 0;

function subscribers(name) {
  let topic = topics.get(name);
  if (!topic) topics.set(name, (topic = { sse: new Set(), ws: new Set() }));
  return topic;
}

function publish(name, event, data) {
  const id = `${Date.now()}-${sequence++}`;
  const { sse, ws } = subscribers(name);
  const text = data.replace(/\r\n?/g, '\n');
  if (sse.size > 0) {
    const lines = text.replaceAll('\n', '\ndata: ');
    const bytes = Buffer.from(`id: ${id}\nevent: ${event}\ndata: ${lines}\n\n`);
    for (const response of sse) {
      if (response.writableLength > MOST_BEHIND) response.destroy();
      else response.write(bytes);
    }
  }
  if (ws.size > 0) {
    const bytes = Buffer.from(JSON.stringify({ type: 'event', id, topic: name, event, data: text }));
    for (const socket of ws) {
      if (socket.bufferedAmount > MOST_BEHIND) socket.terminate();
      else socket.send(bytes, { binary: false });
    }
  }
  return { id, subscribers: sse.size + ws.size };
}

const app = express();
app.disable('x-powered-by');
app.set('etag', false);

app.get('/healthz', (_, response) => response.send('ok'));

app.get('/events', (request, response) => {
  const { sse } = subscribers(request.query.topic ?? DEFAULT_TOPIC);
  response.writeHead(200, {
    'Content-Type': 'text/event-stream; charset=utf-8',
    'Cache-Control': 'no-cache, no-transform',
    'X-Accel-Buffering': 'no',
    'Access-Control-Allow-Origin': '*',
  });
  response.write('retry: 2000\ndata: {"message":"Connection established"}\n\n');
  sse.add(response);
  response.on('close', () => sse.delete(response));
  response.on('error', () => {});
});

app.post('/publish', express.text({ type: () => true, limit: '64mb' }), (request, response) => {
  const { topic = DEFAULT_TOPIC, event = 'message' } = request.query;
  const body = typeof request.body === 'string' ? request.body : '';
  if (request.headers['content-type'] !== 'application/x-ndjson') {
    response.json(publish(topic, event, body));
    return;
  }
  let lines;
  try {
    lines = body.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  } catch {
    response.status(400).end();
    return;
  }
  let answer = { id: null, subscribers: 0 };
  for (const line of lines) {
    const data = typeof line.data === 'string' ? line.data : JSON.stringify(line.data);
    answer = publish(line.topic ?? topic, line.event ?? event, data);
  }
  response.json({ ...answer, events: lines.length });
});

const server = http.createServer({ noDelay: true }, app);
const upgrades = new WebSocketServer({ noServer: true, perMessageDeflate: false });

function echo(socket) {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
}

function session(socket, topic) {
  const { ws } = subscribers(topic);
  socket.send('{"type":"info","message":"Welcome to WS Server"}');
  ws.add(socket);
  socket.on('close', () => ws.delete(socket));
  socket.on('message', (data, binary) => {
    if (binary) return socket.send(data, { binary });
    const processedAt = new Date().toISOString();
    socket.send(JSON.stringify({ type: 'response', original: data.toString(), processedAt }));
  });
}

server.on('upgrade', (request, stream, head) => {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname !== '/ws' && url.pathname !== '/echo') {
    stream.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n');
    return;
  }
  upgrades.handleUpgrade(request, stream, head, (socket) => {
    socket.on('error', () => {});
    if (url.pathname === '/echo') echo(socket);
    else session(socket, url.searchParams.get('topic') ?? DEFAULT_TOPIC);
  });
});

server.listen({ host, port: Number(port), backlog: BACKLOG }, () => {
  console.log(`listening on http://${host}:${server.address().port}`);
});
