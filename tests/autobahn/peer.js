// What the server is timed against: an echo server on npm ws, with compression. Prints its port.
'use strict';
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: true, maxPayload: 64 << 20 });
server.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('error', () => {}); // the suite is wrong on purpose; ws has closed the connection by then
});
server.on('listening', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit(0)); // ends with whoever started it
