//! Cases in a network of their own, with names of their own: they run in this program anew, in namespaces that unshare(1)
//! makes.

use std::process::Command;

use crate::rig::{alone, skipped};

/// Runs `case` where only the loopback interface is up, and where the hosts file holds these lines alone. The test's own
/// name is `test`, as the harness has it. Skipped, with a line that says so, without the privilege.
pub(super) fn in_namespace(test: &str, hosts: &[&str], case: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return case();
    }
    // Descriptors of the pipes to the child are not another case's.
    let _alone = alone();
    let possible = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return skipped("it needs unshare(1), and the privilege to make namespaces");
    }
    let program = std::env::current_exe().expect("it runs");
    let hosts_file =
        std::env::temp_dir().join(format!("ringport-hosts-{}-{}", std::process::id(), test.len()));
    std::fs::write(&hosts_file, format!("127.0.0.1 localhost\n{}\n", hosts.join("\n"))).expect("writable");
    let script = "mount --bind \"$0\" /etc/hosts && ip link set lo up && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(&hosts_file)
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output();
    let _ = std::fs::remove_file(&hosts_file);
    let output = output.expect("unshare starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "in the namespace: {said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const INSIDE: &str = "RINGPORT_TEST_NAMESPACE";
