//! What this kernel and process can do with each option, found by setting each on a socket made for that.

use std::io;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::applied::{ApplyError, Effective, effective};
use super::value::{Form, OptValue, Setting};
use super::{Family, Kind, Opt, Os, Target, os};
use crate::fd::AsFd;

/// What was found of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptProbe {
    /// Which one.
    pub opt: Opt,
    /// What was tried.
    pub tried: Setting,
    /// On what.
    pub target: Target,
    /// What came of it.
    pub state: OptState,
}

/// Whether an option works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptState {
    /// The kernel took it.
    Works(Effective),
    /// The kernel refused it.
    Refused(ApplyError),
    /// This operating system does not have it.
    Absent,
    /// No socket could be made to try it on: the errno.
    NoSocket(i32),
}

/// Tries every option with a harmless value, each on a fresh socket that is closed again. Some 250 system calls.
pub fn probe() -> Vec<OptProbe> {
    Opt::ALL.iter().map(|opt| probe_one(*opt)).collect()
}

fn probe_one(opt: Opt) -> OptProbe {
    let tried = sample(opt);
    let target = SCRATCH.iter().copied().find(|target| opt.stage_on(*target).is_some()).unwrap_or(SCRATCH[0]);
    let state = match scratch(opt, target) {
        _ if !opt.row().exists_in(Os::HERE) => OptState::Absent,
        Err(error) => OptState::NoSocket(error.raw_os_error().unwrap_or(0)),
        Ok(socket) => {
            let fd = socket.as_fd();
            match os::set(fd, opt, &tried).and_then(|()| effective(fd, opt, &tried)) {
                Ok(effective) => OptState::Works(effective),
                Err(error) => OptState::Refused(ApplyError::new(opt, &tried, target, &error)),
            }
        }
    };
    OptProbe { opt, tried, target, state }
}

/// Sorts of sockets of which every option has at least one.
const SCRATCH: [Target; 5] = [
    Target::tcp_listener(Family::V4),
    Target::tcp_dialled(Family::V4),
    Target::udp(Family::V4),
    Target::tcp_listener(Family::V6),
    Target::udp(Family::V6),
];

fn scratch(opt: Opt, target: Target) -> io::Result<Socket> {
    let domain = if target.family == Family::V6 { Domain::IPV6 } else { Domain::IPV4 };
    let kind = if target.kind == Kind::Datagram { Type::DGRAM } else { Type::STREAM };
    os::socket_with(domain, kind, opt)
}

/// A value that every system takes which has the option.
pub(super) fn sample(opt: Opt) -> Setting {
    let row = opt.row();
    match (opt, row.form) {
        (Opt::SoBindtodevice | Opt::IpUnicastIf | Opt::Ipv6UnicastIf, _) => Setting::from("lo"),
        (Opt::TcpCongestion, _) => Setting::from("reno"),
        (Opt::TcpMaxseg, _) => Setting::from(1200),
        (Opt::UdpSegment, _) => Setting::from(1200),
        (Opt::IpTos | Opt::Ipv6Tclass, _) => Setting::from(0xb8),
        (Opt::SoRcvbuf | Opt::SoRcvbufforce | Opt::SoSndbuf | Opt::SoSndbufforce, _) => Setting::from(65_536),
        (Opt::TcpWindowClamp | Opt::TcpNotsentLowat, _) => Setting::from(65_536),
        (Opt::SoRcvtimeo | Opt::SoSndtimeo, _) => Setting::from(Duration::from_secs(1)),
        // What the kernel counts in whole: 3 s are two retransmissions.
        (Opt::TcpDeferAccept, _) => Setting::from(Duration::from_secs(3)),
        (Opt::IpMtuDiscover | Opt::Ipv6MtuDiscover, _) => Setting::from("do"),
        (_, Form::Flag) => Setting::from(true),
        (_, Form::Int { min, .. }) => Setting::from(min.max(1)),
        (_, Form::Time { min, .. }) => {
            Setting::from(row.unit.time() * u32::try_from(min.max(1)).unwrap_or(1))
        }
        (_, Form::Ports) => Setting::Value(OptValue::Ports { low: 40_000, high: 50_000 }),
        // Names are above.
        (_, Form::Cpus { .. } | Form::Name { .. } | Form::Choice(_)) => {
            Setting::Value(OptValue::Cpus(vec![0]))
        }
    }
}
