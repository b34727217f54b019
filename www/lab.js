// The page's own connection to `/lab` (`--demo`): a WebSocket whose thread does what the buttons say.

import { fetchTicket, parseJson, sleep } from './dom.js';
import { texts } from './texts.js';

const BACK_AFTER_MS = 1000;

class Lab extends EventTarget {
  constructor() {
    super();
    this.state = 'unknown'; // then none, open or closed
    this.own = null; // what the server said of this connection: client, tid, name
    this.asked = new Map(); // by ref
    this.ref = 0;
  }

  /** Opens the connection, once; it comes back by itself. */
  async start() {
    if (this.started) return;
    this.started = true;
    // A WebSocket that fails does not tell why: a server without --demo has no /lab at all.
    const response = await fetch('lab').catch(() => null);
    if (response?.status === 404) this.become('none');
    else this.connect();
  }

  async connect() {
    const ticket = await fetchTicket().catch(() => '');
    const address = new URL(ticket ? `lab?ticket=${ticket}` : 'lab', location);
    address.protocol = address.protocol.replace(/^http/, 'ws');
    const socket = this.socket = new WebSocket(address);
    socket.addEventListener('message', ({ data }) => this.take(parseJson(data) ?? {}));
    socket.addEventListener('close', async () => {
      this.own = null;
      for (const { fail } of this.asked.values()) fail(new Error(texts.lab.ended));
      this.asked.clear();
      this.become('closed');
      await sleep(BACK_AFTER_MS);
      this.connect();
    });
  }

  become(state) {
    this.state = state;
    this.dispatchEvent(new Event('change'));
  }

  take(message) {
    if (message.lab === 'hello') {
      this.own = message;
      this.become('open');
      return;
    }
    const asked = this.asked.get(message.ref);
    this.asked.delete(message.ref);
    if (message.lab === 'done') asked?.done(message);
    else asked?.fail(new Error(message.message));
  }

  /** Sends a command; resolves with its answer, fails with the server's words, or when the connection ends. */
  ask(command) {
    if (this.state !== 'open') {
      return Promise.reject(new Error(this.state === 'none' ? texts.lab.none : texts.lab.closed));
    }
    const ref = this.ref += 1;
    this.socket.send(JSON.stringify({ ...command, ref }));
    return new Promise((done, fail) => { this.asked.set(ref, { done, fail }); });
  }

  ended() {
    return new Promise((resolve) => { this.socket.addEventListener('close', ({ code }) => resolve(code), { once: true }); });
  }

  async ready() {
    while (this.state !== 'open' && this.state !== 'none') {
      await new Promise((resolve) => { this.addEventListener('change', resolve, { once: true }); });
    }
  }
}

export const lab = new Lab();
