//! Which peers are let in: lists of ranges, looked up by address and port.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::spec::PeerRange;

/// Decides for an address whether it may connect. Knows no socket.
///
/// Of the ranges that hold the peer's address and port, the one with the longest prefix decides; where several have the same
/// prefix, denial wins. A peer in no range may connect only if nothing is allowed by name. IPv4-mapped addresses count as
/// IPv4.
///
/// A look-up costs a binary search over the ranges, and a walk over those that enclose what it found: at most one for each
/// length of a prefix. A range takes 64 bytes.
#[derive(Clone, Debug)]
pub struct PeerFilter {
    v4: Ranges,
    v6: Ranges,
    /// For who is in no range.
    allows_others: bool,
}

impl PeerFilter {
    /// Lets in the peers of `allowed`, or everybody where that is empty, except those of `denied`.
    pub fn new(allowed: &[PeerRange], denied: &[PeerRange]) -> PeerFilter {
        let verdicts = allowed.iter().map(|range| (range, true));
        let verdicts: Vec<_> = verdicts.chain(denied.iter().map(|range| (range, false))).collect();
        let of_family = |is_ipv4: bool| {
            let ranges = verdicts.iter().filter(|(range, _)| range.cidr().address().is_ipv4() == is_ipv4);
            Ranges::new(ranges.map(|(range, allow)| Rule::new(range, *allow)).collect())
        };
        PeerFilter { v4: of_family(true), v6: of_family(false), allows_others: allowed.is_empty() }
    }

    /// Whether every peer is let in, so that none needs to be looked up.
    pub fn allows_all(&self) -> bool {
        self.allows_others && self.v4.prefixes.is_empty() && self.v6.prefixes.is_empty()
    }

    /// Whether a peer that is in no range is let in.
    pub fn allows_others(&self) -> bool {
        self.allows_others
    }

    /// Whether this peer is let in. Never allocates.
    pub fn allows(&self, peer: SocketAddr) -> bool {
        let (ranges, address) = match peer.ip().to_canonical() {
            IpAddr::V4(address) => (&self.v4, u128::from(address.to_bits())),
            IpAddr::V6(address) => (&self.v6, address.to_bits()),
        };
        ranges.verdict(address, peer.port()).unwrap_or(self.allows_others)
    }
}

/// The ranges of one family. Prefixes are nested or apart, never across, so they form a forest.
#[derive(Clone, Debug, Default)]
struct Ranges {
    /// By first address, an outer one before those in it.
    prefixes: Vec<Prefix>,
    /// Those of a prefix are together.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Prefix {
    first: u128,
    last: u128,
    /// Index of the smallest prefix around this one.
    around: Option<u32>,
    rules: std::ops::Range<u32>,
}

#[derive(Clone, Debug)]
struct Rule {
    first: u128,
    last: u128,
    ports: RangeInclusive<u16>,
    allow: bool,
}

impl Rule {
    fn new(range: &PeerRange, allow: bool) -> Self {
        let (first, host_bits) = match range.cidr().address() {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32 - range.cidr().prefix_len()),
            IpAddr::V6(address) => (address.to_bits(), 128 - range.cidr().prefix_len()),
        };
        let last = first | 1_u128.checked_shl(host_bits.into()).map_or(u128::MAX, |size| size - 1);
        Rule { first, last, ports: range.ports().clone(), allow }
    }
}

impl Ranges {
    fn new(mut rules: Vec<Rule>) -> Self {
        // Outer before inner; denial first, since it is what counts.
        rules.sort_by_key(|rule| (rule.first, std::cmp::Reverse(rule.last), rule.allow));
        let mut prefixes: Vec<Prefix> = Vec::new();
        let mut open: Vec<u32> = Vec::new();
        for (at, rule) in (0..).zip(&rules) {
            while let Some(last) = open.last()
                && prefixes[*last as usize].last < rule.first
            {
                open.pop();
            }
            match open.last().map(|last| &mut prefixes[*last as usize]) {
                Some(same) if (same.first, same.last) == (rule.first, rule.last) => same.rules.end = at + 1,
                _ => {
                    let around = open.last().copied();
                    open.push(u32::try_from(prefixes.len()).expect("as many rules have a place in memory"));
                    prefixes.push(Prefix { first: rule.first, last: rule.last, around, rules: at..at + 1 });
                }
            }
        }
        Ranges { prefixes, rules }
    }

    /// What the longest prefix says that holds both; `None` where there is none.
    fn verdict(&self, address: u128, port: u16) -> Option<bool> {
        // The last that begins at or before the address: what holds it is that one, or is around it.
        let mut at = self.prefixes.partition_point(|prefix| prefix.first <= address).checked_sub(1);
        while let Some(index) = at {
            let prefix = &self.prefixes[index];
            if prefix.last >= address {
                let rules = &self.rules[prefix.rules.start as usize..prefix.rules.end as usize];
                if let Some(rule) = rules.iter().find(|rule| rule.ports.contains(&port)) {
                    return Some(rule.allow);
                }
            }
            at = prefix.around.map(|around| around as usize);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use proptest::prelude::*;

    use super::PeerFilter;
    use crate::spec::{Cidr, PeerRange};

    fn ranges(texts: &[&str]) -> Vec<PeerRange> {
        texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
    }

    #[track_caller]
    fn check(allowed: &[&str], denied: &[&str], peers: &[(&str, bool)]) {
        let filter = PeerFilter::new(&ranges(allowed), &ranges(denied));
        for (peer, expected) in peers {
            let address = peer.parse().unwrap_or_else(|error| panic!("{peer}: {error}"));
            assert_eq!(filter.allows(address), *expected, "{peer} of {allowed:?} but {denied:?}");
        }
    }

    #[test]
    fn the_whole_of_a_family() {
        check(&["0.0.0.0/0"], &[], &[("127.0.0.1:1", true), ("192.168.1.1:1", true), ("[::1]:1", false)]);
        check(&["::/0"], &[], &[("[fd00::1]:1", true), ("[::1]:1", true), ("10.0.0.1:1", false)]);
        check(&[], &[], &[("10.0.0.1:1", true), ("[::1]:1", true)]);
        check(&[], &["0.0.0.0/0"], &[("255.255.255.255:1", false), ("[::1]:1", true)]);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let peers = [
            ("10.0.0.1:1", true),
            ("10.1.0.1:1", false),
            ("10.1.2.3:1", true),
            ("10.2.0.0:1", true),
            ("11.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", true),
            ("[::ffff:10.1.0.1]:1", false),
        ];
        check(&["10.0.0.0/8", "10.1.2.3"], &["10.1.0.0/16"], &peers);
    }

    #[test]
    fn ports_narrow_a_range_and_denial_wins_among_equals() {
        let peers = [("10.1.0.1:80", false), ("10.1.0.1:81", true), ("10.9.0.1:80", true)];
        check(&["10.0.0.0/8"], &["10.1.0.0/16:80"], &peers);
        let peers = [("10.0.0.1:15", false), ("10.0.0.1:5", true), ("10.0.0.1:25", false)];
        check(&["10.0.0.0/8:1-20"], &["10.0.0.0/8:10-30"], &peers);
    }

    #[test]
    fn who_needs_no_look_up() {
        assert!(PeerFilter::new(&[], &[]).allows_all());
        assert!(!PeerFilter::new(&[], &ranges(&["::1"])).allows_all());
        assert!(!PeerFilter::new(&ranges(&["0.0.0.0/0"]), &[]).allows_all());
    }

    /// The rule as it is written: every range is asked.
    fn naive(allowed: &[PeerRange], denied: &[PeerRange], peer: SocketAddr) -> bool {
        let holding =
            |range: &&PeerRange| range.cidr().contains(peer.ip()) && range.ports().contains(&peer.port());
        let longest = |ranges: &[PeerRange]| {
            ranges
                .iter()
                .filter(holding)
                .map(|range| i16::from(range.cidr().prefix_len()))
                .max()
                .unwrap_or(-1)
        };
        match (longest(allowed), longest(denied)) {
            (-1, -1) => allowed.is_empty(),
            (allow, deny) => allow > deny,
        }
    }

    /// Few values, so that ranges nest, touch and repeat.
    fn address() -> impl Strategy<Value = IpAddr> {
        let few = prop_oneof![0u8..4, 252u8..=255];
        let v4 = prop::array::uniform4(few.clone()).prop_map(|bytes| Ipv4Addr::from(bytes).into());
        let v6 = (prop::array::uniform4(few.clone()), prop::array::uniform4(few)).prop_map(|(high, low)| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&high);
            bytes[12..].copy_from_slice(&low);
            Ipv6Addr::from(bytes).into()
        });
        let mapped =
            prop::array::uniform4(0u8..4).prop_map(|bytes| Ipv4Addr::from(bytes).to_ipv6_mapped().into());
        prop_oneof![v4, v6, mapped]
    }

    fn range() -> impl Strategy<Value = PeerRange> {
        let ports = prop_oneof![Just((0, u16::MAX)), (0u16..6, 0u16..6)];
        (address(), 0u8..=128, ports).prop_map(|(address, len, (a, b))| {
            let len = if address.is_ipv4() { len / 4 } else { len };
            let cidr = Cidr::new(address, len).expect("in range");
            PeerRange::with_ports(cidr, a.min(b)..=a.max(b)).expect("in order")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_the_rule(
            allowed in prop::collection::vec(range(), 0..12),
            denied in prop::collection::vec(range(), 0..12),
            peers in prop::collection::vec((address(), 0u16..7), 1..20),
        ) {
            let filter = PeerFilter::new(&allowed, &denied);
            let edges = allowed.iter().chain(&denied).map(|range| (range.cidr().address(), *range.ports().end()));
            for (address, port) in edges.chain(peers) {
                let peer = SocketAddr::new(address, port);
                prop_assert_eq!(filter.allows(peer), naive(&allowed, &denied, peer), "{}", peer);
            }
        }
    }
}
