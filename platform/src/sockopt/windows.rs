//! The options' numbers on Windows, and their forms in its setsockopt and getsockopt. Microsoft Learn, "Socket Options".

use std::io;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use windows_sys::Win32::Foundation::ERROR_DEV_NOT_EXIST;
use windows_sys::Win32::Networking::WinSock::{self, LINGER};

use super::table::{Code, Off, Opt, ReadBack};
use super::value::{Form, OptValue, Setting, whole};
use super::{Os, Reason};
use crate::errno;
use crate::fd::{AsRawFd, BorrowedFd};

pub(super) const HERE: Os = Os::Windows;

/// Sets one option. One system call.
///
/// # Errors
/// The system's; `EINVAL` for a value that [`Form::check`] refuses, `ENOPROTOOPT` for an option that Windows lacks.
pub fn set(fd: BorrowedFd<'_>, opt: Opt, setting: &Setting) -> io::Result<()> {
    let row = opt.row();
    if let Setting::Value(value) = setting {
        row.form.check(row.unit, value).map_err(|_| invalid())?;
    }
    if is_ours(opt) {
        return Ok(());
    }
    let code = code_of(opt)?;
    if opt == Opt::SoLinger {
        return put(fd, code, &linger(setting)?);
    }
    let number = match (setting, row.off) {
        (Setting::Off, Off::Value(number) | Off::System(number)) => number,
        (Setting::Off, Off::Never | Off::Empty) => return Err(invalid()),
        (Setting::Value(value), _) => match value {
            OptValue::Flag(on) => i32::from(*on),
            OptValue::Int(number) => i32::try_from(*number).map_err(|_| invalid())?,
            OptValue::Time(time) => {
                let count = whole(*time, row.unit).map_err(|_| invalid())?;
                i32::try_from(count).map_err(|_| invalid())?
            }
            OptValue::Name(_) | OptValue::Ports { .. } | OptValue::Cpus(_) => return Err(invalid()),
        },
    };
    let number = match opt {
        // A switch, and no length of a queue.
        Opt::TcpFastopen => number.min(1),
        // A switch here; Windows asks how many bytes may come joined.
        Opt::UdpGro => number * MAX_JOINED_BYTES,
        _ => number,
    };
    match (put(fd, code, &number), marks_alone(opt)) {
        // Before there was an option for the whole field, there was one for its congestion mark.
        (Err(_), Some(code)) => put(fd, code, &number),
        (result, _) => result,
    }
}

/// Reads one option. One system call.
///
/// # Errors
/// The system's; `ENOPROTOOPT` for an option that Windows lacks.
pub fn get(fd: BorrowedFd<'_>, opt: Opt) -> io::Result<Setting> {
    let row = opt.row();
    let code = code_of(opt)?;
    if opt == Opt::SoLinger {
        let mut linger = LINGER { l_onoff: 0, l_linger: 0 };
        take(fd, code, &mut linger)?;
        let time = Duration::from_secs(linger.l_linger.into());
        return Ok(if linger.l_onoff == 0 { Setting::Off } else { Setting::from(time) });
    }
    // Some are a byte, the rest of the number stays 0.
    let mut number = 0i32;
    match (take(fd, code, &mut number), marks_alone(opt)) {
        (Err(_), Some(code)) => take(fd, code, &mut number)?,
        (result, _) => result?,
    }
    Ok(match row.form {
        _ if matches!(row.off, Off::Value(off) if off == number) => Setting::Off,
        Form::Flag => Setting::from(number != 0),
        Form::Time { .. } => {
            let count = u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            Setting::from(row.unit.time() * count)
        }
        Form::Int { .. } | Form::Choice(_) | Form::Ports | Form::Name { .. } | Form::Cpus { .. } => {
            Setting::from(i64::from(number))
        }
    })
}

/// Timeouts are kept by the timers of whoever reads and writes ([`super::OptSet::receive_timeout`]). Windows is not told: its
/// own are for calls that block, and leave a socket in an undefined state. Microsoft Learn, "SOL_SOCKET Socket Options".
fn is_ours(opt: Opt) -> bool {
    matches!(opt, Opt::SoRcvtimeo | Opt::SoSndtimeo)
}

/// What tells the congestion mark, but not the rest of the field that it is in. Microsoft Learn, `WSASetRecvIPEcn`.
fn marks_alone(opt: Opt) -> Option<Code> {
    match opt {
        Opt::IpRecvtos => code(WinSock::IPPROTO_IP, WinSock::IP_RECVECN),
        Opt::Ipv6Recvtclass => code(WinSock::IPPROTO_IPV6, WinSock::IPV6_RECVECN),
        _ => None,
    }
}

/// What reading an option gives here: buffers are as large as asked for, and what only our timers know cannot be read.
pub(super) fn read_back(opt: Opt) -> ReadBack {
    match opt.row().read_back {
        _ if is_ours(opt) => ReadBack::WriteOnly,
        ReadBack::Doubled => ReadBack::Equal,
        other => other,
    }
}

/// `LINGER` has 16 bits of seconds.
fn linger(setting: &Setting) -> io::Result<LINGER> {
    match setting {
        Setting::Off => Ok(LINGER { l_onoff: 0, l_linger: 0 }),
        Setting::Value(OptValue::Time(time)) => {
            let seconds = u16::try_from(time.as_secs()).map_err(|_| invalid())?;
            Ok(LINGER { l_onoff: 1, l_linger: seconds })
        }
        Setting::Value(_) => Err(invalid()),
    }
}

fn put<T>(fd: BorrowedFd<'_>, code: Code, value: &T) -> io::Result<()> {
    let (fd, len) = (fd.as_raw_fd() as usize, size_of::<T>() as i32);
    // SAFETY: the call reads `len` bytes of `value`.
    check(unsafe { WinSock::setsockopt(fd, code.level, code.number, (&raw const *value).cast(), len) })
}

/// `T` is made of integers, so whatever is written to it is a value.
fn take<T: Copy>(fd: BorrowedFd<'_>, code: Code, value: &mut T) -> io::Result<()> {
    let (fd, mut len) = (fd.as_raw_fd() as usize, size_of::<T>() as i32);
    // SAFETY: the call writes at most `len` bytes to `value`.
    check(unsafe { WinSock::getsockopt(fd, code.level, code.number, (&raw mut *value).cast(), &raw mut len) })
}

fn code_of(opt: Opt) -> io::Result<Code> {
    opt.row().code.ok_or(io::Error::from_raw_os_error(errno::ENOPROTOOPT))
}

/// A socket to try an option on.
pub(super) fn socket_with(domain: Domain, kind: Type, _opt: Opt) -> io::Result<Socket> {
    Socket::new(domain, kind, None)
}

/// Nothing switches it off.
pub(super) fn fastopen_allowed() -> bool {
    true
}

/// What a refusal means for an option.
pub(super) fn reason(_opt: Opt, errno: i32) -> Reason {
    const NO_DEVICE: i32 = ERROR_DEV_NOT_EXIST.cast_signed();
    match errno {
        NO_DEVICE => Reason::NoInterface,
        WinSock::WSAENOPROTOOPT => Reason::Unknown,
        _ => Reason::Other,
    }
}

/// The name of what setsockopt answers with; `error` for what it should not.
pub(super) fn errno_name(errno: i32) -> &'static str {
    match errno {
        WinSock::WSAEACCES => "WSAEACCES",
        WinSock::WSAEADDRINUSE => "WSAEADDRINUSE",
        WinSock::WSAEADDRNOTAVAIL => "WSAEADDRNOTAVAIL",
        WinSock::WSAEAFNOSUPPORT => "WSAEAFNOSUPPORT",
        WinSock::WSAEFAULT => "WSAEFAULT",
        WinSock::WSAEINVAL => "WSAEINVAL",
        WinSock::WSAEMFILE => "WSAEMFILE",
        WinSock::WSAENOBUFS => "WSAENOBUFS",
        WinSock::WSAENOPROTOOPT => "WSAENOPROTOOPT",
        WinSock::WSAENOTCONN => "WSAENOTCONN",
        WinSock::WSAENOTSOCK => "WSAENOTSOCK",
        WinSock::WSAEOPNOTSUPP => "WSAEOPNOTSUPP",
        WinSock::WSAEPROTONOSUPPORT => "WSAEPROTONOSUPPORT",
        _ => "error",
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == WinSock::SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(errno::EINVAL)
}

/// The longest UDP payload that IPv6 has: what URO may join at most. Microsoft Learn, "IPPROTO_UDP Socket Options",
/// `UDP_RECV_MAX_COALESCED_SIZE`.
const MAX_JOINED_BYTES: i32 = 65_527;

const fn code(level: i32, number: i32) -> Option<Code> {
    Some(Code { level, number })
}

// In the order of the table; what Windows lacks is `None`, and so are SO_RCVTIMEO and SO_SNDTIMEO, which are ours. Microsoft
// Learn, "SOL_SOCKET Socket Options", and likewise IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP and IPPROTO_UDP.
pub(super) const IPPROTO_MPTCP: Option<Code> = None;
pub(super) const SO_BINDTODEVICE: Option<Code> = None;
pub(super) const SO_BINDTOIFINDEX: Option<Code> = None;
pub(super) const SO_DEBUG: Option<Code> = code(WinSock::SOL_SOCKET, WinSock::SO_DEBUG);
pub(super) const SO_INCOMING_CPU: Option<Code> = None;
pub(super) const SO_MARK: Option<Code> = None;
pub(super) const SO_REUSEADDR: Option<Code> = code(WinSock::SOL_SOCKET, WinSock::SO_REUSEADDR);
pub(super) const SO_REUSEPORT: Option<Code> = None;
pub(super) const SO_RCVBUF: Option<Code> = code(WinSock::SOL_SOCKET, WinSock::SO_RCVBUF);
pub(super) const SO_RCVBUFFORCE: Option<Code> = None;
pub(super) const SO_SNDBUF: Option<Code> = code(WinSock::SOL_SOCKET, WinSock::SO_SNDBUF);
pub(super) const SO_SNDBUFFORCE: Option<Code> = None;
pub(super) const SO_PRIORITY: Option<Code> = None;
pub(super) const SO_BUSY_POLL: Option<Code> = None;
pub(super) const SO_PREFER_BUSY_POLL: Option<Code> = None;
pub(super) const SO_TXREHASH: Option<Code> = None;
pub(super) const SO_RCVTIMEO: Option<Code> = None;
pub(super) const SO_SNDTIMEO: Option<Code> = None;
pub(super) const SO_KEEPALIVE: Option<Code> = code(WinSock::SOL_SOCKET, WinSock::SO_KEEPALIVE);
pub(super) const SO_LINGER: Option<Code> = code(WinSock::SOL_SOCKET, WinSock::SO_LINGER);
pub(super) const SO_ATTACH_REUSEPORT_CBPF: Option<Code> = None;
pub(super) const IP_BIND_ADDRESS_NO_PORT: Option<Code> = None;
pub(super) const IP_FREEBIND: Option<Code> = None;
pub(super) const IP_LOCAL_PORT_RANGE: Option<Code> = None;
pub(super) const IP_TRANSPARENT: Option<Code> = None;
pub(super) const IP_TTL: Option<Code> = code(WinSock::IPPROTO_IP, WinSock::IP_TTL);
pub(super) const IP_TOS: Option<Code> = None;
pub(super) const IP_MTU_DISCOVER: Option<Code> = None;
pub(super) const IP_UNICAST_IF: Option<Code> = None;
pub(super) const IP_PKTINFO: Option<Code> = code(WinSock::IPPROTO_IP, WinSock::IP_PKTINFO);
pub(super) const IP_RECVORIGDSTADDR: Option<Code> = None;
pub(super) const IP_RECVTOS: Option<Code> = code(WinSock::IPPROTO_IP, WinSock::IP_RECVTOS);
pub(super) const IPV6_V6ONLY: Option<Code> = code(WinSock::IPPROTO_IPV6, WinSock::IPV6_V6ONLY);
pub(super) const IPV6_UNICAST_HOPS: Option<Code> = code(WinSock::IPPROTO_IPV6, WinSock::IPV6_UNICAST_HOPS);
pub(super) const IPV6_FREEBIND: Option<Code> = None;
pub(super) const IPV6_TRANSPARENT: Option<Code> = None;
pub(super) const IPV6_TCLASS: Option<Code> = None;
pub(super) const IPV6_MTU_DISCOVER: Option<Code> = None;
pub(super) const IPV6_UNICAST_IF: Option<Code> = None;
pub(super) const IPV6_RECVPKTINFO: Option<Code> = code(WinSock::IPPROTO_IPV6, WinSock::IPV6_PKTINFO);
pub(super) const IPV6_RECVORIGDSTADDR: Option<Code> = None;
pub(super) const IPV6_RECVTCLASS: Option<Code> = code(WinSock::IPPROTO_IPV6, WinSock::IPV6_RECVTCLASS);
pub(super) const TCP_CORK: Option<Code> = None;
pub(super) const TCP_DEFER_ACCEPT: Option<Code> = None;
pub(super) const TCP_KEEPCNT: Option<Code> = code(WinSock::IPPROTO_TCP, WinSock::TCP_KEEPCNT);
pub(super) const TCP_KEEPIDLE: Option<Code> = code(WinSock::IPPROTO_TCP, WinSock::TCP_KEEPIDLE);
pub(super) const TCP_KEEPINTVL: Option<Code> = code(WinSock::IPPROTO_TCP, WinSock::TCP_KEEPINTVL);
pub(super) const TCP_LINGER2: Option<Code> = None;
pub(super) const TCP_MAXSEG: Option<Code> = None;
pub(super) const TCP_NODELAY: Option<Code> = code(WinSock::IPPROTO_TCP, WinSock::TCP_NODELAY);
pub(super) const TCP_QUICKACK: Option<Code> = None;
pub(super) const TCP_SYNCNT: Option<Code> = None;
pub(super) const TCP_USER_TIMEOUT: Option<Code> = code(WinSock::IPPROTO_TCP, WinSock::TCP_MAXRTMS);
pub(super) const TCP_WINDOW_CLAMP: Option<Code> = None;
pub(super) const TCP_FASTOPEN: Option<Code> = code(WinSock::IPPROTO_TCP, WinSock::TCP_FASTOPEN);
pub(super) const TCP_FASTOPEN_CONNECT: Option<Code> = None;
pub(super) const TCP_CONGESTION: Option<Code> = None;
pub(super) const TCP_NOTSENT_LOWAT: Option<Code> = None;
pub(super) const UDP_CORK: Option<Code> = None;
pub(super) const UDP_SEGMENT: Option<Code> = code(WinSock::IPPROTO_UDP, WinSock::UDP_SEND_MSG_SIZE);
pub(super) const UDP_GRO: Option<Code> = code(WinSock::IPPROTO_UDP, WinSock::UDP_RECV_MAX_COALESCED_SIZE);
