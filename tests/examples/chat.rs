//! A chat: open the page in two windows.
use threadcast::{Response, Server};

fn main() -> Result<(), String> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let server = Server::builder().listen(&address);
    let server = server.route("GET", "/", |_| Response::html(include_str!("chat.html")));
    // A thread for each client runs this, and sleeps in `receive`.
    let server = server.websocket("/chat", |client| {
        client.subscribe(["chat"], None)?;
        while let Some(message) = client.receive()? {
            client.publish("chat", message.text()?)?;
        }
        Ok(())
    });
    let server = server.start().map_err(|error| error.to_string())?;
    println!("listening on http://{}", server.address());
    server.wait();
    Ok(())
}
