//! What `./test` and `.ci/run` do with a step that never ends: its processes are ended, and the step is named. A run of
//! the tests once hung until its machine was taken away, and left no verdict.

use std::process::{Command, Output};

fn bash(script: &str) -> Output {
    let script = format!("set -euo pipefail\n. scripts/within\n{script}");
    Command::new("bash").args(["-c", &script]).output().expect("bash")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_step_over_its_limit_is_ended_with_all_that_it_started() {
    let output = bash(
        r#"
        hangs() { bash -c 'setsid sleep 98765 >/dev/null & sleep 98764'; }
        within 1 "the one that hangs" hangs || echo "status $?"
        for folder in /proc/[0-9]*; do
            case "$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline")" in "sleep 9876"[45]*) echo "alive: $folder" ;; esac
        done
        "#,
    );
    let said = said(&output);
    assert!(said.contains("== the one that hangs ... is over its limit of 1 s"), "{said}");
    for process in ["sleep 98764", "sleep 98765", "status 124"] {
        assert!(said.contains(process), "{process} is not told: {said}");
    }
    assert!(!said.contains("alive"), "{said}");
}

#[test]
fn a_step_in_time_keeps_its_status_and_what_it_left_running_is_left() {
    let output = bash(
        r#"
        fails() { return 3; }
        within 100 "fails" fails || echo "status $?"
        within 100 "passes" sh -c 'sleep 0.2 >/dev/null & echo "$1"' _ "two words"
        within 100 "outer" within 1 "inner" sleep 98766 || echo "status $?"
        "#,
    );
    let said = said(&output);
    assert!(said.starts_with("status 3\ntwo words\n== inner ... is over"), "{said}");
    assert!(said.ends_with("status 124\n"), "{said}");
}
