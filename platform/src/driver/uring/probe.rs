//! Functional self-tests.
use std::time::Duration;
use io_uring::IoUring;
use super::Mode;
use super::setup::{Rung, UringError};
use crate::driver::{Mechanism, Mechanisms};

/// One mechanism of the kernel.
#[derive(Clone, Debug)]
pub struct Feature { /// n
 pub name: &'static str, /// a
 pub available: bool, /// e
 pub enabled: bool, /// note
 pub note: String }
/// Report.
#[derive(Clone, Debug)]
pub struct UringReport { /// f
 pub features: Vec<Feature> }
pub(super) fn self_test(_: &IoUring, _: Rung, d: Mechanisms) -> Result<(Mode, UringReport), UringError> {
    let _ = Duration::ZERO;
    let on = |m| !d.contains(m);
    Ok((Mode { credit: on(Mechanism::Credit), inc: on(Mechanism::Inc), multishot: on(Mechanism::Multishot), silent_tcp: on(Mechanism::Silent), silent_unix: on(Mechanism::Silent)}, UringReport { features: vec![] }))
}
