// A real threadcast server as a child process, plain requests to it, and a relay in front of it that can be cut.
'use strict';
process.setMaxListeners(0); // each server ends with this process
const { execFileSync, spawn } = require('node:child_process');
const net = require('node:net');

/** Starts a server and waits until it listens. `port` makes it come back where it was. */
async function startServer(binary, flags = [], port = 0) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('THREADCAST_')));
  const child = spawn(binary, ['--listen', `127.0.0.1:${port}`, '--tick', '300ms', '--log', 'error', ...flags], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  process.on('exit', () => child.kill('SIGKILL'));
  const ended = new Promise((resolve) => { child.on('exit', resolve); });
  const line = await Promise.race([
    new Promise((resolve) => { child.stdout.once('data', (data) => resolve(String(data))); }),
    ended.then((code) => `exit ${code}`),
  ]);
  const found = /^listening on http:\/\/(127\.0\.0\.1):(\d+)\n/.exec(line);
  if (!found) throw new Error(`the server did not start: ${line}`);
  const server = {
    port: Number(found[2]),
    url: `http://127.0.0.1:${found[2]}`,
    pid: child.pid,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return ended;
    },
    async get(path, headers = {}) {
      const response = await fetch(server.url + path, { headers });
      return response.json();
    },
    async publish(data, query = {}, headers = {}) {
      const response = await fetch(`${server.url}/publish?${new URLSearchParams(query)}`, { method: 'POST', body: data, headers });
      if (!response.ok) throw new Error(`publish: ${response.status}`);
      return response.json();
    },
    clients: async () => (await server.get('/stats')).clients,
  };
  return server;
}

const hasFlag = (binary, flag) => new RegExp(`(^|\\s)${flag}(\\s|$)`, 'm').test(execFileSync(binary, ['--help'], { encoding: 'utf8' }));

/** Passes bytes on to a port. `cut` ends all connections, and refuses new ones until `mend`. */
async function startRelay(port) {
  const open = new Set();
  let isCut = false;
  const relay = net.createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = net.connect(port, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one);
      one.pipe(other);
      one.on('error', () => {});
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => { relay.listen(0, '127.0.0.1', resolve); });
  return {
    url: `http://127.0.0.1:${relay.address().port}`,
    cut() {
      isCut = true;
      for (const one of open) one.destroy();
    },
    mend() { isCut = false; },
    close() {
      this.cut();
      relay.close();
    },
  };
}

module.exports = { hasFlag, startRelay, startServer };
