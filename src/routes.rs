//! What an embedding program serves: its own routes, and who may connect.

use std::collections::HashMap;
use std::sync::Arc;

use crate::http::Response;
use crate::request::Request;
use crate::session::event_stream::StreamHandler;
use crate::session::start::Endpoint;

/// Responds to a request.
pub type PlainHandler = dyn Fn(&mut Request) -> Response + Send + Sync;

/// Whether a client may connect; the response says why not.
pub type Check = dyn Fn(&Request) -> Result<(), Response> + Send + Sync;

/// The routes of a server. Paths are compared as they are sent.
#[derive(Default)]
pub struct Routes {
    /// By method and path.
    pub plain: HashMap<(String, String), Box<PlainHandler>>,
    /// By path.
    pub websockets: HashMap<String, Arc<Endpoint>>,
    /// By path.
    pub streams: HashMap<String, Box<StreamHandler>>,
    /// Asked for each WebSocket and each event stream.
    pub check: Option<Box<Check>>,
    /// In front of the paths of what is built in.
    pub prefix: String,
    /// Whether nothing that is built in is served.
    pub is_bare: bool,
}

impl Routes {
    /// The path of something built in, as if there were no prefix; `None` where `path` is none.
    pub fn builtin<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&*self.prefix).filter(|_| !self.is_bare)?;
        (rest.is_empty() || rest.starts_with('/') || self.prefix.is_empty()).then_some(rest)
    }

    /// Whether there is a route of this path.
    pub fn has(&self, path: &str) -> bool {
        self.websockets.contains_key(path)
            || self.streams.contains_key(path)
            || self.plain.keys().any(|(_, known)| known == path)
    }

    /// The handler of a plain request.
    pub fn plain(&self, method: &str, path: &str) -> Option<&PlainHandler> {
        let mut all = self.plain.iter();
        all.find(|((one, known), _)| one == method && known == path).map(|(_, handler)| &**handler)
    }

    /// The methods of this path.
    pub fn methods(&self, path: &str) -> Vec<&str> {
        let here = self.plain.keys().filter(|(_, known)| known == path);
        let mut methods: Vec<&str> = here.map(|(method, _)| &**method).collect();
        methods.extend(self.streams.contains_key(path).then_some("GET"));
        methods.sort_unstable();
        methods
    }
}
