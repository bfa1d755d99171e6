//! What tells one state of a file from another.

use std::fs::Metadata;

/// What changes when a file is written, or another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Its number in the file system; on Windows when it was made.
    identity: u64,
    len: u64,
    /// When it was written last, in the system's units.
    written: (i64, i64),
}

impl FileStamp {
    /// From what the system tells of a file.
    #[cfg(target_os = "linux")]
    pub fn new(about: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        FileStamp { identity: about.ino(), len: about.len(), written: (about.mtime(), about.mtime_nsec()) }
    }

    /// From what the system tells of a file.
    #[cfg(windows)]
    pub fn new(about: &Metadata) -> Self {
        use std::os::windows::fs::MetadataExt;
        let written = (about.last_write_time().cast_signed(), 0);
        FileStamp { identity: about.creation_time(), len: about.len(), written }
    }
}
