// The signal board: one SSE stream, one WebSocket, a publish box and the metrics strip.
// What came over the network reaches the page through textContent only.

const MAX_ROWS = 200;
const MAX_ROW_CHARS = 2000; // one huge event must not push everything else off the board
const HISTORY = 60; // CPU readings in the meter: two minutes at one every 2 s
const STALE_AFTER_MS = 7000; // three metric periods and a little
const BROWSER_RETRY_MS = 2000; // the `retry:` the server sends; a script cannot read it back
const BACKOFF_MS = { first: 1000, most: 30000 };
const STATE_WORDS = { connecting: 'Connecting', live: 'Live', waiting: 'Reconnecting', closed: 'Closed' };
const CLOSE_WORDS = {
  1000: 'closed normally', 1001: 'the server is going away', 1002: 'protocol error', 1003: 'unwanted kind of data',
  1005: 'closed without a code', 1006: 'the connection was lost', 1007: 'invalid text', 1008: 'against a policy',
  1009: 'the message was too big', 1011: 'server error', 1012: 'the server is restarting', 1013: 'the server is busy',
};

const byId = (id) => document.getElementById(id);
const write = (id, value) => { byId(id).textContent = value; };
const clock = (date) => date.toTimeString().slice(0, 8);
const plural = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`;
const listOf = (text) => text.split(',').map((part) => part.trim()).filter(Boolean);

function parseJson(text) {
  try { return JSON.parse(text); } catch { return null; }
}

const isMetric = (data) => data?.type === 'system_metric' && Number.isFinite(data.cpuUsage);
const metricLine = ({ cpuUsage, clients, threads }) => [`cpu ${cpuUsage.toFixed(1).padStart(4)} %`,
  clients && `sse ${clients.sse}  ws ${clients.websocket}`, threads && `thr ${threads}`].filter(Boolean).join('  ');

function onSubmit(id, action) {
  byId(id).addEventListener('submit', (event) => {
    event.preventDefault();
    action();
  });
}

function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  element.append(...children);
  return element;
}

// Where reading needs a token: it stays in this variable, out of storage and out of every address.
let readToken = '';

// All addresses are relative to the page's: a program, or a proxy, may serve it under a prefix.

/** Whether the server wants a token, or a better one: a failed connection does not tell why it failed. */
async function isTokenWanted() {
  const response = await fetch('events', { method: 'HEAD' }).catch(() => null);
  return response?.status === 401;
}

/** For one connection; '' where the server does not ask for one any more, null where it does not know the token. */
async function fetchTicket() {
  const response = await fetch('ticket', { method: 'POST', headers: { Authorization: `Bearer ${readToken}` } });
  if (response.status === 401) return null;
  if (response.status === 404) return '';
  if (!response.ok) throw new Error(`no ticket (${response.status})`);
  return (await response.json()).ticket;
}

function askForToken() {
  if (readToken) write('access-answer', 'That token was not accepted.');
  readToken = '';
  byId('access-form').hidden = false;
}

/** A pane's log. Rows are drawn once per frame, so a burst of events costs one layout. */
class Log {
  constructor(pane) {
    this.list = pane.querySelector('.log');
    this.pauseButton = pane.querySelector('.pause');
    this.undrawn = [];
    this.following = true; // false while the reader has scrolled up
    this.list.addEventListener('scroll', () => {
      const { scrollHeight, scrollTop, clientHeight } = this.list;
      this.following = scrollHeight - scrollTop - clientHeight < 24;
    });
    this.pauseButton.addEventListener('click', () => {
      this.paused = !this.paused;
      this.draw();
    });
    pane.querySelector('.clear').addEventListener('click', () => {
      this.undrawn = [];
      this.list.replaceChildren();
      this.following = true;
      this.draw();
    });
  }

  add(kind, tag, text) {
    const shown = text.length > MAX_ROW_CHARS ? `${text.slice(0, MAX_ROW_CHARS)}…` : text;
    this.undrawn.push(make('li', `row ${kind}`, '',
      make('span', 'time', clock(new Date())), make('span', 'tag', tag), make('span', 'text', shown)));
    if (this.undrawn.length > MAX_ROWS) this.undrawn.shift();
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    if (!this.paused) this.list.append(...this.undrawn.splice(0));
    while (this.list.childElementCount > MAX_ROWS) this.list.firstElementChild.remove();
    if (this.following) this.list.scrollTop = this.list.scrollHeight;
    this.pauseButton.textContent = this.paused ? `Resume (${this.undrawn.length} held)` : 'Pause log';
  }
}

/** What both connections share: the state sign, the countdown, the backoff, the connect button. */
class Channel {
  constructor(id, topicsIfNoneNamed) {
    this.pane = byId(id);
    this.log = new Log(this.pane);
    this.topics = [];
    this.failures = 0;
    this.pane.querySelector('.link').addEventListener('click', () => {
      if (this.state === 'closed') this.connect();
      else this.disconnect();
    });
    onSubmit(`${id}-topics-form`, () => {
      this.topics = listOf(byId(`${id}-topics`).value);
      this.lastId = ''; // other topics are another stream: there is nothing to catch up on
      this.disconnect();
      this.log.add('note', 'tune', `topics: ${this.topics.join(', ') || topicsIfNoneNamed}`);
      this.connect();
    });
  }

  /** A ticket works once, so every connection begins with one of its own, where one is needed. */
  async connect() {
    this.show('connecting');
    this.locked = false;
    const attempt = this.attempt = {};
    try {
      const ticket = readToken && await fetchTicket();
      if (attempt !== this.attempt) return; // meanwhile somebody pressed a button
      if (ticket === null) this.lock();
      else this.open(ticket);
    } catch {
      if (attempt === this.attempt) this.retryLater();
    }
  }

  disconnect() {
    this.attempt = null;
    clearTimeout(this.retryTimer);
    this.close();
    this.show('closed', 'by you');
  }

  /** No connection came about: for want of a token, or for a reason that may pass. */
  async refused() {
    const { attempt } = this;
    this.show('waiting');
    const wanted = !readToken && await isTokenWanted();
    if (attempt !== this.attempt) return;
    if (wanted) this.lock();
    else this.retryLater();
  }

  lock() {
    this.locked = true;
    this.show('closed', 'needs a token');
    askForToken();
  }

  address(path, ticket) {
    const query = new URLSearchParams(this.topics.map((topic) => ['topic', topic]));
    if (this.lastId) query.set('last_event_id', this.lastId);
    if (ticket) query.set('ticket', ticket);
    return `${path}?${query}`.replace(/\?$/, '');
  }

  show(state, note = '') {
    clearInterval(this.ticker);
    this.state = state;
    this.pane.dataset.state = state;
    // Only the word is a live region: a countdown in it would make a screen reader talk without end.
    const word = this.pane.querySelector('.sign-word');
    if (word.textContent !== STATE_WORDS[state]) word.textContent = STATE_WORDS[state];
    this.pane.querySelector('.sign-note').textContent = note;
    this.pane.querySelector('.link').textContent = state === 'closed' ? 'Connect' : 'Disconnect';
  }

  showCountdown(delay) {
    const due = performance.now() + delay;
    const tick = () => {
      const seconds = Math.ceil((due - performance.now()) / 1000);
      this.pane.querySelector('.sign-note').textContent = seconds > 0 ? `in ${seconds} s` : 'now';
    };
    this.show('waiting');
    tick();
    this.ticker = setInterval(tick, 250);
  }

  /** Exponential backoff; the jitter keeps a room full of boards from returning in one instant. */
  retryLater() {
    const ceiling = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.failures);
    const delay = ceiling * (0.5 + Math.random() / 2);
    this.failures += 1;
    this.showCountdown(delay);
    this.retryTimer = setTimeout(() => this.connect(), delay);
  }
}

class EventChannel extends Channel {
  constructor(onMetric) {
    super('sse', 'all');
    this.onMetric = onMetric;
    this.count = 0;
    this.names = new Set(['message', 'gap']);
    this.receive = (event) => this.received(event);
    onSubmit('sse-listen-form', () => {
      listOf(byId('sse-listen').value).forEach((name) => this.listenFor(name));
      byId('sse-listen').value = '';
    });
  }

  open(ticket) {
    // A new EventSource has forgotten the last id; that is why address() carries it.
    const source = this.source = new EventSource(this.address('events', ticket));
    this.names.forEach((name) => source.addEventListener(name, this.receive));
    // A published event may itself be named "open" or "error": those are MessageEvents.
    const onOwn = (type, action) => source.addEventListener(type, (event) => {
      if (!(event instanceof MessageEvent)) action();
    });
    onOwn('open', () => {
      this.failures = 0;
      this.show('live');
    });
    onOwn('error', () => {
      if (this.state === 'live') this.log.add('problem', 'lost', 'the stream ended');
      if (this.state === 'connecting') this.log.add('problem', 'refused', 'no stream was opened');
      if (ticket) source.close(); // it would come back with the same address, and so with a used ticket
      if (source.readyState === EventSource.CLOSED) this.refused(); // the browser gave up, the page does not
      else this.showCountdown(BROWSER_RETRY_MS);
    });
  }

  close() {
    this.source?.close();
  }

  /** EventSource hands a named event only to listeners of exactly that name. */
  listenFor(name) {
    if (!name || this.names.has(name)) return;
    this.names.add(name);
    this.source?.addEventListener(name, this.receive);
    this.log.add('note', 'listen', `events named “${name}” will show here`);
  }

  received(event) {
    if (!(event instanceof MessageEvent)) return; // the connection's own "open" or "error"
    write('sse-count', this.count += 1);
    if (event.lastEventId) write('sse-last-id', this.lastId = event.lastEventId);
    const data = parseJson(event.data);
    if (event.type === 'gap') {
      this.log.add('gap', 'gap', `Missed events are no longer kept; nothing is missing after ${data?.resumed}`);
    } else if (isMetric(data)) {
      this.onMetric(data);
      this.log.add('metric', 'metric', metricLine(data));
    } else {
      this.log.add('event', event.type, event.data);
    }
  }
}

class SocketChannel extends Channel {
  constructor() {
    super('ws', 'none');
    this.sent = 0;
    this.received = 0;
    this.unanswered = []; // sent texts whose echo has not come back yet, oldest first
    onSubmit('ws-send-form', () => this.send());
  }

  open(ticket) {
    const address = new URL(this.address('ws', ticket), location);
    address.protocol = address.protocol.replace(/^http/, 'ws'); // https becomes wss
    const socket = this.socket = new WebSocket(address);
    socket.binaryType = 'arraybuffer';
    // The late close of a socket that was replaced must not disturb its successor.
    const on = (type, action) => socket.addEventListener(type, (event) => {
      if (socket === this.socket) action(event);
    });
    on('open', () => this.show('live'));
    on('message', ({ data }) => this.arrived(data));
    on('close', ({ code, reason }) => {
      const words = `${code}: ${CLOSE_WORDS[code] ?? 'closed'}${reason && ` (${reason})`}`;
      if (this.state === 'live') this.log.add('problem', 'closed', words);
      else if (this.failures === 0) this.log.add('problem', 'refused', `no WebSocket was opened, ${words}`);
      this.forgetUnanswered();
      this.refused();
    });
  }

  close() {
    if (this.state === 'live') this.log.add('note', 'closed', `1000: ${CLOSE_WORDS[1000]}, by you`);
    this.socket?.close(1000, 'closed by the reader');
    this.socket = null;
    this.forgetUnanswered();
  }

  forgetUnanswered() {
    const lost = this.unanswered.splice(0).length;
    if (lost) this.log.add('problem', 'lost', `no answer came to ${plural(lost, 'sent message')}`);
  }

  show(state, note) {
    super.show(state, note);
    // The button stays usable: pressing it says that nothing was sent.
    byId('ws-send').setAttribute('aria-disabled', state !== 'live');
  }

  send() {
    const text = byId('ws-message').value;
    if (!text) return;
    if (this.socket?.readyState !== WebSocket.OPEN) {
      this.log.add('problem', 'not sent', `not connected; your text stays in the box: ${text}`);
      return;
    }
    this.unanswered.push({ text, at: performance.now() });
    this.socket.send(text);
    write('ws-sent', this.sent += 1);
    this.log.add('sent', 'sent', text);
    byId('ws-message').value = '';
  }

  arrived(data) {
    const now = performance.now();
    this.failures = 0; // a server that talks is up; merely accepting a connection proves less
    write('ws-received', this.received += 1);
    const message = parseJson(data);
    if (typeof data !== 'string') {
      this.log.add('event', 'binary', plural(data.byteLength, 'byte'));
    } else if (message?.type === 'response') {
      const index = this.unanswered.findIndex(({ text }) => text === message.original);
      const [asked] = index < 0 ? [] : this.unanswered.splice(index, 1);
      const took = asked ? `${(now - asked.at).toFixed(1)} ms` : 'unasked';
      if (asked) write('ws-round-trip', took);
      this.log.add('echo', 'echo', `${took}  ${message.original}`);
    } else if (message?.type === 'event') {
      this.lastId = message.id;
      const metric = parseJson(message.data);
      if (isMetric(metric)) this.log.add('metric', 'metric', metricLine(metric));
      else this.log.add('event', message.event || 'message', `${message.topic}: ${message.data}`);
    } else {
      if (message?.lastEventId) this.lastId = message.lastEventId;
      this.log.add('note', 'info', String(message?.message ?? data));
    }
  }
}

/** The strip of live numbers, with the CPU history drawn as a segmented level meter. */
class Metrics {
  constructor() {
    this.history = [];
    this.canvas = byId('cpu-history');
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => this.draw());
    setInterval(() => this.showAge(), 1000);
  }

  take({ timestamp, cpuUsage, memoryBytes, threads, clients }) {
    this.history = [...this.history, cpuUsage].slice(-HISTORY);
    write('cpu', cpuUsage.toFixed(1));
    write('clients-sse', clients?.sse ?? '–');
    write('clients-websocket', clients?.websocket ?? '–');
    write('threads', threads ?? '–');
    write('memory', Number.isFinite(memoryBytes) ? (memoryBytes / 1e6).toFixed(1) : '–');
    const taken = new Date(timestamp);
    this.takenAt = clock(Number.isNaN(taken.getTime()) ? new Date() : taken);
    this.arrivedAt = performance.now();
    this.showAge();
    this.draw();
  }

  showAge() {
    if (!this.takenAt) return;
    const stale = performance.now() - this.arrivedAt > STALE_AFTER_MS;
    byId('metrics').classList.toggle('stale', stale);
    write('reading', stale ? `No reading since ${this.takenAt}` : `Last reading ${this.takenAt}`);
  }

  draw() {
    const { canvas, history } = this;
    const gap = devicePixelRatio;
    const width = canvas.width = Math.round(canvas.clientWidth * gap);
    const height = canvas.height = Math.round(canvas.clientHeight * gap);
    const pen = canvas.getContext('2d');
    const style = getComputedStyle(canvas);
    const colours = ['--unlit', '--stop', '--wait', '--live'].map((name) => style.getPropertyValue(name));
    for (let slot = 0; slot < HISTORY; slot += 1) {
      const reading = history[slot - HISTORY + history.length] ?? 0; // the newest at the right edge
      const value = reading && Math.max(reading, 1.5); // a lower bar would not be seen
      // Each bar is painted over from the full height down, so every zone keeps its colour.
      [100, value, Math.min(value, 80), Math.min(value, 60)].forEach((top, index) => {
        pen.fillStyle = colours[index];
        pen.fillRect(slot * width / HISTORY, height * (1 - top / 100), width / HISTORY - gap, height * top / 100);
      });
    }
    for (let line = 1; line < 10; line += 1) pen.clearRect(0, Math.round(height * line / 10), width, gap);
    if (history.length) {
      canvas.setAttribute('aria-label', `CPU history: lowest ${Math.min(...history).toFixed(0)} %, `
        + `highest ${Math.max(...history).toFixed(0)} %`);
    }
  }
}

async function publish(listenFor) {
  const value = (field) => byId(`publish-${field}`).value;
  const query = new URLSearchParams();
  for (const field of ['topic', 'event']) if (value(field).trim()) query.set(field, value(field).trim());
  listenFor(query.get('event')); // before publishing, or the stream would not hand the event to the page
  const headers = { 'Content-Type': 'text/plain; charset=utf-8' };
  if (value('token')) headers.Authorization = `Bearer ${value('token')}`;
  const response = await fetch(`publish?${query}`, { method: 'POST', headers, body: value('body') });
  const result = parseJson(await response.text());
  if (!response.ok) throw new Error(`${result?.error?.message ?? response.statusText} (${response.status})`);
  return `Published as ${result?.id} to ${plural(result?.subscribers, 'subscriber')}`;
}

const metrics = new Metrics();
const events = new EventChannel((reading) => metrics.take(reading));
const socket = new SocketChannel();
events.connect();
socket.connect();

onSubmit('access-form', () => {
  readToken = byId('access-token').value;
  write('access-answer', '');
  byId('access-form').reset();
  byId('access-form').hidden = true;
  for (const channel of [events, socket]) if (channel.locked) channel.connect();
});

onSubmit('publish-form', async () => {
  const say = (kind, text) => byId('publish-answer').replaceChildren(make('span', kind, text));
  say('', 'Publishing…');
  try {
    say('good', await publish((name) => events.listenFor(name)));
  } catch (error) {
    say('bad', `Not published: ${error instanceof TypeError ? `no answer (${error.message})` : error.message}`);
  }
});
byId('publish-body').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('publish-form').requestSubmit();
});
