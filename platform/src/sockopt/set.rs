//! A set of settings: checked against the table value by value, and as a whole against a sort of socket.

use std::fmt;
use std::io;
use std::time::Duration;

use super::applied::{ApplyError, Effective, effective};
use super::table::Off;
use super::value::{OptValue, Setting, Unit, ValueError};
use super::{Family, Opt, Os, Role, Stage, Target, os};
use crate::fd::BorrowedFd;

/// Settings of socket options, at most one for each option. An option without one is not touched.
///
/// Every value in it is of its option's form and range. The order is the table's, whatever the order of insertion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptSet {
    /// Sorted by the option.
    settings: Vec<(Opt, Setting)>,
}

impl OptSet {
    /// Nothing is touched.
    pub const fn new() -> Self {
        OptSet { settings: Vec::new() }
    }

    /// Adds a setting, or replaces the one of the same option. No system call.
    ///
    /// A value that is what the option writes for "off", such as a mark of 0, becomes [`Setting::Off`].
    ///
    /// # Errors
    /// [`OptFault::Value`]; the set is then unchanged.
    pub fn insert(&mut self, opt: Opt, setting: impl Into<Setting>) -> Result<(), OptFault> {
        let row = opt.row();
        let setting = match setting.into() {
            Setting::Value(OptValue::Flag(false)) => Setting::Off,
            setting => setting,
        };
        let checked = match &setting {
            Setting::Off if row.off == Off::Never => Err(ValueError::CannotBeOff),
            Setting::Off => Ok(()),
            Setting::Value(value) => row.form.check(row.unit, value),
        };
        if let Err(error) = checked {
            return Err(OptFault::Value { opt, given: setting, error });
        }
        let setting = row.without_two_names_for_off(setting);
        match self.settings.binary_search_by_key(&opt, |(opt, _)| *opt) {
            Ok(at) => self.settings[at].1 = setting,
            Err(at) => self.settings.insert(at, (opt, setting)),
        }
        Ok(())
    }

    /// [`OptSet::insert`] for a chain of calls.
    ///
    /// # Errors
    /// As [`OptSet::insert`]; the set is dropped.
    pub fn with(mut self, opt: Opt, setting: impl Into<Setting>) -> Result<Self, OptFault> {
        self.insert(opt, setting)?;
        Ok(self)
    }

    /// Removes an option from the set, and returns its setting where it had one.
    pub fn remove(&mut self, opt: Opt) -> Option<Setting> {
        let at = self.settings.binary_search_by_key(&opt, |(opt, _)| *opt).ok()?;
        Some(self.settings.remove(at).1)
    }

    /// What is set for an option, if anything.
    pub fn find(&self, opt: Opt) -> Option<&Setting> {
        let at = self.settings.binary_search_by_key(&opt, |(opt, _)| *opt).ok()?;
        Some(&self.settings[at].1)
    }

    /// All settings, in the order in which they are applied.
    pub fn iter(&self) -> impl Iterator<Item = (Opt, &Setting)> {
        self.settings.iter().map(|(opt, setting)| (*opt, setting))
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// The limit of `SO_RCVTIMEO`; `None` where there is none. Whoever receives must keep it: the kernel ignores it on sockets
    /// that do not block.
    pub fn receive_timeout(&self) -> Option<Duration> {
        self.timeout(Opt::SoRcvtimeo)
    }

    /// The limit of `SO_SNDTIMEO`; `None` where there is none. Whoever sends must keep it: the kernel ignores it on sockets that
    /// do not block.
    pub fn send_timeout(&self) -> Option<Duration> {
        self.timeout(Opt::SoSndtimeo)
    }

    fn timeout(&self, opt: Opt) -> Option<Duration> {
        match self.find(opt) {
            Some(Setting::Value(OptValue::Time(time))) => Some(*time),
            _ => None,
        }
    }

    /// Whether an option is set and not off.
    pub fn is_on(&self, opt: Opt) -> bool {
        matches!(self.find(opt), Some(Setting::Value(_)))
    }

    /// Every fault of the set on such a socket, on this operating system. The table is asked, not the kernel: no system call.
    ///
    /// A [`Family::Dual`] target is taken as IPv6 alone where `IPV6_V6ONLY` is on.
    pub fn check(&self, target: Target) -> Vec<OptFault> {
        self.check_on(target, Os::HERE)
    }

    /// [`OptSet::check`] for another operating system.
    pub fn check_on(&self, target: Target, os: Os) -> Vec<OptFault> {
        let target = self.narrowed(target);
        let mut faults: Vec<_> = self.iter().filter_map(|(opt, _)| unsupported(opt, target, os)).collect();
        let cannot = |(opt, setting): &(Opt, &Setting)| {
            **setting == Setting::Off && opt.row().exists_in(os) && !opt.row().can_be_off_in(os)
        };
        faults.extend(self.iter().filter(cannot).map(|(opt, setting)| OptFault::Value {
            opt,
            given: setting.clone(),
            error: ValueError::CannotBeOff,
        }));
        faults.extend(self.conflicts(target));
        faults
    }

    /// The part of the set that such a socket has, and why each other option was left out: it is of another family, kind or
    /// system ([`OptFault::is_unsupported`]).
    ///
    /// For one set that serves mixed targets, such as the addresses of a name. Options with other faults stay in the set;
    /// [`OptSet::check`] finds them.
    pub fn fitting(&self, target: Target) -> (OptSet, Vec<OptFault>) {
        let narrowed = self.narrowed(target);
        let mut left_out = Vec::new();
        let mut fitting = OptSet::new();
        for (opt, setting) in &self.settings {
            match unsupported(*opt, narrowed, Os::HERE).filter(OptFault::is_unsupported) {
                Some(fault) => left_out.push(fault),
                None => fitting.settings.push((*opt, setting.clone())),
            }
        }
        (fitting, left_out)
    }

    fn narrowed(&self, target: Target) -> Target {
        let v6only = self.is_on(Opt::Ipv6V6only) && target.family == Family::Dual;
        if v6only { Target { family: Family::V6, ..target } } else { target }
    }

    /// Settings that contradict each other, on their own or on such a socket.
    fn conflicts(&self, target: Target) -> Vec<OptFault> {
        let mut faults = Vec::new();
        let mut conflict = |opt, with, why| faults.push(OptFault::Conflict { opt, with, why });
        if self.is_on(Opt::IpprotoMptcp) {
            // What a listener's connections are given is as good as given to itself.
            let connections = (target.role == Role::Listener).then(|| target.as_role(Role::Accepted));
            let is_given = |opt: Opt| {
                let mut sockets = [Some(target), connections].into_iter().flatten();
                sockets.any(|socket| opt.stage_on(socket).is_some())
            };
            for (opt, _) in self.iter().filter(|(opt, _)| !opt.row().mptcp && is_given(*opt)) {
                conflict(opt, Opt::IpprotoMptcp, "a Multipath TCP socket does not take it");
            }
        }
        if self.is_on(Opt::SoAttachReuseportCbpf) && !self.is_on(Opt::SoReuseport) {
            conflict(
                Opt::SoAttachReuseportCbpf,
                Opt::SoReuseport,
                "it steers within a group, which that one makes",
            );
        }
        if self.find(Opt::SoKeepalive) == Some(&Setting::Off) {
            for opt in [Opt::TcpKeepcnt, Opt::TcpKeepidle, Opt::TcpKeepintvl] {
                if self.find(opt).is_some() {
                    conflict(opt, Opt::SoKeepalive, "that one is off, so no probe is sent");
                }
            }
        }
        faults
    }

    /// Whether any option is to be set at this stage. If not, [`OptSet::apply`] makes no system call.
    pub fn has_stage(&self, stage: Stage, target: Target) -> bool {
        self.at_stage(stage, target).next().is_some()
    }

    /// Sets the options of a stage on a socket, in the table's order, and reads each back.
    ///
    /// Options that such a socket does not have are left out: [`OptSet::check`] tells of them. Two system calls for each
    /// option, one where nothing can be read. It stops at the first option that the kernel refuses. Those before it stay set,
    /// so close the socket.
    ///
    /// # Errors
    /// The option that was refused, the errno, and what would help.
    pub fn apply(
        &self,
        fd: BorrowedFd<'_>,
        stage: Stage,
        target: Target,
    ) -> Result<Vec<Effective>, ApplyError> {
        let mut applied = Vec::new();
        for (opt, setting) in self.at_stage(stage, target) {
            let refused = |error| ApplyError::new(opt, setting, target, &error);
            os::set(fd, opt, setting).map_err(refused)?;
            applied.push(effective(fd, opt, setting).map_err(refused)?);
        }
        Ok(applied)
    }

    /// [`OptSet::apply`] without reading back: one system call for each option. For every connection after the first, on which
    /// the same set was read back.
    ///
    /// # Errors
    /// As [`OptSet::apply`].
    pub fn apply_unread(&self, fd: BorrowedFd<'_>, stage: Stage, target: Target) -> Result<(), ApplyError> {
        for (opt, setting) in self.at_stage(stage, target) {
            os::set(fd, opt, setting).map_err(|error| ApplyError::new(opt, setting, target, &error))?;
        }
        Ok(())
    }

    /// Sends what `TCP_CORK` or `UDP_CORK` of this set holds back on a socket; later sends are held back again. Two system
    /// calls, none where neither option is on.
    ///
    /// # Errors
    /// The kernel's, as for a send.
    pub fn release_cork(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        for cork in [Opt::TcpCork, Opt::UdpCork].into_iter().filter(|cork| self.is_on(*cork)) {
            os::set(fd, cork, &Setting::Off)?;
            os::set(fd, cork, &Setting::Value(OptValue::Flag(true)))?;
        }
        Ok(())
    }

    fn at_stage(&self, stage: Stage, target: Target) -> impl Iterator<Item = (Opt, &Setting)> {
        let target = self.narrowed(target);
        self.iter().filter(move |(opt, setting)| match stage {
            Stage::Rearm => opt.is_rearmed_on(target) && matches!(setting, Setting::Value(_)),
            stage => opt.stage_on(target) == Some(stage),
        })
    }
}

/// Why an option has no effect on such a socket, if so.
fn unsupported(opt: Opt, target: Target, os: Os) -> Option<OptFault> {
    let row = opt.row();
    let role = if target.role == Role::Accepted { Role::Listener } else { target.role };
    if !row.exists_in(os) {
        Some(OptFault::WrongOs { opt, os })
    } else if !row.families.contains(&target.family) || !row.kinds.contains(&target.kind) {
        Some(OptFault::WrongSocket { opt, target })
    } else if !row.roles.contains(&role) {
        Some(OptFault::WrongRole { opt, target })
    } else {
        None
    }
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptFault {
    /// Its value is of another form or out of range.
    Value {
        /// The option.
        opt: Opt,
        /// What was wanted.
        given: Setting,
        /// What is wrong with that.
        error: ValueError,
    },
    /// Sockets of this family or kind do not have the option.
    WrongSocket {
        /// The option.
        opt: Opt,
        /// The sort of socket.
        target: Target,
    },
    /// It has no meaning in this role.
    WrongRole {
        /// The option.
        opt: Opt,
        /// The sort of socket.
        target: Target,
    },
    /// The operating system does not have it.
    WrongOs {
        /// The option.
        opt: Opt,
        /// The system.
        os: Os,
    },
    /// It contradicts another setting, or misses one.
    Conflict {
        /// The option.
        opt: Opt,
        /// The other one.
        with: Opt,
        /// How.
        why: &'static str,
    },
}

impl OptFault {
    /// The option that is at fault.
    pub const fn opt(&self) -> Opt {
        match self {
            OptFault::Value { opt, .. }
            | OptFault::WrongSocket { opt, .. }
            | OptFault::WrongRole { opt, .. }
            | OptFault::WrongOs { opt, .. }
            | OptFault::Conflict { opt, .. } => *opt,
        }
    }

    /// Whether the setting is good in itself, and only this family, kind or system lacks the option. A spec may ask to be
    /// warned about such an option instead of being refused.
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, OptFault::WrongSocket { .. } | OptFault::WrongOs { .. })
    }
}

impl fmt::Display for OptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptFault::Value { opt, given, error } => {
                let row = opt.row();
                match error {
                    ValueError::CannotBeOff => {
                        write!(f, "{opt} cannot be switched off; leave it out for the system's choice")
                    }
                    ValueError::WrongForm
                    | ValueError::OutOfRange
                    | ValueError::NotWhole
                    | ValueError::BadName => {
                        // A span of time names its own unit.
                        let timed = matches!(given, Setting::Value(OptValue::Time(_)));
                        let unit = if timed { Unit::None } else { row.unit };
                        let space = if unit.suffix().is_empty() { "" } else { " " };
                        let wanted = row.form.describe(row.unit);
                        write!(f, "{opt} takes {wanted}, not {given}{space}{}", unit.suffix())
                    }
                }
            }
            OptFault::WrongSocket { opt, target } => write!(f, "{opt} has no effect on a {target}"),
            OptFault::WrongRole { opt, target } => write!(f, "{opt} has no meaning for a {target}"),
            OptFault::WrongOs { opt, os } => write!(f, "{opt} does not exist on {}", os.name()),
            OptFault::Conflict { opt, with, why } => write!(f, "{opt} contradicts {with}: {why}"),
        }
    }
}

impl std::error::Error for OptFault {}
