// npm eventsource, which does in Node what browsers do.
'use strict';
const { EventSource } = require('eventsource');
const { serve, tell } = require('./lines.js');

const sources = new Map();

serve({
  open({ n, url, names }) {
    const source = new EventSource(url);
    sources.set(n, source);
    source.addEventListener('open', (event) => {
      if (!(event instanceof MessageEvent)) tell(n, 'open');
    });
    // A published event may be called error, too: then it has data.
    source.addEventListener('error', (event) => {
      if (!(event instanceof MessageEvent)) tell(n, 'error', { detail: String(event.message), state: source.readyState });
    });
    for (const name of new Set(['message', 'gap', ...names])) {
      source.addEventListener(name, (event) => {
        if (event instanceof MessageEvent) tell(n, 'event', { name: event.type, data: event.data, id: event.lastEventId });
      });
    }
  },
  close: ({ n }) => {
    sources.get(n).close();
    tell(n, 'closed');
  },
});
