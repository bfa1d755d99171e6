//! Cases in which the kernel does more than hold a value: it is set up for them, in a network of the test's own.

use std::process::Command;

use ringport::net::{DialErrorKind, Dialer, Listener};
use ringport::runtime::LocalAddr;
use ringport::runtime::native::Native;
use ringport::spec::{DialSpec, Format, ListenSpec, NetAddr, OriginAddress};
use ringport_platform::sockopt::{Opt, Outcome};

use super::namespace::in_namespace;
use crate::rig::{each, join, skipped};

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{line}: {said}")) }
}

fn listen(runtime: &Native, yaml: &str) -> Listener<Native> {
    let spec = ListenSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"));
    Listener::from_spec(&spec, runtime).unwrap_or_else(|error| panic!("{error}"))
}

fn dialer(runtime: &Native, yaml: &str) -> Dialer<Native> {
    let spec = DialSpec::from_text(yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{errors}"));
    Dialer::from_spec(&spec, runtime)
}

fn target(text: &str) -> NetAddr<OriginAddress> {
    text.parse().expect("a target")
}

/// Packets to addresses of nobody are turned to a transparent listener, and its connections have the address that the client
/// meant. The client is on this machine, so its packets are marked to come in again by the loopback interface.
#[test]
fn case_20_a_redirected_connection_keeps_its_destination() {
    in_namespace("acceptance::kernel::case_20_a_redirected_connection_keeps_its_destination", &[], || {
        if let Err(why) = run("iptables -t mangle -S") {
            return skipped(format!("it needs iptables(8): {why}"));
        }
        for line in [
            "ip addr add 10.9.9.1/32 dev lo",
            "ip route add 203.0.113.0/24 dev lo src 10.9.9.1",
            "ip rule add fwmark 1 lookup 100",
            "ip route add local 0.0.0.0/0 dev lo table 100",
            "iptables -t mangle -A OUTPUT -p tcp -d 203.0.113.0/24 -j MARK --set-mark 1",
        ] {
            run(line).expect("in a network of its own");
        }
        each(async |runtime| {
            let transparent = "sockOption: {ipOption: {transparent: true}}";
            let mut listener = listen(&runtime, &format!("{{addr: '127.0.0.1:0', {transparent}}}"));
            let LocalAddr::Inet(addr) = *listener.local_addr() else { panic!("of IP") };
            let rule = format!(
                "PREROUTING -p tcp -d 203.0.113.0/24 -j TPROXY --on-ip 127.0.0.1 --on-port {} --tproxy-mark 1",
                addr.port()
            );
            run(&format!("iptables -t mangle -A {rule}")).expect("in a network of its own");
            let meant = target("tcp://203.0.113.7:8080");
            let dialer = dialer(&runtime, "timeout: 20s");
            let (near, far) = join(dialer.dial(&meant), listener.accept()).await;
            let (mut near, (mut far, peer)) = (near.expect("redirected"), far.expect("redirected"));
            let meant = LocalAddr::Inet("203.0.113.7:8080".parse().expect("an address"));
            assert_eq!(far.local_addr().expect("connected"), meant);
            assert_eq!(peer.client(), &near.local_addr().expect("connected"));
            near.send(&b"hello"[..]).await.expect("open");
            assert_eq!(&*far.recv().await.expect("open").expect("bytes"), b"hello");
            run(&format!("iptables -t mangle -D {rule}")).expect("it is there");
            far.reset();
        });
    });
}

/// How often the kernel has done something since the network was made: `/proc/net/netstat`, names in one line, values below.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/netstat").expect("procfs is mounted");
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let found = names.split(' ').zip(values.split(' ')).find(|(found, _)| *found == name);
        if let Some((_, value)) = found {
            return value.parse().expect("a number");
        }
    }
    panic!("this kernel does not count {name}")
}

#[test]
fn case_34_fast_open_on_both_ends() {
    in_namespace("acceptance::kernel::case_34_fast_open_on_both_ends", &[], || {
        let switch = |value: &str| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", value);
        each(async |runtime| {
            let listening = "{addr: '127.0.0.1:0', sockOption: {tcpOption: {fastOpen: 16}}}";
            let fast = dialer(&runtime, "sockOption: {tcpOption: {fastOpenConnect: true}}");
            switch("3").expect("in a network of its own");
            let mut listener = listen(&runtime, listening);
            let applied = listener.applied().iter().find(|effective| effective.opt == Opt::TcpFastopen);
            assert_eq!(applied.map(|effective| effective.outcome), Some(Outcome::AsAsked));
            let to = target(&format!("tcp://{}", listener.local_addr()));
            let before = [counter("TCPFastOpenActive"), counter("TCPFastOpenPassive")];
            // The first connection brings the cookie by which the second is fast (RFC 7413 3).
            for _ in 0..2 {
                let mut near = fast.dial(&to).await.expect("it returns before anything is sent");
                near.send(&b"hello"[..]).await.expect("open");
                let (mut far, _) = listener.accept().await.expect("a client");
                assert_eq!(&*far.recv().await.expect("open").expect("bytes"), b"hello");
            }
            let after = [counter("TCPFastOpenActive"), counter("TCPFastOpenPassive")];
            // A machine that has talked to itself before, on the other driver, has the cookie already.
            for (before, after) in before.into_iter().zip(after) {
                assert!((1..=2).contains(&(after - before)), "{before}, then {after}");
            }

            // Of the listener the kernel says nothing when it is switched off; the dialer is refused.
            switch("1").expect("in a network of its own");
            let listener = listen(&runtime, listening);
            let applied = listener.applied().iter().find(|effective| effective.opt == Opt::TcpFastopen);
            let applied = applied.expect("it was asked for");
            assert!(applied.outcome == Outcome::Ignored && applied.is_surprising(), "{applied}");
            switch("2").expect("in a network of its own");
            let error = fast.dial(&to).await.err().expect("clients may not");
            assert_eq!(*error.kind(), DialErrorKind::Option, "{error}");
            assert!(error.to_string().contains("TCP_FASTOPEN_CONNECT"), "{error}");
        });
    });
}
