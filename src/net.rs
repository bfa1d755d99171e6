//! Streams for people: plain async methods over any [`Transport`](crate::runtime::Transport); dialled and
//! accepted as a spec says; which peers are let in.

mod compat;
mod dial;
mod listen;
mod packet;
mod peer_filter;
mod relay;
mod resolve;
mod stream;
pub mod tls;

pub use compat::CompatStream;
pub use dial::{AttemptError, AttemptFailure, DialError, DialErrorKind, Dialer, Phase};
pub use listen::{
    AcceptError, Bounded, DeadlineError, FileFault, InheritFault, ListenError, ListenHandle, ListenPart,
    ListenStats, Listener, PacketListener, Peer,
};
pub use packet::{PacketError, PacketSocket};
pub use peer_filter::PeerFilter;
pub use relay::{Relay, RelayError, Relayed, relay};
pub use resolve::{ResolveError, Resolver};
pub use stream::{ReadHalf, Stream, WriteHalf, accept, connect};
