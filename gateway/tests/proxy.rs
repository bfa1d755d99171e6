//! The real binary between clients and origins that do as they are told, on both drivers.
//!
//! Each case starts a proxy of its own on ports that the kernel chooses, and ends by looking at `/metrics`: sockets,
//! tasks, connections and requests are back at the level of the start. A case that needs a program which this machine
//! lacks prints that it was skipped.

#[path = "proxy/basics.rs"]
mod basics;
#[path = "proxy/fields.rs"]
mod fields;
#[path = "proxy/http2.rs"]
mod http2;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/long.rs"]
mod long;
#[path = "proxy/message.rs"]
mod message;
#[path = "proxy/origin.rs"]
mod origin;
#[path = "proxy/origins.rs"]
mod origins;
#[path = "../../tests/it/pki.rs"]
#[expect(dead_code, reason = "shared with the library's tests; each uses a part")]
mod pki;
#[path = "proxy/pressure.rs"]
mod pressure;
#[path = "proxy/records.rs"]
mod records;
#[path = "proxy/rig.rs"]
#[expect(dead_code, reason = "shared with the other test program; each uses a part")]
mod rig;
#[path = "proxy/routing.rs"]
mod routing;
#[path = "proxy/smuggling.rs"]
mod smuggling;
#[path = "proxy/specs.rs"]
mod specs;
#[path = "proxy/timeouts.rs"]
mod timeouts;
#[path = "proxy/tls.rs"]
mod tls;
#[path = "proxy/tunnels.rs"]
mod tunnels;
