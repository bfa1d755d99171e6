//! The options' numbers on Linux, and their forms in its setsockopt(2) and getsockopt(2).

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::table::{Code, Off, Opt, ReadBack};
use super::value::{Form, OptValue, Setting, whole};
use super::{Os, Reason};

pub(super) const HERE: Os = Os::Linux;

/// What reading an option gives: the table is Linux's.
pub(super) fn read_back(opt: Opt) -> ReadBack {
    opt.row().read_back
}

/// Sets one option. One system call, one more where an interface is named.
///
/// [`Opt::IpprotoMptcp`] is an argument of socket(2): setting it here only looks whether the socket is of it.
///
/// # Errors
/// The kernel's; `ENODEV` for an interface that is not there, `EINVAL` for a value that [`Form::check`] refuses, and
/// `EPROTONOSUPPORT` for a socket of another protocol.
pub fn set(fd: BorrowedFd<'_>, opt: Opt, setting: &Setting) -> io::Result<()> {
    let row = opt.row();
    if let Setting::Value(value) = setting {
        fits(row.form.check(row.unit, value))?;
    }
    let code = code_of(opt)?;
    match encode(opt, setting)? {
        Raw::Int(number) => put(fd, code, &number),
        Raw::Linger(linger) => put(fd, code, &linger),
        Raw::Time(time) => put(fd, code, &time),
        // The kernel reads the name's length with it.
        Raw::Name(name) => put_bytes(fd, code, name.as_bytes()),
        Raw::Steering(program) => attach(fd, code, &program),
        Raw::Protocol(wanted) => {
            let is = protocol(fd)? == libc::IPPROTO_MPTCP;
            if is == wanted { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT)) }
        }
    }
}

/// Reads one option. One system call, one more where an interface is named.
///
/// What the kernel holds as "off" ([`super::Off`]) is given as [`Setting::Off`].
///
/// # Errors
/// The kernel's; `ENOPROTOOPT` for what can be set only.
pub fn get(fd: BorrowedFd<'_>, opt: Opt) -> io::Result<Setting> {
    let code = code_of(opt)?;
    // Setting by force has no getter of its own.
    let code = match opt {
        Opt::SoRcvbufforce => Code { number: libc::SO_RCVBUF, ..code },
        Opt::SoSndbufforce => Code { number: libc::SO_SNDBUF, ..code },
        _ => code,
    };
    match opt {
        Opt::IpprotoMptcp => Ok(Setting::from(protocol(fd)? == libc::IPPROTO_MPTCP)),
        Opt::SoLinger => {
            let linger: libc::linger = take(fd, code)?;
            let seconds = Duration::from_secs(u64::from(linger.l_linger.cast_unsigned()));
            Ok(if linger.l_onoff == 0 { Setting::Off } else { Setting::from(seconds) })
        }
        Opt::SoRcvtimeo | Opt::SoSndtimeo => {
            let time: libc::timeval = take(fd, code)?;
            let time = Duration::new(time.tv_sec.cast_unsigned(), 0)
                + Duration::from_micros(time.tv_usec.cast_unsigned());
            Ok(if time.is_zero() { Setting::Off } else { Setting::from(time) })
        }
        Opt::SoBindtodevice | Opt::TcpCongestion => {
            let name = take_name(fd, code)?;
            Ok(if name.is_empty() { Setting::Off } else { Setting::from(name.as_str()) })
        }
        Opt::IpUnicastIf | Opt::Ipv6UnicastIf => {
            let index: u32 = take(fd, code)?;
            match u32::from_be(index) {
                0 => Ok(Setting::Off),
                index => Ok(Setting::from(interface_name(index)?.as_str())),
            }
        }
        Opt::SoAttachReuseportCbpf => Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT)),
        _ => decode(opt, take(fd, code)?),
    }
}

/// What is not a structure or a name is an `int`.
fn decode(opt: Opt, number: i32) -> io::Result<Setting> {
    let row = opt.row();
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    Ok(match row.form {
        _ if matches!(row.off, Off::Value(off) if off == number) => Setting::Off,
        Form::Flag => Setting::from(number != 0),
        // The only one that fills all 32 bits.
        Form::Int { .. } if opt == Opt::SoMark => Setting::from(i64::from(number.cast_unsigned())),
        Form::Time { .. } => {
            let count = u32::try_from(number).map_err(|_| strange())?;
            Setting::from(row.unit.time() * count)
        }
        Form::Choice(names) => {
            let name = names.iter().find(|(_, value)| *value == number);
            Setting::from(name.ok_or_else(strange)?.0)
        }
        Form::Ports => {
            let [low0, low1, high0, high1] = number.cast_unsigned().to_le_bytes();
            let (low, high) = (u16::from_le_bytes([low0, low1]), u16::from_le_bytes([high0, high1]));
            Setting::Value(OptValue::Ports { low, high })
        }
        Form::Int { .. } | Form::Name { .. } | Form::Cpus { .. } => Setting::from(i64::from(number)),
    })
}

/// A setting as setsockopt(2) takes it.
enum Raw {
    Int(i32),
    Linger(libc::linger),
    Time(libc::timeval),
    Name(CString),
    Steering(Vec<libc::sock_filter>),
    Protocol(bool),
}

fn encode(opt: Opt, setting: &Setting) -> io::Result<Raw> {
    let row = opt.row();
    let value = match (setting, row.off) {
        (Setting::Value(value), _) => value,
        (Setting::Off, _) if opt == Opt::IpprotoMptcp => return Ok(Raw::Protocol(false)),
        (Setting::Off, Off::Value(number) | Off::System(number)) => return Ok(Raw::Int(number)),
        (Setting::Off, Off::Empty) => {
            return Ok(match opt {
                Opt::SoLinger => Raw::Linger(libc::linger { l_onoff: 0, l_linger: 0 }),
                Opt::SoBindtodevice => Raw::Name(CString::default()),
                _ => Raw::Time(libc::timeval { tv_sec: 0, tv_usec: 0 }),
            });
        }
        (Setting::Off, Off::Never) => return Err(invalid()),
    };
    Ok(match value {
        OptValue::Flag(on) if opt == Opt::IpprotoMptcp => Raw::Protocol(*on),
        OptValue::Flag(on) => Raw::Int(i32::from(*on)),
        OptValue::Int(number) if opt == Opt::SoBindtoifindex => {
            // Linux takes an index that no interface has, and the socket then hears nothing.
            let index = fits(u32::try_from(*number))?;
            interface_name(index)?;
            Raw::Int(index.cast_signed())
        }
        // A mark fills all 32 bits; the others are below half of them.
        OptValue::Int(number) => Raw::Int(fits(u32::try_from(*number))?.cast_signed()),
        OptValue::Time(time) => match opt {
            Opt::SoLinger => {
                let l_linger = fits(i32::try_from(time.as_secs()))?;
                Raw::Linger(libc::linger { l_onoff: 1, l_linger })
            }
            Opt::SoRcvtimeo | Opt::SoSndtimeo => Raw::Time(libc::timeval {
                tv_sec: fits(time.as_secs().try_into())?,
                tv_usec: time.subsec_micros().into(),
            }),
            _ => {
                let count = fits(whole(*time, row.unit))?;
                Raw::Int(fits(i32::try_from(count))?)
            }
        },
        OptValue::Name(name) => match row.form {
            Form::Choice(names) => {
                let known = names.iter().find(|(known, _)| known == name);
                Raw::Int(known.ok_or_else(invalid)?.1)
            }
            _ if matches!(opt, Opt::IpUnicastIf | Opt::Ipv6UnicastIf) => {
                // ip(7): the index in network order.
                Raw::Int(interface_index(name)?.to_be().cast_signed())
            }
            _ => Raw::Name(fits(CString::new(name.as_str()))?),
        },
        // The kernel reads one `u32` of its own order: the upper port in the upper half.
        OptValue::Ports { low, high } => Raw::Int((u32::from(*high) << 16 | u32::from(*low)).cast_signed()),
        OptValue::Cpus(cpus) => Raw::Steering(steering(cpus)),
    })
}

/// A classic packet filter that gives the place of the receiving core in `cpus`, and for a core that is not in it the
/// core's number modulo the length. bpf(4); `SKF_AD_CPU` is the core that runs it.
fn steering(cpus: &[u32]) -> Vec<libc::sock_filter> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut program = Vec::with_capacity(2 * cpus.len() + 3);
    program.push(step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, cpu));
    for (place, cpu) in (0..).zip(cpus) {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *cpu));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, place));
    }
    let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX).max(1);
    program.push(step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, count));
    program.push(step(libc::BPF_RET | libc::BPF_A, 0, 0, 0));
    program
}

fn attach(fd: BorrowedFd<'_>, code: Code, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = fits(u16::try_from(program.len()))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // The kernel copies what `filter` points at during the call and writes nothing there.
    put(fd, code, &program)
}

fn put<T>(fd: BorrowedFd<'_>, code: Code, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `value`, and of `sock_fprog` also the instructions that the
    // caller's slice holds, during the call only.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), code.level, code.number, (&raw const *value).cast(), len_of::<T>())
    })
}

fn put_bytes(fd: BorrowedFd<'_>, code: Code, bytes: &[u8]) -> io::Result<()> {
    let len = fits(libc::socklen_t::try_from(bytes.len()))?;
    // SAFETY: the kernel reads `len` bytes of `bytes`, during the call only.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), code.level, code.number, bytes.as_ptr().cast(), len) })
}

fn take<T: Plain>(fd: BorrowedFd<'_>, code: Code) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = len_of::<T>();
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`, during the call only.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), code.level, code.number, value.as_mut_ptr().cast(), &raw mut len)
    })?;
    // SAFETY: every byte was zeroed or written, and any bytes are a value of a `Plain` type.
    Ok(unsafe { value.assume_init() })
}

/// `ENOPROTOOPT` for an option that this system does not have, as the kernel itself would say.
fn code_of(opt: Opt) -> io::Result<Code> {
    opt.row().code.ok_or(io::Error::from_raw_os_error(libc::ENOPROTOOPT))
}

/// Types of which any bytes are a value.
///
/// # Safety
/// They are, padding included.
unsafe trait Plain {}
// SAFETY: an integer.
unsafe impl Plain for i32 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: two integers.
unsafe impl Plain for libc::linger {}
// SAFETY: two integers.
unsafe impl Plain for libc::timeval {}

fn take_name(fd: BorrowedFd<'_>, code: Code) -> io::Result<String> {
    // Both kernel names end within 16 bytes: `IFNAMSIZ`, `TCP_CA_NAME_MAX`.
    let mut name = [0u8; 16];
    let mut len = fits(libc::socklen_t::try_from(name.len()))?;
    // SAFETY: the kernel writes at most `len` bytes, the size of `name`, during the call only.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), code.level, code.number, name.as_mut_ptr().cast(), &raw mut len)
    })?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn protocol(fd: BorrowedFd<'_>) -> io::Result<i32> {
    take(fd, Code { level: libc::SOL_SOCKET, number: libc::SO_PROTOCOL })
}

/// `ENODEV` where no interface has the name.
fn interface_index(name: &str) -> io::Result<u32> {
    let name = fits(CString::new(name))?;
    // SAFETY: `name` ends with NUL and lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        index => Ok(index),
    }
}

/// `ENODEV` where no interface has the index.
fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the `IF_NAMESIZE` bytes that the call may write.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// A socket to try an option on: of the protocol, and with the other option, that it needs.
pub(super) fn socket_with(domain: Domain, kind: Type, opt: Opt) -> io::Result<Socket> {
    let protocol = (opt == Opt::IpprotoMptcp).then_some(Protocol::MPTCP);
    let socket = Socket::new(domain, kind.cloexec(), protocol)?;
    if opt == Opt::SoAttachReuseportCbpf {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

/// Whether listeners may take data with the first segment: without this the kernel takes `TCP_FASTOPEN` and does nothing.
pub(super) fn fastopen_allowed() -> bool {
    fastopen_switch().is_none_or(|switch| switch & 2 != 0)
}

fn fastopen_switch() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").ok()?.trim().parse().ok()
}

/// What a refusal means for an option.
pub(super) fn reason(opt: Opt, errno: i32) -> Reason {
    let capability = opt.row().privilege.capability;
    match (errno, capability) {
        (libc::EPERM | libc::EACCES, Some(capability)) => Reason::Privilege(capability),
        (libc::ENODEV, _) => Reason::NoInterface,
        // The interface vanished between its name and its use.
        (libc::EADDRNOTAVAIL, _) if matches!(opt, Opt::IpUnicastIf | Opt::Ipv6UnicastIf) => {
            Reason::NoInterface
        }
        (libc::EOPNOTSUPP, _) if opt == Opt::TcpFastopenConnect => {
            Reason::SwitchedOff("bit 1 of net.ipv4.tcp_fastopen")
        }
        (libc::ENOPROTOOPT, _) if opt == Opt::IpprotoMptcp => Reason::SwitchedOff("net.mptcp.enabled"),
        (libc::ENOPROTOOPT, _) => Reason::Unknown,
        (libc::ENOENT, _) if opt == Opt::TcpCongestion => Reason::Unknown,
        (libc::EPROTONOSUPPORT | libc::EINVAL, _) if opt == Opt::IpprotoMptcp => Reason::Unknown,
        _ => Reason::Other,
    }
}

/// The name of what setsockopt(2) and socket(2) answer with; `errno` for what they should not.
pub(super) fn errno_name(errno: i32) -> &'static str {
    ERRNO_NAMES.iter().find(|(known, _)| *known == errno).map_or("errno", |(_, name)| name)
}

fn len_of<T>() -> libc::socklen_t {
    // Options are a few bytes long.
    size_of::<T>() as libc::socklen_t
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `EINVAL` for a value that its form should have refused.
fn fits<T, E>(converted: Result<T, E>) -> io::Result<T> {
    converted.map_err(|_| invalid())
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

const ERRNO_NAMES: &[(i32, &str)] = &[
    (libc::EACCES, "EACCES"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    (libc::EBADF, "EBADF"),
    (libc::EBUSY, "EBUSY"),
    (libc::EDOM, "EDOM"),
    (libc::EINVAL, "EINVAL"),
    (libc::EISCONN, "EISCONN"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ENOTSOCK, "ENOTSOCK"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EPERM, "EPERM"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
];

// In the order of the table. Two numbers are not in the libc crate: ip(7), udp(7).
/// The protocol, for socket(2); read back as `SO_PROTOCOL`.
pub(super) const IPPROTO_MPTCP: Option<Code> = Some(Code { level: libc::IPPROTO_MPTCP, number: 0 });
pub(super) const SO_BINDTODEVICE: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_BINDTODEVICE });
pub(super) const SO_BINDTOIFINDEX: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_BINDTOIFINDEX });
pub(super) const SO_DEBUG: Option<Code> = Some(Code { level: libc::SOL_SOCKET, number: libc::SO_DEBUG });
pub(super) const SO_INCOMING_CPU: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_INCOMING_CPU });
pub(super) const SO_MARK: Option<Code> = Some(Code { level: libc::SOL_SOCKET, number: libc::SO_MARK });
pub(super) const SO_REUSEADDR: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_REUSEADDR });
pub(super) const SO_REUSEPORT: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_REUSEPORT });
pub(super) const SO_RCVBUF: Option<Code> = Some(Code { level: libc::SOL_SOCKET, number: libc::SO_RCVBUF });
pub(super) const SO_RCVBUFFORCE: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_RCVBUFFORCE });
pub(super) const SO_SNDBUF: Option<Code> = Some(Code { level: libc::SOL_SOCKET, number: libc::SO_SNDBUF });
pub(super) const SO_SNDBUFFORCE: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_SNDBUFFORCE });
pub(super) const SO_PRIORITY: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_PRIORITY });
pub(super) const SO_BUSY_POLL: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_BUSY_POLL });
pub(super) const SO_PREFER_BUSY_POLL: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_PREFER_BUSY_POLL });
pub(super) const SO_TXREHASH: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_TXREHASH });
pub(super) const SO_RCVTIMEO: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_RCVTIMEO });
pub(super) const SO_SNDTIMEO: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_SNDTIMEO });
pub(super) const SO_KEEPALIVE: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_KEEPALIVE });
pub(super) const SO_LINGER: Option<Code> = Some(Code { level: libc::SOL_SOCKET, number: libc::SO_LINGER });
pub(super) const SO_ATTACH_REUSEPORT_CBPF: Option<Code> =
    Some(Code { level: libc::SOL_SOCKET, number: libc::SO_ATTACH_REUSEPORT_CBPF });
pub(super) const IP_BIND_ADDRESS_NO_PORT: Option<Code> =
    Some(Code { level: libc::IPPROTO_IP, number: libc::IP_BIND_ADDRESS_NO_PORT });
pub(super) const IP_FREEBIND: Option<Code> =
    Some(Code { level: libc::IPPROTO_IP, number: libc::IP_FREEBIND });
pub(super) const IP_LOCAL_PORT_RANGE: Option<Code> = Some(Code { level: libc::IPPROTO_IP, number: 51 });
pub(super) const IP_TRANSPARENT: Option<Code> =
    Some(Code { level: libc::IPPROTO_IP, number: libc::IP_TRANSPARENT });
pub(super) const IP_TTL: Option<Code> = Some(Code { level: libc::IPPROTO_IP, number: libc::IP_TTL });
pub(super) const IP_TOS: Option<Code> = Some(Code { level: libc::IPPROTO_IP, number: libc::IP_TOS });
pub(super) const IP_MTU_DISCOVER: Option<Code> =
    Some(Code { level: libc::IPPROTO_IP, number: libc::IP_MTU_DISCOVER });
pub(super) const IP_UNICAST_IF: Option<Code> =
    Some(Code { level: libc::IPPROTO_IP, number: libc::IP_UNICAST_IF });
pub(super) const IP_PKTINFO: Option<Code> = Some(Code { level: libc::IPPROTO_IP, number: libc::IP_PKTINFO });
pub(super) const IP_RECVORIGDSTADDR: Option<Code> =
    Some(Code { level: libc::IPPROTO_IP, number: libc::IP_RECVORIGDSTADDR });
pub(super) const IP_RECVTOS: Option<Code> = Some(Code { level: libc::IPPROTO_IP, number: libc::IP_RECVTOS });
pub(super) const IPV6_V6ONLY: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_V6ONLY });
pub(super) const IPV6_UNICAST_HOPS: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_UNICAST_HOPS });
pub(super) const IPV6_FREEBIND: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_FREEBIND });
pub(super) const IPV6_TRANSPARENT: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_TRANSPARENT });
pub(super) const IPV6_TCLASS: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_TCLASS });
pub(super) const IPV6_MTU_DISCOVER: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_MTU_DISCOVER });
pub(super) const IPV6_UNICAST_IF: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_UNICAST_IF });
pub(super) const IPV6_RECVPKTINFO: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_RECVPKTINFO });
pub(super) const IPV6_RECVORIGDSTADDR: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_RECVORIGDSTADDR });
pub(super) const IPV6_RECVTCLASS: Option<Code> =
    Some(Code { level: libc::IPPROTO_IPV6, number: libc::IPV6_RECVTCLASS });
pub(super) const TCP_CORK: Option<Code> = Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_CORK });
pub(super) const TCP_DEFER_ACCEPT: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_DEFER_ACCEPT });
pub(super) const TCP_KEEPCNT: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_KEEPCNT });
pub(super) const TCP_KEEPIDLE: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_KEEPIDLE });
pub(super) const TCP_KEEPINTVL: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_KEEPINTVL });
pub(super) const TCP_LINGER2: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_LINGER2 });
pub(super) const TCP_MAXSEG: Option<Code> = Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_MAXSEG });
pub(super) const TCP_NODELAY: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_NODELAY });
pub(super) const TCP_QUICKACK: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_QUICKACK });
pub(super) const TCP_SYNCNT: Option<Code> = Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_SYNCNT });
pub(super) const TCP_USER_TIMEOUT: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_USER_TIMEOUT });
pub(super) const TCP_WINDOW_CLAMP: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_WINDOW_CLAMP });
pub(super) const TCP_FASTOPEN: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_FASTOPEN });
pub(super) const TCP_FASTOPEN_CONNECT: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_FASTOPEN_CONNECT });
pub(super) const TCP_CONGESTION: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_CONGESTION });
pub(super) const TCP_NOTSENT_LOWAT: Option<Code> =
    Some(Code { level: libc::IPPROTO_TCP, number: libc::TCP_NOTSENT_LOWAT });
pub(super) const UDP_CORK: Option<Code> = Some(Code { level: libc::IPPROTO_UDP, number: 1 });
pub(super) const UDP_SEGMENT: Option<Code> =
    Some(Code { level: libc::IPPROTO_UDP, number: libc::UDP_SEGMENT });
pub(super) const UDP_GRO: Option<Code> = Some(Code { level: libc::IPPROTO_UDP, number: libc::UDP_GRO });

#[cfg(test)]
mod tests {
    use super::*;

    /// Each core of the list before the general rule, so that a list in any order works.
    #[test]
    fn steering_is_a_program_of_two_steps_for_each_core() {
        let step = |code: u16, jt, jf, k| (code, jt, jf, k);
        let program: Vec<_> =
            steering(&[7, 3]).iter().map(|step| (step.code, step.jt, step.jf, step.k)).collect();
        // ld #cpu; jeq #7, ret #0; jeq #3, ret #1; mod #2; ret a
        let cpu = 0xffff_f000 + 36;
        let expected = [
            step(0x20, 0, 0, cpu),
            step(0x15, 0, 1, 7),
            step(0x06, 0, 0, 0),
            step(0x15, 0, 1, 3),
            step(0x06, 0, 0, 1),
            step(0x94, 0, 0, 2),
            step(0x16, 0, 0, 0),
        ];
        assert_eq!(program, expected);
        // Below `BPF_MAXINSNS` at the most that the form allows.
        assert!(steering(&(0..1024).collect::<Vec<_>>()).len() < 4096);
    }

    #[test]
    fn refusals_are_told_apart() {
        let check = |opt, errno, expected| assert_eq!(reason(opt, errno), expected, "{opt} {errno}");
        check(Opt::IpUnicastIf, libc::EADDRNOTAVAIL, Reason::NoInterface);
        check(Opt::SoReuseaddr, libc::EADDRNOTAVAIL, Reason::Other);
        check(Opt::SoReuseaddr, libc::EPERM, Reason::Other);
        check(Opt::IpprotoMptcp, libc::EPROTONOSUPPORT, Reason::Unknown);
        check(Opt::IpLocalPortRange, libc::ENOPROTOOPT, Reason::Unknown);
        check(Opt::TcpMaxseg, libc::EINVAL, Reason::Other);
        assert_eq!((errno_name(libc::EBUSY), errno_name(0)), ("EBUSY", "errno"));
    }

    #[test]
    fn numbers_that_no_option_has_are_no_values() {
        assert_eq!(decode(Opt::TcpKeepidle, -1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(decode(Opt::IpMtuDiscover, 99).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(decode(Opt::SoMark, -1).unwrap(), Setting::from(i64::from(u32::MAX)));
        assert_eq!(decode(Opt::SoIncomingCpu, -1).unwrap(), Setting::Off);
    }
}
