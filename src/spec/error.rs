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
    /// The faults: of a text in its order, what concerns no part of it last.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The same, to keep.
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Adds the file, and the line and column of the nearest part that is written, to faults that have none, and sorts them.
    pub fn locate(mut self, file_name: &str, positions: &Positions) -> Self {
        for fault in self.faults.iter_mut().filter(|fault| fault.line.is_none()) {
            fault.file = file_name.to_owned();
            if let Some((line, column)) = positions.nearest(&fault.path) {
                (fault.line, fault.column) = (Some(line), Some(column));
            }
        }
        self.in_order()
    }

    /// Adds these faults to those of the reading, in the order of the text; without those that only follow from them.
    ///
    /// What is missing may be what could not be read; `holes` are the parts that could not, and the lists that lack an item,
    /// which moves those behind it.
    pub(super) fn beside(self, unread: Vec<Fault>, holes: &[String], positions: &Positions) -> Self {
        // A key that is not known may be what is missing beside it: a name of a pool, the hosts of a route.
        let is_lacking = |path: &str| unread.iter().any(|fault| fault.path == path);
        let any = |suspect: &dyn Fn(&str) -> bool| unread.iter().any(|fault| suspect(&fault.path));
        let pools = any(&|path| path.is_empty() || is_entry(path, "pools") || path.ends_with("].name"));
        let routes = any(&|path| {
            is_entry(path, "routes") || path.contains(".hosts") || path.ends_with(".path_prefix")
        });
        let follows = |fault: &Fault| {
            let is_written = positions.is_written(&fault.path);
            (!is_written && is_lacking(parent(&fault.path)))
                || holes.iter().any(|hole| is_in(&fault.path, hole))
                || (is_written && pools && fault.path.ends_with(".pool"))
                || (routes && fault.message.starts_with(NEVER_REACHED))
        };
        let found: Vec<_> = self.faults.into_iter().filter(|fault| !follows(fault)).collect();
        let mut faults = unread;
        faults.extend(found);
        SpecErrors { faults }.in_order()
    }

    /// In the order of the text.
    fn in_order(mut self) -> Self {
        self.faults.sort_by_key(|fault| (fault.line.is_none(), fault.line, fault.column));
        self
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

/// Whether a path is the other or a part of it.
fn is_in(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path of the table that a field is in.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Whether a path is that of a list, or of one of its entries.
fn is_entry(path: &str, list: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    last.strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
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

/// How a fault begins that tells of a route which another one hides.
pub(super) const NEVER_REACHED: &str = "never reached";
