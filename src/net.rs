//! Streams for people: plain async methods over any [`Transport`](crate::runtime::Transport); which peers are let in.

mod compat;
mod peer_filter;
mod stream;

pub use compat::CompatStream;
pub use peer_filter::PeerFilter;
pub use stream::{ReadHalf, Stream, WriteHalf, accept, connect};
