//! Bytes in pieces of any length mean the same.

use proptest::prelude::*;

use super::{
    DATA, END_HEADERS, END_STREAM, Event, HEADERS, PING, RST_STREAM, SETTINGS, Side, Spec, WINDOW_UPDATE,
    block, frame, simple_post,
};

/// How a client ends a stream.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Data,
    Trailers,
    Reset,
    Open,
}

/// What a client writes: streams with the lengths of their DATA, frames of the connection, all interleaved, and at the end
/// perhaps what is no frame at all. Nothing is written to a stream that has ended: h2 has forgotten it or not, by its own clock.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let ending = prop_oneof![3 => Just(Ending::Data), 1 => Just(Ending::Trailers), 1 => Just(Ending::Reset), 1 => Just(Ending::Open)];
    let stream = (proptest::collection::vec(0usize..300, 0..6), ending);
    let control = prop_oneof![
        Just(frame(PING, 0, 0, &[3; 8])),
        Just(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        Just(frame(WINDOW_UPDATE, 0, 0, &100u32.to_be_bytes())),
        Just(frame(0x55, 3, 9, b"whatever")),
    ];
    let picks = proptest::collection::vec((0usize..8, control), 1..40);
    let garbage = proptest::collection::vec(any::<u8>(), 0..20);
    (proptest::collection::vec(stream, 1..6), picks, garbage).prop_map(|(streams, picks, garbage)| {
        let mut waiting: Vec<_> = streams.into_iter().map(|stream| (None, stream)).collect();
        let (mut bytes, mut next_id) = (Vec::new(), 1);
        for (pick, control) in picks {
            match waiting.get_mut(pick) {
                None => bytes.extend(control),
                Some((id @ None, (_, _))) => {
                    *id = Some(next_id);
                    bytes.extend(simple_post(next_id));
                    next_id += 2;
                }
                Some((Some(id), (lens, ending))) => match (lens.pop(), *ending) {
                    (Some(len), _) => bytes.extend(frame(DATA, 0, *id, &vec![b'd'; len])),
                    (None, Ending::Open) => {}
                    (None, ending) => {
                        bytes.extend(match ending {
                            Ending::Data => frame(DATA, END_STREAM, *id, b"."),
                            Ending::Trailers => {
                                frame(HEADERS, END_HEADERS | END_STREAM, *id, &block(&[("x-trailer", "1")]))
                            }
                            Ending::Reset | Ending::Open => frame(RST_STREAM, 0, *id, &8u32.to_be_bytes()),
                        });
                        waiting.remove(pick);
                    }
                },
            }
        }
        bytes.extend(garbage);
        bytes
    })
}

/// What happened on each stream that was not reset, which streams were, and whether the connection ended.
#[derive(Debug, Default, PartialEq)]
struct Told {
    lines: Vec<(u32, String)>,
    data: Vec<(u32, Vec<u8>)>,
    reset: Vec<u32>,
    ended: bool,
}

fn told(bytes: &[u8], cuts: &[usize]) -> Told {
    let mut side = Side::server_behind_preface(Spec::default());
    let mut rest = bytes;
    let mut events = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let (part, behind) = rest.split_at((*cuts.next().expect("a cut")).min(rest.len()));
        side.give(part);
        events.extend(side.turn().0);
        rest = behind;
    }
    let mut told = Told { ended: side.error.is_some(), ..Told::default() };
    for event in events {
        match event {
            Event::Data { id, data } => match told.data.iter_mut().find(|(at, _)| *at == id.number()) {
                Some((_, all)) => all.extend(data),
                None => told.data.push((id.number(), data.to_vec())),
            },
            Event::Request { id, head, body } => {
                told.lines.push((id.number(), format!("{} {body:?}", head.uri())));
            }
            Event::Trailers { id, trailers } => told.lines.push((id.number(), format!("{trailers:?}"))),
            Event::End { id } => told.lines.push((id.number(), "end".to_owned())),
            Event::Reset { id, .. } => told.reset.push(id.number()),
            other => panic!("{other:?}"),
        }
    }
    // Streams take turns in the order in which they were heard of, and how much is told of one before its reset depends on
    // the pieces.
    told.lines.retain(|(id, _)| !told.reset.contains(id));
    told.data.retain(|(id, _)| !told.reset.contains(id));
    told.lines.sort_by_key(|(id, _)| *id);
    told.data.sort();
    told.reset.sort_unstable();
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_split_tells_the_same(bytes in script(), cuts in proptest::collection::vec(1usize..40, 1..8)) {
        let whole = told(&bytes, &[usize::MAX]);
        let split = told(&bytes, &cuts);
        // Of what came before a fault in the same piece not all may be told; that there is one does not depend on it.
        prop_assert_eq!(whole.ended, split.ended);
        if !whole.ended {
            prop_assert_eq!(&whole, &split);
        }
    }
}
