//! io_uring is not to be had: the proxy starts on epoll and says why, or refuses where io_uring was asked for.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::message::Client;
use crate::origin::Origin;
use crate::process::{Process, have, is_root, ringport, ringport_under, run, skipped};
use crate::rig::{Folder, Setup};

/// Installs a seccomp filter that answers the three system calls of io_uring (425 to 427 on every architecture) with an
/// errno, then executes what follows. seccomp(2).
const SECCOMP: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
errno = int(sys.argv[1])
code = [(0x20, 0, 0, 0)]                                             # load the number of the call
code += [(0x15, 3 - at, 0, 425 + at) for at in range(3)]             # io_uring: to the last line
code += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | errno)] # allow; or the errno
code = b"".join(struct.pack("HBBI", *line) for line in code)
text = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(code) // 8, ctypes.addressof(text))
assert libc.prctl(38, 1, 0, 0, 0) == 0, ctypes.get_errno()           # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[test]
fn by_a_seccomp_filter() {
    if !have("io_uring denied by seccomp", &["python3"]) {
        return;
    }
    for (errno, name) in [("1", "Operation not permitted"), ("38", "Function not implemented")] {
        let wrapper = ["python3", "-c", SECCOMP, errno];
        let origin = Origin::echo();
        let proxy = Setup::to("auto", origin.addr, "").under(&wrapper).start();
        let why = proxy.await_log("driver: ");
        for part in [
            "driver: epoll, because io_uring is not to be had: a seccomp filter",
            name,
            "allow io_uring_setup",
        ] {
            assert!(why.contains(part), "{part:?}: {why}");
        }
        assert_eq!(proxy.client().ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").text(), "GET / ");
        assert_eq!(proxy.log().matches("driver: ").count(), 1, "{}", proxy.log());
        proxy.finish();
        let folder = Folder::new();
        let config = folder.file("c.yaml", &config());
        let path = config.to_str().expect("a plain path");
        let forced =
            run(ringport_under(&wrapper, &["proxy", "--config", path]).env("RINGPORT_DRIVER", "uring"));
        forced.assert_refused(&["uring was asked for", "seccomp", name]);
        let probe = run(&mut ringport_under(&wrapper, &["probe", "--json"]));
        let json: serde_json::Value = serde_json::from_str(&probe.out).expect("JSON");
        assert_eq!((probe.code(), &json["uring"]["available"]), (Some(0), &false.into()), "{json}");
        assert!(json["taken"].as_str().is_some_and(|taken| taken.starts_with("epoll")), "{json}");
    }
}

/// The config asks as the environment does, and the environment wins.
#[test]
fn by_a_seccomp_filter_under_a_config_that_asks() {
    if !have("io_uring denied by seccomp", &["python3"]) {
        return;
    }
    let wrapper = ["python3", "-c", SECCOMP, "1"];
    let folder = Folder::new();
    let config = folder.file("c.yaml", &config().replace("cores: 1", "cores: 1, driver: uring"));
    let arguments = ["proxy", "--config", config.to_str().expect("a plain path")];
    run(&mut ringport_under(&wrapper, &arguments)).assert_refused(&["uring was asked for", "seccomp"]);
    for driver in ["auto", "epoll"] {
        let proxy = Process::start(ringport_under(&wrapper, &arguments).env("RINGPORT_DRIVER", driver));
        proxy.listening("web");
    }
}

/// Root is exempt from the limit, so the process is an unprivileged one.
#[test]
fn by_the_limit_of_locked_memory() {
    const CASE: &str = "io_uring denied by RLIMIT_MEMLOCK";
    if !have(CASE, &["prlimit", "setpriv"]) {
        return;
    }
    let folder = Folder::new();
    // The build's folder may be closed to the user that the process becomes.
    let binary = folder.path().join("ringport");
    std::fs::copy(crate::rig::BINARY, &binary).expect("a copy");
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).expect("our file");
    let config = folder.file("c.yaml", &config());
    let command = |arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg("--memlock=0:0");
        if is_root() {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(&binary).args(arguments).env_remove("RINGPORT_DRIVER").env_remove("RUST_LOG");
        command
    };
    let path = config.to_str().expect("a plain path");
    let probe = run(&mut command(&["probe", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&probe.out).expect("JSON");
    if json["uring"]["available"] == true {
        return skipped(CASE, "this kernel counts rings by another account");
    }
    let proxy = Process::start(&mut command(&["proxy", "--config", path]));
    let why = proxy.wait_for(|line| line.contains("driver: ").then(|| line.to_owned()));
    for part in ["epoll, because io_uring is not to be had", "RLIMIT_MEMLOCK is 0 bytes"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(Client::connect(proxy.listening("web")).ask("GET / HTTP/1.0\r\n\r\n").status(), 502);
    drop(proxy);
    let forced = run(command(&["proxy", "--config", path]).env("RINGPORT_DRIVER", "uring"));
    forced.assert_refused(&["uring was asked for", "RLIMIT_MEMLOCK is 0 bytes"]);
}

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// The setting holds for the whole machine. It is ours for moments only, under a lock, and a process that outlives us
/// restores it. Other cases that start on io_uring in such a moment would fail, so this one asks to be run alone.
#[test]
#[ignore = "changes a setting of the whole machine; run alone, as ./test does"]
fn by_the_sysctl() {
    const CASE: &str = "io_uring denied by kernel.io_uring_disabled";
    if !is_root() || !Path::new(SYSCTL).exists() {
        return skipped(CASE, "needs root and a kernel that has the sysctl");
    }
    let lock = std::fs::File::create(std::env::temp_dir().join("ringport-sysctl.lock")).expect("a lock file");
    lock.lock().expect("a lock");
    let folder = Folder::new();
    let config = folder.file("c.yaml", &config());
    let arguments = ["proxy", "--config", config.to_str().expect("a plain path")];
    let disabled = Disabled::set();
    let proxy = Process::start(&mut ringport(&arguments));
    let web = proxy.listening("web");
    let forced = run(ringport(&arguments).env("RINGPORT_DRIVER", "uring"));
    drop(disabled);
    let why = proxy.wait_for(|line| line.contains("driver: ").then(|| line.to_owned()));
    assert!(
        why.contains("epoll, because io_uring is not to be had: sysctl kernel.io_uring_disabled is 2"),
        "{why}"
    );
    assert_eq!(Client::connect(web).ask("GET / HTTP/1.0\r\n\r\n").status(), 502);
    forced.assert_refused(&["uring was asked for", "sysctl kernel.io_uring_disabled is 2", "set it to 0"]);
}

/// The sysctl at 2. Dropped, or when this process ends in whatever way, what it was before comes back.
struct Disabled(std::process::Child);

impl Disabled {
    fn set() -> Disabled {
        let before = std::fs::read_to_string(SYSCTL).expect("readable");
        let restore = format!("trap '' INT TERM HUP; cat; echo {} >{SYSCTL}", before.trim());
        let mut command = Command::new("sh");
        command.args(["-c", &restore]).stdin(std::process::Stdio::piped());
        // It is there before anything is changed.
        let guard = Disabled(command.spawn().expect("a shell"));
        std::fs::write(SYSCTL, "2").expect("writable for root");
        guard
    }
}

impl Drop for Disabled {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A proxy before an origin that refuses: nothing of the network is needed.
fn config() -> String {
    let refusing = Origin::refusing();
    format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\nroutes: [{{ pool: o }}]\n\
         pools: [{{ name: o, origins: [{{ address: \"{refusing}\" }}] }}]\nruntime: {{ cores: 1 }}\n"
    )
}
