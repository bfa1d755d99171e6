//! The hello before a configuration is chosen.

use std::sync::Arc;

use ringport_platform::buf::{PoolBuf, RxQueue};
use rustls::AlertDescription;

use super::{Api, End, NAME, TLS13, VERSIONS, carry, configs, tx};
use crate::proto::tls::{ClientHello, HelloReader, RustlsCodec, TlsError, TlsLimit, TlsLimits};

fn hello_bytes(configs: &super::Configs) -> (End, Vec<u8>) {
    let mut client = End::new(configs.client(Api::Ours));
    client.read();
    let bytes = client.sent();
    (client, bytes)
}

#[test]
fn a_configuration_is_chosen_and_the_same_bytes_go_on() {
    for version in VERSIONS {
        let mut configs = configs(&[version]);
        configs.client.alpn_protocols = vec![b"h2".to_vec(), b"x".to_vec()];
        for chunk in [1, 5, 300, usize::MAX] {
            let (mut client, bytes) = hello_bytes(&configs);
            let (mut reader, mut input, mut output) =
                (HelloReader::new(TlsLimits::default()), RxQueue::new(), tx());
            let mut found = None;
            for piece in bytes.chunks(chunk) {
                assert!(found.is_none(), "whole before its last byte");
                input.push(PoolBuf::copied(piece));
                found = reader.read(&input, &mut output).expect("in order");
            }
            let hello = found.expect("whole");
            let expected =
                ClientHello { server_name: Some(NAME.into()), alpn: vec![b"h2".to_vec(), b"x".to_vec()] };
            assert_eq!(hello, expected);
            assert_eq!(input.len(), bytes.len(), "nothing is taken");
            assert!(output.is_empty());

            let config = Arc::new(configs.server.clone());
            let codec = RustlsCodec::server_for(hello, config, TlsLimits::default()).expect("in order");
            let mut server = End::new(Box::new(codec));
            server.input = input;
            server.read();
            carry(&mut client, &mut server, usize::MAX);
            assert_eq!((&client.error, &server.error), (&None, &None));
            assert_eq!(server.codec.info().expect("open").server_name, Some(NAME));
        }
    }
}

#[test]
fn a_name_that_nobody_has() {
    let (mut client, _) = hello_bytes(&configs(&[TLS13]));
    let mut output = tx();
    ClientHello::refuse(&mut output);
    client.receive(&output.slices().collect::<Vec<_>>().concat());
    assert_eq!(client.error, Some(TlsError::Alert(AlertDescription::UnrecognisedName)));
}

/// At the limit a hello is read, one byte below it is not.
#[test]
fn long_hellos() {
    let mut configs = configs(&[TLS13]);
    configs.client.alpn_protocols = (0..120).map(|at| vec![at; 100]).collect();
    let (_, bytes) = hello_bytes(&configs);
    assert!(bytes.len() > 12_000);
    let read = |limit| {
        let mut input = RxQueue::new();
        input.push(PoolBuf::copied(&bytes));
        HelloReader::new(TlsLimits { handshake_bytes: limit, ..TlsLimits::default() })
            .read(&input, &mut tx())
            .map(|hello| hello.is_some())
    };
    assert_eq!(read(bytes.len()), Ok(true));
    assert_eq!(read(bytes.len() - 1), Err(TlsError::Limit(TlsLimit::HandshakeBytes)));

    // A message of 64 KiB or more is none.
    let mut endless = RxQueue::new();
    for _ in 0..5 {
        let mut record = vec![22, 3, 1, 0x3f, 0xff];
        record.extend([1, 1, 0, 0]);
        record.resize(5 + 0x3fff, 0);
        endless.push(PoolBuf::copied(&record));
    }
    let refused = HelloReader::new(TlsLimits::default()).read(&endless, &mut tx());
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn no_hello() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 4, 2, 0, 0, 0], &[21, 3, 1, 0, 2, 2, 40], &[0; 20]]
    {
        let (mut input, mut output) = (RxQueue::new(), tx());
        input.push(PoolBuf::copied(bytes));
        let refused = HelloReader::new(TlsLimits::default()).read(&input, &mut output);
        assert!(matches!(refused, Err(TlsError::Protocol(_) | TlsError::Alert(_))), "{refused:?}");
        // The codec says the same of the same bytes; only an alert tells it more.
        if bytes[0] == 21 {
            continue;
        }
        let mut server = End::new(configs(&[TLS13]).server(Api::Ours));
        server.receive(bytes);
        assert_eq!(server.error, refused.err());
        assert_eq!(server.sent(), output.slices().collect::<Vec<_>>().concat());
    }
}
