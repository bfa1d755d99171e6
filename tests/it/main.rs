//! The library through its public API, on every driver that this machine has.
//!
//! A case is a future on a core of its own. The rig sees to it that nothing is left when it ends: no task that panicked,
//! no socket that had to be reset, no buffer outside the pool, no descriptor. Nothing sleeps to synchronise; a case that
//! hangs fails after [`rig::PATIENCE`].

mod acceptance;
mod cancel;
mod compat;
mod connect;
mod ends;
mod errors;
mod examples;
mod golden;
mod http2;
mod http2_client;
mod http_floods;
mod http_hyper;
mod http_own;
mod http_peers;
mod http_server;
mod http_smuggling;
mod http_wire;
mod hyper_io;
mod listener_life;
mod packet;
mod pki;
mod pressure;
mod relay;
mod resolver;
mod rig;
mod streams;
mod tls;
mod tls_peers;
mod ways;
mod windows;

/// For cases that say what may be allocated.
#[global_allocator]
static ALLOCATOR: ringport_platform::measure::CountingAlloc = ringport_platform::measure::CountingAlloc;
