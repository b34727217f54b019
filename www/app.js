// The page: the location's hash shows one of four views (#learn/3: a chapter of the last). What belongs to all
// is here: the language, large type for a projector, the reset.

import { byId, button, recall, remember } from './dom.js';
import { LANGUAGES, chooseLanguage, language, texts } from './texts.js';
import * as live from './live.js';
import * as threads from './threads.js';
import * as compare from './compare.js';
import * as learn from './learn.js';

const VIEWS = { live: { show() {}, hide() {} }, threads, compare, learn };
let shown;

function route() {
  const [name, place] = location.hash.slice(1).split('/');
  const wanted = VIEWS[name] ? name : 'live';
  const isFirst = !shown;
  if (shown) VIEWS[shown].hide();
  shown = wanted;
  document.body.dataset.view = wanted;
  for (const view of Object.keys(VIEWS)) {
    byId(`view-${view}`).hidden = view !== wanted;
    const link = document.querySelector(`.views a[href="#${view}"]`);
    if (view === wanted) link.ariaCurrent = 'page';
    else link.removeAttribute('aria-current');
  }
  document.title = `${texts.views[wanted]} · threadcast`;
  VIEWS[wanted].show(Number(place));
  if (isFirst) return;
  // Whoever listens to the page learns that it is another.
  const section = byId(`view-${wanted}`);
  section.focus({ preventScroll: true });
  scrollTo(0, 0);
}

const root = document.documentElement;
function projector(on) {
  root.classList.toggle('projector', on);
  byId('projector').ariaPressed = String(on);
  remember('projector', on ? 'on' : '');
}
byId('projector').addEventListener('click', () => projector(!root.classList.contains('projector')));
projector(recall('projector') === 'on');

byId('reset').addEventListener('click', async () => {
  live.reset();
  await learn.reset();
  if (shown === 'learn') route();
});

byId('language').append(...Object.entries(LANGUAGES).map(([code, name]) => {
  const one = button(name, () => chooseLanguage(code));
  one.lang = code;
  one.ariaPressed = String(code === language);
  return one;
}));

addEventListener('hashchange', route);
route();
root.classList.add('ready');
live.start();
