//! The file of a Unix socket.

use super::check::{Check, join};
use super::nearest::quoted;
use super::raw;

/// What is done with the file of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixFile {
    /// Permissions, at most 0o7777; `None` = as the process's umask says.
    pub mode: Option<u32>,
    /// Owner; `None` = the process's.
    pub owner: Option<Owner>,
    /// Group; `None` = the process's.
    pub group: Option<Owner>,
    /// Whether a socket's file that nobody listens at is replaced. A live socket, or a file of another kind, never is.
    pub replace_stale: bool,
    /// Whether the file is removed at the end.
    pub remove: bool,
}

impl Default for UnixFile {
    /// The process's own, replaced where it is stale, removed at the end.
    fn default() -> Self {
        UnixFile { mode: None, owner: None, group: None, replace_stale: true, remove: true }
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// By number.
    Id(u32),
    /// By a name that is looked up when the socket is made: 1 to 32 bytes, not all digits.
    Name(String),
}

impl UnixFile {
    pub(super) fn to_raw(&self) -> raw::UnixConfig {
        let owner = |owner: &Owner| match owner {
            Owner::Id(id) => id.to_string(),
            Owner::Name(name) => name.clone(),
        };
        raw::UnixConfig {
            mode: self.mode.map(|mode| format!("{mode:04o}")),
            owner: self.owner.as_ref().map(owner),
            group: self.group.as_ref().map(owner),
            replace_stale: Some(self.replace_stale),
            remove: Some(self.remove),
        }
    }
}

impl Check {
    /// The file, where the address has one.
    pub(super) fn unix_file(
        &mut self,
        raw: Option<&raw::UnixConfig>,
        path: &str,
        has_file: bool,
    ) -> Option<UnixFile> {
        if !has_file {
            if raw.is_some() {
                self.fault(path, "the address has no file");
            }
            return None;
        }
        let defaults = UnixFile::default();
        let Some(raw) = raw else { return Some(defaults) };
        let mut owner = |field: &str, text: &Option<String>| {
            text.as_ref().and_then(|text| self.parsed(&join(path, field), owner(text)))
        };
        let (user, group) = (owner("owner", &raw.owner), owner("group", &raw.group));
        let mode = raw.mode.as_ref().and_then(|text| self.parsed(&join(path, "mode"), mode(text)));
        Some(UnixFile {
            mode,
            owner: user,
            group,
            replace_stale: raw.replace_stale.unwrap_or(defaults.replace_stale),
            remove: raw.remove.unwrap_or(defaults.remove),
        })
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().ok_or_else(|| {
        format!("{} is no mode; write three or four octal digits, such as \"0660\"", quoted(text))
    })
}

fn owner(text: &str) -> Result<Owner, String> {
    let malformed = || format!("{} is no name or number of a user or group", quoted(text));
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The highest number means "unchanged" to chown(2).
        return text.parse().ok().filter(|id| *id != u32::MAX).map(Owner::Id).ok_or_else(malformed);
    }
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && !":/".contains(c);
    if !(1..=32).contains(&text.len()) || !text.chars().all(fits) {
        return Err(malformed());
    }
    Ok(Owner::Name(text.to_owned()))
}
