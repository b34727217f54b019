//! Which descriptor numbers belong to claimed connections.
//!
//! One bit each: it is what keeps a claim's cost flat. A search skips the numbers that clients own,
//! 64 at a time, and by the kernel's rule of the lowest free number a new connection is near the
//! front of those that are left.

use std::os::fd::RawFd;

/// How many closed numbers in a row, above every one that is known to be open, end a search: as
/// many connections may have been closed since somebody looked, in the midst of others.
const GAP: RawFd = 64;

/// A set of descriptor numbers, and how far up others are known to be open.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    owned: Vec<u64>,
    /// The highest open number when somebody last looked; there may be higher ones by now.
    pub highest: RawFd,
}

impl Numbers {
    /// Whether a claim owns this number.
    pub fn is_owned(&self, fd: RawFd) -> bool {
        let (word, bit) = (fd as usize / 64, fd as usize % 64);
        self.owned.get(word).is_some_and(|w| w & (1 << bit) != 0)
    }

    /// Notes that a claim owns this number, or no longer does.
    pub fn set_owned(&mut self, fd: RawFd, owned: bool) {
        let (word, bit) = (fd as usize / 64, fd as usize % 64);
        if word >= self.owned.len() {
            self.owned.resize(word + 1, 0);
        }
        if owned {
            self.owned[word] |= 1 << bit;
        } else {
            self.owned[word] &= !(1 << bit);
        }
    }

    /// The highest number that a claim owns.
    pub fn highest_owned(&self) -> Option<RawFd> {
        let (word, bits) = self.owned.iter().enumerate().rfind(|(_, bits)| **bits != 0)?;
        Some((word * 64 + 63 - bits.leading_zeros() as usize) as RawFd)
    }

    /// The numbers from `start` to `end`, without it, that no claim owns.
    pub fn unowned(&self, start: RawFd, end: RawFd) -> impl Iterator<Item = RawFd> + '_ {
        let mut next = start;
        std::iter::from_fn(move || {
            while next < end {
                let full = next % 64 == 0 && self.owned.get(next as usize / 64) == Some(&u64::MAX);
                if full {
                    next += 64;
                    continue;
                }
                let fd = next;
                next += 1;
                if !self.is_owned(fd) {
                    return Some(fd);
                }
            }
            None
        })
    }

    /// What `look` finds at the numbers from `start` on that no claim owns and that are open: up to
    /// the highest that is known to be, and then until [`GAP`] closed ones in a row.
    pub fn open<T>(
        &self,
        start: RawFd,
        look: impl Fn(RawFd) -> Option<T>,
    ) -> impl Iterator<Item = (RawFd, T)> {
        let mut last = self.highest;
        self.unowned(start, RawFd::MAX)
            .map(move |fd| (fd, look(fd)))
            .take_while(move |(fd, found)| {
                if found.is_some() {
                    last = last.max(*fd);
                }
                *fd <= last + GAP
            })
            .filter_map(|(fd, found)| Some((fd, found?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_numbers_are_skipped() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.highest_owned(), None);
        for fd in (0..200).filter(|fd| fd % 50 != 7) {
            numbers.set_owned(fd, true);
        }
        assert!(numbers.is_owned(199) && !numbers.is_owned(57) && !numbers.is_owned(200));
        assert_eq!(numbers.unowned(0, 202).collect::<Vec<_>>(), [7, 57, 107, 157, 200, 201]);
        assert_eq!(numbers.unowned(58, 158).collect::<Vec<_>>(), [107, 157]);
        numbers.set_owned(64, false);
        assert_eq!(numbers.unowned(60, 100).collect::<Vec<_>>(), [64]);
        assert_eq!(numbers.highest_owned(), Some(199));
        (128..200).for_each(|fd| numbers.set_owned(fd, false));
        assert_eq!(numbers.highest_owned(), Some(127));
    }

    #[test]
    fn a_search_ends_where_a_gap_is_too_wide() {
        let mut numbers = Numbers::default();
        numbers.set_owned(1, true);
        // One closed number more than the search puts up with.
        let (far, beyond) = (3 + GAP, 3 + GAP + GAP + 2);
        let is_open =
            move |fd| (fd < 4 || fd == far || (beyond..beyond + 2).contains(&fd)).then_some(());
        let open = |numbers: &Numbers, start| -> Vec<RawFd> {
            numbers.open(start, is_open).map(|(fd, ())| fd).collect()
        };
        assert_eq!(open(&numbers, 0), [0, 2, 3, far]);
        numbers.highest = beyond;
        assert_eq!(open(&numbers, 0), [0, 2, 3, far, beyond, beyond + 1]);
        assert_eq!(open(&numbers, far + 1), [beyond, beyond + 1]);
    }
}
