// What the buttons of Threads and Learn do. Each returns a sentence, with figures of this moment.

import { board } from './board.js';
import { fetchStats, parseJson, rich, sleep } from './dom.js';
import { lab } from './lab.js';
import { fill, mib, number, texts } from './texts.js';

const words = texts.experiments;
const BUSY_MS = 5000;
const HEALTH_EVERY_MS = 200;
const SETTLED_MS = 700; // by then the board has had two samples
const IDLE_MS = 6000; // a thread without work waits for five seconds, and ends
const BURST = { events: 100, bytes: 100, everyMs: 5 };
// More than kernel, browser and queue hold together.
const FREEZE = { events: 10, bytes: 100000, bursts: 200 };

/** The longest that another connection of this page waited for `/healthz` until `work` is done, in ms. */
async function longestOther(work) {
  let isDone = false;
  let most = 0;
  work.finally(() => { isDone = true; }).catch(() => {});
  while (!isDone) {
    const start = performance.now();
    await fetch('healthz', { cache: 'no-store' });
    most = Math.max(most, performance.now() - start);
    await Promise.race([work.catch(() => {}), sleep(HEALTH_EVERY_MS)]);
  }
  return most;
}

/** What others waited at most, for Compare. */
export const longest = {};

/** Keeps this connection's thread busy, and says how it and others fared. */
async function occupy(what) {
  await lab.ready();
  const tid = lab.own?.tid;
  await board.until(lab.own ?? {}, true, 3000);
  const before = board.told(tid);
  const work = lab.ask({ do: what, ms: BUSY_MS });
  const other = await longestOther(work);
  await work;
  await sleep(SETTLED_MS);
  const after = board.told(tid);
  longest[what] = other;
  const more = (key) => number(after?.[key] - before?.[key]);
  return fill(words[what], { tid, other: number(other, 1), cpu: more('cpuMs'), voluntary: more('voluntary'),
    involuntary: more('involuntary'), queued: more('queuedMs') });
}

async function panic() {
  await lab.ready();
  const { tid } = lab.own ?? {};
  const before = await fetchStats();
  const [, code] = await Promise.all([lab.ask({ do: 'panic' }).catch((error) => { if (lab.state === 'none') throw error; }),
    lab.state === 'open' && lab.ended()]);
  await lab.ready();
  const after = await fetchStats();
  return fill(words.panic, { tid, code, next: lab.own?.tid, before: before?.clients.sse, after: after?.clients.sse });
}

/** So many demo clients, half of them in each group. */
async function clients(n) {
  await lab.ready();
  const before = await fetchStats();
  await lab.ask({ do: 'clients', direct: Math.ceil(n / 2), handoff: Math.floor(n / 2) });
  await sleep(n ? SETTLED_MS : IDLE_MS);
  const after = await fetchStats();
  const threads = after?.threads - before?.threads;
  const kib = (after?.memoryBytes - before?.memoryBytes) / 1024;
  const kind = n === 0 ? 'noClients' : threads > 0 ? 'clients' : 'fewer';
  return fill(words[kind], { n, threads: number(after?.threads), more: number(threads),
    memory: mib(after?.memoryBytes), grown: number(kib / 1024, 1), each: number(kib / threads, 1) });
}

/** One burst for each group. */
async function burst() {
  const results = {};
  await lab.ready();
  for (const fanout of ['direct', 'handoff']) results[fanout] = await lab.ask({ do: 'burst', fanout, ...BURST });
  burst.show?.(results);
  const { direct, handoff } = results;
  if (!direct.deliveries || !handoff.deliveries) return words.burstNobody;
  const each = (result, key) => result[key] / result.deliveries;
  return fill(words.burst, { n: number(direct.deliveries), direct: number(each(direct, 'cpuMs') * 1000, 1),
    handoff: number(each(handoff, 'cpuMs') * 1000, 1), voluntary: number(each(direct, 'voluntary'), 3),
    voluntaryHandoff: number(each(handoff, 'voluntary'), 3) });
}

/** Bytes of a fetch()ed event stream until its event `you` is whole. */
async function readYou(reader) {
  const decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(words.freezeRefused);
    text += decoder.decode(value, { stream: true });
    const data = /^event: you\ndata: (.*)\n\n/m.exec(text)?.[1];
    if (data) return parseJson(data);
  }
}

/** Opens an event stream, and reads only its beginning: until the server lets it go. */
async function freeze() {
  await lab.ready();
  if (lab.state !== 'open') throw new Error(texts.lab.none);
  const response = await fetch('lab/stream?fanout=direct&name=frozen');
  if (!response.ok) throw new Error(`${words.freezeRefused} (${response.status})`);
  // Kept to the end: for one that is collected the browser reads on.
  const reader = response.body.getReader();
  try {
    const you = await readYou(reader);
    const { tid } = you;
    board.mark(you, 'frozen');
    if (!await board.until(you, true, 3000)) throw new Error(words.freezeUnseen);
    const start = performance.now();
    let sent = 0;
    let deliveries = 0;
    let queued = 0;
    const work = (async () => {
      while (sent < FREEZE.bursts && !await board.until(you, false, 0)) {
        deliveries += (await lab.ask({ do: 'burst', fanout: 'direct', events: FREEZE.events, bytes: FREEZE.bytes })).deliveries;
        sent += 1;
        await sleep(50);
        queued = Math.max(queued, board.told(tid)?.queueBytes ?? 0);
      }
    })();
    const other = await longestOther(work);
    await work;
    const isGone = await board.until(you, false, 2000);
    const seconds = (performance.now() - start) / 1000;
    return fill(isGone ? words.freeze : words.freezeStays, { tid, seconds: number(seconds, 1), sent: number(sent * FREEZE.events * FREEZE.bytes / 1e6, 1),
      queued: mib(queued), deliveries: number(deliveries), other: number(other, 1) });
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Closes all demo clients, and forgets what came of the last burst. */
export async function reset() {
  if (lab.state === 'open') await lab.ask({ do: 'reset' });
  burst.show?.(null);
}

export const experiments = {
  sleep: () => occupy('sleep'),
  compute: () => occupy('compute'),
  panic,
  clients10: () => clients(10),
  clients100: () => clients(100),
  clients500: () => clients(500),
  clients0: () => clients(0),
  burst,
  freeze,
};

export const onBurst = (show) => { burst.show = show; };

/** Buttons that only a server with `--demo` can serve follow its state. */
export function needsLab(button) {
  const follow = () => {
    button.disabled = lab.state === 'none';
    button.title = lab.state === 'none' ? texts.lab.none : '';
  };
  lab.addEventListener('change', follow);
  follow();
  return button;
}

/** How to get such a server. */
export function labHint() {
  const line = rich('p', 'hint', texts.lab.hint);
  const follow = () => { line.hidden = lab.state !== 'none'; };
  lab.addEventListener('change', follow);
  follow();
  return line;
}

/** What came of each, the last time. */
export const told = {};

/** Runs one, and tells in `output` what came of it. Its button waits meanwhile. */
export async function run(name, button, output) {
  if (button.ariaBusy === 'true') return;
  button.ariaBusy = 'true';
  output.textContent = texts.experiments.under;
  output.dataset.kind = '';
  try {
    output.textContent = told[name] = await experiments[name]();
    output.dataset.kind = 'good';
  } catch (error) {
    output.textContent = fill(words.failed, { why: error.message });
    output.dataset.kind = 'bad';
  }
  button.ariaBusy = 'false';
}
