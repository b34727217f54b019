//! A client of the `replay` target: what it wants, what it is still to be told, and the connection
//! over which it is told, as an event stream or a WebSocket.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use threadcast::event::EventId;

use crate::eventstream::Chunked;
use crate::frames::{self, opcode};
use crate::live::{self, Live};
use crate::model::{Due, Last, Published, TOPICS};

/// How a client is connected.
enum Link {
    Sse(TcpStream, Box<Chunked>),
    WebSocket(TcpStream),
}

/// What came over the connection.
#[derive(Debug)]
enum Received {
    /// An event. (Its topic only a WebSocket tells.)
    Event { id: String, name: String, data: String, topic: Option<String> },
    /// A WebSocket's first message, with its id; empty where it has none.
    Welcome { id: String },
    /// The answer to a text.
    Response(String),
    /// The end; with a status where a close frame tells it.
    End(Option<u16>),
}

/// A client's wishes.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Over a WebSocket.
    pub websocket: bool,
    /// Its topics, by number; none means all.
    pub topics: BTreeSet<usize>,
    /// It takes only a few kilobytes ahead of what it reads.
    pub narrow: bool,
    /// It tells what it saw last in the query, not in a header field.
    pub by_query: bool,
}

/// A client and its connection.
pub struct Client {
    link: Link,
    /// The topics that it gets.
    pub wanted: BTreeSet<usize>,
    /// What it is still to be told.
    pub due: VecDeque<Due>,
    /// The texts whose answers are still to come.
    pub echoes: VecDeque<String>,
    /// What it would say if it came back now.
    pub last: Last,
    /// The id in its greeting, where it was new.
    pub greeted: Option<EventId>,
    /// Messages and bytes that were sent since it last had read everything.
    pub outstanding: (usize, usize),
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// All that was due has come.
    UpToDate,
    /// The server has ended the connection; with what status.
    Ended(Option<u16>),
}

impl Client {
    /// Connects, and reads the greeting: from then on nothing may be missed. `due` is what the
    /// model has for it.
    ///
    /// # Errors
    /// Where the server does not greet.
    pub fn connect(
        live: &Live,
        wish: &Wish,
        last: Last,
        due: VecDeque<Due>,
    ) -> Result<Client, String> {
        let mut stream = open(live, wish.narrow)?;
        let mut query: Vec<String> =
            wish.topics.iter().map(|&topic| format!("topic={}", TOPICS[topic])).collect();
        if query.is_empty() && wish.websocket {
            query.push("topic=*".to_owned());
        }
        let mut field = String::new();
        match last.text() {
            Some(text) if wish.by_query => query.push(format!("last_event_id={text}")),
            Some(text) => field = format!("Last-Event-ID: {text}\r\n"),
            None => {}
        }
        let query = query.join("&");
        let link = if wish.websocket {
            frames::handshake(&mut stream, &format!("/ws?{query}"), &field, &[])?;
            Link::WebSocket(stream)
        } else {
            let request = format!("GET /events?{query} HTTP/1.1\r\nHost: x\r\n{field}\r\n");
            stream.write_all(request.as_bytes()).map_err(|e| format!("SSE: {e}"))?;
            let head = frames::read_head(&mut stream)?;
            if !head.starts_with("HTTP/1.1 200 ") {
                return Err(format!("instead of an event stream: {head:?}"));
            }
            Link::Sse(stream, Box::default())
        };
        let wanted =
            if wish.topics.is_empty() { (0..TOPICS.len()).collect() } else { wish.topics.clone() };
        let echoes = VecDeque::new();
        let mut client =
            Client { link, wanted, due, echoes, last, greeted: None, outstanding: (0, 0) };
        let id = match client.next()? {
            Received::Welcome { id } if wish.websocket => id,
            Received::Event { id, name, data, .. }
                if !wish.websocket
                    && name == "message"
                    && data == r#"{"message":"Connection established"}"# =>
            {
                id
            }
            other => return Err(format!("{other:?} instead of a greeting")),
        };
        // Whoever is cut off before anything else has come misses nothing.
        match (&client.last, id.parse()) {
            (Last::Nothing, Ok(id)) => {
                client.greeted = Some(id);
                client.last = Last::Id(id);
            }
            (Last::Id(last), Ok(id)) if *last == id => {}
            (Last::Strange(_), Err(_)) if id.is_empty() => {}
            (last, _) => return Err(format!("the greeting of {last:?} has the id {id:?}")),
        }
        Ok(client)
    }

    /// Asks for an answer.
    ///
    /// # Errors
    /// Never: where the connection has ended, reading will tell.
    pub fn ask(&mut self, text: &str) {
        if let Link::WebSocket(stream) = &mut self.link {
            let frame = frames::client_frame(0x80 | opcode::TEXT, text.as_bytes(), [5, 6, 7, 8]);
            let _ = stream.write_all(&frame);
            self.echoes.push_back(text.to_owned());
            self.outstanding.0 += 1;
        }
    }

    /// Reads until all that is due has come, or the server ends the connection. Ids told in gaps
    /// go to `told`.
    ///
    /// # Errors
    /// Where anything else comes.
    pub fn catch_up(&mut self, told: &mut impl FnMut(EventId)) -> Result<Progress, String> {
        while !self.due.is_empty() || !self.echoes.is_empty() {
            match self.next()? {
                Received::End(status) => return Ok(Progress::Ended(status)),
                Received::Welcome { .. } => return Err("a second welcome".to_owned()),
                Received::Response(text) => match self.echoes.pop_front() {
                    Some(asked) if asked == text => {}
                    other => return Err(format!("the answer to {text:?}, not to {other:?}")),
                },
                Received::Event { id, name, data, topic } => {
                    let Some(due) = self.due.pop_front() else {
                        return Err(format!("event {id} {name:?}, though nothing was due"));
                    };
                    let number = id.parse().map_err(|_| format!("{id:?} is no id"))?;
                    match &due {
                        Due::Event(event) => check(event, number, &name, &data, topic.as_deref()),
                        Due::Gap { lost } => {
                            told(number);
                            check_gap(number, *lost, self.due.front(), &name, &data)
                        }
                    }?;
                    self.last = Last::Id(number);
                }
            }
        }
        self.outstanding = (0, 0);
        Ok(Progress::UpToDate)
    }

    /// Reads to the end of the stream, where nothing may come any more but the end itself.
    ///
    /// # Errors
    /// Where something else comes.
    pub fn read_end(&mut self) -> Result<Option<u16>, String> {
        match self.next()? {
            Received::End(status) => Ok(status),
            other => Err(format!("{other:?} instead of the end")),
        }
    }

    /// Leaves, by a reset or by an ordinary close.
    pub fn leave(self, reset: bool) {
        let (Link::Sse(stream, _) | Link::WebSocket(stream)) = self.link;
        if reset {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn next(&mut self) -> Result<Received, String> {
        match &mut self.link {
            Link::Sse(stream, parser) => next_sse(stream, parser),
            Link::WebSocket(stream) => next_websocket(stream),
        }
    }
}

fn next_sse(stream: &mut TcpStream, parser: &mut Chunked) -> Result<Received, String> {
    let mut buffer = [0; 8192];
    loop {
        if let Some(event) = parser.next_event() {
            let (id, name, data) = (event.id, event.kind, event.data);
            return Ok(Received::Event { id, name, data, topic: None });
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Received::End(None)),
            Ok(read) => parser.push(&buffer[..read])?,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok(Received::End(None));
            }
            Err(error) => return Err(format!("no event: {error}")),
        }
    }
}

fn next_websocket(stream: &mut TcpStream) -> Result<Received, String> {
    let frame = match frames::read_frame(stream) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(Received::End(None)),
        Err(error) if error == frames::CUT => return Ok(Received::End(None)),
        Err(error) => return Err(error),
    };
    match frame.opcode {
        opcode::TEXT => {}
        opcode::CLOSE => {
            let status = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            return Ok(Received::End(status));
        }
        _ => return Err(format!("{frame:?}")),
    }
    let value: Value = serde_json::from_slice(&frame.payload).map_err(|e| format!("JSON: {e}"))?;
    let text = |field: &str| match &value[field] {
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("no {field} in {value}")),
    };
    match text("type")?.as_str() {
        "info" => Ok(Received::Welcome { id: text("lastEventId").unwrap_or_default() }),
        "response" => Ok(Received::Response(text("original")?)),
        "event" => Ok(Received::Event {
            id: text("id")?,
            name: text("event")?,
            data: text("data")?,
            topic: Some(text("topic")?),
        }),
        _ => Err(format!("{value}")),
    }
}

fn check(
    event: &Published,
    id: EventId,
    name: &str,
    data: &str,
    topic: Option<&str>,
) -> Result<(), String> {
    let due = (event.id, event.name.as_deref().unwrap_or("message"), event.data.as_str());
    let is_topic = topic.is_none_or(|topic| topic == TOPICS[event.topic]);
    if due == (id, name, data) && is_topic {
        return Ok(());
    }
    let shown = |data: &str| data.chars().take(40).collect::<String>();
    Err(format!(
        "event {id} {name:?} {:?} on {topic:?} came, and due was {} {:?} {:?} on {:?}",
        shown(data),
        due.0,
        due.1,
        shown(due.2),
        TOPICS[event.topic]
    ))
}

/// The id of a gap says from where on nothing is missing.
fn check_gap(
    id: EventId,
    lost: Option<EventId>,
    next: Option<&Due>,
    name: &str,
    data: &str,
) -> Result<(), String> {
    let below = match next {
        Some(Due::Event(event)) => id < event.id,
        _ => true,
    };
    let above = lost.is_none_or(|lost| id >= lost);
    if name == "gap" && data == format!("{{\"resumed\":\"{id}\"}}") && below && above {
        return Ok(());
    }
    Err(format!(
        "event {id} {name:?} {data:?} came, and due was a gap, {lost:?} lost, then {next:?}"
    ))
}

fn open(live: &Live, narrow: bool) -> Result<TcpStream, String> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if narrow {
            // Small windows and segments, so that little data is on its way to who does not read.
            socket.set_recv_buffer_size(4096)?;
            socket.set_tcp_mss(1400)?;
        }
        socket.connect(&live.address.into())?;
        let stream = TcpStream::from(socket);
        live::prepare(&stream)?;
        Ok(stream)
    };
    open().map_err(|error: std::io::Error| format!("connect: {error}"))
}
