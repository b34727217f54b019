//! The measured stretch of a run: what the server, the generator and the machine spent in it.

use std::thread;
use std::time::Duration;

use crate::machine::Machine;
use crate::procfs::{Server, Switches, Tasks, runqueue_wait_ns};
use crate::sys::{own_cpu_ns, thread_cpu_ns};

/// From here on the generator, not the server, decides what is measured.
const SATURATED: f64 = 90.0;
/// More CPU time of other programs than this, in percent of all CPUs, disturbs latencies. A server
/// of several processes reaches it too: all but the one given count as others.
const CROWDED: f64 = 25.0;
/// More stolen time than this, in percent, makes latencies the hypervisor's.
const STOLEN: f64 = 5.0;

/// Opened before the load, closed when the last message has arrived.
///
/// The kernel brings a running thread's CPU time up to date only at its tick (4 ms at 250 Hz) or
/// when it sleeps. Both ends are therefore at rest: everything sent has arrived, nothing is sent.
pub struct Window<'a> {
    server: Option<&'a Server>,
    tasks: Tasks,
    server_cpu: Option<u64>,
    machine: Machine,
    own_cpu: u64,
    reader_cpu: u64,
    reader_wait: u64,
}

/// What was spent.
pub struct Usage {
    /// CPU time of the server in nanoseconds.
    pub server_cpu: Option<u64>,
    /// Whether the server's process was there at the start and not at the end.
    pub server_ended: bool,
    /// Context switches of the server's threads that are alive at the end.
    pub switches: Option<Switches>,
    /// All switches of these threads since each began: what a process's whole account has beyond
    /// this was done by threads that have ended, or later.
    pub switches_alive: Option<Switches>,
    /// Threads of the server at the end.
    pub threads: Option<u64>,
    /// CPU time of the generator in nanoseconds.
    pub own_cpu: u64,
    /// Share of one CPU the generator used, all its threads, in percent.
    pub own_share: f64,
    /// Share of the time its event loop ran, in percent.
    pub reader_share: f64,
    /// Share of the time its event loop ran or waited for a CPU, in percent.
    pub reader_pressure: f64,
    /// Share of all CPUs that was busy, in percent.
    pub machine_busy: f64,
    /// Share of all CPUs that neither the server's process nor the generator used, in percent.
    pub others: Option<f64>,
    /// Share of all CPUs the hypervisor gave away, in percent.
    pub steal: f64,
}

impl<'a> Window<'a> {
    /// Starts to count. The slow figures are read first, the clocks last.
    pub fn open(server: Option<&'a Server>) -> Self {
        let tasks = server.map(Server::tasks).unwrap_or_default();
        thread::sleep(Duration::from_millis(20));
        Self {
            server,
            tasks,
            machine: Machine::now(),
            reader_wait: runqueue_wait_ns(),
            reader_cpu: thread_cpu_ns(),
            own_cpu: own_cpu_ns(),
            server_cpu: server.and_then(Server::cpu_ns),
        }
    }

    /// Stops counting, on the thread that opened it. `active` is the time under load in
    /// nanoseconds, without the wait for stragglers.
    pub fn close(self, active: u64) -> Usage {
        let reader_cpu = thread_cpu_ns() - self.reader_cpu;
        let reader_wait = runqueue_wait_ns().saturating_sub(self.reader_wait);
        let own_cpu = own_cpu_ns() - self.own_cpu;
        let machine = Machine::now().since(&self.machine);
        // Let the server's last write return and its thread go to sleep.
        thread::sleep(Duration::from_millis(20));
        let now = self.server.and_then(Server::cpu_ns);
        let server_cpu = now.zip(self.server_cpu).map(|(now, before)| now - before);
        let tasks = self.server.map(Server::tasks);
        let active = active.max(1) as f64;
        Usage {
            server_cpu,
            server_ended: now.is_none() && self.server_cpu.is_some(),
            switches: tasks.as_ref().map(|now| now.since(&self.tasks)),
            switches_alive: tasks.as_ref().map(Tasks::total),
            threads: tasks.as_ref().map(Tasks::count),
            own_cpu,
            own_share: 100.0 * own_cpu as f64 / active,
            reader_share: 100.0 * reader_cpu as f64 / active,
            reader_pressure: 100.0 * (reader_cpu + reader_wait) as f64 / active,
            machine_busy: machine.percent(machine.busy),
            others: server_cpu.map(|cpu| {
                machine.percent(machine.busy.saturating_sub(cpu.saturating_add(own_cpu)))
            }),
            steal: machine.percent(machine.steal),
        }
    }
}

impl Usage {
    /// Whether the generator's own work was the limit.
    fn saturated(&self) -> Option<String> {
        (self.reader_share >= SATURATED).then(|| {
            format!(
                "generator saturated: its reader was busy {:.0} % of the time",
                self.reader_share
            )
        })
    }

    /// Whether the generator was kept from a CPU so much that it could not see what is late.
    fn starved(&self) -> Option<String> {
        let starved = self.reader_share < SATURATED && self.reader_pressure >= SATURATED;
        starved.then(|| {
            format!(
                "generator starved: its reader was busy {:.0} % of the time and waited for a CPU \
                 the rest",
                self.reader_share
            )
        })
    }

    fn ended(&self) -> Option<String> {
        self.server_ended.then(|| "the server's process ended".to_owned())
    }

    fn crowded(&self) -> Option<String> {
        let others = self.others.filter(|&others| others > CROWDED)?;
        Some(format!("other programs used {others:.0} % of the CPUs"))
    }

    fn stolen(&self) -> Option<String> {
        (self.steal > STOLEN).then(|| format!("{:.0} % of the CPU went elsewhere", self.steal))
    }

    /// What makes the figures of an open-loop run worthless, in words.
    pub fn objections(&self) -> Vec<String> {
        [self.ended(), self.saturated(), self.starved(), self.crowded(), self.stolen()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The same for a closed loop, which always runs until something is full. That the generator
    /// had to share the CPUs with the server is then expected: it makes the throughput the
    /// machine's, not the server's, but leaves the CPU time per message right.
    pub fn closed_loop(&self) -> (Vec<String>, Option<String>) {
        let objections = [self.ended(), self.saturated(), self.crowded(), self.stolen()]
            .into_iter()
            .flatten()
            .collect();
        let note = self.starved().map(|starved| {
            format!("{starved}: throughput and round trip are this machine's, CPU times hold")
        });
        (objections, note)
    }
}
