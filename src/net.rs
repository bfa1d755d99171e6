//! Streams for people: plain async methods over any [`Transport`](crate::runtime::Transport).

mod compat;
mod stream;

pub use compat::CompatStream;
pub use stream::{ReadHalf, Stream, WriteHalf, accept, connect};
