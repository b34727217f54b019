//! `POST /ticket`: tickets for readers that can send no token.

use crate::app::App;
use crate::listener::connection::{Connection, Next};

/// Answers `{"ticket":…,"expiresInSeconds":…}`.
pub fn serve(app: &App, connection: Connection) -> Next {
    app.origins.serve_post(connection, |connection| app.access.issue(connection))
}
