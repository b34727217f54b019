// The Threads view: the board, and buttons that give the threads something to do.

import { board } from './board.js';
import { byId, button, make, rich, table } from './dom.js';
import { labHint, needsLab, onBurst, run } from './experiments.js';
import { lab } from './lab.js';
import { number, texts } from './texts.js';

const words = texts.threads;
const GROUPS = [
  ['clients', ['clients10', 'clients100', 'clients500', 'clients0']],
  ['burst', ['burst']],
  ['own', ['sleep', 'compute', 'panic']],
  ['freeze', ['freeze']],
];
// A burst's figures, of the server's.
const FIGURES = [
  ['deliveries', (result) => number(result.deliveries)],
  ['ms', (result) => number(result.ms, 1)],
  ['voluntary', (result) => number(result.voluntary)],
  ['involuntary', (result) => number(result.involuntary)],
  ['cpuEach', (result) => number(result.cpuMs * 1000 / result.deliveries, 1)],
  ['voluntaryEach', (result) => number(result.voluntary / result.deliveries, 3)],
];

function group([name, actions]) {
  const output = make('p', 'answer', '');
  output.role = 'status';
  output.dataset.of = name;
  const buttons = actions.map((action) => {
    const one = needsLab(button(words.buttons[action], () => run(action, one, output)));
    one.dataset.action = action;
    return one;
  });
  const box = make('section', 'experiment', '', make('h3', '', words.groups[name].title),
    rich('p', 'about', words.groups[name].about), make('div', 'buttons', '', ...buttons), output);
  if (name === 'burst') {
    const results = make('div', 'results', '');
    const show = (both) => results.replaceChildren(table(words.burstCaption, ['', 'direct', 'handoff'], FIGURES.map(
      ([key, figure]) => [words.figures[key], ...['direct', 'handoff'].map((way) => (both ? figure(both[way]) : '–'))])));
    show(null);
    onBurst(show);
    box.append(results);
  }
  return box;
}

byId('experiments').append(...GROUPS.map(group));

byId('demo-hint').append(labHint());
// After a restart its number is another's.
lab.addEventListener('change', () => board.mark(lab.own ?? {}));

export function show() {
  board.show(byId('board'));
  lab.start();
}

export function hide() {
  board.show(null);
}
