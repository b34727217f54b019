//! Takes the place of `deflate.rs` where the crate is built without the feature `deflate`: no window
//! can be agreed on, so nothing here is ever called.

use tungstenite::protocol::frame::coding::Data;

use super::failure::Failure;

/// How many [`Window`]s there are: an event has no compressed encoding.
pub const WINDOWS: usize = 0;

/// There are none: `Option<Window>` is always `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {}

impl Window {
    /// Always `None`: every offer is declined.
    pub fn new(_bits: u8) -> Option<Window> {
        None
    }

    /// Cannot be called.
    pub fn index(self) -> usize {
        match self {}
    }
}

/// Cannot be called.
pub fn compressed_frame(window: Window, _kind: Data, _payload: &[u8]) -> Option<Vec<u8>> {
    match window {}
}

/// Cannot be called.
pub fn longest(window: Window, _limit: usize) -> usize {
    match window {}
}

/// Cannot be called.
///
/// # Errors
/// None.
pub fn inflate(window: Window, _compressed: &[u8], _limit: usize) -> Result<Vec<u8>, Failure> {
    match window {}
}
