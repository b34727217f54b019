// One event stream for all tabs: over HTTP/1.1 a browser opens six connections to a server. The tab that holds a
// Web Lock has the stream, and tells the others by a BroadcastChannel what arrives. When it closes, or crashes,
// the browser gives the lock to the next one.

/** Web Locks exist where the page comes over HTTPS, or from this machine: elsewhere each tab has its own stream. */
export const CAN_SHARE = 'locks' in navigator && 'BroadcastChannel' in window;

export class Share {
  /** `lead` is called when this tab is to open the stream; `hear` with each message of another tab. */
  constructor(name, lead, hear) {
    this.name = name;
    this.lead = lead;
    this.leads = false;
    this.channel = new BroadcastChannel(name);
    this.channel.addEventListener('message', ({ data }) => hear(data));
  }

  tell(message) {
    this.channel.postMessage(message);
  }

  /** Waits in line for the lock. Who has it answers `hello`. */
  join() {
    if (this.waiting) return;
    const waiting = this.waiting = new AbortController();
    this.tell({ is: 'hello' });
    navigator.locks.request(this.name, { signal: waiting.signal }, () => {
      if (waiting !== this.waiting) return undefined; // left in the same instant
      this.leads = true;
      this.lead();
      return new Promise((resolve) => { this.release = resolve; });
    }).catch(() => {}); // it fails only when leave() ends the waiting
  }

  leave() {
    this.waiting?.abort();
    this.waiting = null;
    this.leads = false;
    this.release?.();
  }
}

/** Whether an event id, `<milliseconds>-<sequence>`, is not above another. */
export function isSeen(id, last) {
  const [[ms, n], [lastMs, lastN]] = [id, last].map((text) => text.split('-').map(Number));
  return ms < lastMs || (ms === lastMs && n <= lastN);
}
