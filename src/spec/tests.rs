mod corners;
mod formats;
mod http_server;
mod network;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::read::read_dynamic;
use super::{
    AccessLog, Address, Balance, DriverChoice, Format, HostPattern, Limits, ListenSource, OriginAddress,
    OriginPoolSpec, ProxySpec, RouteSpec, SpecErrors, raw, read,
};

const YAML: &str = r#"# A comment.
listeners:
  - name: web
    address: "127.0.0.1:8080"
  - { name: local, address: "unix:@ringport" }
routes:
  - pool: app
    hosts: [Example.com, "*.example.org"]
    pathPrefix: /api
    forwarded: FORWARDED_REPLACE
  - pool: app
pools:
  - name: app
    origins: [{ address: "app.internal:80" }, { address: "[2001:db8::1]:81" }, { address: "unix:/run/app" }]
    balance: least_connections
    max_idle_per_core: 8
    connect_timeout: 0.25s
    resolve_interval: 0s
    health: { max_fails: 0 }
access_log: { path: stdout }
runtime: { driver: epoll, cores: 2 }
limits: { headerBytes: "16384", max_connections: 100 }
timeouts: { keepAliveIdle: 10s, tunnel_idle: 0s }
"#;

const JSON: &str = r#"{
  "listeners": [{"name": "web", "address": "127.0.0.1:8080"}],
  "routes": [{"pool": "app", "preserveHost": true}],
  "pools": [{"name": "app", "origins": [{"address": "app\u002einternal:80"}], "retries": 2.0}],
  "timeouts": {"idle": null, "header": "5s"}
}
"#;

const TOML: &str = r#"[[listeners]]
name = "web"
address = "127.0.0.1:8080"

[[routes]]
pool = "app"

[[pools]]
name = "app"
origins = [{ address = "app.internal:80" }]

[timeouts]
header = "5s"
"#;

fn faults(text: &str, format: Format) -> String {
    ProxySpec::from_text(text, format, "f").expect_err(text).to_string()
}

/// The valid text with one part replaced must fail with all the fragments.
fn check_broken(valid: &str, format: Format, from: &str, to: &str, expected: &[&str]) {
    assert!(valid.contains(from), "{from} is in the text");
    let found = faults(&valid.replacen(from, to, 1), format);
    for fragment in expected {
        assert!(found.contains(fragment), "{from} -> {to}: {fragment:?} is not in\n{found}");
    }
}

#[test]
fn yaml_is_read_with_defaults() {
    let spec = ProxySpec::from_text(YAML, Format::Yaml, "f").expect("valid");
    let ListenSource::Address(address) = spec.listeners()[1].listen.source() else { panic!("no address") };
    assert_eq!(address.address(), &Address::UnixAbstract(b"ringport".to_vec()));
    let route = &spec.routes()[0];
    let hosts = [HostPattern::Exact("example.com".into()), HostPattern::Suffix("example.org".into())];
    assert_eq!((route.hosts.as_slice(), route.path_prefix.as_str()), (hosts.as_slice(), "/api"));
    let pool = spec.pool("app").expect("written");
    assert_eq!(pool.origins[1].address, OriginAddress::Host { host: "2001:db8::1".into(), port: 81 });
    assert_eq!((pool.balance, pool.max_idle_per_core, pool.retries), (Balance::LeastConnections, 8, 1));
    assert_eq!((pool.connect_timeout, pool.resolve_interval), (Duration::from_millis(250), None));
    assert_eq!((spec.runtime().driver, spec.runtime().cores), (DriverChoice::Epoll, Some(2)));
    let limits = Limits { header_bytes: 16_384, max_connections: Some(100), ..Limits::default() };
    assert_eq!(spec.limits(), &limits);
    assert_eq!((spec.timeouts().tunnel_idle, spec.access_log()), (None, &AccessLog::Stdout));
}

#[test]
fn three_formats_mean_the_same() {
    let json = JSON
        .replace("\"idle\": null, ", "")
        .replace(", \"preserveHost\": true", "")
        .replace(", \"retries\": 2.0", "");
    let json = ProxySpec::from_text(&json, Format::Json, "f").expect("valid");
    assert_eq!(json, ProxySpec::from_text(TOML, Format::Toml, "f").expect("valid"));
    assert_eq!(json, ProxySpec::from_text(&json.effective(), Format::Yaml, "f").expect("valid"));
}

#[test]
fn effective_is_read_back() {
    for (text, format) in [(YAML, Format::Yaml), (TOML, Format::Toml)] {
        let spec = ProxySpec::from_text(text, format, "f").expect("valid");
        assert_eq!(ProxySpec::from_text(&spec.effective(), Format::Yaml, "f").as_ref(), Ok(&spec));
        assert_eq!(spec.clone().into_builder().build(), Ok(spec));
    }
}

#[test]
fn built_in_code() {
    let origin = OriginAddress::Host { host: "localhost".into(), port: 80 };
    let builder = ProxySpec::builder().listener("web", Address::Inet(([127, 0, 0, 1], 0).into()));
    let builder = builder.route(RouteSpec::new("app")).pool(OriginPoolSpec::new("app", [origin]));
    let spec = builder.clone().build().expect("valid");
    assert_eq!(spec.limits(), &Limits::default());
    let broken = builder.admin(Address::Unix(PathBuf::from("@x"))).route(RouteSpec::new("ap")).build();
    assert!(
        broken
            .expect_err("a path that reads as a name")
            .to_string()
            .contains("admin.address: no text can hold")
    );
    let empty = ProxySpec::builder().build().expect_err("nothing in it").to_string();
    assert_eq!(empty.lines().count(), 3, "{empty}");
}

#[test]
fn every_fault_is_reported_with_its_place() {
    let text =
        YAML.replace("127.0.0.1:8080", "nowhere").replace("pool: app\n    hosts", "pool: ap\n    hosts");
    let text = text.replace("0.25s", "-1s").replace("cores: 2", "cores: 5000");
    let expected = "f:4:14: listeners[0].address: \"nowhere\" is no address: write 127.0.0.1:8080, [::]:8080, unix:/path or unix:@name
f:7:11: routes[0].pool: there is no pool \"ap\"; did you mean `app`?
f:17:22: pools[0].connect_timeout: a duration cannot be negative
f:21:34: runtime.cores: 5000 is out of range: 0 to 1024";
    assert_eq!(faults(&text, Format::Yaml), expected);
}

/// What stands in [`YAML`], what is written instead, and what the faults then say.
const BROKEN_YAML: &[(&str, &str, &[&str])] = &[
    ("name: web", "nmae: web", &["f:3:5: listeners[0]: unknown key \"nmae\"; did you mean `name`?"]),
    ("name: web", "name: web\n    name: x", &["f:4:5: listeners[0].name: written twice, first in line 3"]),
    ("max_idle_per_core: 8", "maxIdlePerCore: 8\n    max_idle_per_core: 8", &["written twice"]),
    ("name: web", "name: 7", &["f:3:11: listeners[0].name: expected a string, found an integer"]),
    ("name: web", "name: [web]", &["expected a string, found a list"]),
    ("name: web", "name: \"we b\"", &["listeners[0].name", "is no name"]),
    ("name: web", "name: local", &["listeners[1].name: \"local\" is already the name of listeners[0]"]),
    ("127.0.0.1:8080", ":8080", &["has no host; write 0.0.0.0:8080"]),
    ("127.0.0.1:8080", "unix:@ringport", &["f:5:29: listeners[1].address", "already that of listeners[0]"]),
    ("127.0.0.1:8080", "unix:", &["1 to 107 bytes"]),
    ("/api", "api", &["f:9:17: routes[0].path_prefix: \"api\" does not begin with '/'"]),
    ("/api", "/a?b", &["'?' cannot be in a path"]),
    ("/api", "/a/../b", &["never matches"]),
    ("Example.com", "exa mple", &["f:8:13: routes[0].hosts[0]", "is no host name"]),
    ("Example.com", "\"a:80\"", &["has a port"]),
    ("Example.com", "\"*\"", &["leave hosts out"]),
    ("Example.com", "\"*.Example.org\"", &["routes[0].hosts[1]: the host is written twice"]),
    ("  - pool: app\npools", "  - pool: app\n  - pool: app\npools", &["routes[2]: never reached: routes[1]"]),
    (
        "  - pool: app\npools",
        "  - { pool: app, path_prefix: /x/ }\n  - { pool: app, path_prefix: /x }\npools",
        &["routes[2]: never reached: routes[1]"],
    ),
    (
        "FORWARDED_REPLACE",
        "REPLAC",
        &["f:10:16: routes[0].forwarded: unknown value", "FORWARDED_OFF; did you mean"],
    ),
    ("FORWARDED_REPLACE", "7", &["unknown value 7"]),
    ("app.internal:80", "app.internal", &["pools[0].origins[0].address", "write host:port"]),
    ("app.internal:80", "app.internal:0", &["has no port from 1 to 65535"]),
    ("app.internal:80", "http://a:80", &["is a URL"]),
    ("app.internal:80", "300.1.1.1:80", &["is no IPv4 address"]),
    ("app.internal:80", "unix:/run/app", &["origins[2].address", "already in this pool"]),
    ("0.25s", "250min", &["f:17:22: pools[0].connect_timeout: \"250min\" is no duration", "with its unit"]),
    ("0.25s", "5", &["5 has no unit; write it with its unit, such as \"75s\""]),
    ("0.25s", "0s", &["zero is not allowed"]),
    ("0.25s", "9999999s", &["out of range: 1 ms"]),
    ("max_idle_per_core: 8", "max_idle_per_core: -1", &["-1 does not fit 32 bits, unsigned"]),
    ("max_idle_per_core: 8", "max_idle_per_core: lots", &["expected an integer, found \"lots\""]),
    ("max_idle_per_core: 8", "max_idle_per_core: 1.5", &["expected an integer, found a number"]),
    ("cores: 2", "pool_min_bytes: 6000000, pool_max_bytes: 3000000", &["is more than pool_max_bytes"]),
    ("cores: 2", "pool_max_bytes: 1048575", &["1048575 is out of range: 1048576 to 4294967296"]),
    (
        "cores: 2",
        "splice_min_bytes: 4095",
        &["runtime.splice_min_bytes: 4095 is out of range: at least 4096"],
    ),
    // What the table of a head cannot hold would be lowered without a word.
    ("max_connections: 100", "request_line_bytes: 65536", &["65536 is out of range: 256 to 65535"]),
    ("headerBytes: \"16384\"", "headerBytes: 65536", &["65536 is out of range: 256 to 65535"]),
    ("max_connections: 100", "header_count: 257", &["257 is out of range: 1 to 256"]),
    (
        "max_connections: 100",
        "max_connections: 0",
        &["limits.max_connections: 0 is out of range: at least 1"],
    ),
    ("access_log: { path: stdout }", "access_log: stdout", &["f:20:13: access_log: expected a table"]),
    (
        "access_log: { path: stdout }",
        "admin: { address: \"unix:@ringport\" }",
        &["that of listeners[1].address"],
    ),
    ("# A comment.", "a: [", &["f:"]),
    ("# A comment.", "--- 1\n---", &["f:"]),
];

#[test]
fn broken_yaml() {
    for (from, to, expected) in BROKEN_YAML {
        check_broken(YAML, Format::Yaml, from, to, expected);
    }
}

#[test]
fn broken_json() {
    let rows: &[(&str, &str, &[&str])] = &[
        (
            "\"name\"",
            "\"nam\"",
            &["f:2:18: listeners[0]: unknown key \"nam\"", "f:5:16: timeouts: unknown key \"idle\""],
        ),
        ("\"5s\"", "5", &["f:5:40: timeouts.header: 5 has no unit"]),
        ("true", "1", &["f:3:46: routes[0].preserve_host: expected true or false, found an integer"]),
        ("2.0", "2.5", &["pools[0].retries: expected an integer"]),
        (
            "\"pool\": \"app\"",
            "\"pool\": \"app\", \"pool\": \"app\"",
            &["routes[0].pool: written twice, first in line 3"],
        ),
        ("\\u002e", "\\ud800", &["f:4:", "not a string of Unicode"]),
        ("}]", "}", &["f:3:", "expected `,` or `]`"]),
        ("}\n}", "}\n} x", &["trailing characters"]),
        ("2.0", "1e999", &["f:4:"]),
    ];
    for (from, to, expected) in rows {
        check_broken(JSON, Format::Json, from, to, expected);
    }
    let deep = faults(&"[".repeat(100_000), Format::Json) + &faults(&"[".repeat(100_000), Format::Yaml);
    assert!(deep.contains("f:"), "{deep}");
    let nested = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert!(faults(&nested, Format::Json).contains("nested deeper than 64"));
    assert!(faults(&nested, Format::Yaml).starts_with("f:"));
}

#[test]
fn broken_toml() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("name = \"web\"", "nmae = \"web\"", &["f:2:1: listeners[0]: unknown key \"nmae\""]),
        ("name = \"web\"", "name = \"web\"\nname = \"x\"", &["f:3:1: duplicate key"]),
        (
            "pool = \"app\"",
            "pool = \"apps\"",
            &["f:6:8: routes[0].pool: there is no pool \"apps\"; did you mean `app`?"],
        ),
        ("\"5s\"", "5", &["f:13:10: timeouts.header: 5 has no unit"]),
        ("\"5s\"", "1979-05-27", &["is no duration"]),
        ("[[listeners]]", "[listeners]", &["f:1:2: listeners: expected a list, found a table"]),
        (
            "origins = [{ address = \"app.internal:80\" }]",
            "origins = []",
            &["f:10:11: pools[0].origins: at least one is needed"],
        ),
        ("[timeouts]", "[timeouts", &["f:12:"]),
    ];
    for (from, to, expected) in rows {
        check_broken(TOML, Format::Toml, from, to, expected);
    }
}

#[test]
fn message_from_elsewhere_is_checked() {
    let mut raw: raw::ProxyConfig = read(TOML, Format::Toml, "f").expect("valid");
    raw.pools[0].balance = Some(9);
    raw.pools[0].idle_timeout = Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MIN });
    raw.pools[0].connect_timeout = Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MAX });
    let found = ProxySpec::check(&raw).expect_err("three faults").to_string();
    let expected = "pools[0].balance: unknown value 9
pools[0].idle_timeout: a duration cannot be negative
pools[0].connect_timeout: out of range: 1 ms (\"0.001s\") to 30 days (\"2592000s\")";
    assert_eq!(found, expected);
}

/// Kinds of fields that later messages have and the proxy has not.
#[test]
fn other_kinds_of_fields() {
    let schema = r#"syntax = "proto3"; package t; import "google/protobuf/timestamp.proto";
        import "google/protobuf/struct.proto";
        enum Kind { KIND_HTTP = 0; KIND_TCP = 1; }
        message Root { bytes seed = 1; map<string, Root> sub = 2; oneof how { string by_name = 3; int64 by_number = 4; }
            float weight = 5; map<int32, bool> flags = 6; google.protobuf.Timestamp since = 7; repeated Kind TLSKinds = 8;
            double share = 9; map<bool, bool> known = 10; map<uint32, bool> small = 11; map<uint64, bool> large = 12;
            map<int64, bool> any = 13; google.protobuf.Struct more = 14; }"#;
    let file = protox::file::File::from_source("t.proto", schema).expect("valid schema");
    let mut pool = raw::descriptors().clone();
    let known = ["google/protobuf/timestamp.proto", "google/protobuf/struct.proto"];
    pool.add_file_descriptor_set(protox::compile(known, ["schema"]).expect("well known")).expect("complete");
    pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).expect("complete");
    let root = pool.get_message_by_name("t.Root").expect("in the schema");
    let read = |text: &str| match read_dynamic(text, Format::Yaml, "f", &root) {
        Ok((message, _)) => message.to_string(),
        Err(errors) => errors.to_string(),
    };
    let rows = [
        ("seed: AQID", "seed:\"\\001\\002\\003\""),
        ("seed: A", "f:1:7: seed: expected base64"),
        ("{sub: {a: {byNumber: -5}}}", "sub:[{key:\"a\",value{by_number:-5}}]"),
        (
            "{sub: {a.b: {by_nam: x}}}",
            "f:1:14: sub[\"a.b\"]: unknown key \"by_nam\"; did you mean `by_name`?",
        ),
        ("{byName: x, by_number: 1}", "f:1:13: by_number: cannot be beside byName, which is written already"),
        ("weight: 0.5", "weight:0.5"),
        ("weight: 1e300", "f:1:9: weight: out of range"),
        ("flags: {1: true, x: true}", "f:1:18: flags[\"x\"]: expected an integer, found \"x\""),
        ("flags: {1: true, 01: true}", "f:1:18: flags[\"01\"]: written twice"),
        ("share: 3", "share:3"),
        ("share: '0.5'", "share:0.5"),
        ("share: half", "f:1:8: share: expected a number, found \"half\""),
        ("share: []", "f:1:8: share: expected a number, found a list"),
        ("seed: a-_9", "seed:\"k\\357\\375\""),
        ("seed: 'a b'", "f:1:7: seed: expected base64"),
        ("{known: {true: true, false: false}, small: {1: true}}", ""),
        ("{large: {18446744073709551615: true}, any: {-1: true}}", ""),
        ("flags: []", "f:1:8: flags: expected a table, found a list"),
        ("more: {a: [1, 1.5, x, true, ~], b: {c: 99999999999999999999}}", "more{"),
        ("since: '2026-01-01T00:00:00Z'", "since{seconds:1767225600}"),
        ("since: soon", "f:1:8: since: "),
        ("TLSKinds: [tcp, KIND_HTTP, 1]", "TLSKinds:[KIND_TCP,KIND_HTTP,KIND_TCP]"),
    ];
    for (text, expected) in rows {
        let found = read(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn format_comes_from_the_ending() {
    assert_eq!(Format::from_path(Path::new("a/b.YML")), Ok(Format::Yaml));
    let other: SpecErrors = Format::from_path(Path::new("a.ini")).expect_err("not known");
    assert_eq!(
        other.to_string(),
        "a.ini: the file name must end in .yaml, .yml, .json or .toml, or for protobuf in .binpb or .pb"
    );
}

/// A piece of the text at `at` percent is replaced.
fn mutated(text: &str, cuts: &[(usize, usize, String)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, length, insert) in cuts {
        let start = at % (chars.len() + 1);
        let end = (start + length).min(chars.len());
        chars.splice(start..end, insert.chars());
    }
    chars.into_iter().collect()
}

fn cuts() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let insert = prop_oneof![
        "[\\PC\\n\\t]{0,6}",
        "[-0-9.e:\\[\\]{}\"'&*!|>#,= \\n]{0,4}",
        Just("<<: *a".to_owned()),
        Just("99999999999999999999999999999999999999999".to_owned()),
    ];
    prop::collection::vec((0..2_000usize, 0..12usize, insert), 1..5)
}

/// A YAML file nested 64 deep, which was allowed, once overflowed the stack of a thread.
#[test]
fn deep_nesting_is_a_fault() {
    for depth in [100, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let (tables, ends) = ("{\"a\":".repeat(depth), "}".repeat(depth));
        let dotted = "a.".repeat(depth);
        for (text, format) in [
            (format!("{open}{close}"), Format::Json),
            (format!("{tables}1{ends}"), Format::Json),
            (format!("listeners: {open}{close}"), Format::Yaml),
            ("- ".repeat(depth) + "a", Format::Yaml),
            (format!("a = {open}{close}"), Format::Toml),
            (format!("{dotted}a = 1"), Format::Toml),
            (format!("[{dotted}a]"), Format::Toml),
        ] {
            assert!(ProxySpec::from_text(&text, format, "f").is_err(), "{format:?}: {}", &text[..20]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(cuts in cuts()) {
        for (text, format) in [(YAML, Format::Yaml), (JSON, Format::Json), (TOML, Format::Toml)] {
            match ProxySpec::from_text(&mutated(text, &cuts), format, "f") {
                Ok(spec) => {
                    let again = ProxySpec::from_text(&spec.effective(), Format::Yaml, "f");
                    prop_assert_eq!(again, Ok(spec));
                }
                Err(errors) => {
                    prop_assert!(!errors.faults().is_empty());
                    prop_assert!(errors.to_string().lines().all(|line| line.starts_with("f")), "{}", errors);
                }
            }
        }
    }
}
