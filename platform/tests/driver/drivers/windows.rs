//! The driver of Windows.

use std::sync::Once;

use ringport_platform::driver::IocpDriver;

use super::{Candidate, Open, skipped};

/// As it is, and with a packet for every call, as beside a provider of sockets that are no handles of the system.
pub(crate) fn drivers() -> Vec<Candidate> {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| NOT_SHOWN.iter().for_each(skipped));
    let plain: Open = Box::new(|pool, stats| Box::new(IocpDriver::open(pool, stats).expect("a port")));
    let packets: Open =
        Box::new(|pool, stats| Box::new(IocpDriver::open_with_packets(pool, stats).expect("a port")));
    vec![
        Candidate { name: "iocp".to_owned(), open: plain, exact_credit: true },
        Candidate { name: "iocp with a packet for every call".to_owned(), open: packets, exact_credit: true },
    ]
}

/// What Wine answers otherwise than Windows does, or what it lacks, so that no case can show it.
const NOT_SHOWN: [&str; 4] = [
    "Wine knows an accepted or connected socket without SO_UPDATE_ACCEPT_CONTEXT and SO_UPDATE_CONNECT_CONTEXT",
    "Wine refuses a connect at once, where Windows tries for two seconds",
    "Wine has no other provider of sockets than its own: one that is not IFS is stood for by packets for every call",
    "Wine's process has no limit on handles that could be lowered: a lack of them is forced by `Faulty`",
];
