//! Socket options of a spec. The platform's table says which field is which option, and what each option takes.

use std::time::Duration;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use ringport_platform::sockopt::{Form, Off, Opt, OptFault, OptSet, OptValue, Role, Setting, Target};

use super::check::{Check, join};
use super::error::SpecErrors;
use super::nearest::quoted;
use super::raw::{self, Unit};
use super::units::unit;

/// Socket options, each with a value that its option takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SockOptions {
    set: OptSet,
    on_unsupported: OnUnsupported,
}

/// What happens to an option that a target or the system lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnUnsupported {
    /// The spec is refused where the target is known, else the dial.
    #[default]
    Refuse,
    /// The option is skipped, with a warning.
    Warn,
}

impl SockOptions {
    /// These options, and what happens to those that a target lacks.
    ///
    /// An option that is off, and whose off is a value that it also takes, such as zero, becomes that value.
    pub fn new(mut set: OptSet, on_unsupported: OnUnsupported) -> Self {
        let off = set.iter().filter(|(_, setting)| **setting == Setting::Off).map(|(opt, _)| opt);
        for opt in off.collect::<Vec<_>>() {
            let value = match (opt.row().form, off_number(opt)) {
                (Form::Int { .. }, Some(number)) => OptValue::Int(number),
                (Form::Choice(names), Some(number)) => {
                    match names.iter().find(|(_, known)| i64::from(*known) == number) {
                        Some((name, _)) => OptValue::Name((*name).to_owned()),
                        None => continue,
                    }
                }
                _ => continue,
            };
            // Refused where it is no value, and then off remains.
            let _ = set.insert(opt, Setting::Value(value));
        }
        SockOptions { set, on_unsupported }
    }

    /// Every option that is written, and those that are on by default for the sort of socket.
    pub fn set(&self) -> &OptSet {
        &self.set
    }

    /// What happens to an option that a target or the system lacks.
    pub fn on_unsupported(&self) -> OnUnsupported {
        self.on_unsupported
    }

    /// The options for such a socket, and those that are skipped because it lacks them.
    ///
    /// # Errors
    /// The options that such a socket lacks and that may not be skipped, and those that contradict each other. The writer of
    /// the spec is at fault.
    pub fn for_target(&self, target: Target) -> Result<(OptSet, Vec<OptFault>), Vec<OptFault>> {
        let (set, skipped) = match self.on_unsupported {
            OnUnsupported::Refuse => (self.set.clone(), Vec::new()),
            OnUnsupported::Warn => self.set.fitting(target),
        };
        let mut faults = set.check(target);
        if target.role == Role::Listener {
            // What is set again on each connection is a listener's too.
            let again = set.check(target.as_role(Role::Accepted)).into_iter();
            let again =
                again.filter(|fault| matches!(fault, OptFault::Conflict { .. }) && !faults.contains(fault));
            faults.extend(again.collect::<Vec<_>>());
        }
        if faults.is_empty() { Ok((set, skipped)) } else { Err(faults) }
    }

    /// Sets the option where it is not set. The setting must be one that the option takes.
    pub(super) fn default_to(&mut self, opt: Opt, setting: impl Into<Setting>) {
        if self.set.find(opt).is_none() {
            self.set.insert(opt, setting).expect("a default is a value that its option takes");
        }
    }

    /// Whether the other has all of these, with the same values.
    pub(super) fn is_in(&self, other: &SockOptions) -> bool {
        self.set.iter().all(|(opt, setting)| other.set.find(opt) == Some(setting))
            && self.on_unsupported == other.on_unsupported
    }

    /// The message that means these options.
    pub(super) fn to_raw(&self) -> raw::SockOption {
        let mut message = DynamicMessage::new(raw::descriptor::<raw::SockOption>());
        for (opt, setting) in self.set.iter() {
            write(&mut message, opt, setting);
        }
        let mut raw: raw::SockOption = raw::generated(&message);
        raw.on_unsupported = Some(match self.on_unsupported {
            OnUnsupported::Refuse => raw::OnUnsupported::Refuse.into(),
            OnUnsupported::Warn => raw::OnUnsupported::Warn.into(),
        });
        raw
    }
}

/// The options alone, for no target in particular.
impl TryFrom<&raw::SockOption> for SockOptions {
    type Error = SpecErrors;

    fn try_from(raw: &raw::SockOption) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let options = check.sock_option(Some(raw), "", None);
        check.or(options)
    }
}

impl Check {
    /// The options of a message; `target` is the socket that they are for, where that is known.
    pub(super) fn sock_option(
        &mut self,
        raw: Option<&raw::SockOption>,
        path: &str,
        target: Option<Target>,
    ) -> SockOptions {
        let Some(raw) = raw else { return SockOptions::default() };
        let on_unsupported =
            self.choice(join(path, "on_unsupported"), raw.on_unsupported, OnUnsupported::default(), |raw| {
                match raw {
                    raw::OnUnsupported::Refuse => OnUnsupported::Refuse,
                    raw::OnUnsupported::Warn => OnUnsupported::Warn,
                }
            });
        let message = raw::dynamic(raw);
        let mut set = OptSet::new();
        for (group, value) in message.fields() {
            let Value::Message(options) = value else { continue };
            let path = join(path, group.name());
            let mut before = None;
            for (field, value) in options.fields() {
                let Some(opt) = opt_of(&group, &field) else { continue };
                // One option of two fields, which is read at the first that is written.
                if before.replace(opt) == Some(opt) {
                    continue;
                }
                let setting = match opt.row().form {
                    Form::Ports => ports(options),
                    _ => setting(opt, &field, value),
                };
                let inserted = setting
                    .and_then(|setting| set.insert(opt, setting).map_err(|_| refused(opt, &field, value)));
                self.parsed(&join(&path, field.name()), inserted);
            }
        }
        let options = SockOptions { set, on_unsupported };
        self.fits(&options, path, target);
        options
    }

    /// Notes what such a socket does not take; without a target only what none would.
    fn fits(&mut self, options: &SockOptions, path: &str, target: Option<Target>) {
        let any = Target::tcp_dialled(ringport_platform::sockopt::Family::Dual);
        let Err(faults) = options.for_target(target.unwrap_or(any)) else { return };
        let faults =
            faults.iter().filter(|fault| target.is_some() || matches!(fault, OptFault::Conflict { .. }));
        for fault in faults {
            self.fault(join(path, &path_of(fault.opt())), fault.to_string());
        }
    }
}

/// The option that a field of a group is.
fn opt_of(group: &FieldDescriptor, field: &FieldDescriptor) -> Option<Opt> {
    Opt::by_field(&format!("{}.{}", group.json_name(), field.json_name()))
}

/// The path of an option's field, in the schema's names: `tcp_option.no_delay`.
fn path_of(opt: Opt) -> String {
    match place(opt.row().fields.first().copied().unwrap_or_default()) {
        Some((group, field)) => format!("{}.{}", group.name(), field.name()),
        None => String::new(),
    }
}

/// Group and field of a path of the table, `tcpOption.noDelay`.
fn place(path: &str) -> Option<(FieldDescriptor, FieldDescriptor)> {
    let (group, field) = path.split_once('.')?;
    let group = raw::descriptor::<raw::SockOption>().get_field_by_json_name(group)?;
    let Kind::Message(options) = group.kind() else { return None };
    let field = options.get_field_by_json_name(field)?;
    Some((group, field))
}

/// The value of a field as a setting; whether the option takes it is judged when it is inserted.
fn setting(opt: Opt, field: &FieldDescriptor, value: &Value) -> Result<Setting, String> {
    let row = opt.row();
    let number = match value {
        Value::I32(number) | Value::EnumNumber(number) => i64::from(*number),
        Value::U32(number) => i64::from(*number),
        Value::Bool(flag) => return Ok((*flag).into()),
        Value::String(name) if name.is_empty() && row.off != Off::Never => return Ok(Setting::Off),
        Value::String(name) => return Ok(name.as_str().into()),
        Value::List(cores) => {
            return Ok(Setting::Value(OptValue::Cpus(cores.iter().filter_map(Value::as_u32).collect())));
        }
        other => return Err(format!("{opt} is no {other:?}")),
    };
    match row.form {
        Form::Choice(names) => match names.iter().find(|(_, known)| i64::from(*known) == number) {
            Some((name, _)) => Ok((*name).into()),
            None => Err(format!("unknown value {number}")),
        },
        Form::Int { min, .. } | Form::Time { min, .. } if number < min && Some(number) == off_number(opt) => {
            Ok(Setting::Off)
        }
        Form::Time { .. } => match u64::try_from(number) {
            Ok(number) => Ok(span(number, unit(field)).into()),
            Err(_) => Err(refused(opt, field, value)),
        },
        Form::Flag | Form::Int { .. } | Form::Name { .. } | Form::Ports | Form::Cpus { .. } => {
            Ok(number.into())
        }
    }
}

/// What the option takes, and what is written instead.
fn refused(opt: Opt, field: &FieldDescriptor, value: &Value) -> String {
    let row = opt.row();
    let off = match (row.form, off_number(opt)) {
        (Form::Int { min, max } | Form::Time { min, max }, Some(off)) if !(min..=max).contains(&off) => {
            format!(", or {off} for off")
        }
        _ => String::new(),
    };
    let written = match value {
        Value::String(text) => quoted(text),
        Value::List(items) => format!("these {}", items.len()),
        Value::U32(number) => number.to_string(),
        other => other.as_i32().unwrap_or_default().to_string(),
    };
    let suffix = match unit(field) {
        Unit::None => "",
        Unit::Microseconds => " us",
        Unit::Milliseconds => " ms",
        Unit::Seconds => " s",
        Unit::Bytes => " bytes",
    };
    format!("{opt} takes {}{off}, not {written}{suffix}", row.form.describe(row.unit))
}

/// The number by which a field says "off", where its option can be.
fn off_number(opt: Opt) -> Option<i64> {
    let row = opt.row();
    match (row.off, row.form) {
        (Off::Value(number) | Off::System(number), _) => Some(number.into()),
        // Below all that is a value: -1 where 0 is one.
        (Off::Empty, Form::Time { min, .. } | Form::Int { min, .. }) => Some(min - 1),
        (Off::Empty | Off::Never, _) => None,
    }
}

/// Both fields of the range; one that is left out is the system's bound.
fn ports(options: &DynamicMessage) -> Result<Setting, String> {
    let port = |name: &str| {
        let number = options.get_field_by_name(name).and_then(|value| value.as_i32()).unwrap_or(0);
        u16::try_from(number).map_err(|_| format!("{name}: {number} is out of range: 0 to 65535"))
    };
    match (port("local_port_range_lower")?, port("local_port_range_upper")?) {
        (0, 0) => Ok(Setting::Off),
        (low, high) if high != 0 && low > high => {
            Err(format!("local_port_range_lower, {low}, is more than local_port_range_upper, {high}"))
        }
        (low, high) => Ok(Setting::Value(OptValue::Ports { low, high })),
    }
}

/// Writes a setting as [`setting`] reads it.
fn write(message: &mut DynamicMessage, opt: Opt, setting: &Setting) {
    let mut put = |path: &str, value: &dyn Fn(&FieldDescriptor) -> Value| {
        let Some((group, field)) = place(path) else { return };
        let Value::Message(options) = message.get_field_mut(&group) else { return };
        options.set_field(&field, value(&field));
    };
    let row = opt.row();
    if row.form == Form::Ports {
        let (low, high) = match setting {
            Setting::Value(OptValue::Ports { low, high }) => (i32::from(*low), i32::from(*high)),
            Setting::Value(_) | Setting::Off => (0, 0),
        };
        put("ipOption.localPortRangeLower", &|_| Value::I32(low));
        put("ipOption.localPortRangeUpper", &|_| Value::I32(high));
        return;
    }
    let path = row.fields.first().copied().unwrap_or_default();
    put(path, &|field| match setting {
        Setting::Off => match row.form {
            Form::Flag => Value::Bool(false),
            Form::Name { .. } => Value::String(String::new()),
            Form::Int { .. } | Form::Time { .. } | Form::Choice(_) | Form::Ports | Form::Cpus { .. } => {
                number(field, off_number(opt).unwrap_or_default())
            }
        },
        Setting::Value(OptValue::Flag(flag)) => Value::Bool(*flag),
        Setting::Value(OptValue::Int(int)) => number(field, *int),
        Setting::Value(OptValue::Time(time)) => {
            let each = span(1, unit(field)).as_nanos();
            number(field, i64::try_from(time.as_nanos() / each).unwrap_or(i64::MAX))
        }
        Setting::Value(OptValue::Name(name)) => match row.form {
            Form::Choice(names) => {
                let known = names.iter().find(|(known, _)| known == name);
                Value::EnumNumber(known.map_or(-1, |(_, number)| *number))
            }
            Form::Flag
            | Form::Int { .. }
            | Form::Time { .. }
            | Form::Name { .. }
            | Form::Ports
            | Form::Cpus { .. } => Value::String(name.clone()),
        },
        Setting::Value(OptValue::Cpus(cores)) => Value::List(cores.iter().copied().map(Value::U32).collect()),
        // Written above.
        Setting::Value(OptValue::Ports { .. }) => Value::I32(0),
    });
}

/// In the width of the field; beyond it the nearest, which the option does not take.
fn number(field: &FieldDescriptor, number: i64) -> Value {
    match field.kind() {
        Kind::Uint32 => Value::U32(u32::try_from(number).unwrap_or(u32::MAX)),
        Kind::Enum(_) => Value::EnumNumber(i32::try_from(number).unwrap_or(i32::MAX)),
        _ => Value::I32(i32::try_from(number).unwrap_or(i32::MAX)),
    }
}

fn span(number: u64, unit: Unit) -> Duration {
    match unit {
        Unit::Microseconds => Duration::from_micros(number),
        Unit::Milliseconds => Duration::from_millis(number),
        Unit::Seconds | Unit::None | Unit::Bytes => Duration::from_secs(number),
    }
}
