// The last message as it stands on the wire, put together from what a script can know of it.

import { make } from './dom.js';
import { fill, texts } from './texts.js';

const MAX_SHOWN = 64; // bytes of a payload
const OPCODES = { 1: 'text', 2: 'binary' };
const encoder = new TextEncoder();
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');

/** An event stream's block (WHATWG HTML 9.2.6), in the server's order of fields. */
export function showBlock(box, { type, data, lastEventId }) {
  const lines = [];
  if (lastEventId) lines.push(`id: ${lastEventId}`);
  if (type !== 'message') lines.push(`event: ${type}`);
  lines.push(...data.split('\n').map((line) => `data: ${line}`), '');
  const length = encoder.encode(`${lines.join('\n')}\n`).length;
  const shown = lines.map((line) => make('li', '', line.length > 400 ? `${line.slice(0, 400)}…` : line, make('b', '', '\\n')));
  box.replaceChildren(
    make('ol', 'block', '', ...shown.slice(0, 20)),
    make('p', '', fill(texts.bytes.block, { n: length, chunk: length.toString(16) })),
  );
}

/** A frame (RFC 6455 section 5.2). A client's own is masked; the browser tells nobody with which key. */
export function showFrame(box, payload, { sent, deflate }) {
  const isText = typeof payload === 'string';
  const bytes = isText ? encoder.encode(payload) : new Uint8Array(payload);
  const opcode = isText ? 1 : 2;
  const [inHead, extended] = bytes.length < 126 ? [bytes.length, 0] : bytes.length < 65536 ? [126, 2] : [127, 8];
  const bit = (name, value, width = 1) => make('td', '', '', make('b', '', value.toString(2).padStart(width, '0')),
    make('span', '', name));
  const head = make('table', 'frame', '', make('caption', '', sent ? texts.bytes.sent : texts.bytes.received),
    make('tbody', '', '', make('tr', '', '', bit('FIN', 1), bit('RSV1', 0), bit('RSV2', 0), bit('RSV3', 0),
      bit(`opcode ${opcode}: ${OPCODES[opcode]}`, opcode, 4), bit('MASK', sent ? 1 : 0), bit(`length ${inHead}`, inHead, 7))));
  const first = [0x80 | opcode, (sent ? 0x80 : 0) | inHead];
  const longer = extended === 2 ? [bytes.length >> 8, bytes.length & 255]
    : extended ? [0, 0, 0, 0, ...[24, 16, 8, 0].map((shift) => (bytes.length >>> shift) & 255)] : [];
  const row = (name, text) => make('div', '', '', make('dt', '', name), make('dd', '', text));
  const cut = bytes.length > MAX_SHOWN ? ' …' : '';
  box.replaceChildren(head, make('dl', 'fields', '',
    row(texts.bytes.head, hex([...first, ...longer])),
    ...(sent ? [row(texts.bytes.mask, '?? ?? ?? ??')] : []),
    row(sent ? texts.bytes.payloadUnmasked : texts.bytes.payload, hex(bytes.slice(0, MAX_SHOWN)) + cut)),
  make('p', '', [fill(texts.bytes.total, { n: first.length + longer.length + (sent ? 4 : 0) + bytes.length, payload: bytes.length }),
    sent && texts.bytes.maskNote, deflate && texts.bytes.deflateNote].filter(Boolean).join(' ')));
}
