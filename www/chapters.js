// What the chapters are made of besides words: which option is right, what each step does, which figures
// stand below, and the places in the source. The words are in the strings, in the same order.

const SERVER = 'http://127.0.0.1:3000';

export const chapters = [
  { // what blocks
    answer: 1,
    steps: [{}, { action: 'sleep' }, { action: 'compute' }],
    board: true,
    figures: ['threads', 'asleep', 'cpu'],
    links: [['src/listener/threads.rs', 'start'], ['src/session/socket.rs', 'wait_until_read'], ['src/hub/mailbox.rs', 'receive']],
  },
  { // what a thread costs
    answer: 2,
    steps: [{ action: 'clients500' }, { command: "grep -E 'VmSize|VmRSS|Threads' /proc/$(pgrep -xo threadcast)/status" },
      { action: 'clients0' }],
    board: true,
    figures: ['threads', 'memory'],
    links: [['src/listener/threads.rs', 'STACK_BYTES'], ['src/os/memory.rs', ''], ['src/docs/measured.md', '']],
  },
  { // an event loop
    answer: 1,
    steps: [{ action: 'compute' }, { view: 'compare' }],
    board: true,
    figures: ['threads', 'asleep', 'cpu'],
    links: [['tests/browser/event_loop.js', 'serve'], ['src/hub/broadcaster.rs', 'run'], ['tests/peers/node', '']],
  },
  { // waking
    answer: 2,
    steps: [{ action: 'clients500' }, { action: 'burst' }],
    board: true,
    figures: ['sse', 'fanOut', 'cpu'],
    links: [['src/client/outbox/mod.rs', 'offer_if_idle'], ['src/client/outbox/writer.rs', 'dispatch'], ['src/hub/broadcaster.rs', 'fan_out']],
  },
  { // back-pressure
    answer: 2,
    steps: [{ action: 'clients10' }, { action: 'freeze' }],
    board: true,
    figures: ['sse', 'backlog', 'memory'],
    links: [['src/client/outbox/queue.rs', 'has_room'], ['src/client/backlog.rs', 'relieve'], ['src/os/send.rs', 'send_now']],
  },
  { // heartbeats
    answer: 1,
    steps: [{ command: `curl -N '${SERVER}/events?topic=nothing'` }, { command: 'kill -STOP $(pgrep -n curl)' },
      { command: 'kill -KILL $(pgrep -n curl)' }],
    board: true,
    figures: ['sse', 'websocket', 'threads'],
    links: [['src/client/outbox/presence.rs', 'has_vanished'], ['src/session/pulse.rs', 'is_silent'], ['src/client/hangup.rs', 'watch'],
      ['src/os/tcp.rs', 'unacknowledged']],
  },
  { // six connections
    answer: 2,
    steps: [{}, {}, { view: 'live' }],
    figures: ['share', 'sse', 'websocket'],
    links: [['www/shared.js', 'Share'], ['src/docs/proxies.md', '']],
  },
  { // resuming
    answer: 1,
    steps: [{ view: 'live' }, { command: `curl -d one '${SERVER}/publish?topic=lesson'; curl -d two '${SERVER}/publish?topic=lesson'` },
      { command: `curl -N -H 'Last-Event-ID: ID' '${SERVER}/events?topic=lesson'` }],
    figures: ['sse', 'share'],
    links: [['src/store/window.rs', 'read'], ['src/hub/subscribers.rs', 'add'], ['src/event/last_seen.rs', 'LastSeen']],
  },
  { // which when
    answer: 0,
    steps: [{ view: 'live' }, { view: 'compare' }],
    figures: ['sse', 'websocket', 'memory'],
    links: [['src/handlers/events.rs', 'events'], ['src/handlers/websockets.rs', 'ws'], ['src/docs/contract.md', '']],
  },
  { // running out
    answer: 2,
    steps: [{ command: 'ulimit -n; cat /proc/sys/kernel/threads-max /proc/sys/vm/max_map_count' },
      { command: "grep -E 'open files|processes' /proc/$(pgrep -xo threadcast)/limits" }, { action: 'clients500' }],
    board: true,
    figures: ['limit', 'descriptors', 'threads'],
    links: [['src/os/limits.rs', 'room'], ['src/client/registry.rs', 'register'], ['src/session/event_stream.rs', 'refuse']],
  },
];
