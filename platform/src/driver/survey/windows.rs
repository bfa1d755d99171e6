//! The completion port, and what of Winsock it can use.

use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use windows_sys::Win32::Networking::WinSock::{self, setsockopt};

use super::{DriverReport, Feature, Offer};
use crate::buf::{Pool, PoolSpec};
use crate::driver::iocp;
use crate::driver::{DriverKind, IocpDriver};
use crate::fd::AsRawFd;
use crate::op::Errno;
use crate::socket::extension;
use crate::stats::CoreStats;

pub(super) const KINDS: &[DriverKind] = &[DriverKind::Iocp];

pub(super) fn survey() -> Vec<DriverReport> {
    let opened = IocpDriver::open(Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
    let offer = opened.map(|_| offer()).map_err(|error| error.to_string());
    vec![DriverReport { kind: DriverKind::Iocp, offer }]
}

fn offer() -> Offer {
    let stream = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
    let packet = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
    let packet6 = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP));
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None);
    let asked = |socket: &std::io::Result<Socket>, ask: &dyn Fn(&Socket) -> Result<(), String>| match socket {
        Ok(socket) => ask(socket),
        Err(error) => Err(error.to_string()),
    };
    let takes = |socket: &std::io::Result<Socket>, level, number, value: i32| {
        asked(socket, &|socket| try_option(socket, level, number, value).map_err(|errno| errno.to_string()))
    };
    let named = |found: Result<(), Errno>| found.map_err(|errno| errno.to_string());
    let skips = if iocp::may_skip_packets() {
        Ok(())
    } else {
        Err("a provider's sockets are no handles of the system: every call takes a packet".to_owned())
    };
    use WinSock::{
        IP_PKTINFO, IP_RECVECN, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, IPV6_RECVECN,
        TCP_KEEPCNT, TCP_MAXRTMS, UDP_RECV_MAX_COALESCED_SIZE, UDP_SEND_MSG_SIZE,
    };
    let mut features = vec![
        feature(
            "AcceptEx",
            asked(&stream, &|socket| named(extension::accept_ex(socket.as_raw_fd()).map(drop))),
        ),
        feature(
            "ConnectEx",
            asked(&stream, &|socket| named(extension::connect_ex(socket.as_raw_fd()).map(drop))),
        ),
        feature(
            "WSARecvMsg",
            asked(&packet, &|socket| named(extension::recv_msg(socket.as_raw_fd()).map(drop))),
        ),
        feature("skip packets on success", skips),
        feature("keep-alive of a socket", takes(&stream, IPPROTO_TCP, TCP_KEEPCNT, 5)),
        feature("TCP_MAXRTMS", takes(&stream, IPPROTO_TCP, TCP_MAXRTMS, 20_000)),
        feature("packet info", takes(&packet, IPPROTO_IP, IP_PKTINFO, 1)),
        feature("ECN, IPv4", takes(&packet, IPPROTO_IP, IP_RECVECN, 1)),
        feature("ECN, IPv6", takes(&packet6, IPPROTO_IPV6, IPV6_RECVECN, 1)),
        feature("USO", takes(&packet, IPPROTO_UDP, UDP_SEND_MSG_SIZE, 1_200)),
        feature("URO", takes(&packet, IPPROTO_UDP, UDP_RECV_MAX_COALESCED_SIZE, 65_507)),
    ];
    let there = unix.map(drop).map_err(|error| error.to_string());
    let note = there.as_ref().err().cloned().unwrap_or_else(|| "not used".to_owned());
    features.push(Feature { name: "AF_UNIX", available: there.is_ok(), enabled: false, note });
    Offer { features, ..Offer::default() }
}

fn feature(name: &'static str, found: Result<(), String>) -> Feature {
    let is_there = found.is_ok();
    Feature { name, available: is_there, enabled: is_there, note: found.err().unwrap_or_default() }
}

fn try_option(socket: &Socket, level: i32, number: i32, value: i32) -> Result<(), Errno> {
    let (fd, len) = (socket.as_raw_fd() as usize, size_of::<i32>() as i32);
    // SAFETY: the call reads `value`.
    let result = unsafe { setsockopt(fd, level, number, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(Errno::last()) }
}
