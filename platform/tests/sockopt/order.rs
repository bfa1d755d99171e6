//! Every option comes before the call that it influences, as strace sees it.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use ringport_platform::driver::ConnectAddr;
use ringport_platform::socket::{DialOptions, listen, open_dialled, open_listener};
use ringport_platform::sockopt::{
    Accepted, Family, Form, Kind, Opt, OptSet, OptValue, Setting, Stage, Target,
};
use socket2::{SockAddr, Socket};

use super::rig::{BACKLOG, inet, privileged, skipped};

/// All options that such a socket has, with values that this machine takes.
fn all_of(target: Target) -> OptSet {
    let mut set = OptSet::new();
    for opt in Opt::ALL.iter().filter(|opt| opt.stage_on(target).is_some()) {
        let setting = match (*opt, opt.row().form) {
            // A socket has one protocol, and by Multipath TCP it would lose other options.
            (Opt::IpprotoMptcp, _) => Setting::Off,
            // Nor would IPv6 alone have those of IPv4.
            (Opt::Ipv6V6only, _) => Setting::Off,
            (Opt::IpMtuDiscover | Opt::Ipv6MtuDiscover, _) => "do".into(),
            (Opt::TcpCongestion, _) => "reno".into(),
            (Opt::SoMark, _) => 7.into(),
            (Opt::SoBindtoifindex, _) => 1.into(),
            (_, Form::Flag) => true.into(),
            // What the connection of this test can live with.
            (_, Form::Int { min, max }) => 64.clamp(min, max).into(),
            (_, Form::Time { .. }) => Duration::from_secs(1).into(),
            (_, Form::Name { .. } | Form::Choice(_)) => "lo".into(),
            (_, Form::Ports) => Setting::Value(OptValue::Ports { low: 1_024, high: 65_535 }),
            (_, Form::Cpus { .. }) => Setting::Value(OptValue::Cpus(vec![0])),
        };
        set.insert(*opt, setting).unwrap_or_else(|fault| panic!("{fault}"));
    }
    assert!(set.check(target).is_empty(), "{:?}", set.check(target));
    set
}

const LISTENER: Target = Target::tcp_listener(Family::Dual);
const DIALLED: Target = Target::tcp_dialled(Family::V4);
const LOCAL: &str = "127.0.0.9:0";
const LOCAL_TRACED: &str = r"\x7f\x00\x00\x09";

/// What the test below traces: one listener with all options, then one dialled socket with all.
#[test]
#[ignore = "run under strace by the test below"]
fn traced() {
    let set = all_of(LISTENER);
    let any = ConnectAddr::Inet("[::]:0".parse().unwrap());
    open_listener(&any, Kind::Stream, BACKLOG, &set).unwrap();

    let server = listen(&ConnectAddr::Inet("127.0.0.1:0".parse().unwrap()), BACKLOG).unwrap();
    let to = inet(server.as_fd());
    let set = all_of(DIALLED);
    let local = ConnectAddr::Inet(LOCAL.parse().unwrap());
    let options = DialOptions { kind: Kind::Stream, local: Some(&local), options: &set, read_back: true };
    let opened = open_dialled(&ConnectAddr::Inet(to), options).unwrap();
    let socket = Socket::from(opened.fd);
    socket.set_nonblocking(false).unwrap();
    // By fast open it returns at once.
    socket.connect(&SockAddr::from(to)).unwrap();
    set.apply(socket.as_fd(), Stage::Connected, opened.target).unwrap();
}

#[test]
fn options_come_before_what_they_influence() {
    if !privileged("all options at once") {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        return skipped("the order of system calls: strace is not installed");
    }
    let calls = trace();
    let listener = calls_of(&calls, |line| line.starts_with("socket(0xa,"));
    check(&listener, LISTENER, "bind(", "listen(");
    // Before listen it would keep the second socket of a group out.
    let after = listener.iter().position(|line| line.starts_with("listen(")).unwrap();
    assert!(set_at(&listener, Opt::SoAttachReuseportCbpf).unwrap() > after);
    let dialled = calls_of(&calls, |line| line.starts_with("bind(") && line.contains(LOCAL_TRACED));
    check(&dialled, DIALLED, "bind(", "connect(");
    // The one that the kernel takes back comes after connect.
    let connect = dialled.iter().position(|line| line.starts_with("connect(")).unwrap();
    assert!(set_at(&dialled, Opt::TcpQuickack).unwrap() > connect);
}

/// What the order above is measured by: where the manual pages say that an option must be set.
#[test]
fn the_table_knows_what_bind_and_connect_look_at() {
    let before_bind = [
        (Opt::SoBindtodevice, LISTENER),
        (Opt::SoIncomingCpu, LISTENER),
        (Opt::SoMark, LISTENER),
        (Opt::SoReuseaddr, LISTENER),
        (Opt::SoReuseport, LISTENER),
        (Opt::SoRcvbuf, LISTENER),
        (Opt::IpBindAddressNoPort, DIALLED),
        (Opt::IpFreebind, DIALLED),
        (Opt::IpLocalPortRange, DIALLED),
        (Opt::IpTransparent, DIALLED),
        (Opt::Ipv6V6only, LISTENER),
        (Opt::Ipv6Freebind, LISTENER),
        (Opt::Ipv6Transparent, LISTENER),
        (Opt::UdpGro, Target::udp(Family::V4)),
        (Opt::IpPktinfo, Target::udp(Family::V4)),
    ];
    for (opt, target) in before_bind {
        assert_eq!(opt.stage_on(target), Some(Stage::PreBind), "{opt}");
    }
    let before_the_first_packet = [
        (Opt::TcpDeferAccept, LISTENER),
        (Opt::TcpFastopen, LISTENER),
        (Opt::TcpFastopenConnect, DIALLED),
        (Opt::TcpMaxseg, DIALLED),
        (Opt::TcpSyncnt, DIALLED),
        (Opt::TcpWindowClamp, DIALLED),
        (Opt::TcpUserTimeout, DIALLED),
        (Opt::TcpCongestion, DIALLED),
        (Opt::SoKeepalive, LISTENER),
    ];
    for (opt, target) in before_the_first_packet {
        assert_eq!(opt.stage_on(target), Some(Stage::PreConnect), "{opt}");
    }
}

fn check(calls: &[String], target: Target, bind: &str, open: &str) {
    let at = |start: &str| {
        calls
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no {start}: {calls:#?}"))
    };
    let (bind, open) = (at(bind), at(open));
    assert!(calls[0].starts_with("socket(") && bind < open);
    let mut seen = 0;
    for opt in Opt::ALL {
        let place = set_at(calls, *opt);
        let before = match opt.stage_on(target) {
            Some(Stage::PreBind) => place.is_some_and(|place| place < bind),
            Some(Stage::PreConnect) => place.is_some_and(|place| bind < place && place < open),
            Some(Stage::Connected) => place.is_some_and(|place| place > open),
            Some(Stage::Socket) | None => place.is_none(),
            Some(Stage::Rearm) => unreachable!("no option is set for the first time there"),
        };
        assert!(
            before,
            "{opt}: {:?} at {place:?}, bind {bind}, then {open}: {calls:#?}",
            opt.stage_on(target)
        );
        seen += usize::from(place.is_some());
        assert!(opt.row().accepted != Accepted::Again || target != LISTENER || place.is_none());
    }
    assert!(seen > 35, "only {seen}: {calls:#?}");
}

/// Where an option is set, by the numbers in the trace.
fn set_at(calls: &[String], opt: Opt) -> Option<usize> {
    let code = opt.row().code.unwrap();
    calls.iter().position(|line| {
        let Some(rest) = line.strip_prefix("setsockopt(") else { return false };
        let mut parts =
            rest.split(", ").skip(1).map(|part| i32::from_str_radix(part.trim_start_matches("0x"), 16));
        parts.next() == Some(Ok(code.level)) && parts.next() == Some(Ok(code.number))
    })
}

/// The calls of the socket that a line is about, from its making on.
fn calls_of(calls: &[String], is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let place = calls.iter().position(|line| is_it(line)).expect("the socket was made");
    let fd = |line: &str| match line.strip_prefix("socket(") {
        Some(made) => made.rsplit("= ").next().unwrap_or_default().to_owned(),
        None => line
            .split_once('(')
            .map_or("", |(_, rest)| rest.split([',', ')']).next().unwrap_or(""))
            .to_owned(),
    };
    let wanted = u64::from_str_radix(fd(&calls[place]).trim_start_matches("0x"), 16).unwrap();
    let same = |line: &&String| u64::from_str_radix(fd(line).trim_start_matches("0x"), 16) == Ok(wanted);
    let made = calls[..=place].iter().rposition(|line| line.starts_with("socket(") && same(&line)).unwrap();
    let end = calls[made..].iter().position(|line| line.starts_with("close(") && same(&line));
    let end = end.map_or(calls.len(), |end| made + end);
    calls[made..end].iter().filter(same).cloned().collect()
}

/// Runs this program's [`traced`] under strace, which gives every number as such.
fn trace() -> Vec<String> {
    let file = std::env::temp_dir().join(format!("ringport-order-{}.strace", std::process::id()));
    let out = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=socket,bind,listen,connect,setsockopt,close", "-e", "signal=none"])
        .args(["-X", "raw", "-o"])
        .arg(&file)
        .arg(std::env::current_exe().unwrap())
        .args(["order::traced", "--exact", "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // Each line starts with the thread's number.
    text.lines().filter_map(|line| Some(line.split_once(' ')?.1.trim_start().to_owned())).collect()
}
