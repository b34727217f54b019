//! `POST /ticket`: a ticket for a reader that cannot send the subscribe token. See
//! [`crate::auth::access`].

use serde_json::json;

use crate::app::App;
use crate::auth::access::TICKET_LIFETIME;
use crate::http::Response;
use crate::listener::connection::{Connection, Next};

/// Responds `{"ticket":…,"expiresInSeconds":…}`.
pub fn serve(app: &App, connection: Connection) -> Next {
    let (Ok(response) | Err(response)) = issue(app, &connection);
    connection.respond(&response)
}

fn issue(app: &App, connection: &Connection) -> Result<Response, Response> {
    app.origins.check(connection)?;
    let ticket = app.access.issue(connection)?;
    let body = json!({"ticket": ticket, "expiresInSeconds": TICKET_LIFETIME.as_secs()});
    Ok(Response::json(200, &body))
}
