// The Live view: one SSE stream, one WebSocket, a publish box and the metrics strip.

import { showBlock, showFrame } from './bytes.js';
import { access, byId, clock, fetchTicket, listOf, make, onSubmit, parseJson, publish, sleep, write } from './dom.js';
import { CAN_SHARE, Share, isSeen } from './shared.js';
import { count, fill, mib, number, texts } from './texts.js';

const MAX_ROWS = 200;
const MAX_ROW_CHARS = 2000;
const HISTORY = 60; // readings: two minutes at one every 2 s
const STALE_AFTER_MS = 7000; // three periods and a little
const BROWSER_RETRY_MS = 2000; // the server's `retry:`, which no script can read
const BACKOFF_MS = { first: 1000, most: 30000 };
const AWAY_MS = 4000; // when it is dropped on purpose
const MISSED = 3; // events that are published meanwhile
const ROUND_TRIPS = 10;
const MAX_ARRIVALS = 100;
const words = texts.live;

// Comparable between tabs, unlike performance.now() alone.
const now = () => performance.timeOrigin + performance.now();
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const isMetric = (data) => data?.type === 'system_metric' && Number.isFinite(data.cpuUsage);
const metricLine = ({ cpuUsage, clients, threads }) => [`cpu ${cpuUsage.toFixed(1).padStart(4)} %`,
  clients && `sse ${clients.sse}  ws ${clients.websocket}`, threads && `thr ${threads}`].filter(Boolean).join('  ');

/** Whether the server wants a token: a failed connection does not tell why it failed. */
async function isTokenWanted() {
  const response = await fetch('events', { method: 'HEAD' }).catch(() => null);
  return response?.status === 401;
}

function askForToken() {
  if (access.token) write('access-answer', words.badToken);
  access.token = '';
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
    this.undrawn.push(make('div', `row ${kind}`, '',
      make('span', 'time', clock(new Date())), make('span', 'tag', tag), make('span', 'text', shown)));
    if (this.undrawn.length > MAX_ROWS) this.undrawn.shift();
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    if (!this.paused) this.list.append(...this.undrawn.splice(0));
    while (this.list.childElementCount > MAX_ROWS) this.list.firstElementChild.remove();
    if (this.following) this.list.scrollTop = this.list.scrollHeight;
    this.pauseButton.textContent = this.paused ? fill(words.resume, { n: this.undrawn.length }) : words.pause;
  }
}

/** What both connections share. */
class Channel {
  constructor(id, topicsIfNoneNamed) {
    this.pane = byId(id);
    this.log = new Log(this.pane);
    this.bytes = this.pane.querySelector('.bytes');
    this.topics = [];
    this.failures = 0;
    this.pane.querySelector('.link').addEventListener('click', () => {
      if (this.state === 'closed') this.connect();
      else this.disconnect();
    });
    onSubmit(`${id}-topics-form`, () => {
      this.disconnect();
      this.topics = listOf(byId(`${id}-topics`).value);
      this.lastId = ''; // other topics are another stream
      this.note('tune', fill(words.tuned, { topics: this.topics.join(', ') || topicsIfNoneNamed }));
      this.connect();
    });
  }

  note(tag, text) { this.log.add('note', words.tags[tag], text); }

  problem(tag, text) { this.log.add('problem', words.tags[tag], text); }

  // A ticket works once.
  async connect() {
    this.show('connecting');
    this.locked = false;
    const attempt = this.attempt = {};
    try {
      const ticket = await fetchTicket();
      if (attempt !== this.attempt) return;
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
    this.show('closed', words.byYou);
  }

  /** No connection came about: it wants a token, or the reason may pass. */
  async refused() {
    const { attempt } = this;
    this.show('waiting');
    const wanted = !access.token && await isTokenWanted();
    if (attempt !== this.attempt) return;
    if (wanted) this.lock();
    else this.retryLater();
  }

  lock() {
    this.locked = true;
    this.show('closed', words.needsToken);
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
    // The countdown is no live region: a screen reader would talk without end.
    const word = this.pane.querySelector('.sign-word');
    if (word.textContent !== words.states[state]) word.textContent = words.states[state];
    this.pane.querySelector('.sign-note').textContent = note;
    this.pane.querySelector('.link').textContent = state === 'closed' ? words.connect : words.disconnect;
  }

  showCountdown(delay) {
    const due = performance.now() + delay;
    const tick = () => {
      const seconds = Math.ceil((due - performance.now()) / 1000);
      this.pane.querySelector('.sign-note').textContent = seconds > 0 ? fill(words.inSeconds, { n: seconds }) : words.soon;
    };
    this.show('waiting');
    tick();
    this.ticker = setInterval(tick, 250);
  }

  /** Exponential backoff, with jitter: not all in one instant. */
  retryLater() {
    const ceiling = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.failures);
    this.failures += 1;
    this.reconnectIn(ceiling * (0.5 + Math.random() / 2));
  }

  reconnectIn(delay) {
    this.showCountdown(delay);
    this.retryTimer = setTimeout(() => this.connect(), delay);
  }

  /** Draws the last message's bytes, once per frame, where they are looked at. */
  showBytes(draw) {
    this.drawBytes = draw;
    if (!this.bytes.open) return;
    this.bytesFrame ||= requestAnimationFrame(() => {
      this.bytesFrame = 0;
      this.drawBytes();
    });
  }
}

/** The event stream: all tabs' together, or this tab's own. */
class EventChannel extends Channel {
  constructor(onMetric) {
    super('sse', words.all);
    this.onMetric = onMetric;
    this.count = 0;
    this.names = new Set(['message', 'gap']);
    this.missed = new Set(); // ids that were published while the stream was away
    this.arrivals = new Map(); // when the latest events came, by id
    this.waiters = new Map(); // who waits for an event, by id
    this.receive = (event) => this.take(event);
    if (CAN_SHARE) {
      const name = `threadcast ${new URL('events', location).href}`;
      this.share = new Share(name, () => super.connect(), (message) => this.hear(message));
    }
    onSubmit('sse-listen-form', () => {
      listOf(byId('sse-listen').value).forEach((name) => this.listenFor(name));
      byId('sse-listen').value = '';
    });
    byId('sse-drop').addEventListener('click', () => this.dropAndReturn());
    byId('measure').addEventListener('click', () => this.measure());
    this.bytes.addEventListener('toggle', () => this.drawBytes?.());
  }

  connect() {
    if (!this.share || this.topics.length || this.share.leads) return super.connect();
    this.show('connecting');
    this.locked = false;
    return this.share.join();
  }

  disconnect() {
    this.share?.leave();
    super.disconnect();
  }

  /** Another tab may have a token: it gets its turn. */
  lock() {
    this.share?.leave();
    super.lock();
  }

  show(state, note) {
    super.show(state, note);
    if (this.share?.leads) this.share.tell({ is: 'state', state, names: [...this.names] });
    byId('sse-shared').textContent = !this.share ? words.notShared
      : this.share.leads ? words.leads : this.share.waiting ? words.follows : words.alone;
  }

  hear(message) {
    const { share } = this;
    if (!share.waiting) return;
    if (message.is === 'listen') this.addName(message.name);
    if (share.leads) {
      if (message.is === 'hello') share.tell({ is: 'state', state: this.state, names: [...this.names] });
      if (message.is === 'drop') this.drop();
    } else if (message.is === 'state') {
      message.names.forEach((name) => this.addName(name));
      this.show(message.state);
    } else if (message.is === 'event') {
      // A new leader's last id may be behind ours.
      const { type, lastEventId } = message.event;
      if (type === 'gap' || !this.lastId || !lastEventId || !isSeen(lastEventId, this.lastId)) this.received(message.event);
    }
  }

  open(ticket) {
    // It knows no last id: address() carries it.
    const source = this.source = new EventSource(this.address('events', ticket));
    this.names.forEach((name) => source.addEventListener(name, this.receive));
    // A published event may be named "open" or "error", too: a MessageEvent.
    const onOwn = (type, action) => source.addEventListener(type, (event) => {
      if (!(event instanceof MessageEvent)) action();
    });
    onOwn('open', () => {
      this.failures = 0;
      this.show('live');
    });
    onOwn('error', () => {
      if (this.state === 'live') this.problem('lost', words.streamEnded);
      if (this.state === 'connecting') this.problem('refused', words.noStream);
      if (ticket) source.close(); // it would come back with a used ticket
      if (source.readyState === EventSource.CLOSED) this.refused(); // the page does not give up
      else this.showCountdown(BROWSER_RETRY_MS);
    });
  }

  close() {
    this.source?.close();
  }

  /** EventSource hands a named event only to listeners of exactly that name. */
  addName(name) {
    if (this.names.has(name)) return false;
    this.names.add(name);
    this.source?.addEventListener(name, this.receive);
    return true;
  }

  listenFor(name) {
    if (!name || !this.addName(name)) return;
    this.share?.tell({ is: 'listen', name });
    this.note('listen', fill(words.listens, { name }));
  }

  /** An event of the stream that this tab has. */
  take(event) {
    if (!(event instanceof MessageEvent)) return; // the connection's own "open" or "error"
    const { type, data, lastEventId } = event;
    const plain = { type, data, lastEventId, at: now() };
    if (this.share?.leads) this.share.tell({ is: 'event', event: plain });
    this.received(plain);
  }

  received({ type, data: text, lastEventId, at }) {
    write('sse-count', this.count += 1);
    if (lastEventId) this.arrived(lastEventId, at);
    this.showBytes(() => showBlock(this.bytes.querySelector('div'), { type, data: text, lastEventId }));
    const data = parseJson(text);
    if (type === 'gap') {
      this.log.add('gap', words.tags.gap, fill(words.gap, { id: data?.resumed }));
    } else if (isMetric(data)) {
      this.onMetric(data);
      this.log.add('metric', words.tags.metric, metricLine(data));
    } else if (this.missed.delete(lastEventId)) {
      this.log.add('event replayed', words.tags.replay, text);
    } else {
      this.log.add('event', type, text);
    }
  }

  arrived(id, at) {
    write('sse-last-id', this.lastId = id);
    this.arrivals.set(id, at);
    if (this.arrivals.size > MAX_ARRIVALS) this.arrivals.delete(this.arrivals.keys().next().value);
    this.waiters.get(id)?.();
  }

  /** When the event of this id arrived; undefined if it has not within a second. */
  async arrivalOf(id) {
    if (!this.arrivals.has(id)) {
      await Promise.race([new Promise((resolve) => { this.waiters.set(id, resolve); }), sleep(1000)]);
      this.waiters.delete(id);
    }
    return this.arrivals.get(id);
  }

  /** Shows, and returns, how long it took until the event was here. */
  async time(id, start) {
    const took = await this.arrivalOf(id) - start;
    if (took) write('sse-round-trip', `${number(took, 1)} ms`);
    return took;
  }

  ownTopic() {
    return this.topics.find((topic) => topic !== '*') ?? 'lesson';
  }

  /** Ends the stream of all tabs, and comes back with the last id. */
  drop() {
    clearTimeout(this.retryTimer);
    this.attempt = null;
    this.close();
    this.note('drop', fill(words.dropped, { id: this.lastId ?? words.none }));
    this.reconnectIn(AWAY_MS);
  }

  async dropAndReturn() {
    if (this.state !== 'live') return this.problem('drop', words.notLive);
    if (this.share?.waiting && !this.share.leads) this.share.tell({ is: 'drop' });
    else this.drop();
    await sleep(500);
    try {
      for (let n = 1; n <= MISSED; n += 1) {
        const { id } = await publish({ topic: this.ownTopic() }, fill(words.whileAway, { n, of: MISSED }));
        this.missed.add(id);
      }
      this.note('drop', fill(words.published, { n: MISSED }));
    } catch (error) {
      this.problem('drop', fill(words.notPublished, { why: error.message }));
    }
    return null;
  }

  /** Both ways there and back, one after the other: medians. */
  async measure() {
    const answer = byId('measured');
    try {
      const sse = [];
      for (let n = 0; n < ROUND_TRIPS; n += 1) {
        const start = now();
        const { id } = await publish({ topic: this.ownTopic() }, `${n}`);
        sse.push(await this.time(id, start));
      }
      const ws = await socket.echo(ROUND_TRIPS);
      if (![...sse, ...ws].every(Number.isFinite)) throw new Error(words.notLive);
      answer.textContent = fill(words.measured, { n: ROUND_TRIPS, sse: number(median(sse), 1), ws: number(median(ws), 1) });
    } catch (error) {
      answer.textContent = fill(words.notMeasured, { why: error.message });
    }
  }
}

class SocketChannel extends Channel {
  constructor() {
    super('ws', words.noneEcho);
    this.sent = 0;
    this.received = 0;
    this.unanswered = []; // sent texts whose echo has not come back yet, oldest first
    onSubmit('ws-send-form', () => this.sendBox());
    this.bytes.addEventListener('toggle', () => this.drawBytes?.());
  }

  open(ticket) {
    const address = new URL(this.address('ws', ticket), location);
    address.protocol = address.protocol.replace(/^http/, 'ws');
    const socket = this.socket = new WebSocket(address);
    socket.binaryType = 'arraybuffer';
    // The late close of one that was replaced must not disturb its successor.
    const on = (type, action) => socket.addEventListener(type, (event) => {
      if (socket === this.socket) action(event);
    });
    on('open', () => this.show('live'));
    on('message', ({ data }) => this.arrived(data));
    on('close', ({ code, reason }) => {
      const text = `${code}: ${words.closes[code] ?? words.closes.other}${reason && ` (${reason})`}`;
      if (this.state === 'live') this.problem('closed', text);
      else if (this.failures === 0) this.problem('refused', fill(words.noSocket, { why: text }));
      this.forgetUnanswered();
      this.refused();
    });
  }

  close() {
    if (this.state === 'live') this.note('closed', `1000: ${words.closes[1000]}, ${words.byYou}`);
    this.socket?.close(1000, 'closed by the reader');
    this.socket = null;
    this.forgetUnanswered();
  }

  forgetUnanswered() {
    const lost = this.unanswered.splice(0);
    lost.forEach(({ done }) => done?.());
    if (lost.length) this.problem('lost', count(words.unanswered, lost.length));
  }

  show(state, note) {
    super.show(state, note);
    // The button stays usable: pressing it says that nothing was sent.
    byId('ws-send').setAttribute('aria-disabled', state !== 'live');
  }

  sendBox() {
    const text = byId('ws-message').value;
    if (!text) return;
    if (this.send(text)) byId('ws-message').value = '';
    else this.problem('unsent', fill(words.notSent, { text }));
  }

  /** `done` gets the milliseconds until the answer, or nothing if none comes. */
  send(text, done) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.unanswered.push({ text, at: performance.now(), done });
    this.socket.send(text);
    write('ws-sent', this.sent += 1);
    this.log.add('sent', words.tags.sent, text);
    this.showFrame(text, true);
    return true;
  }

  async echo(times) {
    const took = [];
    for (let n = 0; n < times; n += 1) {
      took.push(await new Promise((resolve) => {
        if (!this.send(`${n}`, resolve)) resolve();
      }));
    }
    return took;
  }

  showFrame(payload, sent) {
    const deflate = /permessage-deflate/.test(this.socket?.extensions);
    this.showBytes(() => showFrame(this.bytes.querySelector('div'), payload, { sent, deflate }));
  }

  arrived(data) {
    const arrivedAt = performance.now();
    this.failures = 0; // a server that talks is up
    write('ws-received', this.received += 1);
    this.showFrame(data, false);
    const message = parseJson(data);
    if (typeof data !== 'string') {
      this.log.add('event', words.tags.binary, count(words.bytes, data.byteLength));
    } else if (message?.type === 'response') {
      const index = this.unanswered.findIndex(({ text }) => text === message.original);
      const [asked] = index < 0 ? [] : this.unanswered.splice(index, 1);
      const took = asked ? `${number(arrivedAt - asked.at, 1)} ms` : words.unasked;
      if (asked) write('ws-round-trip', took);
      asked?.done?.(arrivedAt - asked.at);
      this.log.add('echo', words.tags.echo, `${took}  ${message.original}`);
    } else if (message?.type === 'event') {
      this.lastId = message.id;
      const metric = parseJson(message.data);
      if (isMetric(metric)) this.log.add('metric', words.tags.metric, metricLine(metric));
      else this.log.add('event', message.event || 'message', `${message.topic}: ${message.data}`);
    } else {
      if (message?.lastEventId) this.lastId = message.lastEventId;
      this.log.add('note', words.tags.info, String(message?.message ?? data));
    }
  }
}

/** The strip of numbers; the CPU history is a level meter. */
class Metrics {
  constructor() {
    this.history = [];
    this.canvas = byId('cpu-history');
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => this.draw());
    setInterval(() => this.showAge(), 1000);
  }

  take(reading) {
    const { timestamp, cpuUsage, memoryBytes, threads, clients } = this.latest = reading;
    this.history = [...this.history, cpuUsage].slice(-HISTORY);
    write('cpu', number(cpuUsage, 1));
    write('clients-sse', clients?.sse ?? '–');
    write('clients-websocket', clients?.websocket ?? '–');
    write('threads', threads ?? '–');
    write('memory', mib(memoryBytes));
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
    write('reading', fill(stale ? words.readingStale : words.readingLast, { at: this.takenAt }));
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
      // From the full height down: each zone keeps its colour.
      [100, value, Math.min(value, 80), Math.min(value, 60)].forEach((top, index) => {
        pen.fillStyle = colours[index];
        pen.fillRect(slot * width / HISTORY, height * (1 - top / 100), width / HISTORY - gap, height * top / 100);
      });
    }
    for (let line = 1; line < 10; line += 1) pen.clearRect(0, Math.round(height * line / 10), width, gap);
    if (history.length) {
      canvas.setAttribute('aria-label', fill(words.cpuHistory, {
        low: Math.min(...history).toFixed(0), high: Math.max(...history).toFixed(0),
      }));
    }
  }
}

const metrics = new Metrics();
const events = new EventChannel((reading) => metrics.take(reading));
const socket = new SocketChannel();

/** The latest system metric. */
export const latestReading = () => metrics.latest ?? null;

/** Whether this tab has the stream of all tabs, waits for it, or has its own. */
export const shareState = () => byId('sse-shared').textContent;

export function start() {
  events.connect();
  socket.connect();
}

export function reset() {
  for (const channel of [events, socket]) channel.pane.querySelector('.clear').click();
  write('measured', '');
}

onSubmit('access-form', () => {
  access.token = byId('access-token').value;
  write('access-answer', '');
  byId('access-form').reset();
  byId('access-form').hidden = true;
  for (const channel of [events, socket]) if (channel.locked) channel.connect();
});

onSubmit('publish-form', async () => {
  const say = (kind, text) => byId('publish-answer').replaceChildren(make('span', kind, text));
  const query = {};
  for (const field of ['topic', 'event']) if (byId(`publish-${field}`).value.trim()) query[field] = byId(`publish-${field}`).value.trim();
  events.listenFor(query.event); // first, or the event would not reach the page
  say('', words.publishing);
  try {
    const start = now();
    const result = await publish(query, byId('publish-body').value);
    events.time(result.id, start);
    say('good', fill(words.publishedAs, { id: result.id, to: count(words.subscribers, result.subscribers) }));
  } catch (error) {
    const why = error instanceof TypeError ? fill(words.noAnswer, { why: error.message }) : error.message;
    say('bad', fill(words.notPublished, { why }));
  }
});
byId('publish-body').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('publish-form').requestSubmit();
});
