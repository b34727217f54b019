//! Descriptors of this process that are none of the server's business: socket pairs, files, pipes
//! and TCP connections. Each remembers which file or socket it was, and carries known traffic.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::live;
use crate::rng::Rng;

/// Device and inode: the kernel's name for what is behind a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Identity> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Identity(stat.st_dev, stat.st_ino))
    }
}

/// What is behind a bystander's descriptors.
enum Kind {
    Pair(UnixStream, UnixStream),
    Pipe(io::PipeReader, io::PipeWriter),
    File(File),
    Tcp(TcpStream, TcpStream),
}

impl Kind {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Kind::Pair(left, right) => vec![left.as_fd(), right.as_fd()],
            Kind::Pipe(reader, writer) => vec![reader.as_fd(), writer.as_fd()],
            Kind::File(file) => vec![file.as_fd()],
            Kind::Tcp(near, far) => vec![near.as_fd(), far.as_fd()],
        }
    }
}

/// One bystander.
pub struct Bystander {
    kind: Kind,
    identities: Vec<Identity>,
    stamp: u64,
}

impl Bystander {
    /// A random one. `listener` is where TCP bystanders connect to.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(rng: &mut Rng, listener: &Listener) -> io::Result<Bystander> {
        let kind = match rng.below(4) {
            0 => {
                let (left, right) = UnixStream::pair()?;
                for end in [&left, &right] {
                    end.set_read_timeout(Some(live::PATIENCE))?;
                }
                Kind::Pair(left, right)
            }
            1 => {
                let (reader, writer) = io::pipe()?;
                Kind::Pipe(reader, writer)
            }
            2 => {
                let flags = rustix::fs::MemfdFlags::CLOEXEC;
                let file = File::from(rustix::fs::memfd_create("bystander", flags)?);
                Kind::File(file)
            }
            _ => {
                let (near, far) = listener.connection(rng, 100)?;
                Kind::Tcp(near, far)
            }
        };
        Bystander::with(kind, rng.next())
    }

    /// A TCP connection.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp(near: TcpStream, far: TcpStream, stamp: u64) -> io::Result<Bystander> {
        Bystander::with(Kind::Tcp(near, far), stamp)
    }

    fn with(kind: Kind, stamp: u64) -> io::Result<Bystander> {
        let identities = kind.descriptors().into_iter().map(Identity::of);
        let identities = identities.collect::<io::Result<_>>()?;
        Ok(Bystander { kind, identities, stamp })
    }

    /// Fails unless the descriptors still are what they were, and carry what is sent.
    ///
    /// # Errors
    /// What has changed.
    pub fn check(&mut self) -> Result<(), String> {
        for (fd, identity) in self.kind.descriptors().into_iter().zip(&self.identities) {
            match Identity::of(fd) {
                Ok(now) if now == *identity => {}
                now => return Err(format!("{fd:?} was {identity:?} and is {now:?}")),
            }
        }
        self.stamp = self.stamp.wrapping_add(1);
        let stamp = self.stamp.to_le_bytes();
        let carried = match &mut self.kind {
            Kind::Pair(left, right) => {
                carry(left, right, stamp).and_then(|()| carry(right, left, stamp))
            }
            Kind::Pipe(reader, writer) => carry(writer, reader, stamp),
            Kind::File(file) => exchange_with(file, stamp),
            Kind::Tcp(near, far) => carry(near, far, stamp).and_then(|()| carry(far, near, stamp)),
        };
        carried.map_err(|error| format!("{:?}: {error}", self.kind.descriptors()))
    }
}

/// Sends a stamp, which must be the next thing that is read.
fn carry(from: &mut impl Write, to: &mut impl Read, stamp: [u8; 8]) -> io::Result<()> {
    from.write_all(&stamp)?;
    let mut came = [0; 8];
    to.read_exact(&mut came)?;
    same(stamp, came)
}

fn exchange_with(file: &File, stamp: [u8; 8]) -> io::Result<()> {
    file.write_all_at(&stamp, 0)?;
    let mut came = [0; 8];
    file.read_exact_at(&mut came, 0)?;
    match file.metadata()?.len() {
        8 => same(stamp, came),
        length => Err(io::Error::other(format!("someone has written: {length} bytes"))),
    }
}

fn same(sent: [u8; 8], came: [u8; 8]) -> io::Result<()> {
    if sent == came { Ok(()) } else { Err(io::Error::other(format!("{came:?} for {sent:?}"))) }
}

/// Where TCP bystanders connect to.
pub struct Listener {
    listener: std::sync::Mutex<TcpListener>,
    address: SocketAddr,
}

impl Listener {
    /// Listens on a free port.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Listener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        Ok(Listener { listener: std::sync::Mutex::new(listener), address })
    }

    /// Both ends of a connection from the network `net`. The near end's port may be used again by a
    /// connection to somewhere else: then two descriptors of this process have the same peer.
    ///
    /// # Errors
    /// What the system says.
    pub fn connection(&self, rng: &mut Rng, net: u8) -> io::Result<(TcpStream, TcpStream)> {
        // One at a time, or two callers could get each other's far end.
        let listener = self.listener.lock().map_err(|_| io::Error::other("a panic"))?;
        let near = connect(rng, net, self.address, true)?;
        // Closed bystanders need not wait out their time: they only take up ports.
        socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO))?;
        let (far, peer) = listener.accept()?;
        if peer != near.local_addr()? {
            return Err(io::Error::other(format!("a stranger has connected: {peer}")));
        }
        live::prepare(&far)?;
        Ok((near, far))
    }
}

/// Connects from a random address of loopback, 127.`net`.x.y, and a random port. Left to itself the
/// system would search all ports for a free one at every connection, and spend most of its time in
/// that. `net` keeps threads apart; `shared` lets the port be used by others too.
///
/// # Errors
/// What the system says.
pub fn connect(rng: &mut Rng, net: u8, to: SocketAddr, shared: bool) -> io::Result<TcpStream> {
    let mut patience = 100;
    loop {
        let address = Ipv4Addr::new(127, net, rng.next() as u8, 1 + rng.below(250) as u8);
        let from = SocketAddr::from((address, 10_000 + rng.below(50_000) as u16));
        match connect_from(from, to, shared) {
            Err(error) if is_taken(&error) && patience > 0 => patience -= 1,
            result => return result,
        }
    }
}

/// Connects from this very address.
///
/// # Errors
/// What the system says; see [`is_taken`].
pub fn connect_from(from: SocketAddr, to: SocketAddr, shared: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(shared)?;
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    live::prepare(&stream)?;
    Ok(stream)
}

/// Whether a connection failed because its address is in use, or was until a moment ago.
pub fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}
