//! What ringport is meant to reach, and what the kept results say about it.

use crate::pace::Pace;
use crate::render::{grouped, ratio, with_spread};
use crate::results::{BUSY_ENOUGH, Report, Row, Spread};

/// A number that is to be reached.
struct Target {
    what: &'static str,
    question: &'static str,
    config: &'static str,
    ours: &'static str,
    figure: Figure,
    at_most: f64,
}

/// Which number of a row it is, and whose it is compared with.
#[derive(Clone, Copy)]
enum Figure {
    Allocations,
    /// What a request costs, divided by what it costs the cheapest of these.
    Cost(Against),
    /// How much more a request costs beside idle connections.
    IdleCost,
    Instructions,
    /// Instructions, divided by those of who has the fewest of these.
    InstructionsTo(Against),
    /// Instructions in the kernel, likewise; only hardware counts them.
    KernelInstructionsTo(Against),
    /// Bytes of an idle connection.
    Memory,
    Syscalls,
}

/// Rows by what their peer's name begins with, copying or splicing.
#[derive(Clone, Copy)]
struct Against {
    names: &'static [&'static str],
    splicing: bool,
}

/// What the results say of a target.
struct Finding {
    figure: String,
    verdict: String,
}

/// The table of all targets.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut out = String::from(ABOUT);
    for target in TARGETS {
        let Finding { figure, verdict } = target.find(reports);
        let Target { what, question, config, ours, at_most, .. } = target;
        out.push_str(&format!(
            "| {what} | {} | {figure} | {verdict} | {question}: {config}, {ours} |\n",
            limit(*at_most)
        ));
    }
    out
}

impl Target {
    fn find(&self, reports: &[Report]) -> Finding {
        let missing =
            |why: String| Finding { figure: String::new(), verdict: format!("not measured: {why}") };
        let Some(report) = reports.iter().find(|report| report.question == self.question) else {
            return missing("not asked".to_owned());
        };
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.config == self.config).collect();
        let Some(ours) = rows.iter().copied().find(|row| row.peer == self.ours) else {
            return missing("there is no such row".to_owned());
        };
        if let Some(failed) = &ours.failed {
            return missing(failed.clone());
        }
        let Some((value, mut text, doubt)) = self.measured(ours, &rows) else {
            return missing(self.figure.why_missing().to_owned());
        };
        let absent = self.figure.against().into_iter().flat_map(|against| against.of(&rows));
        for row in absent.filter(|row| row.failed.is_some()) {
            text.push_str(&format!("; {} was not measured", row.peer));
        }
        // Compared with as many digits as the tables show: 1.0004 calls are one.
        let reached = (value * 1_000.0).round() <= self.at_most * 1_000.0;
        let sample = report.context.quick.then(|| "a quick run".to_owned());
        let verdict = match (doubt.or(sample), reached) {
            (None, true) => "**reached**".to_owned(),
            (None, false) => "not reached".to_owned(),
            (Some(doubt), true) => format!("does not count ({doubt}); would be reached"),
            (Some(doubt), false) => format!("does not count ({doubt}); would not be reached"),
        };
        Finding { figure: text, verdict }
    }

    /// The value, how it is shown, and why it does not count.
    fn measured(&self, ours: &Row, rows: &[&Row]) -> Option<(f64, String, Option<String>)> {
        let counted = |value: f64| (value, grouped(value), None);
        match self.figure {
            Figure::Allocations => ours.metered.map(|(_, count)| (count, format!("{count:.2}"), None)),
            Figure::Instructions => ours.metered.map(|(instructions, _)| counted(instructions)),
            Figure::Syscalls => ours.syscalls.map(|calls| (calls, format!("{calls:.3}"), None)),
            Figure::Memory => extra(ours, "bytes per idle").map(|(spread, _)| counted(spread.median)),
            Figure::IdleCost => {
                let (more, values) = extra(ours, "of it more")?;
                let busy = extra(ours, "busy").map_or(f64::NAN, |(busy, _)| busy.median);
                let doubt = match values.len() < Pace::LEAST_ROUNDS {
                    true => Some("too few rounds are kept".to_owned()),
                    false => {
                        (busy.is_nan() || busy < 100.0 * BUSY_ENOUGH).then(|| "busy below 95 %".to_owned())
                    }
                };
                Some((more.median, with_spread(values), doubt))
            }
            Figure::InstructionsTo(against) => {
                let (mine, _) = ours.metered?;
                let of = |row: &Row| row.metered.map(|(instructions, _)| mine / instructions);
                let (value, best) = hardest(against.of(rows).filter_map(|row| Some((of(row)?, row))))?;
                Some((value, format!("{value:.2} of {}", best.peer), None))
            }
            Figure::Cost(against) => {
                let ratios = against.of(rows).filter_map(|row| Some((ours.ratio_to(row)?, row)));
                versus(ours, ratios.collect())
            }
            Figure::KernelInstructionsTo(against) => {
                let ratios =
                    against.of(rows).filter_map(|row| Some((ours.kernel_instructions_to(row)?, row)));
                versus(ours, ratios.collect())
            }
        }
    }
}

/// A value that the question alone has: the first whose name begins so.
fn extra<'a>(row: &'a Row, name: &str) -> Option<(Spread, &'a [f64])> {
    let (_, values) = row.extra.iter().find(|(extra, _)| extra.starts_with(name))?;
    Some((Spread::of(values.iter().copied())?, values))
}

/// The ratio to the best of them, and whether it comes from rows that count.
fn versus(ours: &Row, ratios: Vec<(Spread, &Row)>) -> Option<(f64, String, Option<String>)> {
    let (value, best) = hardest(ratios.iter().map(|(spread, row)| (spread.median, *row)))?;
    let (spread, _) = ratios.iter().find(|(_, row)| row.peer == best.peer)?;
    let idle = [ours, best].into_iter().find(|row| !row.counts());
    let doubt = match idle {
        Some(row) => Some(format!("{} was busy below 95 %", row.peer)),
        None if ours.rounds.len().min(best.rounds.len()) < Pace::LEAST_ROUNDS => {
            Some("too few rounds".to_owned())
        }
        None => [ours, best]
            .into_iter()
            .find(|row| row.disturbed())
            .map(|row| format!("{} was disturbed", row.peer)),
    };
    Some((value, format!("{} of {}", ratio(*spread), best.peer), doubt))
}

/// The greatest ratio is to the best peer.
fn hardest<'a>(ratios: impl Iterator<Item = (f64, &'a Row)>) -> Option<(f64, &'a Row)> {
    ratios.max_by(|(a, _), (b, _)| a.total_cmp(b))
}

impl Against {
    fn of<'a>(self, rows: &[&'a Row]) -> impl Iterator<Item = &'a Row> {
        rows.iter().copied().filter(move |row| {
            let (name, splicing) = (row.peer.as_str(), row.peer.ends_with(", splicing"));
            splicing == self.splicing && self.names.iter().any(|asked| name.split(' ').next() == Some(*asked))
        })
    }
}

impl Figure {
    fn against(self) -> Option<Against> {
        match self {
            Figure::Cost(against)
            | Figure::InstructionsTo(against)
            | Figure::KernelInstructionsTo(against) => Some(against),
            Figure::Allocations
            | Figure::IdleCost
            | Figure::Instructions
            | Figure::Memory
            | Figure::Syscalls => None,
        }
    }

    fn why_missing(self) -> &'static str {
        match self {
            Figure::Allocations | Figure::Instructions => "the row was not stepped",
            Figure::Cost(_) | Figure::InstructionsTo(_) => {
                "none of those that it is compared with has such a row"
            }
            Figure::IdleCost | Figure::Memory => "the kept run did not ask it",
            Figure::KernelInstructionsTo(_) => "there are no hardware counters",
            Figure::Syscalls => "there was no tracepoint to count by",
        }
    }
}

fn limit(at_most: f64) -> String {
    if at_most >= 100.0 { grouped(at_most) } else { format!("{at_most}") }
}

const ABOUT: &str = "
## What is to be reached

One core, medians. A ratio is to the best of those that it names, with the least and the greatest of its rounds; it counts
only where both servers were at least 95 % busy, in at least 7 rounds, undisturbed. Cost is meant in cycles: where the hardware counts none, processor time stands in for them here, too.

| | at most | figure | | from the table |
|---|--:|---|---|---|
";

const ASYNC_PEERS: Against =
    Against { names: &["tokio", "monoio", "compio", "tokio-uring", "glommio"], splicing: false };
const BARE_LOOP: Against = Against { names: &["bare-loop"], splicing: false };
const HYPER: Against = Against { names: &["hyper-tokio"], splicing: false };
const HYPER_AND_NGINX: Against = Against { names: &["hyper-tokio", "nginx"], splicing: false };
const PROXIES: Against =
    Against { names: &["hyper-util-tokio", "pingora", "nginx", "haproxy"], splicing: false };
const COPYING: Against = Against { names: &["nginx", "haproxy"], splicing: false };
const SPLICING: Against = Against { names: &["haproxy"], splicing: true };

const URING: &str = "ringport-uring";
const SPLICED: &str = "ringport-uring-splice";
const ECHO: &str = "64 B, 64 connections";
const HELLO: &str = "64 connections, 1 in flight on each";
const PROXY: &str = "13 B answers, 64 connections";
const IDLE_ECHO: &str = "echo with up to 18000 idle connections";
const IDLE_HELLO: &str = "hello with up to 18000 idle connections";

const fn target(
    what: &'static str,
    (question, config, ours): (&'static str, &'static str, &'static str),
    figure: Figure,
    at_most: f64,
) -> Target {
    Target { what, question, config, ours, figure, at_most }
}

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    target("user-space instructions of an echo", ("echo", ECHO, URING), Figure::Instructions, 600.0),
    target("the same, of the best asynchronous peer", ("echo", ECHO, URING), Figure::InstructionsTo(ASYNC_PEERS), 1.0),
    target("kernel instructions of an echo, of the bare loop's", ("echo", ECHO, URING), Figure::KernelInstructionsTo(BARE_LOOP), 1.03),
    target("cost of an echo, of the best asynchronous peer", ("echo", "1 KiB, 512 connections", URING), Figure::Cost(ASYNC_PEERS), 0.88),
    target("cost of an echo, of the best asynchronous peer", ("echo", "16 KiB, 64 connections", URING), Figure::Cost(ASYNC_PEERS), 0.9),
    target("user-space instructions of a hello", ("hello", HELLO, URING), Figure::Instructions, 2_000.0),
    target("cost of a hello, of hyper", ("hello", HELLO, URING), Figure::Cost(HYPER), 0.85),
    target("cost of a hello pipelined by 16, of hyper and nginx", ("hello", "64 connections, 16 in flight on each", URING), Figure::Cost(HYPER_AND_NGINX), 0.4),
    target("user-space instructions of a proxied request", ("proxy", PROXY, URING), Figure::Instructions, 6_000.0),
    target("cost of a proxied request, of the best peer", ("proxy", PROXY, URING), Figure::Cost(PROXIES), 0.75),
    target("cost of 1 MiB proxied, of nginx and HAProxy, copying", ("proxy", "1 MiB answers, 64 connections", URING), Figure::Cost(COPYING), 0.7),
    target("cost of 1 MiB proxied, of HAProxy, splicing", ("proxy", "1 MiB answers, 64 connections", URING), Figure::Cost(SPLICING), 1.0),
    target("cost of 1 MiB relayed, of nginx and HAProxy, copying", ("relay", "1 MiB, 1 stream", SPLICED), Figure::Cost(COPYING), 0.5),
    target("cost of 1 MiB relayed, of nginx and HAProxy, copying", ("relay", "1 MiB, 64 streams", SPLICED), Figure::Cost(COPYING), 0.5),
    target("cost of 1 MiB relayed, of HAProxy, splicing", ("relay", "1 MiB, 1 stream", SPLICED), Figure::Cost(SPLICING), 1.0),
    target("cost of 1 MiB relayed, of HAProxy, splicing", ("relay", "1 MiB, 64 streams", SPLICED), Figure::Cost(SPLICING), 1.0),
    target("heap allocations of an echo", ("echo", ECHO, URING), Figure::Allocations, 0.0),
    target("heap allocations of a hello", ("hello", HELLO, URING), Figure::Allocations, 2.0),
    target("heap allocations of a proxied request", ("proxy", PROXY, URING), Figure::Allocations, 4.0),
    target("system calls of an echo", ("echo", ECHO, URING), Figure::Syscalls, 0.1),
    target("system calls of a hello", ("hello", HELLO, URING), Figure::Syscalls, 0.1),
    target("system calls of a proxied request", ("proxy", PROXY, URING), Figure::Syscalls, 0.2),
    target("system calls of an echo", ("echo", "64 B, 1 connection", URING), Figure::Syscalls, 1.0),
    target("system calls of a hello", ("hello", "1 connection, 1 in flight on each", URING), Figure::Syscalls, 1.0),
    target("bytes of an idle connection, plain TCP", ("idle", IDLE_ECHO, URING), Figure::Memory, 2_048.0),
    target("bytes of an idle connection, HTTP/1.1", ("idle", IDLE_HELLO, URING), Figure::Memory, 4_096.0),
    target("an echo beside 18,000 idle, % more", ("idle", IDLE_ECHO, URING), Figure::IdleCost, 5.0),
    target("a hello beside 18,000 idle, % more", ("idle", IDLE_HELLO, URING), Figure::IdleCost, 5.0),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Round;

    fn row(peer: &str, busy: f64, cpu_ns: f64) -> Row {
        let round = Round {
            busy,
            per_second: 1.0,
            cpu_ns,
            user_ns: 0.0,
            hardware: None,
            latency_us: [1.0; 3],
            waited: [0.0; 2],
            load_busy: None,
        };
        Row { rounds: vec![round; Pace::LEAST_ROUNDS], ..Row::new("config", peer) }
    }

    fn found(rows: Vec<Row>, figure: Figure, at_most: f64) -> (String, String) {
        let report = Report {
            question: "question".to_owned(),
            about: String::new(),
            context: crate::results::Context::here(false, false),
            rows,
            notes: Vec::new(),
        };
        let Finding { figure, verdict } =
            target("what", ("question", "config", URING), figure, at_most).find(&[report]);
        (figure, verdict)
    }

    /// The best peer decides, and one that splices is another.
    #[test]
    fn a_ratio_is_to_the_best_peer() {
        let rows = |busy| {
            vec![
                row(URING, busy, 60.0),
                row("nginx 1", 1.0, 100.0),
                row("haproxy 2", 1.0, 80.0),
                row("haproxy 2, splicing", 1.0, 50.0),
            ]
        };
        let check = |busy, against, at_most, expected: &str| {
            let (figure, verdict) = found(rows(busy), Figure::Cost(against), at_most);
            assert_eq!(format!("{figure}: {verdict}"), expected);
        };
        check(1.0, COPYING, 0.75, "0.75 (0.75 to 0.75) of haproxy 2: **reached**");
        check(1.0, COPYING, 0.7, "0.75 (0.75 to 0.75) of haproxy 2: not reached");
        check(1.0, SPLICING, 1.0, "1.20 (1.20 to 1.20) of haproxy 2, splicing: not reached");
        check(
            0.9,
            COPYING,
            0.8,
            "0.75 (0.75 to 0.75) of haproxy 2: does not count (ringport-uring was busy below 95 %); would be reached",
        );
        let mut gone = rows(1.0);
        gone.push(Row::unreached("config", "nginx 2"));
        let (figure, _) = found(gone, Figure::Cost(COPYING), 0.75);
        assert_eq!(figure, "0.75 (0.75 to 0.75) of haproxy 2; nginx 2 was not measured");
        check(1.0, HYPER, 1.0, ": not measured: none of those that it is compared with has such a row");
    }

    #[test]
    fn a_count_is_compared_as_it_is_shown() {
        for (calls, verdict) in [(1.0004, "**reached**"), (1.0006, "not reached")] {
            let ours = Row { syscalls: Some(calls), ..row(URING, 0.4, 1.0) };
            assert_eq!(found(vec![ours], Figure::Syscalls, 1.0).1, verdict);
        }
    }

    #[test]
    fn the_cost_beside_idle_ones_needs_rounds_and_a_busy_core() {
        let check = |rounds, busy, verdict: &str| {
            let extra =
                vec![("of it more, %".to_owned(), vec![1.0; rounds]), ("busy, %".to_owned(), vec![busy])];
            let ours = Row { extra, ..Row::new("config", URING) };
            assert_eq!(found(vec![ours], Figure::IdleCost, 5.0).1, verdict);
        };
        check(7, 99.0, "**reached**");
        check(1, 99.0, "does not count (too few rounds are kept); would be reached");
        check(7, 90.0, "does not count (busy below 95 %); would be reached");
    }

    /// A target whose row has another name by now would say "not measured" for ever.
    #[test]
    fn every_target_finds_its_row() {
        let mut reports = Report::kept().expect("the results are kept");
        // A sample has fewer rows.
        reports.retain(|report| !report.context.quick);
        for target in
            TARGETS.iter().filter(|target| reports.iter().any(|report| report.question == target.question))
        {
            let verdict = target.find(&reports).verdict;
            assert!(
                !verdict.contains("no such row") && !verdict.contains("not asked"),
                "{}: {verdict}",
                target.what
            );
        }
    }
}
