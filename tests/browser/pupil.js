// One pupil of a class: what a browser does that opens the page and tries the first experiment, without the
// drawing. Thirty browsers would measure this machine's drawing, not the server.
'use strict';
const assert = require('node:assert/strict');
const http = require('node:http');
const { WebSocket } = require('ws');

const CONNECTIONS = 6; // of a browser to one server, over HTTP/1.1

class Pupil {
  constructor(url) {
    this.url = url;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS });
    this.events = []; // data of what came on /events
    this.open = []; // what is closed at the end
  }

  get(path) {
    return new Promise((resolve, reject) => {
      http.get(`${this.url}/${path}`, { agent: this.agent }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part) => { text += part; }).on('end', () => {
          if (response.statusCode === 200) resolve(text);
          else reject(new Error(`${path}: ${response.statusCode}`));
        });
      }).on('error', reject);
    });
  }

  /** The page, and every file of its own that it needs. */
  async load() {
    const seen = new Set(['']);
    const follow = async (text) => {
      const found = [...text.matchAll(/(?:src|href)="([\w.]+\.\w+)"|(?:from|import\(|fetch\()\s*'(?:\.\/)?([\w.]+\.\w+)'/g)].map(([, one, two]) => one ?? two);
      const fresh = found.filter((name) => !seen.has(name));
      fresh.forEach((name) => seen.add(name));
      await Promise.all(fresh.map(async (name) => follow(await this.get(name))));
    };
    await follow(await this.get(''));
    // Its name depends on the reader's language.
    await follow("import('./strings.en.js')");
    return seen;
  }

  /** Opens an event stream; resolves with its first event. `take` gets the data of each event without a name. */
  stream(path, take = () => {}) {
    return new Promise((resolve, reject) => {
      const request = http.get(`${this.url}/${path}`, { agent: this.agent, headers: { Accept: 'text/event-stream' } }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('error', () => {}).on('data', (part) => {
          const blocks = (text + part).split('\n\n');
          text = blocks.pop();
          for (const block of blocks) {
            resolve(block);
            const data = /^data: (.*)$/m.exec(block)?.[1];
            if (data !== undefined && !/^event: /m.test(block)) take(data);
          }
        });
      });
      request.on('error', reject);
      this.open.push(() => request.destroy());
    });
  }

  /** Opens a WebSocket; resolves with it, and its first message, once that is there. */
  socket(path) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`${this.url.replace('http', 'ws')}/${path}`);
      socket.on('error', reject);
      socket.once('message', (data) => resolve([socket, JSON.parse(data)]));
      this.open.push(() => socket.terminate());
    });
  }

  /** Until both connections of the Live view, the board, and the connection for experiments are there: ms. */
  async begin() {
    const start = performance.now();
    this.files = await this.load();
    const [, , , [lab, hello]] = await Promise.all([
      this.stream('events', (data) => this.events.push(data)), this.socket('ws'), this.stream('threads'), this.socket('lab'),
    ]);
    assert.equal(hello.lab, 'hello');
    this.lab = lab;
    return performance.now() - start;
  }

  /** Chapter 1: the own thread sleeps. Resolves with the server's answer. */
  sleep(ms) {
    return new Promise((resolve) => {
      this.lab.once('message', (data) => resolve(JSON.parse(data)));
      this.lab.send(JSON.stringify({ do: 'sleep', ms, ref: 1 }));
    });
  }

  /** The longest that another connection of this pupil waits for /healthz until `work` is done: ms. */
  async longestOther(work) {
    let isDone = false;
    let longest = 0;
    work.finally(() => { isDone = true; });
    while (!isDone) {
      const start = performance.now();
      await this.get('healthz');
      longest = Math.max(longest, performance.now() - start);
      await Promise.race([work, new Promise((resolve) => { setTimeout(resolve, 200); })]);
    }
    return longest;
  }

  end() {
    for (const close of this.open) close();
    this.agent.destroy();
  }
}

module.exports = { Pupil };
