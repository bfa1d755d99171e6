//! Everything that is wrong with a spec, in one value.

use std::fmt;

use super::read::Positions;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file as the caller named it; empty where there is none.
    pub file: String,
    /// Line in the file, from 1.
    pub line: Option<u32>,
    /// Column in the line, in characters, from 1.
    pub column: Option<u32>,
    /// The field in names of the schema, such as `listeners[1].address`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and where it helps, what to write.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = self.file.clone();
        for number in [self.line, self.column].into_iter().flatten() {
            if !place.is_empty() {
                place.push(':');
            }
            place.push_str(&number.to_string());
        }
        for part in [&place, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// All faults of a spec, at least one; printed one per line. The writer of the spec is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecErrors {
    faults: Vec<Fault>,
}

impl SpecErrors {
    /// The faults: of one file in the order in which they were found.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Adds the file, and the line and column of the nearest part that is written, to faults that have none.
    pub fn locate(mut self, file_name: &str, positions: &Positions) -> Self {
        for fault in self.faults.iter_mut().filter(|fault| fault.line.is_none()) {
            fault.file = file_name.to_owned();
            if let Some((line, column)) = positions.nearest(&fault.path) {
                (fault.line, fault.column) = (Some(line), Some(column));
            }
        }
        self
    }

    /// Adds these faults to those of the reading, in the order of the text; without those that only follow from them.
    ///
    /// What is missing may be what could not be read, and an item that could not be read moves those behind it.
    pub(super) fn beside(self, unread: Vec<Fault>, positions: &Positions) -> Self {
        let list = |path: &str| path.rsplit_once('[').map_or(path, |(list, _)| list).to_owned();
        let holes: Vec<String> = unread.iter().map(|fault| list(&fault.path)).collect();
        let pools_have_holes = holes.iter().any(|hole| hole.is_empty() || hole.starts_with("pools"));
        let follows = |fault: &Fault| {
            !positions.is_written(&fault.path)
                || holes.iter().any(|hole| !hole.is_empty() && fault.path.starts_with(hole.as_str()))
                || (pools_have_holes && fault.path.ends_with(".pool"))
        };
        let mut faults = unread;
        faults.extend(self.faults.into_iter().filter(|fault| !follows(fault)));
        faults.sort_by_key(|fault| (fault.line, fault.column));
        SpecErrors { faults }
    }

    /// At least one fault.
    pub(super) fn of(faults: Vec<Fault>) -> Self {
        debug_assert!(!faults.is_empty());
        SpecErrors { faults }
    }

    pub(super) fn one(file: &str, position: Option<(u32, u32)>, message: impl Into<String>) -> Self {
        let (line, column) = position.unzip();
        let (file, path) = (file.to_owned(), String::new());
        SpecErrors { faults: vec![Fault { file, line, column, path, message: message.into() }] }
    }

    /// A fault at a path of which the place is not known, or not yet.
    pub(super) fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { file: String::new(), line: None, column: None, path: path.into(), message: message.into() }
    }

    /// `Ok` where there is no fault.
    pub(super) fn or<T>(faults: Vec<Fault>, value: T) -> Result<T, Self> {
        if faults.is_empty() { Ok(value) } else { Err(SpecErrors { faults }) }
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}
