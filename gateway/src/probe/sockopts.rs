//! `ringport probe --sockopts`: the table of socket options, each tried on a socket of this machine.

use ringport_platform::sockopt::{
    Accepted, ApplyError, Off, OptProbe, OptState, Os, Outcome, Reason, Role, Row, Stage, probe,
};
use serde_json::{Value, json};

/// A line for each option, and below them what the columns mean.
pub(super) fn to_table() -> String {
    let head = ["option", "stage", "on", "takes", "read back", "here"].map(str::to_owned);
    let probed = probe();
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(probed.iter().map(line)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut table = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            table.push_str(&format!("{cell:width$}  "));
        }
        table.push_str(&row[5]);
        table.push('\n');
    }
    table + LEGEND
}

fn line(probed: &OptProbe) -> [String; 6] {
    let row = probed.opt.row();
    let rearmed = if row.rearm { format!(" {}", Stage::Rearm.code()) } else { String::new() };
    let takes = match row.off {
        Off::Never => row.form.describe(row.unit),
        Off::Value(_) | Off::System(_) | Off::Empty if row.form.describe(row.unit).ends_with("off") => {
            row.form.describe(row.unit)
        }
        Off::Value(_) | Off::System(_) | Off::Empty => format!("{}; off", row.form.describe(row.unit)),
    };
    [
        row.name.to_owned(),
        format!("{}{rearmed}", row.stage.code()),
        format!("{}{}", row.networks().join(" "), roles(row)),
        takes,
        row.read_back.name().to_owned(),
        here(&probed.state),
    ]
}

/// Which sockets of these networks, where it is not all.
fn roles(row: &Row) -> String {
    let names: Vec<_> = row.roles.iter().map(|role| role_name(*role)).collect();
    let all = row.roles.len() == 3 || row.networks() == ["tcp"] && row.roles.len() == 2;
    if all { String::new() } else { format!(" ({})", names.join(", ")) }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Listener => "listener",
        Role::Dialled => "dialled",
        Role::Accepted => "accepted",
        Role::Packet => "packet",
    }
}

fn here(state: &OptState) -> String {
    match state {
        OptState::Works(effective) if effective.outcome == Outcome::Ignored => format!("no: {effective}"),
        OptState::Works(_) => "works".to_owned(),
        OptState::Refused(error) => format!("no: {}", why(error)),
        OptState::Absent => format!("no: not to be had on {}", Os::HERE.name()),
        OptState::NoSocket(errno) => {
            format!("no socket to try it on: {}", std::io::Error::from_raw_os_error(*errno))
        }
    }
}

fn why(error: &ApplyError) -> String {
    match error.reason {
        Reason::Privilege(capability) => format!("needs {capability}"),
        _ => std::io::Error::from_raw_os_error(error.errno).to_string(),
    }
}

const LEGEND: &str = "
stage: S0 socket(), S1 before bind, S2 before listen or connect, S3 after it, S4 again after each receive
What a connection has of its listener's value is set on the listener. `ringport probe --sockopts --json` tells more.
";

/// All that is known of each option.
pub(super) fn to_json() -> String {
    let options: Vec<Value> = probe().iter().map(option).collect();
    serde_json::to_string_pretty(&json!({ "sockopts": options })).unwrap_or_default()
}

fn option(probed: &OptProbe) -> Value {
    let row = probed.opt.row();
    json!({
        "name": row.name,
        "level": row.code.map(|code| code.level),
        "number": row.code.map(|code| code.number),
        "stage": row.stage.code(),
        "rearmed": row.rearm,
        "networks": row.networks(),
        "roles": row.roles.iter().map(|role| role_name(*role)).collect::<Vec<_>>(),
        "takes": row.form.describe(row.unit),
        "unit": row.unit.suffix(),
        "off": match row.off {
            Off::Never => "cannot be switched off",
            Off::Value(_) | Off::Empty => "switches it off",
            Off::System(_) => "gives the system's choice back",
        },
        "accepted": match row.accepted {
            Accepted::Inherits => "inherits",
            Accepted::Again => "set on each",
            Accepted::Nothing => "nothing",
        },
        "mptcp": row.mptcp,
        "windows": row.windows,
        "since": row.since,
        "readBack": row.read_back.name(),
        "boundedBy": row.sysctl.replace('/', "."),
        "capability": row.privilege.capability.map(|capability| capability.to_string()),
        "capabilityWhen": row.privilege.when,
        "fields": row.fields,
        "doc": row.doc.trim(),
        "here": state(probed),
    })
}

fn state(probed: &OptProbe) -> Value {
    let on = probed.target.to_string();
    match &probed.state {
        OptState::Works(effective) => json!({
            "works": effective.outcome != Outcome::Ignored,
            "on": on,
            "asked": effective.asked.to_string(),
            "held": effective.held.as_ref().map(ToString::to_string),
            "report": effective.to_string(),
        }),
        OptState::Refused(error) => json!({
            "works": false,
            "on": on,
            "asked": error.asked.to_string(),
            "errno": error.errno,
            "report": error.to_string(),
        }),
        OptState::Absent => json!({ "works": false, "on": on, "report": here(&probed.state) }),
        OptState::NoSocket(errno) => json!({ "works": false, "on": on, "errno": errno }),
    }
}
