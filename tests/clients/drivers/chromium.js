// Chromium's EventSource and WebSocket, in pages that the server itself has served; and its page.
// Arguments: where chromium is, a folder for the profile, and the library that a page uses instead, if any.
'use strict';
const { chromium } = require('playwright-core');
const { serve, tell } = require('./lines.js');
const libraries = require('./page_libraries.js');

const [executablePath, profile, library] = process.argv.slice(2);
// Nothing but the pages' own requests: a browser phones home otherwise.
const args = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'];
const browser = chromium.launchPersistentContext(profile, { executablePath, args, headless: true });
const pages = new Map(); // one for each origin, so that it may connect there
const homes = new Map(); // the page that a connection lives in

/** A page of the origin with nothing of its own going on: a script may connect from there. */
async function pageOf(origin) {
  if (!pages.has(origin)) {
    pages.set(origin, (async () => {
      // Cookies do not know of ports: those of another proxy would choose the server here.
      await (await browser).clearCookies();
      const page = await (await browser).newPage();
      await page.exposeFunction('tell', tell);
      if (library) await visitPageOf(library, page, origin);
      else await page.goto(`${origin}/healthz`);
      await page.evaluate(() => { window.open = {}; });
      return page;
    })());
  }
  return pages.get(origin);
}

/** A page that loads a library, as if the server had both. The library's own requests go to the server. */
async function visitPageOf(library, page, origin) {
  await page.route(`${origin}/page`, (route) => route.fulfill({ contentType: 'text/html', body: libraries[library].page }));
  await page.route(`${origin}/node_modules/**`, (route) => route.fulfill({
    contentType: 'text/javascript',
    path: process.env.NODE_PATH + new URL(route.request().url()).pathname.replace('/node_modules', ''),
  }));
  await page.goto(`${origin}/page`);
  await page.unrouteAll();
}

function openSource({ n, url, names }) {
  const source = window.open[n] = new EventSource(url);
  source.addEventListener('open', (event) => {
    if (!(event instanceof MessageEvent)) tell(n, 'open');
  });
  // A published event may be called error, too: then it has data.
  source.addEventListener('error', (event) => {
    if (!(event instanceof MessageEvent)) tell(n, 'error', { detail: 'lost', state: source.readyState });
  });
  for (const name of new Set(['message', 'gap', ...names])) {
    source.addEventListener(name, (event) => {
      if (event instanceof MessageEvent) tell(n, 'event', { name: event.type, data: event.data, id: event.lastEventId });
    });
  }
}

function openSocket({ n, url, protocols }) {
  const socket = window.open[n] = new WebSocket(url, protocols);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => tell(n, 'open', { extensions: socket.extensions, protocol: socket.protocol });
  socket.onmessage = ({ data }) => {
    if (typeof data === 'string') return tell(n, 'text', { data });
    const bytes = new Uint8Array(data);
    let text = '';
    for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
    return tell(n, 'binary', { data: btoa(text) });
  };
  socket.onclose = ({ code, reason }) => tell(n, 'closed', { code, reason });
  socket.onerror = () => tell(n, 'error', { detail: 'the browser does not say' });
}

const inPage = async (n, action, value) => (await homes.get(n)).evaluate(action, value);

serve({
  async open(command) {
    const origin = new URL(command.url).origin.replace(/^ws/, 'http');
    homes.set(command.n, pageOf(origin));
    const openStream = library ? libraries[library].open : openSource;
    await inPage(command.n, command.kind === 'sse' ? openStream : openSocket, command);
  },
  text: ({ n, data }) => inPage(n, ([n, data]) => window.open[n].send(data), [n, data]),
  binary: ({ n, data }) => inPage(n, ([n, data]) => window.open[n].send(Uint8Array.from(atob(data), (c) => c.charCodeAt(0))), [n, data]),
  close: ({ n, code, reason }) => inPage(n, ([n, code, reason]) => {
    const one = window.open[n];
    if (one instanceof WebSocket) return one.close(code, reason);
    one.close();
    tell(n, 'closed');
  }, [n, code, reason]),

  // The server's own page, as a reader sees it.
  async visit({ n, url }) {
    await (await browser).clearCookies();
    const page = await (await browser).newPage();
    homes.set(n, page);
    page.on('pageerror', (error) => tell(n, 'error', { detail: `in the page: ${error.message}` }));
    await page.goto(url);
    tell(n, 'open');
  },
  async evaluate({ n, expression }) {
    tell(n, 'value', { value: await (await homes.get(n)).evaluate(expression) });
  },
  async leave({ n }) {
    await (await homes.get(n)).close();
    tell(n, 'closed');
  },
}, async () => {
  await (await browser).close();
  process.exit(0);
});
browser.catch((error) => {
  console.error(error.message);
  process.exit(1);
});
