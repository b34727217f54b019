//! The server's reader of heads, called directly: [`Scanner`] against
//! [`crate::refusals`].

use threadcast::door::head::{Scanner, is_tls};
use threadcast::http::head;

use crate::refusals::{self, Framing, Reading};

/// What the server makes of bytes.
enum Theirs {
    Tls,
    /// More must come; whether a part of a request is there.
    More(bool),
    Refused(u16),
    Head(Box<head::Head>, usize),
}

fn scan(bytes: &[u8], cuts: &[usize], max_head: usize) -> Theirs {
    let mut scanner = Scanner::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    for to in cuts.into_iter().chain([bytes.len()]) {
        if is_tls(&bytes[..to]) {
            return Theirs::Tls;
        }
        let mut came = bytes[..to].to_vec();
        match scanner.take(&mut came, max_head) {
            Ok(None) => {}
            Ok(Some(head)) => return Theirs::Head(Box::new(head), to - came.len()),
            Err(error) => return Theirs::Refused(error.status()),
        }
    }
    Theirs::More(scanner.has_begun(bytes))
}

/// Fails where the server's reader and the reference disagree about `bytes`, which come in pieces
/// that end at `cuts`. Returns the head where both accept one.
///
/// # Errors
/// What each of them says.
pub fn check(
    bytes: &[u8],
    cuts: &[usize],
    max_head: usize,
) -> Result<Option<Box<head::Head>>, String> {
    let ours = refusals::read(bytes, max_head);
    match (scan(bytes, cuts, max_head), &ours) {
        (Theirs::Tls, Reading::Tls)
        | (Theirs::More(false), Reading::Silent)
        | (Theirs::More(true), Reading::Incomplete) => Ok(None),
        (Theirs::Refused(status), Reading::Refused(faults))
            if faults.iter().any(|fault| fault.0 == status) =>
        {
            Ok(None)
        }
        (Theirs::Head(theirs, end), Reading::Head(ours, our_end)) => {
            let is_same = end == *our_end && is_same(&theirs, ours);
            match is_same {
                true => Ok(Some(theirs)),
                false => {
                    let bytes = bytes.escape_ascii();
                    Err(format!(
                        "{bytes}\nis {theirs:?}, {end} bytes,\nand should be {ours:?}, {our_end}"
                    ))
                }
            }
        }
        (theirs, _) => {
            let theirs = match theirs {
                Theirs::Tls => "takes it for TLS".to_owned(),
                Theirs::More(has_begun) => format!("waits for more, has begun: {has_begun}"),
                Theirs::Refused(status) => format!("refuses it with {status}"),
                Theirs::Head(head, _) => format!("accepts {head:?}"),
            };
            Err(format!("{}: the server {theirs}, and should {ours:?}", bytes.escape_ascii()))
        }
    }
}

fn is_same(theirs: &head::Head, ours: &refusals::Head) -> bool {
    let framing = match theirs.framing {
        head::Framing::Length(length) => Framing::Length(length),
        head::Framing::Chunked => Framing::Chunked,
    };
    let texts = (&theirs.method, &theirs.target) == (&ours.method, &ours.target);
    let flags = [theirs.is_http_1_1, theirs.keep_alive, theirs.expects_continue, theirs.is_upgrade]
        == [ours.is_http_1_1, ours.keep_alive, ours.expects_continue, ours.is_upgrade];
    texts
        && flags
        && framing == ours.framing
        && ours.fields.iter().all(|(name, _)| {
            let values = ours.values(name);
            theirs.values(name).eq(values.into_iter().map(String::from_utf8_lossy))
        })
}

/// The smallest text that still fails, found by leaving stretches out.
pub fn smallest(mut bytes: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut length = bytes.len().div_ceil(2);
    while length > 0 {
        let before = bytes.len();
        let mut from = 0;
        while from + length <= bytes.len() {
            let shorter = [&bytes[..from], &bytes[from + length..]].concat();
            if fails(&shorter) {
                bytes = shorter;
            } else {
                from += length;
            }
        }
        if length > 1 || bytes.len() == before {
            length /= 2;
        }
    }
    bytes
}
