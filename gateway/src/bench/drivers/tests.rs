//! Medians, verdicts and pictures over figures that were not measured.

use super::{Figures, Measured, Served, median, picture, variants, verdict};
use crate::bench::tally::Tally;

fn measured(work: Served, name: &str, cpu_nanos: Option<f64>) -> Measured {
    measured_in_rounds(work, name, cpu_nanos.map(|cpu_nanos| vec![cpu_nanos]))
}

fn measured_in_rounds(work: Served, name: &str, costs: Option<Vec<f64>>) -> Measured {
    let figures = costs.map(|costs| Figures {
        rate: 1e9 / median(costs.clone()),
        cpu_nanos: median(costs.clone()),
        costs,
        syscalls: 0.5,
        busy: 1.0,
        load_busy: 0.5,
        failed: 0,
        latency: Tally::new().latency,
    });
    Measured { work, name: name.to_owned(), figures: figures.ok_or_else(|| "the kernel refuses".to_owned()) }
}

#[test]
fn medians_ignore_the_order() {
    for (values, expected) in
        [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0, 5.0], 5.0), (vec![4.0, 2.0], 3.0)]
    {
        assert_eq!(median(values.clone()), expected, "{values:?}");
    }
}

#[test]
fn the_cheapest_is_best_if_it_is_clear() {
    let check = |uring: Option<f64>, epoll: Option<f64>, best: Option<&str>, part: &str| {
        let both = [measured(Served::Echo, "uring", uring), measured(Served::Echo, "epoll", epoll)];
        let (found, text) = verdict(&both, Served::Echo);
        assert_eq!(found.as_deref(), best, "{text}");
        assert!(text.contains(part), "{text}");
    };
    check(Some(80.0), Some(100.0), Some("uring"), "20 % less");
    check(Some(100.0), Some(50.0), Some("epoll"), "50 % less");
    check(Some(99.0), Some(100.0), None, "no clear difference");
    check(None, Some(100.0), Some("epoll"), "the only one");
    check(None, None, None, "nothing was measured");
}

/// 3 % between two medians used to be called clear, however far the rounds were apart.
#[test]
fn what_is_not_best_in_every_round_is_not_called_best() {
    let of = |uring: &[f64], epoll: &[f64]| {
        let both = [("uring", uring), ("epoll", epoll)]
            .map(|(name, costs)| measured_in_rounds(Served::Hello, name, Some(costs.to_vec())));
        verdict(&both, Served::Hello).0
    };
    assert_eq!(of(&[80.0, 90.0, 120.0], &[100.0, 110.0, 115.0]), None);
    assert_eq!(of(&[80.0, 90.0, 120.0], &[100.0, 110.0, 140.0]), Some("uring".to_owned()));
}

#[test]
fn each_mechanism_is_left_out_once() {
    let names: Vec<String> = variants(true).into_iter().map(|variant| variant.name).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    assert_eq!(
        (names[0].as_str(), names[5].as_str(), names[6].as_str()),
        ("uring", "uring without silent", "epoll")
    );
    assert_eq!(variants(false).len(), 2);
}

#[test]
fn pictures_show_what_there_is() {
    let all = [
        measured(Served::Echo, "uring", Some(100.0)),
        measured(Served::Echo, "epoll", Some(200.0)),
        measured(Served::Hello, "uring", None),
        measured(Served::Hello, "epoll", Some(300.0)),
    ];
    let text = picture::text(&all, 1, true);
    for part in [
        &*"#".repeat(40),
        "the kernel refuses",
        "uring is best here",
        "one core",
        "a signal",
        "100 (100 to 100)",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    let svg = picture::svg(&all);
    assert_eq!(svg.matches("fill=\"#4477aa\"").count(), 3, "{svg}");
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(
        svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("width=\"230.0\""),
        "{svg}"
    );
}
