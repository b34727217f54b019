//! The book.
//!
//! | to | read |
//! |---|---|
//! | learn | the [tutorial]: a stream, a WebSocket, slow readers, the end |
//! | get it running | [how to](howto): systemd, a container, a Raspberry Pi; [behind a proxy](proxies), [restarts and several servers](restarts) |
//! | look something up | the [contract] with clients, their [commands], [who may do what](access), [operation] |
//! | understand | the [tour] of one event, [what it survives](survives), [what was measured](measured), [scale], [words](glossary) |
//! | change it | [contributing] |

#[doc = include_str!("tutorial.md")]
pub mod tutorial {}

#[doc = include_str!("howto.md")]
pub mod howto {}

#[doc = include_str!("contract.md")]
pub mod contract {}

#[doc = include_str!("commands.md")]
pub mod commands {}

#[doc = include_str!("access.md")]
pub mod access {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("restarts.md")]
pub mod restarts {}

#[doc = include_str!("tour.md")]
pub mod tour {}

#[doc = include_str!("survives.md")]
pub mod survives {}

#[doc = include_str!("measured.md")]
pub mod measured {}

#[doc = include_str!("scale.md")]
pub mod scale {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("contributing.md")]
pub mod contributing {}
