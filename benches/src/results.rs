//! What a question found, as it is kept and rendered.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cost::{LoadTime, Spent};
use crate::peers;
use crate::render;
use crate::ring::Sample;

/// The answer to one question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The question: echo, hello, proxy, ..
    pub question: String,
    /// What is compared, in a sentence.
    pub about: String,
    /// Where and when.
    pub context: Context,
    /// One for each configuration and peer.
    pub rows: Vec<Row>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Where and when something was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Context {
    /// UTC.
    pub date: String,
    /// Release and version of the kernel.
    pub kernel: String,
    /// Processor model, how many, and how much memory.
    pub machine: String,
    /// Of ringport; `+` when the tree had changes.
    pub commit: String,
    /// Programs and crates.
    pub versions: Vec<(String, String)>,
    /// Whether the run was a short one.
    pub quick: bool,
    /// Which source the counts of instructions and cycles have.
    pub counters: String,
    /// The machine's load average when the run began: above 0.3 others were at work.
    pub load_average: f64,
}

/// One peer in one configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The configuration, as the tables head it.
    pub config: String,
    /// Who.
    pub peer: String,
    /// Each round's raw values.
    pub rounds: Vec<Round>,
    /// System calls per request, and how they were counted.
    pub syscalls: Option<f64>,
    /// From the meter: user-space instructions and heap allocations per request.
    pub metered: Option<(f64, f64)>,
    /// Latency at a fixed rate, from when a request was due: each round's raw values.
    #[serde(default)]
    pub at_rate: Vec<AtRate>,
    /// Values that only some questions have, by name: each round's, or one that is measured once.
    pub extra: Vec<(String, Vec<f64>)>,
    /// Why there is nothing.
    pub failed: Option<String>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// The part of the time in which the server's core was busy.
    pub busy: f64,
    /// Requests answered per second.
    pub per_second: f64,
    /// Processor time per request, in nanoseconds.
    pub cpu_ns: f64,
    /// Of it in user space.
    pub user_ns: f64,
    /// Instructions and cycles per request, where the hardware counts: user, kernel, user, kernel.
    pub hardware: Option<[f64; 4]>,
    /// Microseconds: median, 99 %, 99.9 %, under full load.
    pub latency_us: [f64; 3],
    /// The parts of the time in which the server, or the load, could have run and somebody else had its core.
    #[serde(default)]
    pub waited: [f64; 2],
    /// The part of the time in which the load's core was busy with the load.
    #[serde(default)]
    pub load_busy: Option<f64>,
}

/// One measurement of latency at a fixed rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AtRate {
    /// Requests per second asked for.
    pub rate: f64,
    /// Microseconds: median, 99 %, 99.9 %.
    pub latency_us: [f64; 3],
    /// As in a [`Round`].
    pub waited: [f64; 2],
}

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let odd = values.len() % 2 == 1;
        let median = if odd { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { median, min, max })
    }
}

impl Row {
    /// Nothing but who.
    pub fn new(config: &str, peer: &str) -> Row {
        Row {
            config: config.to_owned(),
            peer: peer.to_owned(),
            rounds: Vec::new(),
            syscalls: None,
            metered: None,
            at_rate: Vec::new(),
            extra: Vec::new(),
            failed: None,
        }
    }

    /// Who was not come to.
    pub fn unreached(config: &str, peer: &str) -> Row {
        Row { failed: Some("the run was ended before".to_owned()), ..Row::new(config, peer) }
    }

    /// What [`Row::extra`] says.
    pub fn extra_text(&self) -> String {
        let each = self.extra.iter().map(|(name, values)| format!("{name}: {}", render::with_spread(values)));
        each.collect::<Vec<_>>().join(", ")
    }

    /// A value of every round at a fixed rate.
    pub fn spread_at_rate(&self, of: impl Fn(&AtRate) -> f64) -> Option<Spread> {
        Spread::of(self.at_rate.iter().map(of))
    }

    /// A value of every round.
    pub fn spread(&self, of: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(of))
    }

    /// What a request costs, in cycles where they are counted, else in processor time.
    pub fn cost(round: &Round) -> f64 {
        round.hardware.map_or(round.cpu_ns, |[_, _, user, kernel]| user + kernel)
    }

    /// The cost of `self` relative to `other`, from rounds that ran one after the other.
    pub fn ratio_to(&self, other: &Row) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.map(|(a, b)| Row::cost(a) / Row::cost(b)))
    }

    /// Its instructions in the kernel relative to the other's, of rounds as in [`Row::ratio_to`].
    pub fn kernel_instructions_to(&self, other: &Row) -> Option<Spread> {
        let kernel = |round: &Round| round.hardware.map_or(f64::NAN, |[_, kernel, ..]| kernel);
        let pairs = self.rounds.iter().zip(&other.rounds);
        Spread::of(pairs.map(|(a, b)| kernel(a) / kernel(b)))
    }

    /// Whether others had the cores so often that its figures say little.
    pub fn disturbed(&self) -> bool {
        let waited = self.spread(|round| round.waited[0].max(round.waited[1]));
        waited.is_some_and(|waited| waited.median > UNDISTURBED)
    }

    /// The same of its rounds at a fixed rate.
    pub fn disturbed_at_rate(&self) -> bool {
        let waited = self.spread_at_rate(|round| round.waited[0].max(round.waited[1]));
        waited.is_some_and(|waited| waited.median > UNDISTURBED)
    }

    /// Whether the server's core was busy enough for the row to count.
    pub fn counts(&self) -> bool {
        self.spread(|round| round.busy).is_some_and(|busy| busy.median >= BUSY_ENOUGH)
    }
}

/// Below this the load, and not the server, was the limit.
pub const BUSY_ENOUGH: f64 = 0.95;
/// Above this part of the time, somebody else had a core.
pub const UNDISTURBED: f64 = 0.02;

impl Round {
    /// What a server, and its load, spent on the requests of a sample.
    pub fn of(sample: &Sample, spent: Spent, load: LoadTime) -> Round {
        let per_request = |value: u64| value as f64 / sample.requests as f64;
        let split = spent.user_ns as f64 / (spent.user_ns + spent.system_ns).max(1) as f64;
        Round {
            busy: spent.busy(sample.elapsed),
            per_second: sample.per_second(),
            cpu_ns: per_request(spent.cpu_ns),
            user_ns: per_request(spent.cpu_ns) * split,
            hardware: spent.hardware.map(|counted| {
                [
                    per_request(counted.user_instructions),
                    per_request(counted.kernel_instructions),
                    per_request(counted.user_cycles),
                    per_request(counted.kernel_cycles),
                ]
            }),
            latency_us: sample.latency_us(),
            waited: waited(sample, spent, load.waited),
            load_busy: Some(load.ran.as_secs_f64() / sample.elapsed.as_secs_f64()),
        }
    }
}

impl AtRate {
    /// What a sample at a rate says.
    pub fn of(rate: f64, sample: &Sample, spent: Spent, load: LoadTime) -> AtRate {
        AtRate { rate, latency_us: sample.latency_us(), waited: waited(sample, spent, load.waited) }
    }
}

fn waited(sample: &Sample, spent: Spent, load_waited: Duration) -> [f64; 2] {
    let part = |waited: Duration| waited.as_secs_f64() / sample.elapsed.as_secs_f64();
    [part(Duration::from_nanos(spent.waited_ns)), part(load_waited)]
}

impl Context {
    /// Of this machine, now.
    pub fn here(quick: bool, has_hardware: bool) -> Context {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib: u64 = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let dirty = if say("git", &["status", "--porcelain"]).is_empty() { "" } else { "+" };
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Context {
            date: say("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            kernel: say("uname", &["-sr"]),
            machine: format!("{}, {cores} cores, {} GiB", model.unwrap_or("unknown"), memory_kib >> 20),
            commit: say("git", &["rev-parse", "--short=12", "HEAD"]) + dirty,
            versions: versions(),
            quick,
            counters: counters(has_hardware).to_owned(),
            load_average: load.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0.0),
        }
    }
}

fn counters(has_hardware: bool) -> &'static str {
    if has_hardware {
        "hardware counters (perf_event_open)"
    } else {
        "no hardware counters here: cost is processor time (thread clocks), instructions are the meter's (ptrace)"
    }
}

fn versions() -> Vec<(String, String)> {
    let rustc = say("rustc", &["--version"]);
    let mut versions = vec![("rustc".to_owned(), rustc.trim_start_matches("rustc ").to_owned())];
    for (name, version) in peers::packaged_versions() {
        versions.push((name, if version.is_some() { String::new() } else { "missing".to_owned() }));
    }
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap_or_default();
    for name in CRATES {
        let entry = format!("name = \"{name}\"\nversion = \"");
        // Peers bring older versions of some; ours is the newest, which the lock file has last.
        let found = lock.split(&entry).skip(1).last().and_then(|rest| rest.split('"').next());
        if let Some(version) = found {
            versions.push(((*name).to_owned(), version.to_owned()));
        }
    }
    versions
}

const CRATES: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "monoio",
    "monoio-http",
    "compio",
    "tokio-uring",
    "glommio",
    "pingora-proxy",
    "io-uring",
];

/// What a program prints, on either stream; nothing where it is missing.
fn say(program: &str, arguments: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", path)
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            String::from_utf8_lossy(&text).trim().to_owned()
        },
    )
}

impl Report {
    /// Keeps it under `results/`, over an earlier one of the same question.
    ///
    /// # Errors
    /// The file's.
    pub fn keep(&self) -> io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        fs::create_dir_all(&folder)?;
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(folder.join(format!("{}.json", self.question)), text + "\n")
    }

    /// All that are kept.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn kept() -> io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        for question in QUESTIONS {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(format!("{question}.json"));
            if path.exists() {
                reports.push(serde_json::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)?);
            }
        }
        Ok(reports)
    }
}

/// In the order of the page.
pub const QUESTIONS: &[&str] = &["echo", "hello", "proxy", "relay", "churn", "idle", "timers", "mechanisms"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_between_its_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([f64::NAN]), None);
    }
}
