//! Whether bytes that come in parts are UTF-8 (RFC 3629), told as early as it can be known: RFC 6455
//! section 8.1 lets a server refuse a text before all of it has come.

/// What is known of a text of which a part has come.
#[derive(Debug, Default, Clone, Copy)]
pub struct Utf8 {
    /// The beginning of a character whose rest has not come.
    begun: [u8; 4],
    /// How many bytes of it there are.
    length: usize,
}

impl Utf8 {
    /// Takes the next part. Returns whether the text can still become UTF-8.
    #[must_use]
    pub fn add(&mut self, mut part: &[u8]) -> bool {
        // The character that an earlier part has begun, byte by byte until it is whole.
        while self.length > 0 {
            let Some((first, rest)) = part.split_first() else { return true };
            self.begun[self.length] = *first;
            self.length += 1;
            part = rest;
            match str::from_utf8(&self.begun[..self.length]) {
                Ok(_) => self.length = 0,
                // An error with a length is one that nothing to come can mend.
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        // All whole characters at once.
        let Err(error) = str::from_utf8(part) else { return true };
        let begun = &part[error.valid_up_to()..];
        if error.error_len().is_none() {
            self.begun[..begun.len()].copy_from_slice(begun);
            self.length = begun.len();
        }
        error.error_len().is_none()
    }

    /// Whether the text may end here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `from_utf8` says of the first bytes: text, nonsense, or (`None`) not known yet.
    fn expected(bytes: &[u8]) -> Option<bool> {
        match str::from_utf8(bytes) {
            Ok(_) => Some(true),
            Err(error) => error.error_len().map(|_| false),
        }
    }

    #[test]
    fn nonsense_is_noticed_with_the_byte_that_makes_it_so() {
        for text in [
            &b"plain"[..],
            "grüße 🦀 日本語 \u{10ffff}\0".as_bytes(),
            b"\xf4\x90\x80\x80",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"ab\xff",
            b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80",
            b"\xe2\x82",
            b"\xe2\x82\xe2",
            b"\x80",
        ] {
            for step in 1..=text.len() {
                let mut utf8 = Utf8::default();
                let mut seen = 0;
                for part in text.chunks(step) {
                    seen += part.len();
                    let can_be = utf8.add(part);
                    assert_eq!(can_be, expected(&text[..seen]) != Some(false), "{text:x?} {seen}");
                    if !can_be {
                        break;
                    }
                    assert_eq!(utf8.is_whole(), expected(&text[..seen]) == Some(true));
                }
            }
        }
    }
}
