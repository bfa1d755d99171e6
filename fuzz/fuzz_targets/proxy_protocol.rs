//! Any bytes, behind two that are the limit, as a header of the PROXY protocol: what is read lies within them and the limit, says the same when it is written
//! and read again, and no shorter piece of it is read as another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringport::proto::proxy_protocol::{Accepts, Header, Version};

fuzz_target!(|input: &[u8]| {
    let Some((max_len, bytes)) = input.split_first_chunk() else { return };
    let accepts = Accepts { version: None, max_len: usize::from(u16::from_be_bytes(*max_len)) };
    let Ok(Some((header, len))) = Header::parse(bytes, accepts) else { return };
    assert!(len <= bytes.len() && len <= accepts.most());
    for cut in 0..len {
        assert_eq!(Header::parse(&bytes[..cut], accepts), Ok(None));
    }
    let again = header.encode(Version::V2);
    let (read, read_len) = Header::parse(&again, Accepts::default()).expect("in order").expect("whole");
    assert_eq!(read_len, again.len());
    // Where one end is IPv4 inside IPv6 it may come back as IPv4.
    assert_eq!(read.encode(Version::V2), again);
});
