//! Whatever name servers send, a look-up ends, within its questions, and with no more addresses than it may have.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringport::proto::dns::{Family, Lookup, LookupSpec, MAX_ADDRESSES};

fuzz_target!(|messages: Vec<(bool, bool, Vec<u8>)>| {
    let spec = LookupSpec {
        server_count: 2,
        first_server: 0,
        timeout: Duration::from_secs(1),
        attempts: 2,
        search: vec!["a.test".to_owned()],
        ndots: 1,
    };
    let (now, mut lookup) = (Instant::now(), Lookup::new("a.b", spec));
    let mut questions = [Vec::new(), Vec::new()];
    let mut count = 0;
    for (is_v4, is_answer, mut bytes) in messages {
        while let Some(ask) = lookup.poll_ask(now, 7) {
            count += 1;
            questions[ask.family as usize] = ask.message;
        }
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let question = &questions[family as usize];
        // Most messages get past the number and the question, so that records are looked at.
        if is_answer && question.len() >= 12 && bytes.len() >= 12 {
            let records = bytes.split_off(12);
            bytes[..2].copy_from_slice(&question[..2]);
            bytes[2] |= 0x80;
            bytes[4..6].copy_from_slice(&question[4..6]);
            bytes.extend_from_slice(&question[12..]);
            bytes.extend_from_slice(&records);
        }
        lookup.handle_message(now, family, &bytes);
    }
    for second in 1..=20 {
        while let Some(_ask) = lookup.poll_ask(now, 7) {
            count += 1;
        }
        if let Some(end) = lookup.poll_end() {
            if let Ok(found) = end {
                assert!(!found.addrs.is_empty() && found.addrs.len() <= MAX_ADDRESSES);
            }
            // Two candidates, two families: four tries each, each perhaps by TCP too, and as many aliases as are followed.
            assert!(count <= 2 * 2 * (4 * 2 + 8 * 2), "{count} questions");
            return;
        }
        lookup.handle_timeout(now + Duration::from_secs(second));
    }
    panic!("the look-up does not end");
});
