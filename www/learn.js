// The Learn view: ten chapters, each with a question, a prediction, something to do, and what is to be
// learnt from it, with figures of this server at this moment.

import { board } from './board.js';
import { chapters as structure } from './chapters.js';
import { byId, button, fetchStats, make, parseJson, recall, remember, rich } from './dom.js';
import { labHint, needsLab, reset as resetLab, run } from './experiments.js';
import { lab } from './lab.js';
import { latestReading, shareState } from './live.js';
import { fill, language, number, texts } from './texts.js';

const words = texts.learn;
const chapters = structure.map((chapter, index) => {
  const text = texts.chapters[index];
  return {
    ...chapter,
    ...text,
    steps: chapter.steps.map((one, n) => ({ ...one, text: text.steps[n] })),
  };
});
const FIGURES_EVERY_MS = 2000;
const mib = (bytes) => (Number.isFinite(bytes) ? `${number(bytes / 1048576, 1)} MiB` : '–');

/** What each figure of a chapter is at this moment: of `/stats`, of the board, or of this page. */
const FIGURES = {
  threads: (stats) => number(stats?.threads),
  memory: (stats) => mib(stats?.memoryBytes),
  perThread: (stats) => (stats ? `${number(stats.memoryBytes / stats.threads / 1024, 1)} KiB` : '–'),
  descriptors: (stats) => number(stats?.descriptors),
  sse: (stats) => number(stats?.clients.sse),
  websocket: (stats) => number(stats?.clients.websocket),
  limit: (stats) => number(stats?.clients.limit),
  backlog: (stats) => mib(stats?.backlogBytes),
  fanOut: (stats) => (stats ? `${number(stats.fanOut.lastMicros)} µs` : '–'),
  asleep: () => (board.threads.size ? number([...board.threads.values()].filter(({ told }) => told.state === 'S').length) : '–'),
  cpu: () => (latestReading() ? `${number(latestReading().cpuUsage, 1)} %` : '–'),
  share: () => shareState(),
};

let predictions = parseJson(recall('predictions')) ?? {}; // by chapter
let timer;

/** The question, with a choice; the answer opens once there is a prediction. */
function prediction(index, chapter, reveal) {
  const verdict = make('p', 'verdict', '');
  verdict.role = 'status';
  const say = () => {
    const chosen = predictions[index];
    if (chosen === undefined) return;
    verdict.dataset.kind = chosen === chapter.answer ? 'good' : 'bad';
    verdict.textContent = fill(chosen === chapter.answer ? words.right : words.wrong, { answer: chapter.options[chapter.answer] });
    reveal();
  };
  const options = chapter.options.map((text, option) => {
    const input = make('input', '', '');
    Object.assign(input, { type: 'radio', name: 'prediction', value: option, checked: predictions[index] === option });
    const label = rich('label', 'option', text);
    label.prepend(input); // a label around its radio button needs no ids
    return label;
  });
  const form = make('form', 'prediction', '', make('fieldset', '', '', rich('legend', '', chapter.question), ...options));
  const submit = make('button', 'primary', words.predict);
  form.append(submit);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const chosen = form.querySelector('input:checked');
    if (!chosen) {
      verdict.textContent = words.chooseFirst;
      return;
    }
    predictions[index] = Number(chosen.value);
    remember('predictions', JSON.stringify(predictions));
    say();
  });
  return [make('div', '', '', form, verdict), say];
}

function step({ text, action, command, view }) {
  const item = rich('li', '', text);
  if (command) item.append(make('pre', '', command));
  if (view) {
    const link = make('a', 'go', words.views[view]);
    link.href = `#${view}`;
    item.append(link);
  }
  if (action) {
    const output = make('p', 'answer', '');
    output.role = 'status';
    const one = needsLab(button(texts.threads.buttons[action], () => run(action, one, output)));
    one.dataset.action = action;
    item.append(make('div', 'buttons', '', one), output);
  }
  return item;
}

const place = ([file, item]) => (item ? `${file}: ${item}` : file);

function showChapter(box, index) {
  const chapter = chapters[index];
  const explanation = make('div', 'explanation', '');
  const figures = make('dl', 'figures', '');
  const reveal = () => {
    if (explanation.childElementCount) return;
    explanation.append(make('h3', '', words.explanation), ...chapter.explain.map((text) => rich('p', '', text)),
      make('h3', '', words.figures), figures, make('p', 'source', words.figuresSource),
      make('h3', '', words.source), make('ul', 'links', '', ...chapter.links.map((link) => make('li', '', '', make('code', '', place(link))))));
  };
  const values = chapter.figures.map((key) => {
    const value = make('dd', '', '–');
    figures.append(make('div', '', '', make('dt', '', words.figureNames[key]), value));
    return [key, value];
  });
  const [question, say] = prediction(index, chapter, reveal);
  const slot = make('div', 'slot', '');
  box.replaceChildren(
    make('h2', '', fill(words.heading, { n: index + 1, title: chapter.title })),
    make('h3', '', words.question), question,
    make('h3', '', words.doIt), labHint(), make('ol', 'steps', '', ...chapter.steps.map(step)),
    slot, explanation, pager(index));
  say();
  board.show(chapter.board ? slot : null);
  clearInterval(timer);
  const refresh = async () => {
    const stats = await fetchStats();
    for (const [key, element] of values) element.textContent = FIGURES[key](stats);
  };
  refresh();
  timer = setInterval(refresh, FIGURES_EVERY_MS);
}

function pager(index) {
  const link = (to, text) => {
    if (!chapters[to]) return '';
    const one = make('a', 'go', fill(text, { title: chapters[to].title }));
    one.href = `#learn/${to + 1}`;
    return one;
  };
  const nav = make('nav', 'pager', '', link(index - 1, words.before), link(index + 1, words.next));
  nav.ariaLabel = words.pager;
  return nav;
}

/** The chapters as Markdown, for paper: nothing of this machine, and the answers at the end. */
export function handout() {
  const part = (chapter, index) => [
    `## ${index + 1}. ${chapter.title}`,
    `**${chapter.question.replaceAll('**', '')}**`,
    chapter.options.map((text) => `- [ ] ${text}`).join('\n'),
    chapter.steps.map(({ text, action, command }, n) => [`${n + 1}. ${text}`,
      action && `   - ${words.onPage}: *${texts.threads.buttons[action]}*`,
      command && `   \`\`\`sh\n${command.replace(/^/gm, '   ')}\n   \`\`\``].filter(Boolean).join('\n')).join('\n'),
    `${words.notes}:\n\n\n`,
  ].join('\n\n');
  const answer = (chapter, index) => [`### ${index + 1}. ${chapter.title}`, `**${chapter.options[chapter.answer].replaceAll('**', '')}**`,
    ...chapter.explain, chapter.links.map((link) => `- \`${place(link)}\``).join('\n')].join('\n\n');
  return [`# ${words.handoutTitle}`, words.handoutStart, ...chapters.map(part), `# ${words.answers}`, ...chapters.map(answer), ''].join('\n\n');
}

function download() {
  const link = make('a', '', '');
  link.href = URL.createObjectURL(new Blob([handout()], { type: 'text/markdown' }));
  link.download = `threadcast-${language}.md`;
  link.click();
  URL.revokeObjectURL(link.href);
}

const list = byId('chapters');
list.append(...chapters.map((chapter, index) => {
  const link = make('a', '', chapter.title);
  link.href = `#learn/${index + 1}`;
  return make('li', '', '', link);
}));
byId('handout').addEventListener('click', download);

/** `place`: the chapter's number as the address has it. */
export function show(place) {
  const index = chapters[place - 1] ? place - 1 : 0;
  [...list.querySelectorAll('a')].forEach((link, n) => {
    if (n === index) link.ariaCurrent = 'page';
    else link.removeAttribute('aria-current');
  });
  lab.start();
  showChapter(byId('chapter'), index);
}

export function hide() {
  clearInterval(timer);
  board.show(null);
}

/** Forgets the predictions, and ends what the demo has opened. */
export async function reset() {
  predictions = {};
  remember('predictions', JSON.stringify(predictions));
  await resetLab();
}
