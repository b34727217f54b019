//! What an embedding program serves: its own routes, and who may connect.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// By path, then by method.
    pub plain: HashMap<String, BTreeMap<String, Box<PlainHandler>>>,
    /// By path.
    pub websockets: HashMap<String, Arc<Endpoint>>,
    /// By path.
    pub streams: HashMap<String, Box<StreamHandler>>,
    /// Asked for each request.
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
            || self.plain.contains_key(path)
    }

    /// A route that no request would reach.
    pub fn unreachable(&self) -> Option<String> {
        let plain = self.plain.iter();
        let plain = plain.flat_map(|(path, all)| all.keys().map(move |method| (&**method, path)));
        let others = self.websockets.keys().chain(self.streams.keys()).map(|path| ("GET", path));
        let is_wrong = |(method, path): &(&str, &String)| {
            !path.starts_with('/') || method.bytes().any(|byte| byte.is_ascii_lowercase())
        };
        plain.chain(others).find(is_wrong).map(|(method, path)| format!("{method} {path}"))
    }

    /// The handler of a plain request. That of GET serves HEAD as well, unless there is one of HEAD: its
    /// response goes out without the body (RFC 9110 section 9.3.2).
    pub fn plain(&self, method: &str, path: &str) -> Option<&PlainHandler> {
        let all = self.plain.get(path)?;
        let found = all.get(method).or_else(|| all.get("GET").filter(|_| method == "HEAD"));
        found.map(|handler| &**handler)
    }

    /// The methods of this path, for `Allow`.
    pub fn allowed_methods(&self, path: &str) -> String {
        let plain = self.plain.get(path).into_iter().flat_map(BTreeMap::keys);
        let mut methods: BTreeSet<&str> = plain.map(|method| &**method).collect();
        if self.streams.contains_key(path) || methods.contains("GET") {
            methods.extend(["GET", "HEAD"]);
        }
        methods.extend(self.websockets.contains_key(path).then_some("GET"));
        methods.insert("OPTIONS");
        methods.into_iter().collect::<Vec<_>>().join(", ")
    }
}
