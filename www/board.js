// The board: one tile for each thread of the server, fed by `/threads` four times a second. A tile keeps its
// place while its thread lives; another may have it later. So nothing in sight moves.

import { fetchTicket, make, parseJson, rich, access } from './dom.js';
import { fill, number, texts } from './texts.js';

const LINE_MS = 60000; // what a life line shows
const RETRY_MS = 2000;
const words = texts.board;

// What a tile says in colour, too.
const KINDS = ['running', 'cpu', 'read', 'channel', 'poll', 'accept', 'sleep', 'lock', 'other'];
const kindOf = ({ state, waits }) => {
  if (KINDS.includes(waits)) return waits;
  return state === 'R' ? 'running' : 'other';
};

class Thread {
  constructor(tile) {
    this.tile = tile;
    [this.nameText, this.waitText] = tile.children;
    this.line = []; // {at, kind, voluntary, involuntary}: its changes, oldest first
  }

  update(told, at) {
    this.told = { ...this.told, ...told };
    const { voluntary, involuntary } = this.told;
    this.line.push({ at, kind: kindOf(this.told), voluntary, involuntary });
    // The one before the minute says how it began.
    while (this.line.length > 1 && this.line[1].at < at - LINE_MS) this.line.shift();
  }

  draw(mine) {
    const { name, state, waits, client } = this.told;
    const mark = words.marks[Object.keys(mine).find((how) => mine[how] === client)];
    const kind = kindOf(this.told);
    // Most have the same address: the port tells them apart.
    const short = name.replace(/(\S+ )?\S*:(\d+)$/, (_, role, port) => `${role ?? ''}${port}`);
    const title = mark ? `${mark}: ${short}` : short;
    if (this.nameText.textContent !== title) this.nameText.textContent = this.tile.title = title;
    this.tile.classList.toggle('you', Boolean(mark));
    const text = `${state} ${words.waits[waits] ?? waits}`;
    if (this.waitText.textContent !== text) this.waitText.textContent = text;
    this.tile.dataset.kind = kind;
  }
}

class Board extends EventTarget {
  constructor() {
    super();
    this.threads = new Map(); // by tid
    this.mine = {}; // the client that has this mark: `you`, `frozen`
    this.spare = []; // tiles without a thread
    this.dirty = new Set();
    this.busy = new Set();
    this.gone = [];
    this.summary = make('p', 'summary', words.connecting);
    this.tiles = make('div', 'tiles', '');
    this.tiles.role = 'group';
    this.tiles.ariaLabel = words.label;
    this.canvas = make('canvas', 'life', '');
    this.canvas.role = 'img';
    this.canvas.ariaLabel = words.choose;
    this.lifeTitle = make('p', 'life-title', words.choose);
    this.facts = make('dl', 'facts', '');
    this.factTexts = Object.entries(words.facts).map(([key, name]) => {
      const value = make('dd', '', '–');
      this.facts.append(make('div', '', '', make('dt', '', name), value));
      return [key, value];
    });
    this.legend = make('ul', 'legend', '', ...[...KINDS, 'voluntary', 'involuntary'].map((kind) => {
      const item = make('li', '', words.waits[kind] ?? words.facts[kind]);
      item.dataset.kind = kind;
      return item;
    }));
    this.element = make('div', 'threads-board', '', this.summary, this.tiles, this.legend,
      make('div', 'life-box', '', this.lifeTitle, this.canvas, this.facts), rich('p', 'source', words.names));
    this.tiles.addEventListener('click', ({ target }) => this.choose(target.closest('.tile')?.thread));
    this.tiles.addEventListener('keydown', (event) => this.move(event));
    new ResizeObserver(() => this.drawLine()).observe(this.canvas);
    document.addEventListener('visibilitychange', () => this.follow());
  }

  /** Shows the board in an element; null hides it, and ends its stream. */
  show(parent) {
    this.parent = parent;
    // Nobody sees this move.
    for (const tile of this.spare.splice(0)) this.drop(tile);
    parent?.append(this.element);
    this.choose(this.findMine());
    this.follow();
  }

  /** The stream is open while somebody looks: a hidden tab must not keep one of six connections. */
  follow() {
    const wanted = this.parent && !document.hidden;
    if (wanted === this.following) return;
    this.following = wanted;
    clearTimeout(this.retry);
    this.source?.close();
    if (wanted) this.connect();
  }

  async connect() {
    const ticket = await fetchTicket().catch(() => '');
    if (!this.following) return;
    const source = this.source = new EventSource(ticket ? `threads?ticket=${ticket}` : 'threads');
    source.addEventListener('threads', ({ data }) => this.take(parseJson(data)));
    source.addEventListener('error', () => {
      this.summary.textContent = words.lost;
      source.close(); // it would come back with a used ticket
      if (source === this.source) this.retryLater();
    });
  }

  async retryLater() {
    // An EventSource does not tell why it failed; the response does.
    const headers = access.token ? { Authorization: `Bearer ${access.token}` } : {};
    const stop = new AbortController();
    const response = await fetch('threads', { headers, signal: stop.signal }).catch(() => null);
    if (response && !response.ok) {
      const why = parseJson(await response.text())?.error?.message ?? response.status;
      this.summary.textContent = response.status === 404 ? words.absent : fill(words.refused, { why });
    }
    stop.abort();
    if (this.following) this.retry = setTimeout(() => this.connect(), RETRY_MS);
  }

  take(sample) {
    if (!sample) return;
    this.sample = { ...sample, threads: null };
    const told = new Set(sample.threads.map(({ tid }) => tid));
    for (const thread of sample.threads) {
      if (!this.threads.has(thread.tid)) this.add(thread.tid);
      this.threads.get(thread.tid).update(thread, sample.at);
      this.dirty.add(thread.tid);
    }
    const gone = sample.full ? [...this.threads.keys()].filter((tid) => !told.has(tid)) : sample.gone;
    this.gone.push(...gone ?? []);
    // What is not told has not changed: it was asleep for all of the time.
    this.awake = sample.full ? new Set() : told;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  add(tid) {
    const tile = this.spare.pop() ?? this.makeTile();
    const thread = tile.thread = new Thread(tile);
    tile.className = 'tile';
    tile.disabled = false;
    this.threads.set(tid, thread);
  }

  makeTile() {
    const tile = make('button', 'tile', '', make('span', 'name', ''), make('span', 'waits', ''));
    tile.type = 'button';
    tile.tabIndex = this.tiles.childElementCount ? -1 : 0; // one stop for Tab; arrows lead to the others
    this.tiles.append(tile);
    return tile;
  }

  /** All that has changed since the last frame, in one go. */
  draw() {
    this.frame = 0;
    for (const tid of this.dirty) this.threads.get(tid)?.draw(this.mine);
    this.dirty.clear();
    for (const tid of this.busy) if (!this.awake.has(tid)) this.threads.get(tid)?.tile.classList.remove('busy');
    for (const tid of this.awake) this.threads.get(tid)?.tile.classList.add('busy');
    this.busy = this.awake;
    for (const tid of this.gone.splice(0)) this.remove(tid);
    if (!this.chosen || this.chosen.ended) this.choose(this.findMine());
    const running = [...this.threads.values()].filter(({ told }) => told.state === 'R').length;
    this.summary.textContent = fill(words.summary, { n: number(this.threads.size), running: number(running) })
      + (this.sample.omitted ? ` ${fill(words.omitted, { n: number(this.sample.omitted) })}` : '')
      + (Object.values(this.sample.tells ?? {}).every(Boolean) ? '' : ` ${words.tellsLess}`);
    if (this.chosen) this.drawLine();
    this.dispatchEvent(new Event('drawn'));
  }

  remove(tid) {
    const thread = this.threads.get(tid);
    if (!thread) return;
    const { tile } = thread;
    this.threads.delete(tid);
    tile.className = 'tile ended';
    tile.thread = null;
    this.spare.unshift(tile);
    thread.ended = true;
    // Its place shows for a moment that somebody was there.
    setTimeout(() => {
      if (tile.thread) return;
      tile.className = 'tile empty';
      tile.disabled = true;
      for (const part of tile.children) part.textContent = '';
      delete tile.dataset.kind;
      this.shrink();
    }, 2000);
  }

  /** Drops places without a thread from the end; a thread out of sight there takes one further up. */
  shrink() {
    for (;;) {
      const { lastElementChild: last, offsetTop, scrollTop, clientHeight } = this.tiles;
      const place = last.disabled ? last : this.spare.find((one) => one.disabled);
      if (!place || (place !== last && last.offsetTop < offsetTop + scrollTop + clientHeight)) return;
      if (place !== last) place.replaceWith(last);
      this.spare.splice(this.spare.indexOf(place), 1);
      this.drop(place);
    }
  }

  // Tab must still find a tile.
  drop(tile) {
    tile.remove();
    if (!tile.tabIndex && this.tiles.firstChild) this.tiles.firstChild.tabIndex = 0;
  }

  findMine() {
    return [...this.threads.values()].find(({ told }) => told.client === this.mine.you);
  }

  mark({ client }, how = 'you') {
    this.mine[how] = client;
    this.dirty = new Set(this.threads.keys());
  }

  choose(thread) {
    if (!thread) return;
    this.chosen?.tile.removeAttribute('aria-pressed');
    this.chosen = thread;
    thread.tile.ariaPressed = 'true';
    if (thread.told.client === this.mine.you) this.tiles.scrollTop = thread.tile.offsetTop - this.tiles.offsetTop;
    this.drawLine();
  }

  move(event) {
    const tiles = [...this.tiles.children].filter((tile) => !tile.disabled);
    const at = tiles.indexOf(event.target.closest('.tile'));
    const perRow = Math.max(1, tiles.findIndex((tile) => tile.offsetTop > tiles[0].offsetTop));
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + perRow, ArrowUp: at - perRow, Home: 0, End: tiles.length - 1 }[event.key];
    if (to === undefined || !tiles[to]) return;
    event.preventDefault();
    tiles[at].tabIndex = -1;
    tiles[to].tabIndex = 0;
    tiles[to].focus();
  }

  /** What a thread's figures are at this moment; null where it is not on the board. */
  told(tid) {
    return this.threads.get(tid)?.told ?? null;
  }

  /** Waits until a client's thread is on the board (`there`), or serves it no longer; after `ms` with what is true then. */
  async until({ client, tid }, there, ms) {
    const end = performance.now() + ms;
    const isSo = () => (this.told(tid)?.client === client) === there;
    while (!isSo() && performance.now() < end) {
      await Promise.race([new Promise((resolve) => { this.addEventListener('drawn', resolve, { once: true }); }),
        new Promise((resolve) => { setTimeout(resolve, 250); })]);
    }
    return isSo();
  }

  /** The chosen thread's last minute: a bar for what it did, marks for its switches. */
  drawLine() {
    const { canvas, chosen } = this;
    const scale = devicePixelRatio;
    const width = canvas.width = Math.round(canvas.clientWidth * scale);
    const height = canvas.height = Math.round(canvas.clientHeight * scale);
    if (!chosen || !width) return;
    const { told, line } = chosen;
    const style = getComputedStyle(canvas);
    const colours = Object.fromEntries([...this.legend.children].map((item) => [item.dataset.kind, getComputedStyle(item).getPropertyValue('--kind')]));
    const pen = canvas.getContext('2d');
    const end = chosen.ended ? line.at(-1).at : this.sample.at;
    const x = (at) => width * (1 - (end - at) / LINE_MS);
    const spent = {};
    line.forEach((entry, index) => {
      const from = Math.max(entry.at, end - LINE_MS);
      const until = line[index + 1]?.at ?? end;
      if (until <= from) return;
      spent[entry.kind] = (spent[entry.kind] ?? 0) + until - from;
      pen.fillStyle = colours[entry.kind];
      pen.fillRect(x(from), 0, x(until) - x(from) + 1, height * 0.6);
    });
    for (const [key, top] of [['voluntary', 0.64], ['involuntary', 0.83]]) {
      pen.fillStyle = style.getPropertyValue(key === 'voluntary' ? '--ink' : '--stop');
      line.forEach((entry, index) => {
        if (index && entry[key] > line[index - 1][key]) pen.fillRect(x(entry.at) - scale, height * top, 2 * scale, height * 0.15);
      });
    }
    this.lifeTitle.textContent = fill(chosen.ended ? words.lifeEnded : words.lifeOf, told);
    canvas.ariaLabel = fill(words.lifeLabel, { name: told.name, spent: Object.entries(spent)
      .map(([kind, ms]) => `${words.waits[kind]} ${number(ms / 1000, 1)} s`).join(', ') });
    for (const [key, element] of this.factTexts) {
      // What is not told again has only grown older.
      const value = key === 'seconds' ? told.seconds + (end - line.at(-1).at) / 1000 : told[key];
      element.textContent = key !== 'tid' && typeof value === 'number' ? number(value, /Ms$|seconds/.test(key) ? 1 : 0) : value ?? '–';
    }
  }
}

export const board = new Board();
