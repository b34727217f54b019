// The Compare view: a recorded run against an event loop; and the benchmark's report (`--report FILE`), or the
// README's table where there is none.

import { access, byId, make, parseJson, rich, table } from './dom.js';
import { longest } from './experiments.js';
import { fill, number, texts } from './texts.js';

const words = texts.compare;
const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, LABELS, VALUES, ROW] = [640, 110, 100, 26];

// Of the report's figures, these are drawn: workload, key, digits, and whether less is better.
const CHARTS = [
  ['fanout-sse', 'server_cpu_us_per_delivery', 1, true],
  ['fanout-ws', 'server_cpu_us_per_delivery', 1, true],
  ['saturate', 'deliveries_per_second', 0, false],
  ['echo-64', 'messages_per_second', 0, false],
  ['echo-2000', 'messages_per_second', 0, false],
  ['idle-sse', 'memory_kib_per_client', 1, true],
];

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** The report's rounds, and its head: a line of JSON each. */
function readReport(text) {
  const lines = text.split('\n').map(parseJson).filter(Boolean);
  const head = lines.find((line) => line.machine);
  return { machine: head?.machine ?? {}, command: head?.command_line, rounds: lines.filter((line) => line.workload && line.peer) };
}

/** Median, lowest and highest of each peer's rounds, if possible of those without objections. */
function figures(rounds, workload, key) {
  const found = new Map();
  for (const peer of new Set(rounds.map((round) => round.peer))) {
    const own = rounds.filter((round) => round.workload === workload && round.peer === peer && Number.isFinite(round[key]));
    const valid = own.filter((round) => round.valid);
    const values = (valid.length ? valid : own).map((round) => round[key]);
    if (values.length) found.set(peer, { median: median(values), low: Math.min(...values), high: Math.max(...values) });
  }
  return found;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function chart(title, bars, digits) {
  const scale = (WIDTH - LABELS - VALUES) / Math.max(...[...bars.values()].map(({ high }) => high));
  const rows = [...bars].flatMap(([peer, { median: value, low, high }], index) => {
    const y = index * ROW;
    const isOwn = peer === 'threadcast' || peer === 'handoff';
    return [
      svg('text', { class: 'name', x: LABELS - 8, y: y + 17 }, peer),
      svg('rect', { class: isOwn ? 'bar own' : 'bar', x: LABELS, y: y + 4, width: Math.max(1, value * scale), height: ROW - 8 }),
      svg('path', { class: 'spread', d: `M${LABELS + low * scale} ${y + 13}H${LABELS + high * scale}` }),
      svg('text', { x: LABELS + high * scale + 6, y: y + 17 }, number(value, digits)),
    ];
  });
  const label = `${title}: ${[...bars].map(([peer, figure]) => `${peer} ${number(figure.median, digits)}`).join(', ')}`;
  return make('figure', '', '', make('figcaption', '', title),
    svg('svg', { viewBox: `0 0 ${WIDTH} ${bars.size * ROW}`, role: 'img', 'aria-label': label }, ...rows));
}

/** What a chart says, in a sentence. */
function finding(key, bars, lessIsBetter) {
  const own = bars.get('threadcast')?.median;
  const others = [...bars].filter(([peer]) => !['threadcast', 'handoff', 'floor'].includes(peer));
  if (!own || !others.length) return null;
  const [peer, best] = others.reduce((one, two) => ((one[1].median < two[1].median) === lessIsBetter ? one : two));
  const ratio = lessIsBetter ? best.median / own : own / best.median;
  const kind = `${lessIsBetter ? 'less' : 'more'}${ratio >= 1 ? 'Wins' : 'Loses'}`;
  const sentence = fill(words.findings[kind], { what: words.charts[key], peer, ratio: number(Math.max(ratio, 1 / ratio), 1) });
  const handoff = bars.get('handoff')?.median;
  return handoff && lessIsBetter && key !== 'idle-sse' ? `${sentence} ${fill(words.handoff, { ratio: number(handoff / own, 1) })}` : sentence;
}

function showReport(box, text) {
  const { machine, command, rounds } = readReport(text);
  const findings = make('ul', 'findings', '');
  const charts = make('div', 'charts', '');
  for (const [workload, key, digits, lessIsBetter] of CHARTS) {
    const bars = figures(rounds, workload, key);
    if (bars.size) {
      charts.append(chart(words.charts[workload], bars, digits));
      const sentence = finding(workload, bars, lessIsBetter);
      if (sentence) findings.append(make('li', '', sentence));
    }
  }
  const source = fill(words.reportSource, { date: machine.date, processor: machine.processor, kernel: machine.kernel });
  box.append(make('p', 'source', source), findings, charts);
  if (command) box.append(make('pre', '', command));
}

/** A figure of the README as the reader's language writes it. */
const local = (text) => text.replace(/[.,]/g, (sign) => (sign === '.' ? number(0.5, 1) : number(1000))[1]);

function showReadme(box, { source, date, head, rows }) {
  box.append(rich('p', '', words.noReport), make('pre', '', words.makeReport),
    table(fill(words.readmeCaption, { source, date }), head, rows.map(([key, ...values]) => [words.charts[key], ...values.map(local)])));
}

const ms = (value) => `${number(value)} ms`;

function showEventLoop(box, { date, machine, versions, runs }) {
  box.append(table(fill(words.loopCaption, { date, machine, versions: versions.join(', ') }), words.loopHead,
    runs.map(({ server, handler, events, requests }) => [server, words.handlers[handler], ms(events), ms(requests)])));
  box.append(make('p', '', ''), rich('p', '', words.loopMeaning));
}

/** What the reader's own experiments gave. */
function showOwn(box) {
  const own = Object.keys(longest).map((handler) => fill(words.own, { handler: words.handlers[handler], other: ms(longest[handler]) }));
  const line = box.querySelector('p'); // there is none while the table is under way
  if (line) line.textContent = own.join(' ');
}

let isShown = false;

export async function show() {
  if (!isShown) {
    isShown = true;
    const headers = access.token ? { Authorization: `Bearer ${access.token}` } : {};
    const [report, recorded] = await Promise.all([
      fetch('report', { headers }).then((response) => (response.ok ? response.text() : null)).catch(() => null),
      fetch('recorded.json').then((response) => response.json()),
    ]);
    showEventLoop(byId('event-loop'), recorded.eventLoop);
    if (report) showReport(byId('report'), report);
    else showReadme(byId('report'), recorded.readme);
  }
  showOwn(byId('event-loop'));
}

export const hide = () => {};
