//! Lines as ranges of peers, those after an empty line as denied: the filter decides as the rule does that is asked of
//! every range.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use ringport::net::PeerFilter;
use ringport::spec::PeerRange;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let ranges = |lines: &mut dyn Iterator<Item = &str>| -> Vec<PeerRange> {
        lines.take_while(|line| !line.is_empty()).filter_map(|line| line.parse().ok()).take(64).collect()
    };
    let (allowed, denied) = (ranges(&mut lines), ranges(&mut lines));
    let filter = PeerFilter::new(&allowed, &denied);
    for range in allowed.iter().chain(&denied) {
        assert_eq!(range.to_string().parse().as_ref(), Ok(range));
        for port in [*range.ports().start(), range.ports().end().wrapping_add(1)] {
            let peer = SocketAddr::new(range.cidr().address(), port);
            let longest = |ranges: &[PeerRange]| {
                let holding = ranges.iter().filter(|range| range.cidr().contains(peer.ip()) && range.ports().contains(&port));
                holding.map(|range| i16::from(range.cidr().prefix_len())).max().unwrap_or(-1)
            };
            let expected = match (longest(&allowed), longest(&denied)) {
                (-1, -1) => allowed.is_empty(),
                (allow, deny) => allow > deny,
            };
            assert_eq!(filter.allows(peer), expected, "{peer}");
        }
    }
});
