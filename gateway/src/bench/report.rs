//! What a run has shown, for people and for machines.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::load::{Job, Outcome};
use super::tally::{Failure, Tally, rows};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
const STATUSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

pub(super) fn text(what: &str, job: &Job, outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut out = format!("{what}: {}\n\n", setting(job, outcome));
    let seconds = outcome.elapsed.as_secs_f64();
    let mut row = |name: &str, value: String| writeln!(out, "{name:<12}{value}").expect("a string takes all");
    let early = if outcome.interrupted { ", ended by a signal" } else { "" };
    row("time", format!("{seconds:.3} s{early}"));
    row("requests", format!("{} sent, {} answered, {} failed", tally.sent, tally.completed, tally.failed()));
    if tally.cut() > 0 {
        row("", format!("{} without an answer when the time was over", tally.cut()));
    }
    if tally.unsent > 0 {
        row("", format!("{} due and not sent: no connection had room", tally.unsent));
    }
    row(
        "rate",
        format!("{:.1} requests/s, {}/s", rate(tally, seconds), bytes(per(tally.body_bytes, seconds))),
    );
    row("body", bytes(tally.body_bytes as f64));
    row("connections", tally.connections.to_string());
    let limit = if outcome.busy >= BUSY { ": the load may be the limit, see --cores" } else { "" };
    row("load", format!("busiest core {:.0} % busy{limit}", outcome.busy * 100.0));
    if !tally.late.is_empty() {
        let at = |quantile| time(tally.late.value_at_quantile(quantile));
        row("sent late", format!("p50 {}, p99 {}: the load's own part of the latency", at(0.5), at(0.99)));
    }
    for (name, count) in STATUSES.into_iter().zip(tally.statuses).filter(|(_, count)| *count > 0) {
        row(name, count.to_string());
    }
    for failure in Failure::ALL {
        let count = tally.failures[failure as usize];
        if count > 0 {
            row("failed", format!("{count} {}", failure.words()));
        }
    }
    out + &latencies(&tally.latency)
}

fn setting(job: &Job, outcome: &Outcome) -> String {
    let mut text = format!(
        "connections {}, cores {} ({}), {} in flight on each connection",
        job.connections,
        job.cores,
        outcome.driver.name(),
        job.depth
    );
    match job.rate {
        Some(rate) => write!(text, ", {rate} requests/s (latency from the intended time)"),
        None => write!(text, ", closed loop"),
    }
    .expect("a string takes all");
    text
}

fn latencies(latency: &Histogram<u64>) -> String {
    if latency.is_empty() {
        return String::new();
    }
    let mut out = "\nlatency\n".to_owned();
    for (name, quantile) in QUANTILES {
        writeln!(out, "  {name:<8}{:>10}", time(latency.value_at_quantile(quantile)))
            .expect("a string takes all");
    }
    writeln!(out, "  {:<8}{:>10}\n\nup to", "max", time(latency.max())).expect("a string takes all");
    let rows = rows(latency, ROWS);
    let most = rows.iter().map(|row| row.1).max().unwrap_or(1);
    for (bound, count) in rows {
        let line = format!("  {:>10} {count:>10} {}", time(bound), bar(count as f64, most as f64));
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// A bar of at most 40 signs; whatever is not nothing has one.
pub(super) fn bar(value: f64, most: f64) -> String {
    let signs = if value > 0.0 && most > 0.0 { (value / most * BAR).round().clamp(1.0, BAR) } else { 0.0 };
    "#".repeat(signs as usize)
}

/// Nanoseconds with a unit that leaves few digits.
pub(super) fn time(nanos: u64) -> String {
    let nanos = nanos as f64;
    match nanos {
        n if n < 1e6 => format!("{:.1} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

fn bytes(count: f64) -> String {
    match count {
        n if n < 1024.0 => format!("{n:.0} B"),
        n if n < 1024.0 * 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n if n < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", n / 1024.0 / 1024.0),
        n => format!("{:.1} GiB", n / 1024.0 / 1024.0 / 1024.0),
    }
}

pub(super) fn rate(tally: &Tally, seconds: f64) -> f64 {
    per(tally.completed, seconds)
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

pub(super) fn json(what: &str, job: &Job, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let seconds = outcome.elapsed.as_secs_f64();
    let failures: serde_json::Map<String, Value> = Failure::ALL
        .into_iter()
        .map(|failure| (failure.key().to_owned(), tally.failures[failure as usize].into()))
        .collect();
    let statuses: serde_json::Map<String, Value> = STATUSES
        .into_iter()
        .zip(tally.statuses)
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    json!({
        "target": what,
        "driver": outcome.driver.name(),
        "connections": job.connections,
        "cores": job.cores,
        "pipeline": job.depth,
        "connectionPerRequest": job.fresh,
        "intendedRate": job.rate,
        "seconds": seconds,
        "interrupted": outcome.interrupted,
        "sent": tally.sent,
        "answered": tally.completed,
        "failed": tally.failed(),
        "unanswered": tally.cut(),
        "unsent": tally.unsent,
        "connectionsOpened": tally.connections,
        "bodyBytes": tally.body_bytes,
        "requestsPerSecond": rate(tally, seconds),
        "failures": failures,
        "statuses": statuses,
        "loadBusy": outcome.busy,
        "sentLateNanoseconds": latency_json(&tally.late),
        "latencyNanoseconds": latency_json(&tally.latency),
    })
}

/// Null where nothing was answered.
pub(super) fn latency_json(latency: &Histogram<u64>) -> Value {
    if latency.is_empty() {
        return Value::Null;
    }
    let rows: Vec<Value> = rows(latency, ROWS)
        .into_iter()
        .map(|(bound, count)| json!({ "upTo": bound, "count": count }))
        .collect();
    let mut object = json!({
        "min": latency.min(), "mean": latency.mean(), "max": latency.max(), "histogram": rows,
    });
    for (name, quantile) in QUANTILES {
        object[name] = latency.value_at_quantile(quantile).into();
    }
    object
}

const ROWS: u32 = 12;
/// From this part of the time on a core of the load has little left.
const BUSY: f64 = 0.95;
const BAR: f64 = 40.0;

#[cfg(test)]
mod tests {
    use super::{bar, bytes, time};

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            [time(1_500), time(999_949), time(12_340_000), time(3_000_000_000)],
            ["1.5 us", "999.9 us", "12.34 ms", "3.00 s"]
        );
        assert_eq!(
            [bytes(12.0), bytes(2048.0), bytes(3.0 * 1024.0 * 1024.0)],
            ["12 B", "2.0 KiB", "3.0 MiB"]
        );
    }

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(
            [bar(0.0, 9.0), bar(1.0, 1e9), bar(5.0, 10.0), bar(7.0, 7.0), bar(0.0, 0.0)].map(|b| b.len()),
            [0, 1, 20, 40, 0]
        );
    }
}
