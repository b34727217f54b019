// Libraries that a page uses in place of EventSource, each as its README shows: `page` is the HTML that
// loads it, `open` runs in that page and leaves what has a `close` in window.open[n].
'use strict';

exports['fetch-event-source'] = {
  // A bundler finds './parse' by itself; a page needs the map.
  page: `<!DOCTYPE html>
    <script type="importmap">{"imports": {
      "@microsoft/fetch-event-source": "/node_modules/@microsoft/fetch-event-source/lib/esm/index.js",
      "/node_modules/@microsoft/fetch-event-source/lib/esm/fetch": "/node_modules/@microsoft/fetch-event-source/lib/esm/fetch.js",
      "/node_modules/@microsoft/fetch-event-source/lib/esm/parse": "/node_modules/@microsoft/fetch-event-source/lib/esm/parse.js"
    }}</script>
    <script type="module">
      import * as library from '@microsoft/fetch-event-source';
      Object.assign(window, library);
    </script>`,
  open({ n, url }) {
    class RetriableError extends Error {}
    const control = new AbortController();
    window.open[n] = { close: () => control.abort() };
    let greeted;
    fetchEventSource(url, {
      signal: control.signal,
      async onopen(response) {
        // The README's example compares with ===, and so refuses a charset; the library's default does not.
        if (!response.ok || !response.headers.get('content-type')?.startsWith(EventStreamContentType)) throw new RetriableError('no event stream');
        greeted = false;
        tell(n, 'open');
      },
      onmessage(message) {
        // Pages parse what they are sent. What onmessage throws ends the stream, and onerror is called.
        if (!greeted) JSON.parse(message.data);
        greeted = true;
        tell(n, 'event', { name: message.event || 'message', data: message.data, id: message.id });
      },
      onclose() {
        throw new RetriableError('the stream ended');
      },
      onerror(error) {
        tell(n, 'error', { detail: String(error) });
      },
    });
  },
};

exports['sse.js'] = {
  page: `<!DOCTYPE html>
    <script type="module">
      import { SSE } from '/node_modules/sse.js/lib/sse.js';
      window.SSE = SSE;
    </script>`,
  open({ n, url, names }) {
    // Its request accepts anything, not event streams above all: a full server answers 503, after which it
    // comes back as well.
    const source = window.open[n] = new SSE(url, { autoReconnect: true });
    // The end of a stream is no 'error', but each loss leads to this state; close() ends the reconnecting first.
    source.addEventListener('readystatechange', ({ readyState }) => {
      if (readyState === SSE.CLOSED && source.autoReconnect) tell(n, 'error', { detail: 'lost', state: readyState });
    });
    source.addEventListener('open', (event) => {
      if ('responseCode' in event) tell(n, 'open');
    });
    for (const name of new Set(['message', 'gap', ...names])) {
      source.addEventListener(name, (event) => {
        // The connection's own 'open' and 'error' have no id.
        if ('id' in event) tell(n, 'event', { name: event.type, data: event.data, id: event.lastEventId });
      });
    }
  },
};

exports['event-source-polyfill'] = {
  page: '<!DOCTYPE html><script src="/node_modules/event-source-polyfill/src/eventsource.js"></script>',
  open({ n, url, names }) {
    const source = window.open[n] = new EventSourcePolyfill(url);
    // Its events are of classes that it keeps to itself; those of the stream are the ones with data.
    source.addEventListener('open', (event) => {
      if (!('data' in event)) tell(n, 'open');
    });
    source.addEventListener('error', (event) => {
      if (!('data' in event)) tell(n, 'error', { detail: String(event.error), state: source.readyState });
    });
    for (const name of new Set(['message', 'gap', ...names])) {
      source.addEventListener(name, (event) => {
        if ('data' in event) tell(n, 'event', { name: event.type, data: event.data, id: event.lastEventId });
      });
    }
  },
};
