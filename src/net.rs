//! Streams for people: plain async methods over any [`Transport`](crate::runtime::Transport); which peers are let in.

mod compat;
mod peer_filter;
mod relay;
mod stream;

pub use compat::CompatStream;
pub use peer_filter::PeerFilter;
pub use relay::{Relay, RelayError, Relayed, relay};
pub use stream::{ReadHalf, Stream, WriteHalf, accept, connect};
