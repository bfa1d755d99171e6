//! The machine against servers that answer well, badly, and not at all.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Ask, Family, Found, Lookup, LookupFault, LookupSpec, MAX_ADDRESSES};

#[expect(clippy::disallowed_methods, reason = "an instant to count from")]
fn start() -> Instant {
    Instant::now()
}

const SECOND: Duration = Duration::from_secs(1);

fn spec() -> LookupSpec {
    LookupSpec {
        server_count: 2,
        first_server: 0,
        timeout: SECOND,
        attempts: 2,
        search: Vec::new(),
        ndots: 1,
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// A record as in a zone file: `app.test. 60 A 192.0.2.1`.
fn record(text: &str) -> Record {
    let words: Vec<_> = text.split(' ').collect();
    let [owner, ttl, kind, data] = words[..] else { panic!("{text}") };
    let data = match kind {
        "A" => RData::A(A(data.parse().expect("an address"))),
        "AAAA" => RData::AAAA(AAAA(data.parse().expect("an address"))),
        "CNAME" => RData::CNAME(CNAME(name(data))),
        "SOA" => RData::SOA(SOA::new(name("ns.test"), name("hm.test"), 1, 1, 1, 1, data.parse().expect("s"))),
        _ => panic!("{text}"),
    };
    Record::from_rdata(name(owner), ttl.parse().expect("seconds"), data)
}

/// The answer to a question, with these records and this code.
fn answer(ask: &Ask, code: ResponseCode, answers: &[&str]) -> Message {
    let question = Message::from_vec(&ask.message).expect("a question");
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.add_queries(question.queries);
    for text in answers {
        let record = record(text);
        if record.record_type() == RecordType::SOA {
            message.add_authority(record);
        } else {
            message.add_answer(record);
        }
    }
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message")
}

fn asked(ask: &Ask) -> (String, RecordType) {
    let message = Message::from_vec(&ask.message).expect("a question");
    assert!(message.metadata.recursion_desired && message.metadata.message_type == MessageType::Query);
    (message.queries[0].name().to_ascii().to_ascii_lowercase(), message.queries[0].query_type())
}

/// Drives a look-up with what `serve` answers to each question: `None` is silence.
fn run(
    mut lookup: Lookup,
    mut serve: impl FnMut(&Ask) -> Option<Vec<u8>>,
) -> (Result<Found, LookupFault>, Duration) {
    let begin = start();
    let mut now = begin;
    for id in 1.. {
        if let Some(ask) = lookup.poll_ask(now, id) {
            if let Some(answer) = serve(&ask) {
                lookup.handle_message(now, ask.family, &answer);
            }
        } else if let Some(end) = lookup.poll_end() {
            assert_eq!(lookup.poll_timeout(), None);
            return (end, now - begin);
        } else {
            now = lookup.poll_timeout().expect("it waits for an answer");
            lookup.handle_timeout(now);
        }
        assert!(id < 200, "it does not end");
    }
    unreachable!("the loop returns")
}

/// As a server whose zone these records are.
fn zone<'a>(records: &'a [&str]) -> impl FnMut(&Ask) -> Option<Vec<u8>> + 'a {
    move |ask| {
        let (name, kind) = asked(ask);
        let own = |text: &&&str| {
            let words: Vec<_> = text.split(' ').collect();
            name.trim_end_matches('.') == words[0] && (kind.to_string() == words[2] || words[2] == "CNAME")
        };
        let answers: Vec<_> = records.iter().filter(own).copied().collect();
        let exists = records.iter().any(|text| text.starts_with(name.trim_end_matches('.')));
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let mut answers = answers;
        if answers.is_empty() {
            answers.push("test 300 SOA 20");
        }
        Some(bytes(&answer(ask, code, &answers)))
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn both_families_are_asked_for_and_the_shortest_time_counts() {
    let records = [
        "app.test 60 A 192.0.2.1",
        "app.test 50 A 192.0.2.2",
        "app.test 60 A 192.0.2.1",
        "app.test 90 AAAA 2001:db8::1",
    ];
    let (end, took) = run(Lookup::new("App.Test", spec()), zone(&records));
    let found = end.expect("it is there");
    assert_eq!(found.addrs, ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]));
    assert_eq!((found.ttl, found.is_complete, found.server, took), (50 * SECOND, true, 0, Duration::ZERO));
    let (end, _) = run(Lookup::new("app.test", spec()), zone(&["app.test 4000000000 A 192.0.2.1"]));
    assert_eq!(end.expect("it is there").ttl, Duration::ZERO, "RFC 2181 8");
}

#[test]
fn that_there_is_nothing_has_its_time_too() {
    let (end, _) = run(Lookup::new("absent.test", spec()), zone(&["app.test 60 A 192.0.2.1"]));
    assert_eq!(end, Err(LookupFault::NotFound(20 * SECOND)));
    let nothing = |ask: &Ask| Some(bytes(&answer(ask, ResponseCode::NoError, &[])));
    let (end, _) = run(Lookup::new("absent.test", spec()), nothing);
    assert_eq!(end, Err(LookupFault::NotFound(Duration::ZERO)), "nobody vouches for it");
}

#[test]
fn aliases_are_followed_as_far_as_they_may_go() {
    let chain = |count: usize| -> Vec<String> {
        let alias = |at: usize| format!("a{at}.test {} CNAME a{}.test", 100 - at, at + 1);
        (0..count).map(alias).chain([format!("a{count}.test 300 A 192.0.2.1")]).collect()
    };
    for count in [1, 8] {
        let records = chain(count);
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        // All in one answer, or each in one of its own.
        let whole = |ask: &Ask| match ask.family {
            Family::V4 => Some(bytes(&answer(ask, ResponseCode::NoError, &records))),
            Family::V6 => Some(bytes(&answer(ask, ResponseCode::NoError, &records[..count]))),
        };
        let (end, _) = run(Lookup::new("a0.test", spec()), whole);
        assert_eq!(end.as_ref().map(|found| &found.addrs), Ok(&ips(&["192.0.2.1"])), "{count}");
        assert_eq!(end.map(|found| found.ttl), Ok((101 - count as u32) * SECOND));
        let (end, _) = run(Lookup::new("a0.test", spec()), zone(&records));
        assert_eq!(end.map(|found| found.addrs), Ok(ips(&["192.0.2.1"])), "{count}");
    }
    let records = chain(9);
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let whole = |ask: &Ask| Some(bytes(&answer(ask, ResponseCode::NoError, &records)));
    assert_eq!(run(Lookup::new("a0.test", spec()), whole).0, Err(LookupFault::Aliases));
    assert_eq!(run(Lookup::new("a0.test", spec()), zone(&records)).0, Err(LookupFault::Aliases));
    let circle = ["a.test 60 CNAME b.test", "b.test 60 CNAME a.test"];
    let whole = |ask: &Ask| Some(bytes(&answer(ask, ResponseCode::NoError, &circle)));
    assert_eq!(run(Lookup::new("a.test", spec()), whole).0, Err(LookupFault::Aliases));
    assert_eq!(run(Lookup::new("a.test", spec()), zone(&circle)).0, Err(LookupFault::Aliases));
}

#[test]
fn neither_family_crowds_the_other_out() {
    let v4: Vec<_> = (0..100).map(|last| format!("many.test 60 A 192.0.2.{last}")).collect();
    let v6: Vec<_> = (0..100).map(|last| format!("many.test 60 AAAA 2001:db8::{last}")).collect();
    let serve = |ask: &Ask, has_v6: bool| {
        let all: Vec<_> = match ask.family {
            Family::V4 => v4.iter().map(String::as_str).collect(),
            Family::V6 if has_v6 => v6.iter().map(String::as_str).collect(),
            Family::V6 => Vec::new(),
        };
        Some(bytes(&answer(ask, ResponseCode::NoError, &all)))
    };
    let found = run(Lookup::new("many.test", spec()), |ask| serve(ask, true)).0.expect("many");
    let v4_count = found.addrs.iter().filter(|addr| addr.is_ipv4()).count();
    assert_eq!((found.addrs.len(), v4_count), (MAX_ADDRESSES, MAX_ADDRESSES / 2));
    let found = run(Lookup::new("many.test", spec()), |ask| serve(ask, false)).0.expect("many");
    assert_eq!(found.addrs.len(), MAX_ADDRESSES);
}

#[test]
fn what_is_no_answer_is_left() {
    let good = |ask: &Ask| {
        answer(ask, ResponseCode::NoError, &["app.test 60 A 192.0.2.1", "app.test 60 AAAA 2001:db8::1"])
    };
    type Spoil = fn(&mut Message);
    let spoils: &[Spoil] = &[
        |message| message.metadata.id ^= 1,
        |message| message.metadata.message_type = MessageType::Query,
        |message| message.metadata.op_code = OpCode::Status,
        |message| message.queries.clear(),
        |message| message.queries.push(message.queries[0].clone()),
        |message| {
            message.queries[0].set_name(name("bad.test"));
        },
        |message| {
            message.queries[0].set_query_type(RecordType::MX);
        },
    ];
    for (row, spoil) in spoils.iter().enumerate() {
        let (t, mut lookup) = (start(), Lookup::new("app.test", spec()));
        let asks = [lookup.poll_ask(t, 1).expect("due"), lookup.poll_ask(t, 2).expect("due")];
        for ask in &asks {
            let mut spoilt = good(ask);
            spoil(&mut spoilt);
            lookup.handle_message(t, ask.family, &bytes(&spoilt));
            lookup.handle_message(t, ask.family, b"short");
        }
        assert_eq!((lookup.poll_ask(t, 3), lookup.poll_end()), (None, None), "row {row}: it waits on");
        for ask in &asks {
            lookup.handle_message(t, ask.family, &bytes(&good(ask)));
        }
        let found = lookup.poll_end().expect("both are known").expect("addresses");
        assert_eq!(found.addrs, ips(&["2001:db8::1", "192.0.2.1"]), "row {row}");
        // What comes after the end changes nothing.
        lookup.handle_message(t, Family::V4, &bytes(&good(&asks[0])));
        lookup.handle_failed(t, Family::V4);
        assert!(lookup.poll_end().is_some());
    }
}

#[test]
fn records_of_others_are_not_taken() {
    let records = ["other.test 60 A 192.0.2.66", "app.test 60 AAAA 2001:db8::1"];
    let serve = |ask: &Ask| Some(bytes(&answer(ask, ResponseCode::NoError, &records)));
    let found = run(Lookup::new("app.test", spec()), serve).0.expect("addresses");
    assert_eq!(found.addrs, ips(&["2001:db8::1"]));
}

#[test]
fn a_flood_of_strays_costs_a_server_its_turn() {
    let (t, mut lookup) = (start(), Lookup::new("app.test", spec()));
    let first = lookup.poll_ask(t, 1).expect("due");
    for _ in 0..15 {
        lookup.handle_message(t, first.family, b"stray");
    }
    let other = lookup.poll_ask(t, 2).expect("the other family is due");
    assert_eq!((other.family, lookup.poll_ask(t, 3)), (Family::V4, None));
    lookup.handle_message(t, first.family, b"the sixteenth");
    let again = lookup.poll_ask(t, 3).expect("due again");
    assert_eq!((again.family, first.server, again.server), (first.family, 0, 1));
}

#[test]
fn who_fails_is_asked_after_the_others() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr] {
        let mut servers = Vec::new();
        let serve = |ask: &Ask| {
            servers.push(ask.server);
            let code = if ask.server == 0 { code } else { ResponseCode::NoError };
            Some(bytes(&answer(ask, code, &["app.test 60 A 192.0.2.1"])))
        };
        let (end, took) = run(Lookup::new("app.test", spec()), serve);
        assert_eq!((end.expect("the second says").server, took), (1, Duration::ZERO));
        assert_eq!(servers, [0, 1, 0, 1]);
    }
    // None can say: two rounds.
    let mut count = 0;
    let serve = |ask: &Ask| {
        count += 1;
        Some(bytes(&answer(ask, ResponseCode::ServFail, &[])))
    };
    assert_eq!(run(Lookup::new("app.test", spec()), serve).0, Err(LookupFault::NoServer));
    assert_eq!(count, 8);
    let (end, took) = run(Lookup::new("app.test", spec()), |_| None);
    assert_eq!((end, took), (Err(LookupFault::TimedOut), 4 * SECOND));
    let first = LookupSpec { first_server: 1, ..spec() };
    let found = run(Lookup::new("app.test", first), zone(&["app.test 60 A 192.0.2.1"])).0.expect("there");
    assert_eq!(found.server, 1);
}

/// It was told as a look-up that took too long, though no time had passed.
#[test]
fn a_socket_that_fails_is_no_answer_at_once() {
    let (t, mut lookup) = (start(), Lookup::new("app.test", spec()));
    let mut id = 0;
    while lookup.poll_end().is_none() {
        id += 1;
        let ask = lookup.poll_ask(t, id).expect("due at once");
        lookup.handle_failed(t, ask.family);
    }
    assert_eq!((lookup.poll_end(), id), (Some(Err(LookupFault::NoServer)), 8));
}

#[test]
fn what_is_truncated_is_asked_for_by_tcp() {
    let mut asks = Vec::new();
    let serve = |ask: &Ask| {
        asks.push((ask.server, ask.is_tcp));
        let mut message = answer(ask, ResponseCode::NoError, &["app.test 60 A 192.0.2.1"]);
        message.metadata.truncation = !ask.is_tcp;
        let mut bytes = bytes(&message);
        // Cut in the middle of a record.
        bytes.truncate(if ask.is_tcp { usize::MAX } else { bytes.len() - 3 });
        Some(bytes)
    };
    let found = run(Lookup::new("app.test", spec()), serve).0.expect("by TCP");
    assert_eq!(
        (found.addrs, asks),
        (ips(&["192.0.2.1"]), vec![(0, false), (0, true), (0, false), (0, true)])
    );
    // By TCP nothing is too long, and a stray is the only message that there is.
    for spoil in [0, 1] {
        let serve = |ask: &Ask| {
            let mut message = answer(ask, ResponseCode::NoError, &[]);
            message.metadata.truncation = true;
            message.metadata.id += if ask.is_tcp { spoil } else { 0 };
            Some(bytes(&message))
        };
        run(Lookup::new("app.test", spec()), serve).0.expect_err("nothing of use");
    }
}

#[test]
fn what_is_malformed_behind_its_question_is_the_servers_failure() {
    let serve = |ask: &Ask| {
        let mut bytes = bytes(&answer(ask, ResponseCode::NoError, &["app.test 60 A 192.0.2.1"]));
        bytes.truncate(bytes.len() - 3);
        Some(bytes)
    };
    assert_eq!(run(Lookup::new("app.test", spec()), serve).0, Err(LookupFault::NoServer));
}

/// A server that knows no AAAA and says nothing, or fails, is no reason to go without what is known.
#[test]
fn a_family_that_is_late_is_not_waited_for() {
    let only_v4 = |ask: &Ask| {
        (ask.family == Family::V4)
            .then(|| bytes(&answer(ask, ResponseCode::NoError, &["app.test 60 A 192.0.2.1"])))
    };
    let (end, took) = run(Lookup::new("app.test", spec()), only_v4);
    let found = end.expect("one family");
    assert_eq!((found.addrs, found.is_complete), (ips(&["192.0.2.1"]), false));
    assert_eq!(took, Duration::from_millis(250));
    let failing = |ask: &Ask| match ask.family {
        Family::V4 => Some(bytes(&answer(ask, ResponseCode::NoError, &["app.test 60 A 192.0.2.1"]))),
        Family::V6 => Some(bytes(&answer(ask, ResponseCode::ServFail, &[]))),
    };
    let (end, took) = run(Lookup::new("app.test", spec()), failing);
    assert_eq!((end.expect("one family").is_complete, took), (false, Duration::ZERO));
    // That there is no such address of one family says nothing of the other.
    let none = |ask: &Ask| match ask.family {
        Family::V4 => Some(bytes(&answer(ask, ResponseCode::NoError, &[]))),
        Family::V6 => Some(bytes(&answer(ask, ResponseCode::ServFail, &[]))),
    };
    assert_eq!(run(Lookup::new("app.test", spec()), none).0, Err(LookupFault::NoServer));
}

#[test]
fn short_names_are_looked_for_in_the_search_domains() {
    #[track_caller]
    fn check(name: &str, ndots: usize, expected: &[&str]) {
        let search = ["a.example", "-", "b.example"].map(str::to_owned).to_vec();
        let mut asks = Vec::new();
        let serve = |ask: &Ask| {
            if ask.family == Family::V4 {
                asks.push(asked(ask).0);
            }
            Some(bytes(&answer(ask, ResponseCode::NXDomain, &["test 300 SOA 20"])))
        };
        let (end, _) = run(Lookup::new(name, LookupSpec { search, ndots, ..spec() }), serve);
        assert!(matches!(end, Err(LookupFault::NotFound(_))), "{end:?}");
        let asks: Vec<_> =
            asks.iter().map(|name| name.trim_end_matches('.')).filter(|name| !name.ends_with(".-")).collect();
        assert_eq!(asks, expected, "{name} with {ndots}");
    }
    check("db", 1, &["db.a.example", "db.b.example", "db"]);
    check("db.x", 1, &["db.x", "db.x.a.example", "db.x.b.example"]);
    check("db.x", 2, &["db.x.a.example", "db.x.b.example", "db.x"]);
    check("db", 0, &["db", "db.a.example", "db.b.example"]);
    check("db.", 1, &["db"]);
}

#[test]
fn a_search_ends_with_what_is_found_or_with_who_cannot_say() {
    let search = || LookupSpec { search: vec!["a.example".into(), "b.example".into()], ..spec() };
    let (end, _) = run(Lookup::new("db", search()), zone(&["db.b.example 60 A 192.0.2.1"]));
    assert_eq!(end.map(|found| found.addrs), Ok(ips(&["192.0.2.1"])));
    // Another name might be somebody else's.
    let mut count = 0;
    let serve = |ask: &Ask| {
        count += 1;
        Some(bytes(&answer(ask, ResponseCode::ServFail, &[])))
    };
    assert_eq!(run(Lookup::new("db", search()), serve).0, Err(LookupFault::NoServer));
    assert_eq!(count, 8, "of the first candidate alone");
}

#[test]
fn what_is_no_name_is_not_asked_for() {
    let long = format!("{}.test", "a".repeat(64));
    let longer = ["a".repeat(63).as_str(); 4].join(".");
    for name in ["", ".", "..", "a..b", &long, &longer] {
        let mut lookup = Lookup::new(name, spec());
        assert_eq!(lookup.poll_ask(start(), 1), None, "{name:?}");
        assert_eq!(lookup.poll_end(), Some(Err(LookupFault::NotFound(Duration::ZERO))), "{name:?}");
    }
    let mut lookup = Lookup::new("app.test", LookupSpec { server_count: 0, ..spec() });
    assert_eq!((lookup.poll_ask(start(), 1), lookup.poll_end()), (None, Some(Err(LookupFault::NoServer))));
}
