//! What an operator gets wrong: one sentence that names it, exit code 2, and nothing is left running.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use crate::process::{ringport, run};
use crate::rig::{Folder, is_windows};

/// Names what has no driver, and runs once on Linux, once more for the Windows program.
macro_rules! windows_too {
    ($($name:ident,)+) => {
        mod iocp {
            $(#[test]
            #[ignore = "of the Windows program: ./test --windows"]
            fn $name() {
                crate::rig::on("iocp", |_| super::$name());
            })+
        }
    };
}

windows_too! {
    check_reports_every_fault_in_every_format,
    check_looks_past_a_part_that_cannot_be_read,
    check_prints_the_config_with_its_defaults,
    wrong_usage_is_told_with_code_2,
    check_takes_every_kind_of_spec,
}

const POOL: &str = "routes: [{ pool: o }]\npools: [{ name: o, origins: [{ address: \"127.0.0.1:9\" }] }]\n";

fn listener(address: &str) -> String {
    format!("listeners: [{{ name: web, address: \"{address}\" }}]\n{POOL}")
}

#[test]
fn a_config_that_cannot_be_used_is_named() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address");
    let socket = folder.path().join("taken.sock");
    let _live = UnixListener::bind(&socket).expect("a socket");
    folder.file("plain", "no socket");
    let fixed = |text: String| text.replace("FOLDER", &folder.path().display().to_string());
    let any = listener("127.0.0.1:0");
    let rows: Vec<(&str, String, Vec<String>)> = vec![
        (
            "port.yaml",
            listener(&port.to_string()),
            vec![port.to_string(), "listener web".into(), "in use".into()],
        ),
        ("nobody.yaml", listener("192.0.2.1:80"), vec!["192.0.2.1:80".into(), "assign".into()]),
        (
            "live.yaml",
            listener("unix:FOLDER/taken.sock"),
            vec!["taken.sock".into(), "another process".into()],
        ),
        ("file.yaml", listener("unix:FOLDER/plain"), vec!["FOLDER/plain".into(), "not a socket".into()]),
        (
            "dir.yaml",
            listener("unix:FOLDER/none/x.sock"),
            vec!["FOLDER/none/x.sock".into(), "No such".into()],
        ),
        (
            "admin.yaml",
            format!("{any}admin: {{ address: \"{port}\" }}\n"),
            vec![port.to_string(), "listener admin".into(), "in use".into()],
        ),
        (
            "log.yaml",
            format!("{any}accessLog: {{ path: FOLDER/none/access.log }}\n"),
            vec!["access log FOLDER/none/access.log".into(), "No such".into()],
        ),
        (
            "key.yaml",
            format!("{any}timeouts: {{ drian: 1s }}\n"),
            vec!["key.yaml:4:".into(), "drian".into(), "did you mean `drain`".into()],
        ),
        ("key.json", "{\n \"listener\": []\n}".into(), vec!["key.json:2:".into(), "listener".into()]),
        (
            "key.toml",
            "[admin]\naddres = \"127.0.0.1:0\"\n".into(),
            vec!["key.toml:2:".into(), "addres".into()],
        ),
        ("broken.yaml", "listeners: [".into(), vec!["broken.yaml:1:".into()]),
        ("broken.json", "{\n \"a\": ".into(), vec!["broken.json:2:".into()]),
        ("broken.toml", "a = \n".into(), vec!["broken.toml:1:".into()]),
        ("config.conf", any.clone(), vec!["config.conf".into(), ".yaml".into(), ".binpb".into()]),
        (
            "dial.yaml",
            "timeout: 10s\nfallbackDelay: -1\n".into(),
            vec!["dial.yaml holds a dial spec, no proxy".into(), "dialConfig".into(), "--as dial".into()],
        ),
        ("listen.yaml", "addr: ':0'\nbacklog: 0\n".into(), vec!["listen.yaml holds a listen spec".into()]),
        ("named.yaml", "dialConfig: {}\n".into(), vec!["named.yaml holds a dial spec, no proxy".into()]),
    ];
    for (name, text, parts) in rows {
        let path = folder.file(name, &fixed(text));
        let parts: Vec<String> = parts.into_iter().map(fixed).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let ended = run(&mut ringport(&["proxy", "--config", path.to_str().expect("a plain path")]));
        if name.starts_with("key") || name.starts_with("broken") || name == "config.conf" {
            ended.assert_fault(&parts);
        } else {
            ended.assert_refused(&parts);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new();
    let missing = folder.path().join("none.yaml").display().to_string();
    let latin1 = folder.path().join("latin1.yaml");
    std::fs::write(&latin1, b"# \xe4\n").expect("a file");
    for command in [&["proxy", "--config"][..], &["check"]] {
        let with = |path: &str| run(ringport(command).arg(path));
        with(&missing).assert_refused(&["cannot read", &missing, "No such file"]);
        let latin1 = latin1.to_str().expect("a plain path");
        with(latin1).assert_fault(&[latin1, ":1:3: ", "cannot read it", "UTF-8"]);
        let dir = folder.path().to_str().expect("a plain path");
        with(dir).assert_refused(&["cannot read", dir]);
        // What never ends is not read until memory is used up.
        let endless = folder.path().join("endless.yaml");
        if !endless.exists() {
            std::os::unix::fs::symlink("/dev/zero", &endless).expect("a link");
        }
        with(endless.to_str().expect("a plain path"))
            .assert_refused(&["endless.yaml", "longer than 16777216 bytes"]);
    }
}

/// A pipe can be read once. It was opened a second time for what is told beside the config, where nobody writes any more.
#[test]
fn a_config_is_read_once() {
    let folder = Folder::new();
    let pipe = folder.path().join("pipe.yaml");
    assert_eq!(run(std::process::Command::new("mkfifo").arg(&pipe)).code(), Some(0));
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || {
            std::fs::write(pipe, "listenConfig: { addr: \":80\", readDeadline: 30 }\n")
        })
    };
    let ended = run(ringport(&["check"]).arg(&pipe));
    writer.join().expect("no panic").expect("it is read");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.err.contains("30 without a unit"), "{ended:?}");
}

/// A value that is not even text was once taken for none at all.
#[test]
fn an_environment_that_cannot_be_used_is_named() {
    let folder = Folder::new();
    let config = folder.file("c.yaml", &listener("127.0.0.1:0"));
    let config = config.to_str().expect("a plain path");
    let garbage = OsStr::from_bytes(b"\xff");
    for (name, value, part) in [
        ("RINGPORT_DRIVER", OsStr::new("kqueue"), "auto, uring, epoll and iocp"),
        ("RINGPORT_DRIVER", OsStr::new(""), "auto, uring, epoll and iocp"),
        ("RINGPORT_DRIVER", garbage, "UTF-8"),
        ("RINGPORT_DISABLE", OsStr::new("silent,everything"), "everything"),
        ("RINGPORT_DISABLE", garbage, "UTF-8"),
        ("RUST_LOG", OsStr::new("ringport=loud"), "loud"),
        ("RUST_LOG", garbage, "UTF-8"),
    ] {
        for arguments in [&["proxy", "--config", config][..], &["probe"], &[]] {
            run(ringport(arguments).env(name, value)).assert_refused(&[name, part]);
        }
    }
}

#[test]
fn check_reports_every_fault_in_every_format() {
    let folder = Folder::new();
    let texts = [
        (
            "bad.yaml",
            "listeners:\n  - { name: web, address: \"127.0.0.1:99999\" }\nroutes:\n  - { pool: nope, pathPrefix: x }\n\
             pools:\n  - { name: o, origins: [{ address: \"127.0.0.1\" }] }\ntimeouts: { header: 0s }\n",
            [2, 4, 4, 6, 7],
        ),
        (
            "bad.json",
            "{\n\"listeners\": [{ \"name\": \"web\", \"address\": \"127.0.0.1:99999\" }],\n\
             \"routes\": [{ \"pool\": \"nope\",\n \"pathPrefix\": \"x\" }],\n\
             \"pools\": [{ \"name\": \"o\", \"origins\": [{ \"address\": \"127.0.0.1\" }] }],\n\
             \"timeouts\": { \"header\": \"0s\" }\n}\n",
            [2, 3, 4, 5, 6],
        ),
        (
            "bad.toml",
            "listeners = [{ name = \"web\", address = \"127.0.0.1:99999\" }]\n[[routes]]\npool = \"nope\"\n\
             pathPrefix = \"x\"\n[[pools]]\nname = \"o\"\norigins = [{ address = \"127.0.0.1\" }]\n[timeouts]\n\
             header = \"0s\"\n",
            [1, 3, 4, 7, 9],
        ),
    ];
    for (name, text, lines) in texts {
        let path = folder.file(name, text).display().to_string();
        let ended = run(&mut ringport(&["check", &path]));
        assert_eq!((ended.code(), ended.out.as_str()), (Some(2), ""), "{ended:?}");
        let faults: Vec<&str> = ended.err.lines().collect();
        let fields = [
            "listeners[0].address",
            "routes[0].pool",
            "routes[0].path_prefix",
            "pools[0].origins[0].address",
            "timeouts.header",
        ];
        assert_eq!(faults.len(), fields.len(), "{ended:?}");
        for ((fault, field), line) in faults.iter().zip(fields).zip(lines) {
            assert!(fault.starts_with(&format!("{path}:{line}:")), "line {line}: {fault}");
            assert!(fault.contains(&format!(" {field}: ")), "{field}: {fault}");
        }
    }
}

/// A misspelt key once hid what was wrong with every other part.
#[test]
fn check_looks_past_a_part_that_cannot_be_read() {
    let folder = Folder::new();
    let text = "listeners:\n  - { name: web, adress: \"127.0.0.1:80\" }\nroutes:\n  - { pool: o, pathPrefix: x }\n\
                pools:\n  - { name: o, origins: [{ address: \"127.0.0.1\" }] }\n\
                timeouts: { header: 0s, drain: 10, bodyIdle: \"1min\" }\n";
    let path = folder.file("bad.yaml", text).display().to_string();
    let ended = run(&mut ringport(&["check", &path]));
    let faults: Vec<&str> = ended.err.lines().collect();
    let expected = [
        (2, "listeners[0]: unknown key \"adress\""),
        (4, "routes[0].path_prefix: "),
        (6, "pools[0].origins[0].address: "),
        (7, "timeouts.header: "),
        (7, "timeouts.drain: "),
        (7, "timeouts.body_idle: "),
    ];
    assert_eq!((ended.code(), faults.len()), (Some(2), expected.len()), "{ended:?}");
    for (fault, (line, part)) in faults.iter().zip(expected) {
        assert!(fault.starts_with(&format!("{path}:{line}:")) && fault.contains(part), "{part}: {fault}");
    }
}

/// What `check` prints is a config, and `check` binds nothing: it may be run beside the proxy.
#[test]
fn check_prints_the_config_with_its_defaults() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let path = folder.file("c.yaml", &listener(&taken.local_addr().expect("an address").to_string()));
    let first = run(&mut ringport(&["check", path.to_str().expect("a plain path")]));
    assert_eq!((first.code(), first.err.as_str()), (Some(0), ""), "{first:?}");
    assert!(first.out.contains("keepAliveIdle: '75s'"), "{first:?}");
    let again = folder.file("again.yaml", &first.out);
    let second = run(&mut ringport(&["check", again.to_str().expect("a plain path")]));
    assert_eq!(second.out, first.out);
}

#[test]
fn wrong_usage_is_told_with_code_2() {
    for (arguments, part) in [
        (&["serve"][..], "serve"),
        (&["proxy"], "--config"),
        (&["check"], "FILE"),
        (&["check", "--as", "relay", "a.yaml"], "write dial, listen, packet, proxy or http-server"),
        (&["probe", "--yaml"], "--yaml"),
        (&["--port", "80"], "--port"),
    ] {
        let ended = run(&mut ringport(arguments));
        assert_eq!((ended.code(), ended.out.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(ended.err.starts_with("error: ") && ended.err.contains(part), "{arguments:?}: {ended:?}");
    }
    for (arguments, part) in [
        (&["--help"][..], "RINGPORT_DRIVER"),
        (&["check", "--help"], "listenConfig"),
        (&["probe", "--help"], "--json"),
        (&["probe", "--help"], "--sockopts"),
        (&["--version"], "ringport "),
    ] {
        let ended = run(&mut ringport(arguments));
        assert_eq!((ended.code(), ended.err.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
        assert!(ended.out.contains(part), "{arguments:?}: {ended:?}");
    }
}

/// Every broken config of `tests/data/broken` at once: what is told of each, in the order in which they are named.
#[test]
fn check_tells_every_fault_of_every_file() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/broken");
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut configs: Vec<String> = names.filter(|name| !name.ends_with(".faults")).collect();
    configs.sort();
    let expected: String = configs
        .iter()
        .map(|name| std::fs::read_to_string(folder.join(format!("{name}.faults"))).expect("its faults"))
        .collect();
    let ended = run(ringport(&["check"]).args(&configs).current_dir(&folder));
    assert_eq!((ended.code(), ended.out.as_str()), (Some(2), ""), "{ended:?}");
    assert_eq!(ended.err, expected);
}

#[test]
fn check_takes_every_kind_of_spec() {
    let folder = Folder::new();
    let rows = [
        ("dial", "timeout: 1s\n", "dialConfig: { timeout: 1s }\n", "timeout: '1s'"),
        ("listen", "addr: \":80\"\n", "listenConfig: { addr: \":80\" }\n", "addr: 'tcp://[::]:80'"),
        ("packet", "network: udp6\n", "packetConnConfig: { network: udp6 }\n", "network: 'udp6'"),
    ];
    for (kind, bare, keyed, part) in rows {
        for (text, arguments) in [(bare, &["check", "--as", kind][..]), (keyed, &["check"])] {
            let path = folder.file("first.yaml", text);
            let first = run(ringport(arguments).arg(path));
            assert_eq!((first.code(), first.err.as_str()), (Some(0), ""), "{first:?}");
            assert!(first.out.contains(part), "{part}: {first:?}");
            let again = folder.file("again.yaml", &first.out);
            assert_eq!(run(ringport(arguments).arg(again)).out, first.out);
        }
        let wrong = folder.file("wrong.yaml", keyed);
        run(ringport(&["proxy", "--config"]).arg(wrong)).assert_refused(&[kind, "no proxy"]);
    }
    // A number of milliseconds that may have been meant as seconds is no fault, and is told.
    let bare = folder.file("bare.yaml", "listenConfig: { addr: \":80\", readDeadline: 30 }\n");
    let told = run(ringport(&["check"]).arg(bare));
    assert_eq!(told.code(), Some(0), "{told:?}");
    assert!(told.err.contains("bare.yaml:1:44: listen_config.read_deadline: 30 without a unit"), "{told:?}");
    assert!(told.out.contains("readDeadline: '30ms'"), "{told:?}");
    // Several are told apart, and one that is broken does not hide the others.
    let (good, bad) = (folder.file("good.yaml", rows[0].2), folder.file("bad.yaml", "a: 1\n"));
    let missing = folder.path().join("missing.yaml");
    let ended = run(ringport(&["check"]).args([&missing, &good, &bad]));
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.out.starts_with(&format!("--- # {}\ndialConfig:", good.display())), "{ended:?}");
    assert!(ended.err.contains("bad.yaml:1:1: unknown key \"a\""), "{ended:?}");
    let why = if is_windows() { "" } else { "No such file" };
    let told = ended.err.contains(&format!("missing.yaml: {why}"));
    assert!(ended.err.contains("ringport: cannot read ") && told, "{ended:?}");
}
