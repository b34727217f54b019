//! Clients whose topics change while events are published, against a model: what they want live comes once and in
//! order, what they missed on new topics is replayed once, and they are counted once.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::client::backlog::Backlog;
use crate::client::outbox::{Limits, Outbox};
use crate::config::Fanout;
use crate::event::encoding::Encoding;
use crate::http::coding::Coding;
use crate::listener::connection::Link;
use crate::os::clock::wall_clock;

const TOPICS: [&str; 6] = ["a", "b", "a/x", "a/y", "a/x/1", "b/x"];
/// Names that overlap in each way.
const NAMES: [&str; 9] = ["*", "a", "a/*", "a/x", "a/x/*", "a/x/1", "b", "b/*", "none/*"];
const CLIENTS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Publish(usize),
    /// A client wants other topics, and says that it has seen all but so many of the events.
    Change(usize, Vec<usize>, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..TOPICS.len()).prop_map(Step::Publish),
        1 => (0..CLIENTS, vec(0..NAMES.len(), 0..4), 0..6_usize)
            .prop_map(|(client, names, back)| Step::Change(client, names, back)),
    ]
}

struct Client {
    subscription: Subscription,
    outbox: Arc<Outbox>,
    peer: TcpStream,
    topics: Topics,
    wanted: Vec<EventId>,
}

impl Client {
    fn new(hub: &Hub, client: u64) -> Client {
        let (link, peer) = Link::pair();
        let limits = Limits { events: 1_000, bytes: 1 << 20 };
        let backlog = Backlog::new(usize::MAX, Vec::new);
        let outbox = Outbox::new(link, Fanout::Direct, limits, &[], backlog);
        let (topics, encoding) = (Topics::named([]), Encoding::Sse(Coding::Identity));
        let subscriber =
            Subscriber { client, outbox: Arc::clone(&outbox), topics: topics.clone(), encoding };
        let (subscription, _) = hub.subscribe(subscriber, LastSeen::Nothing);
        outbox.release();
        Client { subscription, outbox, peer, topics, wanted: Vec::new() }
    }

    /// The ids of the events that have come.
    fn ids(&mut self) -> Vec<EventId> {
        self.peer.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let end = self.peer.read_to_end(&mut bytes).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::WouldBlock);
        let text = String::from_utf8(bytes).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
    }
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let hub = Hub::start(&Config::default(), CLIENTS, wall_clock).unwrap();
    let mut clients: Vec<Client> = (1..).take(CLIENTS).map(|one| Client::new(&hub, one)).collect();
    let mut published: Vec<(EventId, &str)> = vec![(hub.newest(), "none")];
    for step in steps {
        match step {
            Step::Publish(topic) => {
                let topic = TOPICS[*topic];
                let receipt = hub.publish_text(topic, None, "x").unwrap();
                published.push((receipt.id, topic));
                let takers = clients.iter_mut().filter(|one| one.topics.match_topic(topic));
                let count = takers.map(|client| client.wanted.push(receipt.id)).count();
                prop_assert_eq!(receipt.subscribers, count, "subscribers of {}", topic);
            }
            Step::Change(client, names, back) => {
                let client = &mut clients[*client];
                let topics = Topics::named(names.iter().map(|name| NAMES[*name]));
                let seen = published.len() - 1 - back.min(&(published.len() - 1));
                let is_missed =
                    |topic| topics.match_topic(topic) && !client.topics.match_topic(topic);
                let missed = published[seen + 1..].iter().filter(|(_, topic)| is_missed(topic));
                let missed: Vec<EventId> = missed.map(|(id, _)| *id).collect();
                prop_assert!(client.outbox.take());
                let last = LastSeen::Event(published[seen].0);
                let mut replay = hub.change(&mut client.subscription, topics.clone(), last);
                client.outbox.release();
                let found = std::iter::from_fn(|| replay.next_batch()).flatten();
                prop_assert_eq!(found.map(|event| event.id).collect::<Vec<_>>(), missed);
                client.topics = topics;
            }
        }
    }
    hub.close();
    for client in &mut clients {
        prop_assert_eq!(client.ids(), &*client.wanted);
    }
    drop(clients);
    hub.stop();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn topics_that_overlap_are_delivered_replayed_and_counted_once(steps in vec(step(), 1..60)) {
        run(&steps)?;
    }
}
