//! Sessions that go on: tickets, a cache, early data.

use std::io::Write;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::{ClientConnection, Connection, HandshakeKind};

use super::oracle::BufferedCodec;
use super::{Api, Configs, End, TLS13, VERSIONS, carry, configs, name, open};
use crate::proto::tls::{Provider, TlsPhase};

fn with_tickets(configs: &mut Configs) {
    configs.server.ticketer = Provider::default().ticketer().expect("random bytes");
    configs.server.session_storage = Arc::new(NoServerSessionStorage {});
}

#[test]
fn by_ticket_by_cache_and_not_at_all() {
    for version in VERSIONS {
        for (which, expected) in [
            ("tickets", HandshakeKind::Resumed),
            ("cache", HandshakeKind::Resumed),
            ("neither", HandshakeKind::Full),
        ] {
            let mut configs = configs(&[version]);
            match which {
                "tickets" => with_tickets(&mut configs),
                "cache" => configs.server.session_storage = ServerSessionMemoryCache::new(10),
                _ => configs.server.session_storage = Arc::new(NoServerSessionStorage {}),
            }
            let (mut client, mut server) = open(&configs);
            // The tickets of TLS 1.3 come behind the handshake.
            carry(&mut client, &mut server, usize::MAX);
            for _ in 0..2 {
                let (client, server) = open(&configs);
                for end in [&client, &server] {
                    assert_eq!(end.codec.info().expect("open").kind, expected, "{which} {version:?}");
                }
                // Whom the first handshake has shown is still known.
                let info = client.codec.info().expect("open");
                assert_eq!(info.peer_certificates.map(<[_]>::len), Some(1));
            }
        }
    }
}

/// A client of the buffered API, which can send early data, with a session that allows it.
fn early_client(configs: &Configs, early: &[u8]) -> End {
    let mut conn = ClientConnection::new(Arc::new(configs.client.clone()), name()).expect("in order");
    let mut writer = conn.early_data().expect("a session that allows it");
    assert_eq!(writer.write(early).expect("room"), early.len());
    let mut codec = BufferedCodec::client(Arc::new(configs.client.clone()), name());
    codec.conn = Connection::Client(conn);
    End::new(Box::new(codec))
}

#[test]
fn early_data() {
    for (max, chunk) in [(4_096, usize::MAX), (4_096, 3), (0, usize::MAX)] {
        let mut configs = configs(&[TLS13]);
        configs.client.enable_early_data = true;
        configs.server.session_storage = ServerSessionMemoryCache::new(10);
        configs.server.max_early_data_size = 4_096;
        let (mut client, mut server) = open(&configs);
        carry(&mut client, &mut server, usize::MAX);
        configs.server.max_early_data_size = max;

        let mut client = early_client(&configs, b"early");
        let mut server = End::new(configs.server(Api::Ours));
        client.read();
        client.sent().chunks(chunk).for_each(|piece| server.receive(piece));
        // It is there before the handshake is done, which tells that it may be a replay.
        assert_eq!(server.phase(), TlsPhase::Handshake);
        assert_eq!(server.received(), if max > 0 { &b"early"[..] } else { b"" });
        carry(&mut client, &mut server, chunk);
        client.write(b"late");
        carry(&mut client, &mut server, chunk);
        assert_eq!(server.received(), b"late");
        let info = server.codec.info().expect("open");
        assert_eq!(info.early_bytes, if max > 0 { 5 } else { 0 });
        assert_eq!(info.kind, HandshakeKind::Resumed);
        assert_eq!((client.error, server.error), (None, None));
    }
}

/// A session is taken out of the cache when it is resumed, so early data that somebody has recorded is not taken again.
#[test]
fn early_data_again() {
    let mut configs = configs(&[TLS13]);
    configs.client.enable_early_data = true;
    configs.server.session_storage = ServerSessionMemoryCache::new(10);
    configs.server.max_early_data_size = 4_096;
    let (mut client, mut server) = open(&configs);
    carry(&mut client, &mut server, usize::MAX);
    let mut client = early_client(&configs, b"pay 1");
    client.read();
    let recorded = client.sent();
    for expected in [&b"pay 1"[..], b""] {
        let mut server = End::new(configs.server(Api::Ours));
        server.receive(&recorded);
        assert_eq!(server.received(), expected);
    }
}
