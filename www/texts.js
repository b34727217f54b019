// The page's texts: one file for each language, with the same keys. The language is the reader's choice,
// else the browser's, else English.

import { recall, remember, rich } from './dom.js';

export const LANGUAGES = { en: 'English', de: 'Deutsch' };
const asked = new URLSearchParams(location.search).get('lang');
const wanted = [asked, recall('language'), ...navigator.languages.map((tag) => tag.slice(0, 2))];

export const language = wanted.find((code) => Object.hasOwn(LANGUAGES, code)) ?? 'en';
export const texts = (await import(`./strings.${language}.js`)).default;

/** `{name}` in a text becomes the value of that name. */
export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '–');

/** A text for one, and a text for any other number. */
export const count = ([one, many], n) => fill(n === 1 ? one : many, { n });

export const number = (value, digits = 0) => (Number.isFinite(value)
  ? value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }) : '–');

export const mib = (bytes) => number(bytes / 1048576, 1);

export function chooseLanguage(code) {
  remember('language', code);
  location.search = `lang=${code}`; // for browsers that keep nothing; it loads the page again
}

const at = (path) => path.split('.').reduce((node, key) => node[key], texts);

// Fills in what index.html names: `data-t` is an element's text, the others its attributes.
document.documentElement.lang = language;
for (const element of document.querySelectorAll('[data-t]')) element.replaceChildren(...rich('p', '', at(element.dataset.t)).childNodes);
for (const [key, attribute] of [['tLabel', 'aria-label'], ['tPlaceholder', 'placeholder'], ['tTitle', 'title']]) {
  const selector = `[data-${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}]`;
  for (const element of document.querySelectorAll(selector)) element.setAttribute(attribute, at(element.dataset[key]));
}
