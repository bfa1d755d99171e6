//! Streams for people: plain async methods over any [`Transport`](crate::runtime::Transport); which peers are let in.

mod compat;
mod listen;
mod peer_filter;
mod relay;
mod stream;

pub use compat::CompatStream;
pub use listen::{
    AcceptError, Bounded, DeadlineError, FileFault, InheritFault, ListenError, ListenHandle, ListenPart,
    ListenStats, Listener, Peer,
};
pub use peer_filter::PeerFilter;
pub use relay::{Relay, RelayError, Relayed, relay};
pub use stream::{ReadHalf, Stream, WriteHalf, accept, connect};
