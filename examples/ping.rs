//! Asks a machine for an echo, as ping(8) does: `cargo run --example ping [ADDRESS]`.
//!
//! It makes a raw socket of ICMP, for which the program needs `CAP_NET_RAW`: run it as root, or give it the capability with
//! setcap(8).

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use ringport::net::{PacketError, PacketSocket};
use ringport::runtime::OpenError;
use ringport::runtime::native::{self, Native};
use ringport::spec::{Format, PacketSpec};

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1".to_owned());
    let Ok(address) = address.parse::<IpAddr>() else {
        eprintln!("{address} is no IP address");
        return ExitCode::from(2);
    };
    match native::block_on(|runtime| ping(runtime, address)) {
        Ok(Ok(len)) => {
            println!("echo of {len} bytes from {address}");
            ExitCode::SUCCESS
        }
        Ok(Err(PacketError::Open(OpenError::Socket { error, .. })))
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            eprintln!("a raw socket needs CAP_NET_RAW: {error}");
            ExitCode::FAILURE
        }
        Ok(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("no driver: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How long the echo is.
async fn ping(runtime: Native, address: IpAddr) -> Result<usize, PacketError> {
    let network = if address.is_ipv4() { "ip4:icmp" } else { "ip6:icmp6" };
    let spec = format!("{{network: '{network}', peer: '{address}'}}");
    let spec = PacketSpec::from_text(&spec, Format::Yaml, "ping").expect("a network, and an address of it");
    let socket = PacketSocket::open(&runtime, &spec).await?;

    // The identifier tells our echo from those of others; a raw socket gets all.
    let identifier = (std::process::id() as u16).to_be_bytes();
    let (request, reply) = if address.is_ipv4() { (8, 0) } else { (128, 129) };
    socket.send(echo(request, identifier)).await?;

    let answer = async {
        loop {
            let received = socket.recv().await?;
            // Of IPv4 the IP header comes too, as long as its first byte says in words of four bytes. raw(7).
            let header = if address.is_ipv4() {
                received.bytes.first().map_or(0, |first| usize::from(first & 15) * 4)
            } else {
                0
            };
            let message = received.bytes.get(header..).unwrap_or_default();
            if message.first() == Some(&reply) && message.get(4..6) == Some(&identifier[..]) {
                return Ok(message.len());
            }
        }
    };
    let answer = runtime.core().timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| Err(PacketError::Receive(io::ErrorKind::TimedOut.into())))
}

/// An echo request, RFC 792 and RFC 4443 4.1. The kernel fills in the checksum of ICMPv6 itself.
fn echo(kind: u8, identifier: [u8; 2]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    message.extend_from_slice(b"ringport");
    let words = message.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

const PATIENCE: Duration = Duration::from_secs(5);
