//! `ringport probe`: what this kernel and machine support.

mod sockopts;

use std::sync::Arc;

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::driver::{
    DriverChoice, DriverKind, EpollDriver, Mechanisms, UringDriver, UringError, UringReport, UringSpec, open,
};
use ringport_platform::process;
use ringport_platform::stats::CoreStats;

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
    uring: Result<UringReport, UringError>,
    epoll: Result<(), String>,
    /// What a core would take now, and why.
    auto: Result<String, String>,
    forced: bool,
}

impl Report {
    fn take(settings: DriverSettings) -> Self {
        let pool = || Pool::new(PoolSpec::default());
        let stats = || Arc::new(CoreStats::default());
        let spec = UringSpec { disable: Mechanisms::NONE, ..UringSpec::default() };
        let kernel =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let limit = process::fd_limit().map_or((0, 0), |limit| (limit.soft, limit.hard));
        Report {
            kernel,
            cores: process::available_cores().map_or(0, |cores| cores.len()),
            fds: limit,
            uring: UringDriver::open(&spec, pool(), stats()).map(|(_, report)| report),
            epoll: EpollDriver::open(pool(), stats()).map(drop).map_err(|error| error.to_string()),
            auto: open(settings.choice, settings.disable, &pool(), &stats())
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
        match &self.uring {
            Ok(report) => {
                let size = format!("{} submissions, {} completions", report.entries, report.cq_entries);
                rows.push(("io_uring".to_owned(), format!("works; {size}; {}", report.flags.join(" "))));
                for feature in &report.features {
                    let state = if feature.available { "yes" } else { "no " };
                    rows.push((format!("  {}", feature.name), format!("{state}  {}", feature.note)));
                }
                rows.push((
                    "  self-tests".to_owned(),
                    format!("{:.1} ms", report.self_test.as_secs_f64() * 1e3),
                ));
            }
            Err(error) => rows.push(("io_uring".to_owned(), format!("no: {error}"))),
        }
        let epoll = self.epoll.as_ref().map_or_else(|error| format!("no: {error}"), |()| "works".to_owned());
        rows.push((DriverKind::Epoll.name().to_owned(), epoll));
        let choice = if self.forced { "forced" } else { "auto takes" };
        let taken = self.auto.clone().unwrap_or_else(|error| error);
        rows.push((choice.to_owned(), taken));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }

    fn to_json(&self) -> String {
        let uring = match &self.uring {
            Ok(report) => {
                let features = report.features.iter().map(|feature| {
                    serde_json::json!({
                        "name": feature.name,
                        "available": feature.available,
                        "note": feature.note,
                    })
                });
                serde_json::json!({
                    "available": true,
                    "entries": report.entries,
                    "completionEntries": report.cq_entries,
                    "flags": report.flags,
                    "features": features.collect::<Vec<_>>(),
                    "selfTestMicroseconds": u64::try_from(report.self_test.as_micros()).unwrap_or(u64::MAX),
                })
            }
            Err(error) => serde_json::json!({ "available": false, "reason": error.to_string() }),
        };
        let value = serde_json::json!({
            "kernel": self.kernel,
            "cores": self.cores,
            "openFiles": { "soft": self.fds.0, "hard": self.fds.1 },
            "uring": uring,
            "epoll": { "available": self.epoll.is_ok(), "reason": self.epoll.as_ref().err() },
            "forced": self.forced,
            "taken": self.auto.as_ref().ok(),
            "fault": self.auto.as_ref().err(),
        });
        serde_json::to_string_pretty(&value).unwrap_or_default()
    }
}
