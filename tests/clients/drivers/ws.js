// npm ws.
'use strict';
const WebSocket = require('ws');
const { serve, tell } = require('./lines.js');

const sockets = new Map();

serve({
  open({ n, url, protocols, deflate }) {
    const socket = new WebSocket(url, protocols, { perMessageDeflate: deflate });
    sockets.set(n, socket);
    socket.on('open', () => tell(n, 'open', { extensions: socket.extensions, protocol: socket.protocol }));
    socket.on('message', (data, isBinary) => {
      if (isBinary) tell(n, 'binary', { data: data.toString('base64') });
      else tell(n, 'text', { data: data.toString() });
    });
    socket.on('pong', (data) => tell(n, 'pong', { data: data.toString() }));
    socket.on('close', (code, reason) => tell(n, 'closed', { code, reason: reason.toString() }));
    socket.on('error', (error) => tell(n, 'error', { detail: error.message }));
  },
  text: ({ n, data }) => sockets.get(n).send(data),
  binary: ({ n, data }) => sockets.get(n).send(Buffer.from(data, 'base64')),
  ping: ({ n, data }) => sockets.get(n).ping(data),
  close: ({ n, code, reason }) => sockets.get(n).close(code, reason),
});
