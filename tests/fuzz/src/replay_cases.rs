//! The histories of the `replay` target: settings, and what happens in which order.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::TOPICS;
use crate::replay_client::Wish;

/// Clients at a time.
pub const SLOTS: usize = 4;

/// One step.
#[derive(Debug, Clone)]
pub enum Op {
    /// One event.
    Publish { topic: usize, name: Option<String>, data: String },
    /// Many at once.
    Burst { topic: usize, count: usize, size: usize },
    /// A new client takes the slot.
    Connect { slot: usize, wish: Wish, strange: Option<String> },
    /// The client in the slot comes back, however it went.
    Return { slot: usize, wish: Wish, reset: bool },
    /// The client goes.
    Leave { slot: usize, reset: bool },
    /// The client, if it is a WebSocket, sends a text, and is to get an answer.
    Ask { slot: usize, text: String },
    /// The client reads all that is due.
    CatchUp { slot: usize },
    /// All do.
    CatchUpAll,
    /// The server shuts down, and another one starts.
    Restart,
}

/// A history.
#[derive(Debug, Clone)]
pub struct Case {
    /// `direct`, not `handoff`.
    pub direct: bool,
    /// `--history`.
    pub history: usize,
    /// `--queue`.
    pub queue: usize,
    /// What happens.
    pub ops: Vec<Op>,
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let topic = || 0..TOPICS.len();
    let wish = || {
        let topics = prop_oneof![1 => Just(BTreeSet::new()), 2 => btree_set(topic(), 1..3)];
        (any::<bool>(), topics, any::<bool>(), any::<bool>()).prop_map(
            |(websocket, topics, narrow, by_query)| Wish { websocket, topics, narrow, by_query },
        )
    };
    let strange =
        select(vec!["garbage", "1-", "99999999999999-0", "-1-2", "18446744073709551615-0"]);
    let strange = prop_oneof![4 => Just(None), 1 => strange.prop_map(|text| Some(text.to_owned()))];
    let name = prop_oneof![2 => Just(None), 1 => "[a-z]{1,8}".prop_map(Some)];
    prop_oneof![
        6 => (topic(), name, "[ -~é\n]{0,30}")
            .prop_map(|(topic, name, data)| Op::Publish { topic, name, data }),
        4 => (topic(), 1_usize..60, select(vec![1, 1, 100, 3_000, 30_000]))
            .prop_map(|(topic, count, size)| Op::Burst { topic, count, size }),
        5 => (slot(), wish(), strange)
            .prop_map(|(slot, wish, strange)| Op::Connect { slot, wish, strange }),
        6 => (slot(), wish(), any::<bool>())
            .prop_map(|(slot, wish, reset)| Op::Return { slot, wish, reset }),
        1 => (slot(), any::<bool>()).prop_map(|(slot, reset)| Op::Leave { slot, reset }),
        2 => (slot(), "[a-z]{0,9}").prop_map(|(slot, text)| Op::Ask { slot, text }),
        5 => slot().prop_map(|slot| Op::CatchUp { slot }),
        1 => Just(Op::CatchUpAll),
        1 => Just(Op::Restart),
    ]
}

/// Any history.
pub fn case() -> impl Strategy<Value = Case> {
    let history = select(vec![0, 1, 2, 10, 50, 1000]);
    let queue = select(vec![4, 16, 64, 256]);
    (any::<bool>(), history, queue, vec(op(), 4..40))
        .prop_map(|(direct, history, queue, ops)| Case { direct, history, queue, ops })
}
