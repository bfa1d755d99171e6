//! The page: tables in Markdown, pictures in SVG, all from what is kept.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::plot;
use crate::results::{QUESTIONS, Report, Row, Spread};
use crate::targets;

/// Writes `RESULTS.md` and a picture for each configuration.
///
/// # Errors
/// A file's.
pub fn page(reports: &[Report]) -> io::Result<()> {
    remove_pictures()?;
    let mut out = String::from(HEAD);
    out.push_str(&targets::table(reports));
    out.push_str(HOW_TO_READ);
    unmeasured(&mut out, reports);
    for report in reports {
        section(&mut out, report)?;
    }
    out.push('\n');
    out.push_str(&fs::read_to_string(folder().join("TRIED.md"))?);
    fs::write(folder().join("RESULTS.md"), out)
}

/// Those of configurations that are not asked any more would stay for ever.
fn remove_pictures() -> io::Result<()> {
    fs::create_dir_all(folder().join("results"))?;
    for entry in fs::read_dir(folder().join("results"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "svg") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

const HEAD: &str = "\
# Results

Written by `cargo run --release --manifest-path benches/Cargo.toml --bin all`; the raw numbers are in `results/`.
";

const HOW_TO_READ: &str = "
## How to read the tables

Cost is what the server spent on a request: cycles where the hardware counts them, else processor time. Peers ran one after
the other in rounds; values are medians, and a ratio is the median of the rounds' ratios with its least and greatest: below
1, the row that the column names is cheaper. How busy the server's core was stands beside each row, and behind it how busy the
load's was. A row whose server was busy less than 95 % of the time is marked ⚠: there the load was the limit or, with one
connection, each waited for the other, so that its requests per second say little, while its cost per request still holds. A
row marked ◇ was disturbed: somebody else had the server's or the load's core for more than 2 % of the time. Instructions are
those of user space, allocations are entries into malloc and its like; both were counted exactly by stepping the server.
Latency at a fixed rate counts from when a request was due, whether it could be sent then or not; the medians of the rounds.
";

/// What a reader might look for in vain.
fn unmeasured(out: &mut String, reports: &[Report]) {
    line(out, "\n## Not measured\n");
    let mut rounds = reports.iter().flat_map(|report| &report.rows).flat_map(|row| &row.rounds);
    if !rounds.any(|round| round.hardware.is_some()) {
        line(
            out,
            "* Kernel instructions, and cycles of user space and kernel: the machine gives no hardware counters. Processor \
             time stands in for them, which also contains what the memory, the clock rate and other guests of the \
             machine did to it.",
        );
    }
    for question in
        QUESTIONS.iter().filter(|question| !reports.iter().any(|report| report.question == **question))
    {
        line(out, &format!("* {question}: it has not been asked yet."));
    }
    line(out, "* Other versions than those named, TLS, HTTP/2, more than one core.");
    for report in reports {
        for row in report.rows.iter().filter(|row| row.failed.is_some()) {
            let reason = row.failed.as_deref().unwrap_or_default();
            line(out, &format!("* {}, {}: {} ({reason}).", report.question, row.config, row.peer));
        }
    }
}

fn section(out: &mut String, report: &Report) -> io::Result<()> {
    let context = &report.context;
    line(out, &format!("\n## {}\n\n{}\n", report.question, report.about));
    let quick = if context.quick { " **A quick run: a sample, no result.**" } else { "" };
    line(
        out,
        &format!(
            "{}, {}, {}, commit {}, load average {:.2}; {}.{quick}\n",
            context.date,
            context.kernel,
            context.machine,
            context.commit,
            context.load_average,
            context.counters
        ),
    );
    let versions: Vec<String> = context
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}").trim_end().to_owned())
        .collect();
    line(out, &format!("{}.", versions.join(", ")));
    let mut configs: Vec<&str> = report.rows.iter().map(|row| row.config.as_str()).collect();
    configs.dedup();
    for config in configs {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.config == config).collect();
        table(out, config, &rows);
        picture(out, report, config, &rows)?;
    }
    for note in &report.notes {
        line(out, &format!("\n* {note}"));
    }
    Ok(())
}

fn table(out: &mut String, config: &str, rows: &[&Row]) {
    line(out, &format!("\n### {config}\n"));
    let extras: Vec<&str> = rows
        .iter()
        .find(|row| !row.extra.is_empty())
        .map_or_else(Vec::new, |row| row.extra.iter().map(|(name, _)| name.as_str()).collect());
    if rows.iter().all(|row| row.rounds.is_empty()) && !extras.is_empty() {
        return extra_table(out, rows, &extras);
    }
    let references: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| REFERENCES.contains(&row.peer.as_str()) && row.failed.is_none())
        .collect();
    let ratios: String = references.iter().map(|row| format!(" {} ÷ it |", row.peer)).collect();
    line(
        out,
        &format!(
            "| | busy: server, load | requests/s | cost | user |{ratios} instructions | system calls | allocations | \
             p50 / p99 / p99.9 µs, full load | at a fixed rate |"
        ),
    );
    let columns = FIXED_COLUMNS + references.len();
    line(out, &format!("|---|{}", "--:|".repeat(columns)));
    for row in rows {
        let text = match &row.failed {
            Some(failed) => format!("| {} | not measured: {failed} |{}", row.peer, " |".repeat(columns - 1)),
            None => measured(row, &references),
        };
        line(out, &text);
    }
}

/// Beside the name and the ratios.
const FIXED_COLUMNS: usize = 9;

/// What the others are compared with.
const REFERENCES: [&str; 2] = ["ringport-uring", "ringport-uring-splice"];

fn measured(row: &Row, references: &[&Row]) -> String {
    let median =
        |of: fn(&crate::results::Round) -> f64| row.spread(of).map_or(f64::NAN, |spread| spread.median);
    let hardware = row.rounds.first().is_some_and(|round| round.hardware.is_some());
    let ratios: String = references
        .iter()
        .map(|reference| format!(" {} |", reference.ratio_to(row).map_or_else(String::new, ratio)))
        .collect();
    format!(
        "| {} | {:.0} %{}{}{} | {} | {} {} | {:.0} % |{ratios} {} | {} | {} | {} | {} |",
        row.peer,
        100.0 * median(|round| round.busy),
        if row.counts() { "" } else { " ⚠" },
        if row.disturbed() { " ◇" } else { "" },
        row.spread(|round| round.load_busy.unwrap_or(f64::NAN))
            .map_or_else(String::new, |load| format!(", {:.0} %", 100.0 * load.median)),
        grouped(median(|round| round.per_second)),
        grouped(median(Row::cost)),
        if hardware { "cycles" } else { "ns" },
        100.0 * user_part(row),
        row.metered.map_or_else(String::new, |(instructions, _)| grouped(instructions)),
        row.syscalls.map_or_else(String::new, |calls| format!("{calls:.3}")),
        row.metered.map_or_else(String::new, |(_, allocations)| format!("{allocations:.2}")),
        latencies(|at| row.spread(|round| round.latency_us[at])),
        row.at_rate.first().map_or_else(String::new, |first| format!(
            "{} at {}/s{}",
            latencies(|at| row.spread_at_rate(|round| round.latency_us[at])),
            grouped(first.rate),
            if row.disturbed_at_rate() { " ◇" } else { "" }
        )),
    )
}

/// Median, 99 %, 99.9 %.
fn latencies(of: impl Fn(usize) -> Option<Spread>) -> String {
    let [p50, p99, p999] = [0, 1, 2].map(|at| grouped(of(at).map_or(f64::NAN, |spread| spread.median)));
    format!("{p50} / {p99} / {p999}")
}

/// Over all rounds: the kernel splits in clock ticks, of which a round has few.
fn user_part(row: &Row) -> f64 {
    let sum = |of: fn(&crate::results::Round) -> f64| row.rounds.iter().map(of).sum::<f64>();
    sum(|round| round.user_ns) / sum(|round| round.cpu_ns)
}

fn extra_table(out: &mut String, rows: &[&Row], extras: &[&str]) {
    line(out, &format!("| | {} |", extras.join(" | ")));
    line(out, &format!("|---|{}", "--:|".repeat(extras.len())));
    for row in rows {
        let values: Vec<String> = match &row.failed {
            Some(failed) => {
                let mut values = vec![String::new(); extras.len()];
                values[0] = format!("not measured: {failed}");
                values
            }
            None => row.extra.iter().map(|(_, values)| with_spread(values)).collect(),
        };
        line(out, &format!("| {} | {} |", row.peer, values.join(" | ")));
    }
}

/// The median, and how far the rounds spread where there were several.
pub(crate) fn with_spread(values: &[f64]) -> String {
    let Some(Spread { median, min, max }) = Spread::of(values.iter().copied()) else { return String::new() };
    match values {
        [_] => grouped(median),
        _ => format!("{} ({} to {})", grouped(median), grouped(min), grouped(max)),
    }
}

fn picture(out: &mut String, report: &Report, config: &str, rows: &[&Row]) -> io::Result<()> {
    let bars: Vec<plot::Bar> = rows
        .iter()
        .filter_map(|row| {
            let spread =
                row.spread(Row::cost).or_else(|| Spread::of(row.extra.first()?.1.iter().copied()))?;
            let marked = !row.rounds.is_empty() && !row.counts();
            Some(plot::Bar { name: row.peer.clone(), spread, ours: row.peer.starts_with("ringport"), marked })
        })
        .collect();
    if bars.is_empty() {
        return Ok(());
    }
    let hardware = rows.iter().any(|row| row.rounds.first().is_some_and(|round| round.hardware.is_some()));
    let unit = match rows.iter().find(|row| row.rounds.is_empty()).and_then(|row| row.extra.first()) {
        Some((name, _)) => name.as_str(),
        None if hardware => "cycles per request",
        None => "ns of processor time per request",
    };
    let words = config.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let file = format!("{}-{name}.svg", report.question);
    let title = format!("{}, {config}: {unit}, less is better", report.question);
    fs::write(folder().join("results").join(&file), plot::bars(&title, &bars))?;
    line(out, &format!("\n![{title}](results/{file})"));
    Ok(())
}

pub(crate) fn ratio(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max)
}

/// A number with as many digits as mean something, thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    if value.is_nan() {
        return String::new();
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Round;

    /// Questions with values of their own used to keep and show medians alone.
    #[test]
    fn values_show_how_far_they_spread() {
        for (values, expected) in [(&[734.2][..], "734"), (&[1.0, 9.0, 2.0], "2.0 (1.0 to 9.0)"), (&[], "")] {
            assert_eq!(with_spread(values), expected);
        }
    }

    #[test]
    fn a_row_tells_how_busy_both_cores_were() {
        let mut row = Row::new("config", "peer");
        let round = |load_busy| Round {
            busy: 0.5,
            per_second: 1.0,
            cpu_ns: 1.0,
            user_ns: 0.5,
            hardware: None,
            latency_us: [1.0; 3],
            waited: [0.0; 2],
            load_busy,
        };
        row.rounds = vec![round(Some(0.99))];
        assert!(measured(&row, &[]).starts_with("| peer | 50 % ⚠, 99 % | 1.0 |"), "{}", measured(&row, &[]));
        // Of a run in which it was not measured.
        row.rounds = vec![round(None)];
        assert!(measured(&row, &[]).starts_with("| peer | 50 % ⚠ | 1.0 |"), "{}", measured(&row, &[]));
    }

    #[test]
    fn thousands_stand_apart() {
        for (value, expected) in [
            (0.5, "0.5"),
            (99.94, "99.9"),
            (100.0, "100"),
            (1234.4, "1,234"),
            (1e6, "1,000,000"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(grouped(value), expected);
        }
    }
}
