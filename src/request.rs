//! A request, as the handler of a plain route sees it.

use crate::http::Response;
use crate::http::forwarded::ClientAddress;
use crate::http::head::parameter;
use crate::listener::connection::{Connection, Next};

/// A request for a plain route. Its thread is the handler's for the time.
pub struct Request {
    connection: Connection,
    max_body: usize,
}

impl Request {
    /// `max_body` is the most bytes of a body.
    pub(crate) fn new(connection: Connection, max_body: usize) -> Request {
        Request { connection, max_body }
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &str {
        self.connection.method()
    }

    /// The path, percent-encoded: the target without its query.
    pub fn path(&self) -> &str {
        self.connection.head().path()
    }

    /// What stands behind the `?` of the target, percent-encoded; empty where there is none.
    pub fn query(&self) -> &str {
        self.connection.head().query().unwrap_or_default()
    }

    /// The first parameter of this name in the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(self.query(), name)
    }

    /// The value of the first header field of this name, without regard to case.
    pub fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.connection.head().values(name).next()
    }

    /// The client's address: that of the connection, or the one that a trusted proxy names.
    pub fn peer(&self) -> ClientAddress {
        self.connection.peer()
    }

    /// Reads the whole body; empty where there is none.
    ///
    /// # Errors
    /// The response to a body that is too long (see [`Config::set_max_message`]), malformed, or too slow.
    ///
    /// [`Config::set_max_message`]: crate::Config::set_max_message
    pub fn body(&mut self) -> Result<Vec<u8>, Response> {
        Ok(self.connection.read_body(self.max_body)?)
    }

    pub(crate) fn respond(self, response: &Response) -> Next {
        self.connection.respond(response)
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }
}
