// The Learn view: ten chapters: a question, a prediction, something to do, and what is behind it, with figures of
// this server at this moment.

import { board } from './board.js';
import { chapters as structure } from './chapters.js';
import { byId, button, fetchStats, make, parseJson, recall, remember, rich } from './dom.js';
import { labHint, needsLab, reset as resetLab, run, told } from './experiments.js';
import { lab } from './lab.js';
import { latestReading, shareState } from './live.js';
import { fill, language, mib, number, texts } from './texts.js';

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

/** A chapter's figures: of `/stats`, of the board, or of this page. */
const FIGURES = {
  threads: (stats) => number(stats?.threads),
  memory: (stats) => `${mib(stats?.memoryBytes)} MiB`,
  descriptors: (stats) => number(stats?.descriptors),
  sse: (stats) => number(stats?.clients.sse),
  websocket: (stats) => number(stats?.clients.websocket),
  limit: (stats) => number(stats?.clients.limit),
  backlog: (stats) => `${mib(stats?.backlogBytes)} MiB`,
  fanOut: (stats) => (stats ? `${number(stats.fanOut.lastMicros)} µs` : '–'),
  asleep: () => (board.threads.size ? number([...board.threads.values()].filter(({ told }) => told.state === 'S').length) : '–'),
  cpu: () => (latestReading() ? `${number(latestReading().cpuUsage, 1)} %` : '–'),
  share: () => shareState(),
};

let predictions = parseJson(recall('predictions')) ?? {}; // by chapter
let latest = 0;
let timer;

/** The question, with a choice. */
function prediction(index, chapter) {
  const note = make('p', 'verdict', '');
  note.role = 'status';
  const say = () => {
    if (predictions[index] !== undefined) note.textContent = words.noted;
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
      note.textContent = words.chooseFirst;
      return;
    }
    predictions[index] = Number(chosen.value);
    remember('predictions', JSON.stringify(predictions));
    say();
  });
  say();
  return make('div', '', '', form, note);
}

function step({ text, action, command, view }) {
  const item = rich('li', '', text);
  if (command) item.append(make('pre', '', command));
  if (view) {
    const link = make('a', 'go', words.views[view]);
    link.href = `#${view}`;
    item.append(' ', link);
  }
  if (action) {
    const output = make('p', 'answer', '');
    output.role = 'status';
    const one = needsLab(button(texts.threads.buttons[action], () => run(action, one, output)));
    one.dataset.action = action;
    if (told[action]) {
      output.textContent = words.earlier + told[action];
      output.dataset.kind = 'good';
    }
    item.append(make('div', 'buttons', '', one), output);
  }
  return item;
}

const place = ([file, item]) => (item ? `${file}: ${item}` : file);

function showChapter(box, index) {
  const chapter = chapters[index];
  const explanation = make('div', 'explanation', '');
  const figures = make('dl', 'figures', '');
  const verdict = make('p', 'verdict', '');
  verdict.role = 'status';
  // A prediction that is judged at once needs no experiment.
  const open = button(words.explain, () => {
    if (predictions[index] === undefined) {
      verdict.textContent = words.chooseFirst;
      return;
    }
    const isRight = predictions[index] === chapter.answer;
    verdict.dataset.kind = isRight ? 'good' : 'bad';
    verdict.textContent = fill(isRight ? words.right : words.wrong, { answer: chapter.options[chapter.answer], chosen: chapter.options[predictions[index]] });
    if (explanation.childElementCount) return;
    explanation.append(...chapter.explain.map((text) => rich('p', '', text)),
      make('h3', '', words.figures), figures, make('p', 'source', words.figuresSource),
      make('h3', '', words.source), make('ul', 'links', '', ...chapter.links.map((link) => make('li', '', '', make('code', '', place(link))))));
  }, 'primary');
  const values = chapter.figures.map((key) => {
    const value = make('dd', '', '–');
    figures.append(make('div', '', '', make('dt', '', words.figureNames[key]), value));
    return [key, value];
  });
  const slot = make('div', 'slot', '');
  box.replaceChildren(
    make('h2', '', `${index + 1}. ${chapter.title}`),
    make('h3', '', words.question), prediction(index, chapter),
    make('h3', '', words.doIt), labHint(), make('div', chapter.board ? 'work' : '', '', make('ol', 'steps', '', ...chapter.steps.map(step)), slot),
    make('h3', '', words.explanation), open, verdict, explanation, pager(index));
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
  const index = latest = chapters[place - 1] ? place - 1 : latest;
  [...list.querySelectorAll('a')].forEach((link, n) => {
    if (n === index) link.ariaCurrent = 'page';
    else link.removeAttribute('aria-current');
  });
  // For a reload.
  if (!place) history.replaceState(null, '', `#learn/${index + 1}`);
  lab.start();
  showChapter(byId('chapter'), index);
  if (place) byId('chapter').scrollIntoView(); // on a phone the contents fill the screen
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
