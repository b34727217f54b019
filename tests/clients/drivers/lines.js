// How the clients written for Node talk with run.py: see ../driver.py.
'use strict';
const readline = require('readline');

exports.tell = (n, is, rest = {}) => process.stdout.write(`${JSON.stringify({ n, is, ...rest })}\n`);

/** Calls the handler that each line names. The end of the input is the end of the program. */
exports.serve = (handlers, end = () => process.exit(0)) => {
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const command = JSON.parse(line);
    try {
      await handlers[command.do](command);
    } catch (error) {
      exports.tell(command.n, 'error', { detail: String(error) });
    }
  });
  lines.on('close', end);
};
