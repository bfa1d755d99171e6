//! What the programs do when nobody reads what they say.

use std::process::{Command, Stdio};

/// A reader that had gone, as `head` does, ended a run of twenty minutes with a panic.
#[test]
fn a_run_outlives_its_reader() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_all"));
    let mut run =
        command.args(["--estimate", "--only", "timers"]).stdout(Stdio::piped()).spawn().expect("it starts");
    drop(run.stdout.take());
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
}
