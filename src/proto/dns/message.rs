//! Messages of the domain name system, as far as addresses need them.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::MAX_ADDRESSES;

/// A family of addresses; a question is for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AAAA.
    V6,
    /// A.
    V4,
}

impl Family {
    fn record_type(self) -> RecordType {
        match self {
            Family::V6 => RecordType::AAAA,
            Family::V4 => RecordType::A,
        }
    }
}

/// What a server said to a question.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) said: Said,
    /// Of all that it follows from.
    pub(super) ttl: Duration,
    /// That were followed.
    pub(super) aliases: usize,
}

#[derive(Debug)]
pub(super) enum Said {
    /// These, or that there are none.
    Addresses(Vec<IpAddr>),
    /// It is an alias of a name of whose addresses nothing is said.
    Alias(Name),
    TooManyAliases,
    /// More than fits into a datagram.
    Truncated,
    /// The server cannot say, or what it said is malformed.
    Failed,
}

/// A question for the addresses of a name; `None` for one that cannot be written.
pub(super) fn question(id: u16, name: &Name, family: Family) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), family.record_type()));
    message.to_vec().ok()
}

/// What a message says to this question; `None` where it is no answer to it (RFC 5452 9.1): another number, another question, or
/// no response at all.
pub(super) fn read(
    bytes: &[u8],
    id: u16,
    name: &Name,
    family: Family,
    max_aliases: usize,
) -> Option<Response> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    let about = header.metadata;
    let is_response = about.message_type == MessageType::Response && about.op_code == OpCode::Query;
    if about.id != id || !is_response || header.counts.queries != 1 {
        return None;
    }
    let query = Query::read(&mut decoder).ok()?;
    let is_same = query.name() == name
        && query.query_type() == family.record_type()
        && query.query_class() == DNSClass::IN;
    if !is_same {
        return None;
    }
    let say = |said| Some(Response { said, ttl: Duration::MAX, aliases: 0 });
    // Its end may be cut anywhere, so nothing more is read of it.
    if about.truncation {
        return say(Said::Truncated);
    }
    if !matches!(about.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return say(Said::Failed);
    }
    match Message::from_vec(bytes) {
        Ok(message) => Some(follow(&message, name, family, max_aliases)),
        Err(_) => say(Said::Failed),
    }
}

/// Follows a name's aliases to its addresses.
fn follow(message: &Message, name: &Name, family: Family, max_aliases: usize) -> Response {
    let (mut name, mut ttl, mut aliases) = (name.clone(), Duration::MAX, 0);
    loop {
        let own = |record: &&Record| record.name == name && record.dns_class == DNSClass::IN;
        let mut addrs = Vec::new();
        let mut addrs_ttl = Duration::MAX;
        let mut alias = None;
        for record in message.answers.iter().filter(own) {
            let addr: IpAddr = match (&record.data, family) {
                (RData::A(addr), Family::V4) => addr.0.into(),
                (RData::AAAA(addr), Family::V6) => addr.0.into(),
                (RData::CNAME(to), _) => {
                    alias = Some((to.0.clone(), time_to_live(record.ttl)));
                    continue;
                }
                _ => continue,
            };
            addrs_ttl = addrs_ttl.min(time_to_live(record.ttl));
            if addrs.len() < MAX_ADDRESSES && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        if !addrs.is_empty() {
            return Response { said: Said::Addresses(addrs), ttl: ttl.min(addrs_ttl), aliases };
        }
        match alias {
            Some(_) if aliases == max_aliases => {
                return Response { said: Said::TooManyAliases, ttl, aliases };
            }
            Some((to, alias_ttl)) => {
                (name, ttl, aliases) = (to, ttl.min(alias_ttl), aliases + 1);
                name.set_fqdn(true);
            }
            None => break,
        }
    }
    // RFC 2308 2.1: with an alias in front the code is about the last name.
    let none = negative(message);
    if aliases > 0 && none.is_none() && message.metadata.response_code == ResponseCode::NoError {
        return Response { said: Said::Alias(name), ttl, aliases };
    }
    // RFC 2308 5: without the zone's word on it, that there is nothing is not kept.
    let ttl = ttl.min(none.unwrap_or_default());
    Response { said: Said::Addresses(Vec::new()), ttl, aliases }
}

/// How long it may be kept that there is nothing (RFC 2308 5).
fn negative(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(time_to_live(record.ttl.min(soa.minimum))),
        _ => None,
    })
}

/// RFC 2181 8: with the highest bit set it counts as 0.
fn time_to_live(seconds: u32) -> Duration {
    Duration::from_secs(if seconds > i32::MAX as u32 { 0 } else { seconds.into() })
}
