//! What a process without capabilities may set, and what the refusal says.

use std::os::fd::AsFd;

use ringport_platform::socket::OpenError;
use ringport_platform::sockopt::{
    Capability, Family, Opt, OptState, Reason, Setting, Target, get, probe, set,
};

use super::rig::{open, privileged, set_of, skipped, without_privilege};

#[test]
fn a_missing_capability_is_named() {
    let l4 = Target::tcp_listener(Family::V4);
    let l6 = Target::tcp_listener(Family::V6);
    let denied = [
        (l4, Opt::SoDebug, true.into(), libc::EACCES, "CAP_NET_ADMIN"),
        (l4, Opt::SoMark, 42.into(), libc::EPERM, "CAP_NET_ADMIN or CAP_NET_RAW"),
        (l4, Opt::SoRcvbufforce, 4096.into(), libc::EPERM, "CAP_NET_ADMIN"),
        (l4, Opt::SoSndbufforce, 4096.into(), libc::EPERM, "CAP_NET_ADMIN"),
        (l4, Opt::SoPriority, 7.into(), libc::EPERM, "CAP_NET_ADMIN or CAP_NET_RAW where above 6"),
        (l4, Opt::SoPreferBusyPoll, true.into(), libc::EPERM, "CAP_NET_ADMIN"),
        (l4, Opt::IpTransparent, true.into(), libc::EPERM, "CAP_NET_ADMIN or CAP_NET_RAW"),
        (l6, Opt::Ipv6Transparent, true.into(), libc::EPERM, "CAP_NET_ADMIN or CAP_NET_RAW"),
    ];
    without_privilege(move || {
        for (target, opt, setting, errno, needs) in denied {
            let setting: Setting = setting;
            let error = open(target, &set_of(&[(opt, setting.clone())])).unwrap_err();
            let OpenError::Option(error) = error else { panic!("{opt}: {error}") };
            assert_eq!((error.opt, error.errno, error.target), (opt, errno, target));
            assert!(matches!(error.reason, Reason::Privilege(_)), "{error}");
            let name = if errno == libc::EPERM { "EPERM: Operation not" } else { "EACCES: Permission" };
            let said = error.to_string();
            assert!(said.starts_with(&format!("{opt} = {setting} on a {target}: {name} ")), "{said}");
            assert!(said.ends_with(&format!("; it needs {needs}")), "{said}");
            assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::PermissionDenied);
        }
        let controls = |which: &str| {
            let path = format!("/proc/sys/net/ipv4/tcp_{which}_congestion_control");
            std::fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let allowed = controls("allowed");
        match controls("available").into_iter().find(|name| !allowed.contains(name)) {
            None => skipped("a congestion control that is not for everybody: this kernel has none"),
            Some(name) => {
                let error = open(l4, &set_of(&[(Opt::TcpCongestion, name.as_str().into())])).unwrap_err();
                let needs = "; it needs CAP_NET_ADMIN where the control is not an allowed one";
                assert!(error.to_string().ends_with(needs), "{error}");
            }
        }
        // Up to 6 everybody may.
        assert!(open(l4, &set_of(&[(Opt::SoPriority, 6.into())])).is_ok());
    });
}

/// A socket that is kept to an interface stays there for who lacks the capability.
#[test]
fn leaving_an_interface_needs_a_capability() {
    without_privilege(|| {
        let opened = open(Target::udp(Family::V4), &set_of(&[(Opt::SoBindtodevice, "lo".into())])).unwrap();
        let refused = set(opened.fd.as_fd(), Opt::SoBindtodevice, &Setting::Off).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert_eq!(Opt::SoBindtodevice.row().privilege.capability, Some(Capability::NetRaw));
        assert_eq!(Capability::NetRaw.to_string(), "CAP_NET_RAW");
        assert_eq!(get(opened.fd.as_fd(), Opt::SoBindtodevice).unwrap(), "lo".into());
    });
}

/// The probe tells what works here: all of it with the capabilities, and without them what the table says.
#[test]
fn the_probe_tells_what_works() {
    let check = |privileged: bool| {
        let probed = probe();
        let opts: Vec<Opt> = probed.iter().map(|probed| probed.opt).collect();
        assert_eq!(opts, Opt::ALL);
        for probed in probed {
            let always =
                probed.opt.row().privilege.capability.is_some() && probed.opt.row().privilege.when.is_empty();
            match probed.state {
                OptState::Works(effective) => {
                    assert!(privileged || !always, "{effective}");
                    assert_eq!((effective.opt, &effective.asked), (probed.opt, &probed.tried));
                    // The switch for `TCP_FASTOPEN` is not set everywhere.
                    assert!(!effective.is_surprising() || probed.opt == Opt::TcpFastopen, "{effective}");
                }
                OptState::Refused(error) => {
                    let switched = matches!(error.reason, Reason::SwitchedOff(_));
                    let denied = matches!(error.reason, Reason::Privilege(_));
                    assert!(switched || denied && !privileged, "{error}");
                    assert_eq!((error.opt, error.target), (probed.opt, probed.target));
                }
                OptState::Absent => panic!("{}: not of this system", probed.opt),
                OptState::NoSocket(errno) => panic!("{}: {errno}", probed.opt),
            }
        }
    };
    if privileged("the probe with every capability") {
        check(true);
    }
    without_privilege(move || check(false));
}
