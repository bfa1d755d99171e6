use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Action, Attempts, AttemptsSpec, MIN_SHARE, interleaved};

const SPEC: AttemptsSpec =
    AttemptsSpec { fallback_delay: Some(Duration::from_millis(300)), deadline: None, max_under_way: 8 };

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
}

fn start(attempt: usize) -> Action {
    Action::Start { attempt }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn families_take_turns() {
    let order = |addrs: &[SocketAddr]| interleaved(addrs.to_vec());
    assert_eq!(order(&[v6(1), v6(2), v6(3), v4(1), v4(2)]), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
    assert_eq!(order(&[v4(1), v6(1), v6(2)]), [v4(1), v6(1), v6(2)]);
    assert_eq!(order(&[v4(2), v4(1)]), [v4(2), v4(1)]);
    assert!(order(&[]).is_empty());
}

#[test]
fn the_next_begins_after_the_delay() {
    let t = Instant::now();
    let mut attempts = Attempts::new(3, SPEC);
    assert_eq!(attempts.poll(t), start(0));
    assert_eq!(attempts.poll(t), Action::Wait);
    assert_eq!(attempts.poll_timeout(), Some(t + ms(300)));
    assert_eq!(attempts.poll(t + ms(299)), Action::Wait);
    assert_eq!(attempts.poll(t + ms(310)), start(1));
    assert_eq!(attempts.poll_timeout(), Some(t + ms(610)), "counted from the start before");
    assert_eq!(attempts.poll(t + ms(610)), start(2));
    assert_eq!((attempts.poll(t + ms(9_000)), attempts.poll_timeout()), (Action::Wait, None));
}

#[test]
fn the_next_begins_at_once_after_a_failure() {
    let t = Instant::now();
    let mut attempts = Attempts::new(2, SPEC);
    assert_eq!(attempts.poll(t), start(0));
    attempts.handle_failed(0, t + ms(5));
    assert_eq!(attempts.poll(t + ms(5)), start(1));
    assert_eq!(attempts.poll(t + ms(5)), Action::Wait);
    attempts.handle_failed(1, t + ms(9));
    attempts.handle_failed(1, t + ms(9));
    assert_eq!(attempts.poll(t + ms(9)), Action::Exhausted);
    assert_eq!(Attempts::new(0, SPEC).poll(t), Action::Exhausted);
}

/// RFC 8305 5: what still is under way does not hold the next back.
#[test]
fn a_failure_beside_others_starts_the_next() {
    let t = Instant::now();
    let mut attempts = Attempts::new(3, SPEC);
    assert_eq!(attempts.poll(t), start(0));
    assert_eq!(attempts.poll(t + ms(300)), start(1));
    attempts.handle_failed(1, t + ms(310));
    assert_eq!(attempts.poll(t + ms(310)), start(2));
}

#[test]
fn without_a_delay_one_comes_after_the_other() {
    let t = Instant::now();
    let mut attempts = Attempts::new(2, AttemptsSpec { fallback_delay: None, ..SPEC });
    assert_eq!(attempts.poll(t), start(0));
    assert_eq!((attempts.poll(t + ms(100_000)), attempts.poll_timeout()), (Action::Wait, None));
    attempts.handle_failed(0, t + ms(100_000));
    assert_eq!(attempts.poll(t + ms(100_000)), start(1));
}

/// Ten seconds and four addresses, three of them dead: 2.5 s each.
#[test]
fn each_has_its_share_of_the_deadline() {
    let t = Instant::now();
    let spec = AttemptsSpec { fallback_delay: None, deadline: Some(t + ms(10_000)), ..SPEC };
    let mut attempts = Attempts::new(4, spec);
    for attempt in 0..3 {
        let begin = t + ms(2_500) * u32::try_from(attempt).expect("small");
        assert_eq!(attempts.poll(begin), start(attempt));
        assert_eq!(attempts.poll_timeout(), Some(begin + ms(2_500)));
        assert_eq!(attempts.poll(begin + ms(2_499)), Action::Wait);
        assert_eq!(attempts.poll(begin + ms(2_500)), Action::Abandon { attempt });
    }
    assert_eq!(attempts.poll(t + ms(7_500)), start(3));
    assert_eq!(attempts.poll(t + ms(9_999)), Action::Wait);
    assert_eq!(attempts.poll(t + ms(10_000)), Action::TimedOut);
}

#[test]
fn what_an_early_failure_leaves_goes_to_the_rest() {
    let t = Instant::now();
    let spec = AttemptsSpec { fallback_delay: None, deadline: Some(t + ms(9_000)), ..SPEC };
    let mut attempts = Attempts::new(3, spec);
    assert_eq!(attempts.poll(t), start(0));
    attempts.handle_failed(0, t);
    assert_eq!(attempts.poll(t), start(1));
    assert_eq!(attempts.poll_timeout(), Some(t + ms(4_500)));
}

#[test]
fn a_share_is_never_too_short_to_be_of_use() {
    let t = Instant::now();
    let spec = AttemptsSpec { fallback_delay: None, deadline: Some(t + ms(3_000)), ..SPEC };
    let mut attempts = Attempts::new(30, spec);
    assert_eq!(attempts.poll(t), start(0));
    assert_eq!(attempts.poll_timeout(), Some(t + MIN_SHARE));
    attempts.handle_failed(0, t + ms(2_000));
    assert_eq!(attempts.poll(t + ms(2_000)), start(1));
    assert_eq!(attempts.poll_timeout(), Some(t + ms(3_000)), "never beyond the whole");
}

#[test]
fn only_so_many_are_under_way() {
    let t = Instant::now();
    let spec = AttemptsSpec { max_under_way: 2, ..SPEC };
    let mut attempts = Attempts::new(3, spec);
    assert_eq!(attempts.poll(t), start(0));
    assert_eq!(attempts.poll(t + ms(300)), start(1));
    assert_eq!(attempts.poll(t + ms(900)), Action::Wait);
    assert_eq!(attempts.poll_timeout(), None, "only the end of an attempt makes room");
    attempts.handle_failed(0, t + ms(1_000));
    assert_eq!(attempts.poll(t + ms(1_000)), start(2));
}

/// What an attempt comes to, so long after it was begun.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Connects(u64),
    Fails(u64),
    Hangs,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        (0..5_000_u64).prop_map(Fate::Connects),
        (0..5_000_u64).prop_map(Fate::Fails),
        Just(Fate::Hangs),
    ]
}

proptest! {
    /// In a simulated network: every address is tried once at most and in order, an address that would connect in time is
    /// never passed by, and the whole ends by the deadline or when every address has.
    #[test]
    fn any_network(
        fates in prop::collection::vec(fate(), 0..20),
        delay in prop::option::of(10..1_000_u64),
        limit in prop::option::of(1..20_000_u64),
        max_under_way in 0..4_usize,
    ) {
        let t = Instant::now();
        let spec = AttemptsSpec {
            fallback_delay: delay.map(ms),
            deadline: limit.map(|limit| t + ms(limit)),
            max_under_way,
        };
        let mut attempts = Attempts::new(fates.len(), spec);
        let mut now = t;
        let mut running: Vec<(usize, Option<(Instant, bool)>)> = Vec::new();
        let mut begun = 0;
        for _ in 0..1_000 {
            match attempts.poll(now) {
                Action::Start { attempt } => {
                    prop_assert_eq!(attempt, begun);
                    begun += 1;
                    let outcome = match fates[attempt] {
                        Fate::Connects(after) => Some((now + ms(after), true)),
                        Fate::Fails(after) => Some((now + ms(after), false)),
                        Fate::Hangs => None,
                    };
                    running.push((attempt, outcome));
                    prop_assert!(running.len() <= max_under_way.max(1));
                    prop_assert_eq!(attempts.started(), begun);
                }
                Action::Abandon { attempt } => {
                    let before = running.len();
                    running.retain(|(other, _)| *other != attempt);
                    prop_assert_eq!(running.len(), before - 1, "one that is under way");
                }
                Action::Exhausted => {
                    prop_assert!(running.is_empty() && begun == fates.len());
                    return Ok(());
                }
                Action::TimedOut => {
                    prop_assert!(spec.deadline.is_some_and(|deadline| deadline <= now));
                    return Ok(());
                }
                Action::Wait => {
                    let next = running.iter().filter_map(|(attempt, outcome)| Some((outcome.as_ref()?, *attempt)));
                    let next = next.min().map(|((at, connects), attempt)| (*at, *connects, attempt));
                    let timeout = attempts.poll_timeout();
                    prop_assert!(timeout.is_none_or(|timeout| timeout > now), "it would spin");
                    match (next, timeout) {
                        (Some((at, connects, attempt)), timeout) if timeout.is_none_or(|timeout| at < timeout) => {
                            now = at;
                            if connects {
                                return Ok(());
                            }
                            running.retain(|(other, _)| *other != attempt);
                            attempts.handle_failed(attempt, now);
                        }
                        (_, Some(timeout)) => now = timeout,
                        // All that is under way hangs, and there is no deadline: the kernel's own ends it.
                        (_, None) => {
                            prop_assert!(spec.deadline.is_none() && !running.is_empty());
                            return Ok(());
                        }
                    }
                }
            }
        }
        prop_assert!(false, "no end");
    }
}
