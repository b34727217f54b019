//! What the sessions of both kinds have in common: a place among the clients, an outbox, and perhaps a
//! subscription.

use std::sync::Arc;

use super::error::ClientError;
use super::{LAST_EVENT_ID_NAMES, LATEST, LATEST_VALUES};
use crate::app::App;
use crate::client::outbox::Outbox;
use crate::client::reason::Reason;
use crate::client::registry::ClientGuard;
use crate::event::EventId;
use crate::event::encoding::Encoding;
use crate::event::last_seen::LastSeen;
use crate::event::payload::Payload;
use crate::event::topics::Topics;
use crate::http::head::parameter;
use crate::hub::broadcaster::Subscriber;
use crate::hub::subscribers::Subscription;
use crate::hub::{Hub, Receipt};
use crate::store::error::PublishError;
use crate::store::replay::Replay;

/// What a client that has been subscribed is still to get, in this order. On the heap, as the session is.
pub(super) struct Subscribed {
    /// The response to its request, if it is not written yet.
    pub response: Option<Vec<u8>>,
    pub replay: Replay,
}

/// One client's session. Dropping it ends the connection, the subscription, and the place, in this order.
pub(super) struct Session {
    pub app: Arc<App>,
    pub hub: Arc<Hub>,
    pub outbox: Arc<Outbox>,
    pub encoding: Encoding,
    /// The response to the client's request, until the handler does its first step. As long as it is here,
    /// the outbox is held: so a handler that subscribes first misses nothing after the response.
    response: Option<Vec<u8>>,
    subscription: Option<Subscription>,
    /// The query of the request, percent-encoded; empty where there is none.
    query: Box<str>,
    last_event_id: Option<Box<str>>,
    pub guard: ClientGuard,
}

impl Session {
    /// On the heap: what is moved around on the stack of a client's thread stays resident there. `outbox` is
    /// held by the caller. `query` and `last_event_id` are the request's.
    #[inline(never)]
    pub fn new(
        app: &Arc<App>,
        hub: &Arc<Hub>,
        outbox: Arc<Outbox>,
        guard: ClientGuard,
        encoding: Encoding,
        response: Vec<u8>,
        (query, last_event_id): (Box<str>, Option<Box<str>>),
    ) -> Box<Session> {
        Box::new(Session {
            app: Arc::clone(app),
            hub: Arc::clone(hub),
            outbox,
            encoding,
            response: Some(response),
            subscription: None,
            query,
            last_event_id,
            guard,
        })
    }

    pub fn query(&self) -> &str {
        &self.query
    }

    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.query, name)
    }

    #[inline(never)]
    pub fn last_event_id(&self) -> Option<String> {
        let in_query = || {
            let (mut id, mut latest) = (None, None);
            for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
                if LAST_EVENT_ID_NAMES.contains(&&*name) {
                    id = Some(value.into_owned()).filter(|id| !id.is_empty());
                } else if name == LATEST && LATEST_VALUES.contains(&&*value) {
                    latest = Some(LATEST.to_owned());
                }
            }
            // An `EventSource` comes back with the same query.
            id.or(latest)
        };
        let in_head = self.last_event_id.as_deref().filter(|id| !id.is_empty());
        in_head.map(str::to_owned).or_else(in_query)
    }

    /// Writes the response, if that is not done.
    pub fn begin(&mut self) {
        let Some(response) = self.take_response() else { return };
        self.outbox.write_held(&Payload::own(response));
        self.outbox.release();
    }

    /// The response, if it is not written: then the outbox is held, and the caller writes and releases.
    pub fn take_response(&mut self) -> Option<Vec<u8>> {
        self.response.take()
    }

    /// Whether the response is written.
    pub fn is_begun(&self) -> bool {
        self.response.is_none()
    }

    /// An error if the connection is over.
    pub fn check_open(&self) -> Result<(), ClientError> {
        self.outbox.close_reason().map_or(Ok(()), |reason| Err(ClientError::Closed(reason)))
    }

    /// Subscribes to `topics`, and to no others. Afterwards the outbox is
    /// held: events wait until the caller has written the response, if it is not written yet, and the
    /// replay, and releases it.
    // Not inlined: its frame would be below every idle client's.
    #[inline(never)]
    pub fn subscribe(
        &mut self,
        topics: Topics,
        last: LastSeen,
    ) -> Result<Box<Subscribed>, ClientError> {
        let response = self.response.take();
        if response.is_none() && !self.outbox.take() {
            return Err(ClientError::Closed(self.outbox.close_reason().unwrap_or(Reason::Lost)));
        }
        let replay = match &mut self.subscription {
            Some(subscription) => self.hub.change(subscription, topics, last),
            None => {
                let outbox = Arc::clone(&self.outbox);
                let (client, encoding) = (self.guard.number(), self.encoding);
                let subscriber = Subscriber { client, outbox, topics, encoding };
                let (subscription, replay) = self.hub.subscribe(subscriber, last);
                self.subscription = Some(subscription);
                replay
            }
        };
        Ok(Box::new(Subscribed { response, replay }))
    }

    /// Writes what the client missed, to the outbox that the caller holds.
    #[inline(never)]
    pub fn write_missed(&self, replay: &mut Replay) {
        for payload in replay.payloads(self.encoding) {
            self.outbox.write_held(&payload);
        }
    }

    /// Subscribes to `topics`, which are fewer than before. When it returns, no event on others will come any
    /// more.
    pub fn unsubscribe(&mut self, topics: Topics) {
        if let Some(subscription) = &mut self.subscription {
            self.hub.change(subscription, topics, LastSeen::Nothing);
            subscription.wait_applied();
        }
    }

    pub fn publish(&self, topic: &str, data: &str) -> Result<Receipt, PublishError> {
        self.hub.publish_text(topic, None, data)
    }

    pub fn newest(&self) -> EventId {
        self.hub.newest()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.subscription = None;
        // Whoever has ended the connection has given a reason; nobody has where the handler panicked. The
        // socket goes at once, though the broadcaster has a share in the outbox for a moment.
        self.outbox.abort_for(Reason::Internal);
    }
}
