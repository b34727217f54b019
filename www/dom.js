// What all modules of the page share: elements, texts, one request. What came over the network reaches
// the page through textContent only.

export const byId = (id) => document.getElementById(id);
export const write = (id, value) => { byId(id).textContent = value; };
export const clock = (date) => date.toTimeString().slice(0, 8);
export const listOf = (text) => text.split(',').map((part) => part.trim()).filter(Boolean);
export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export function parseJson(text) {
  try { return JSON.parse(text); } catch { return null; }
}

/** What the browser keeps for this page; null where it keeps nothing. */
export function recall(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

export function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { /* then only this page knows */ }
}

export function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  element.append(...children);
  return element;
}

/** Text in which `code` stands in backquotes and **what matters** between asterisks, as elements. */
export function rich(tag, className, text) {
  const parts = text.split(/(`[^`]+`|\*\*[^*]+\*\*)/);
  return make(tag, className, '', ...parts.map((part) => {
    if (part.startsWith('`')) return make('code', '', part.slice(1, -1));
    if (part.startsWith('**')) return make('strong', '', part.slice(2, -2));
    return part;
  }));
}

export function button(text, action, className = '') {
  const element = make('button', className, text);
  element.type = 'button';
  element.addEventListener('click', action);
  return element;
}

export function onSubmit(id, action) {
  byId(id).addEventListener('submit', (event) => {
    event.preventDefault();
    action();
  });
}

/** A table with a caption; the first cell of each row is its head. */
export function table(caption, head, rows) {
  const cells = (tag, row) => row.map((text, index) => {
    const cell = make(!text ? 'td' : index ? tag : 'th', '', text);
    if (cell.tagName === 'TH') cell.scope = tag === 'th' ? 'col' : 'row';
    return cell;
  });
  const box = make('div', 'table', '', make('table', '', '',
    make('caption', '', caption),
    make('thead', '', '', make('tr', '', '', ...cells('th', head))),
    make('tbody', '', '', ...rows.map((row) => make('tr', '', '', ...cells('td', row))))));
  box.tabIndex = 0; // it scrolls, also by keyboard
  box.role = 'region';
  box.ariaLabel = caption;
  return box;
}

/** Where reading needs a token: it stays in this variable, out of storage and out of every address. */
export const access = { token: '' };

// All addresses are relative to the page's: a program, or a proxy, may serve it under a prefix.

/** For one connection; '' where the server asks for none, null where it does not know the token. */
export async function fetchTicket() {
  if (!access.token) return '';
  const response = await fetch('ticket', { method: 'POST', headers: { Authorization: `Bearer ${access.token}` } });
  if (response.status === 401) return null;
  if (response.status === 404) return '';
  if (!response.ok) throw new Error(`no ticket (${response.status})`);
  return (await response.json()).ticket;
}

/** What `/stats` says at this moment; null where it says nothing. */
export async function fetchStats() {
  const headers = access.token ? { Authorization: `Bearer ${access.token}` } : {};
  const response = await fetch('stats', { headers }).catch(() => null);
  return response?.ok ? response.json() : null;
}

/** Publishes a text; returns the response's JSON. */
export async function publish(query, body) {
  const headers = { 'Content-Type': 'text/plain; charset=utf-8' };
  const token = byId('publish-token').value;
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`publish?${new URLSearchParams(query)}`, { method: 'POST', headers, body });
  const result = parseJson(await response.text());
  if (!response.ok) throw new Error(`${result?.error?.message ?? response.statusText} (${response.status})`);
  return result;
}
