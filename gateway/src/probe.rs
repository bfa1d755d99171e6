//! `ringport probe`: what this kernel and machine support.

mod sockopts;

use std::sync::Arc;

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::driver::{DriverChoice, DriverKind, DriverReport, Offer, open, survey};
use ringport_platform::process;
use ringport_platform::stats::CoreStats;
use serde_json::{Map, Value, json};

use crate::proxy::DriverSettings;
use crate::say;

/// Prints the report; exit code 0, or 2 where the environment forces a driver that is not to be had.
pub(crate) fn run(json: bool, settings: DriverSettings) -> Result<u8, String> {
    let report = Report::take(settings);
    if json {
        say(&report.to_json())?;
    } else {
        say(report.to_table().trim_end())?;
    }
    report.auto.map(|_| 0)
}

/// Prints what is known of every socket option, and whether it works here.
pub(crate) fn sockopts(json: bool) -> Result<(), String> {
    let report = if json { sockopts::to_json() } else { sockopts::to_table() };
    say(report.trim_end())
}

struct Report {
    kernel: String,
    cores: usize,
    fds: (u64, u64),
    drivers: Vec<DriverReport>,
    /// What a core would take now, and why.
    auto: Result<String, String>,
    forced: bool,
}

impl Report {
    fn take(settings: DriverSettings) -> Self {
        let (pool, stats) = (Pool::new(PoolSpec::default()), Arc::new(CoreStats::default()));
        let limit = process::fd_limit().map_or((0, 0), |limit| (limit.soft, limit.hard));
        Report {
            kernel: process::system_release(),
            cores: process::available_cores().map_or(0, |cores| cores.len()),
            fds: limit,
            drivers: survey(),
            auto: open(settings.choice, settings.disable, &pool, &stats)
                .map(|opened| opened.why)
                .map_err(|error| error.to_string()),
            forced: settings.choice != DriverChoice::Auto,
        }
    }

    fn to_table(&self) -> String {
        let mut rows = vec![
            ("kernel".to_owned(), self.kernel.clone()),
            ("cores".to_owned(), self.cores.to_string()),
            ("open files".to_owned(), format!("{} soft, {} hard", self.fds.0, self.fds.1)),
        ];
        self.drivers.iter().for_each(|driver| rows.extend(driver_rows(driver)));
        let choice = if self.forced { "forced" } else { "auto takes" };
        let taken = self.auto.clone().unwrap_or_else(|error| error);
        rows.push((choice.to_owned(), taken));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }

    fn to_json(&self) -> String {
        let mut value = json!({
            "kernel": self.kernel,
            "cores": self.cores,
            "openFiles": { "soft": self.fds.0, "hard": self.fds.1 },
            "forced": self.forced,
            "taken": self.auto.as_ref().ok(),
            "fault": self.auto.as_ref().err(),
        });
        for driver in &self.drivers {
            value[driver.kind.name()] = match &driver.offer {
                Ok(offer) => offer_json(offer),
                Err(reason) => json!({ "available": false, "reason": reason }),
            };
        }
        serde_json::to_string_pretty(&value).unwrap_or_default()
    }
}

fn driver_rows(driver: &DriverReport) -> Vec<(String, String)> {
    let name = match driver.kind {
        DriverKind::Uring => "io_uring",
        DriverKind::Iocp => "completion port",
        DriverKind::Epoll => driver.kind.name(),
    };
    let offer = match &driver.offer {
        Ok(offer) => offer,
        Err(error) => return vec![(name.to_owned(), format!("no: {error}"))],
    };
    let mut works = "works".to_owned();
    if let Some((submissions, completions)) = offer.queues {
        works += &format!("; {submissions} submissions, {completions} completions");
    }
    if !offer.flags.is_empty() {
        works += &format!("; {}", offer.flags.join(" "));
    }
    let mut rows = vec![(name.to_owned(), works)];
    for feature in &offer.features {
        let state = if feature.available { "yes" } else { "no " };
        rows.push((format!("  {}", feature.name), format!("{state}  {}", feature.note)));
    }
    if let Some(took) = offer.self_test {
        rows.push(("  self-tests".to_owned(), format!("{:.1} ms", took.as_secs_f64() * 1e3)));
    }
    rows
}

/// Without what the driver does not have.
fn offer_json(offer: &Offer) -> Value {
    let mut value = Map::from_iter([("available".to_owned(), json!(true))]);
    let mut add = |name: &str, part: Value| value.insert(name.to_owned(), part);
    if let Some((submissions, completions)) = offer.queues {
        add("entries", json!(submissions));
        add("completionEntries", json!(completions));
    }
    if !offer.flags.is_empty() {
        add("flags", json!(offer.flags));
    }
    if !offer.features.is_empty() {
        let features = offer.features.iter().map(
            |feature| json!({ "name": feature.name, "available": feature.available, "note": feature.note }),
        );
        add("features", features.collect());
    }
    if let Some(took) = offer.self_test {
        add("selfTestMicroseconds", json!(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
    }
    Value::Object(value)
}
