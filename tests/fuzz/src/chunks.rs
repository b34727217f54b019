//! A strict decoder of the chunked coding (RFC 9112 section 7.1), with this server's limits. It
//! shares no code with the server's.

/// The longest line, its CR included.
const MAX_LINE_BYTES: usize = 4096;

/// The most bytes of extensions and trailers.
const MAX_DISCARDED_BYTES: usize = 16 * 1024;

/// What the bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole body, and how many bytes it took.
    Whole(Vec<u8>, usize),
    /// The beginning of one.
    Partial,
    /// No body.
    Broken,
    /// One that is too long, or has too much in it that is discarded.
    TooLong,
}

/// Decodes a body of at most `limit` bytes.
pub fn decode(bytes: &[u8], limit: usize) -> Decoded {
    let (mut body, mut position, mut discarded) = (Vec::new(), 0, 0);
    loop {
        let line = match line(&bytes[position..]) {
            Ok(Some(line)) => line,
            Ok(None) => return Decoded::Partial,
            Err(()) => return Decoded::Broken,
        };
        position += line.len() + 2;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let is_extension = match extension {
            [] => true,
            [first, ..] => *first == b';',
        };
        if !is_extension || !(1..=16).contains(&digits.len()) {
            return Decoded::Broken;
        }
        discarded += extension.len();
        if discarded > MAX_DISCARDED_BYTES {
            return Decoded::TooLong;
        }
        let size = digits.iter().fold(0, |sum, digit| {
            sum << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
        });
        if size == 0 {
            return trailers(bytes, position, body, discarded);
        }
        if size > (limit - body.len()) as u64 {
            return Decoded::TooLong;
        }
        let Some(data) = bytes.get(position..position + size as usize) else {
            return Decoded::Partial;
        };
        body.extend_from_slice(data);
        position += data.len();
        match self::line(&bytes[position..]) {
            Ok(Some([])) => position += 2,
            Ok(None) => return Decoded::Partial,
            Ok(Some(_)) | Err(()) => return Decoded::Broken,
        }
    }
}

fn trailers(bytes: &[u8], mut position: usize, body: Vec<u8>, mut discarded: usize) -> Decoded {
    loop {
        match line(&bytes[position..]) {
            Ok(Some([])) => return Decoded::Whole(body, position + 2),
            // A trailer is a field line. What it says is discarded.
            Ok(Some(line)) if !line.contains(&b':') => return Decoded::Broken,
            Ok(Some(line)) => {
                position += line.len() + 2;
                discarded += line.len();
                if discarded > MAX_DISCARDED_BYTES {
                    return Decoded::TooLong;
                }
            }
            Ok(None) => return Decoded::Partial,
            Err(()) => return Decoded::Broken,
        }
    }
}

/// The first line without its CR LF; an error where it holds another control character than tabs, or
/// is too long, whether its end is there or not.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, ()> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = match end.map(|end| bytes[..end].strip_suffix(b"\r")) {
        None if bytes.len() > MAX_LINE_BYTES => return Err(()),
        None => return Ok(None),
        Some(None) => return Err(()),
        Some(Some(line)) => line,
    };
    let is_control = |byte: &u8| *byte != b'\t' && byte.is_ascii_control();
    // The limit is for what is kept until the line feed comes, and so for the CR as well.
    if line.iter().any(is_control) || line.len() >= MAX_LINE_BYTES {
        return Err(());
    }
    Ok(Some(line))
}

/// Decodes a body that comes in pieces, as long as it lasts.
#[derive(Debug, Default)]
pub struct Stream {
    /// What came of a chunk that is not complete.
    rest: Vec<u8>,
    is_over: bool,
}

impl Stream {
    /// Takes the next bytes; returns what the chunks hold that are complete now.
    ///
    /// # Errors
    /// Where it is not the chunked coding (with extensions or trailers, which this server sends none).
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.rest.extend_from_slice(bytes);
        let (mut text, mut position) = (Vec::new(), 0);
        loop {
            let rest = &self.rest[position..];
            if self.is_over && !rest.is_empty() {
                return Err(format!("behind the last chunk: {}", rest.escape_ascii()));
            }
            let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { break };
            let digits = str::from_utf8(&rest[..end]).unwrap_or("");
            let size = usize::from_str_radix(digits, 16)
                .map_err(|_| format!("not a chunk's length: {}", rest[..end].escape_ascii()))?;
            let Some(chunk) = rest.get(end + 2..end + 2 + size + 2) else { break };
            let data = chunk.strip_suffix(b"\r\n").ok_or("a chunk is longer than its length")?;
            text.extend_from_slice(data);
            self.is_over = size == 0;
            position += end + 2 + chunk.len();
        }
        self.rest.drain(..position);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let bytes = b"3\r\none\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        for cut in 0..=bytes.len() {
            let mut stream = Stream::default();
            let mut text = stream.push(&bytes[..cut]).unwrap();
            text.extend(stream.push(&bytes[cut..]).unwrap());
            assert_eq!(text, b"one0123456789abcdef");
            assert!(stream.is_over && stream.push(b"x").is_err());
        }
        assert!(Stream::default().push(b"3\r\nthree\r\n").is_err());
        assert!(Stream::default().push(b"x\r\n").is_err());
    }

    #[test]
    fn chunks_are_put_together() {
        let two = b"3\r\none\r\n04;x\r\n two\r\n0\r\nT: t\r\n\r\nGET";
        assert_eq!(decode(two, 7), Decoded::Whole(b"one two".to_vec(), two.len() - 3));
        assert_eq!(decode(two, 6), Decoded::TooLong);
        assert_eq!(decode(&two[..two.len() - 4], 7), Decoded::Partial);
        for bad in
            ["3\none", "+3\r\none", "3 \r\none", "\r\n", "3\r\noneX\r\n", "00000000000000000\r\n"]
        {
            assert_eq!(decode(bad.as_bytes(), 7), Decoded::Broken, "{bad:?}");
        }
    }
}
