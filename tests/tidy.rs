//! The repository's own rules as a test: which code lives where, and what never gets in.
//!
//! Each check takes a path relative to the root and the file's text, and returns one line per offence. Checks that are
//! about code look at [`code`], where comments and literals are blank; the others look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[test]
fn the_repository_is_tidy() {
    let files = repository();
    assert!(files.contains_key("src/lib.rs"), "the walk starts at the wrong folder");
    let mut offences = unreachable_files(&files);
    for (path, text) in &files {
        for check in CHECKS {
            offences.extend(check(path, text));
        }
        if let Some(note) = length_note(path, text) {
            println!("note: {note}");
        }
    }
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

type Check = fn(&str, &str) -> Vec<String>;

const CHECKS: &[Check] = &[
    unsafe_outside_platform,
    cfg_os_outside_platform,
    one_system_in_the_library,
    forbids_unsafe,
    proto_arrows,
    platform_arrows,
    unfinished,
    too_long,
    ignored_without_reason,
    sleeps_in_tests,
    quiet_skips,
    private_names,
];

/// `unsafe` is written in `platform/` only; the benches, which are no part of the product, step processes and drive rings.
fn unsafe_outside_platform(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || path.starts_with("platform/") || path.starts_with("benches/") {
        return Vec::new();
    }
    each_line(path, &code(text), |line| has_word(line, "unsafe").then(|| "`unsafe` outside platform/".into()))
}

/// Differences between operating systems stay in `platform/`.
fn cfg_os_outside_platform(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || path.starts_with("platform/") || path.starts_with("benches/") {
        return Vec::new();
    }
    let code = code(text);
    let mut offences = Vec::new();
    for opening in ["cfg(", "cfg!(", "cfg_attr(", "cfg_select!"] {
        for (at, _) in code.match_indices(opening) {
            let inside = bracketed(&code[at..]);
            if OS_PREDICATES.iter().any(|word| has_word(inside, word)) {
                let line = line_of(&code, at);
                offences.push(format!("{path}:{line}: cfg on the operating system outside platform/"));
            }
        }
    }
    offences
}

const OS_PREDICATES: &[&str] = &["target_os", "target_family", "target_env", "unix", "windows"];

/// The library is built for Windows, too: a socket there is a `ringport_platform::fd`.
fn one_system_in_the_library(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || !path.starts_with("src/") {
        return Vec::new();
    }
    each_line(path, &code(text), |line| {
        line.contains("std::os::").then(|| "what one system has, outside platform/".into())
    })
}

/// The crates above `platform` forbid `unsafe` at their root, where no module can lift it.
fn forbids_unsafe(path: &str, text: &str) -> Vec<String> {
    if !matches!(path, "src/lib.rs" | "gateway/src/main.rs" | "gateway/src/lib.rs") {
        return Vec::new();
    }
    if code(text).contains("#![forbid(unsafe_code)]") {
        return Vec::new();
    }
    vec![format!("{path}: lacks #![forbid(unsafe_code)]")]
}

/// Protocol machines take bytes and time as arguments: no socket, clock, task, lock or thread of their own.
fn proto_arrows(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || !(path == "src/proto.rs" || path.starts_with("src/proto/")) {
        return Vec::new();
    }
    let code = code(text);
    let mut offences = each_line(path, &code, |line| {
        let name = PROTO_BANS.iter().find(|name| has_word(line, name))?;
        Some(format!("proto mentions `{name}`"))
    });
    offences.extend(each_line(path, &code, |line| {
        let beyond = line
            .split("ringport_platform")
            .skip(1)
            .any(|rest| rest.strip_prefix("::buf").is_none_or(|rest| rest.starts_with(is_word)));
        beyond.then(|| "proto uses more of ringport_platform than `ringport_platform::buf`".into())
    }));
    // A test needs an instant to count from; the machine that it drives does not.
    let machine = without_tests(path, &code);
    offences.extend(each_line(path, machine, |line| {
        has_word(line, "Instant::now").then(|| "proto mentions `Instant::now`".into())
    }));
    offences
}

const PROTO_BANS: &[&str] = &[
    "crate::net",
    "crate::http::client",
    "crate::runtime",
    "super::super::net",
    "super::super::runtime",
    // A nested import would hide the names above from this check.
    "crate::{",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "async fn",
    "Mutex",
    "std::thread",
];

/// The kernel side knows no protocol.
fn platform_arrows(path: &str, text: &str) -> Vec<String> {
    let bans: &[&str] = match path {
        "platform/Cargo.toml" => {
            &["ringport", "http", "httparse", "rustls", "h2", "h3", "hyper", "quinn-proto"]
        }
        _ if path.starts_with("platform/src/") && is_rust(path) => {
            &["http::", "httparse", "rustls", "h2", "h3", "hyper", "quinn_proto"]
        }
        _ => return Vec::new(),
    };
    let code = if is_rust(path) { code(text) } else { text.to_owned() };
    each_line(path, &code, |line| {
        // In a manifest only the name in front counts: `name.workspace = true` or `name = ..`.
        let line = if is_rust(path) { line } else { line.split(['.', '=', ' ']).next()? };
        let name =
            bans.iter().find(|name| if is_rust(path) { has_word(line, name) } else { line == **name })?;
        Some(format!("platform mentions `{name}`"))
    })
}

/// Unfinished work is an issue, not a mark in the code.
fn unfinished(path: &str, text: &str) -> Vec<String> {
    // The licences and the lock file are not ours to write.
    if path.starts_with("LICENSE") || path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let mut offences = each_line(path, text, |line| {
        let mark =
            [concat!("FIX", "ME"), concat!("XX", "X")].into_iter().find(|mark| has_word(line, mark))?;
        Some(format!("`{mark}`"))
    });
    if is_rust(path) {
        offences.extend(each_line(path, &code(text), |line| {
            let call =
                ["todo!(", "unimplemented!(", "dbg!("].into_iter().find(|call| has_word(line, call))?;
            Some(format!("`{call}`"))
        }));
    }
    offences
}

/// A file that nobody reads to its end holds more than one concern.
fn too_long(path: &str, text: &str) -> Vec<String> {
    let count = text.lines().count();
    if is_written_by_a_program(path) || count <= MAX_LINES {
        return Vec::new();
    }
    vec![format!("{path}: {count} lines, more than {MAX_LINES}")]
}

/// What to look at before [`too_long`] refuses it.
fn length_note(path: &str, text: &str) -> Option<String> {
    let count = text.lines().count();
    (!is_written_by_a_program(path) && count > NOTED_LINES)
        .then(|| format!("{path}: {count} lines; is there a second concern?"))
}

/// A lock file, and what the benches have measured: nobody reads them from top to bottom.
fn is_written_by_a_program(path: &str) -> bool {
    path.ends_with("Cargo.lock") || path.starts_with("benches/results/")
}

const MAX_LINES: usize = 1500;
const NOTED_LINES: usize = 1000;

/// A test that does not run says why.
fn ignored_without_reason(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) {
        return Vec::new();
    }
    let code = code(text);
    let mut offences = Vec::new();
    for (at, opening) in code.match_indices("#[ignore") {
        // Literals are blank in `code`, so the reason is read from the text itself at the same place.
        let attribute = &text[at..at + bracketed(&code[at..]).len()];
        let reason = attribute[opening.len()..].split('"').nth(1).unwrap_or_default();
        if reason.trim().is_empty() {
            offences.push(format!("{path}:{}: #[ignore] without a reason", line_of(&code, at)));
        }
    }
    offences
}

/// A test that waits for time to pass is slow on a good day and wrong on a bad one.
fn sleeps_in_tests(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) || !path.split('/').rev().skip(1).any(|folder| folder == "tests") {
        return Vec::new();
    }
    let code = code(text);
    let mut offences = Vec::new();
    for (number, (line, code_line)) in text.lines().zip(code.lines()).enumerate() {
        let reason = line.split_once("// tidy: ").is_some_and(|(_, reason)| !reason.trim().is_empty());
        if has_word(code_line, "thread::sleep") && !reason {
            let number = number + 1;
            offences.push(format!("{path}:{number}: thread::sleep in a test without a `// tidy: ` reason"));
        }
    }
    offences
}

/// The harness keeps to itself what a test that passes has printed: a skip said so is a silent one.
fn quiet_skips(path: &str, text: &str) -> Vec<String> {
    if !is_rust(path) {
        return Vec::new();
    }
    each_line(path, text, |line| {
        line.contains(concat!("print", "ln!(\"skipped"))
            .then(|| "a skip that nobody sees: write it to standard error itself".into())
    })
}

/// The repository speaks of itself alone, not of the machines that it was written on.
fn private_names(path: &str, text: &str) -> Vec<String> {
    let names = [
        concat!("/wo", "rk/"),
        concat!("sha", "red/"),
        concat!(".lib", "rary"),
        concat!("kernel-", "probes"),
        concat!("completion-", "runtimes.md"),
    ];
    each_line(path, text, |line| {
        let name = names.into_iter().find(|name| line.contains(name))?;
        Some(format!("names a private place: `{name}`"))
    })
}

/// Every source file is part of a crate: reached from its root by `mod` lines.
fn unreachable_files(files: &BTreeMap<String, String>) -> Vec<String> {
    let in_a_crate =
        |path: &str| is_rust(path) && CRATE_SOURCES.iter().any(|folder| path.starts_with(folder));
    let is_root = |path: &str| {
        CRATE_SOURCES.iter().any(|folder| {
            path.strip_prefix(folder).is_some_and(|rest| {
                matches!(rest, "lib.rs" | "main.rs")
                    || rest.strip_prefix("bin/").is_some_and(|bin| !bin.contains('/'))
            })
        })
    };
    let mut reached = BTreeSet::new();
    let mut open: Vec<String> =
        files.keys().filter(|path| in_a_crate(path) && is_root(path)).cloned().collect();
    while let Some(path) = open.pop() {
        let Some(text) = files.get(&path) else { continue };
        open.extend(declared_modules(&path, text).into_iter().filter(|path| !reached.contains(path)));
        reached.insert(path);
    }
    files
        .keys()
        .filter(|path| in_a_crate(path) && !reached.contains(*path))
        .map(|path| format!("{path}: no `mod` line reaches it"))
        .collect()
}

const CRATE_SOURCES: &[&str] = &["src/", "platform/src/", "gateway/src/", "benches/src/"];

/// The files that the `mod name;` lines of a file may mean.
fn declared_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let children = match stem {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    let mut modules = Vec::new();
    let mut named_path = None;
    for (line, code_line) in text.lines().zip(code(text).lines()) {
        if code_line.contains("#[path") {
            named_path = line.split('"').nth(1);
        }
        for declaration in code_line.split_inclusive(';') {
            let words: Vec<&str> = declaration.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| *word == "mod") else { continue };
            let Some(name) = words.get(at + 1).and_then(|word| word.strip_suffix(';')) else { continue };
            match named_path.take() {
                Some(path) => modules.push(format!("{folder}/{path}")),
                None => {
                    modules.extend([format!("{children}/{name}.rs"), format!("{children}/{name}/mod.rs")])
                }
            }
        }
    }
    modules
}

/// Rust text with comments and the insides of literals blanked, byte for byte, so that offsets and lines still agree.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = out.chars().next_back().is_some_and(is_word);
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if first == '"' {
            string_len(rest)
        } else if let Some(len) = raw_string_len(rest).filter(|_| !after_word) {
            len
        } else if first == '\'' {
            char_len(rest).unwrap_or(0)
        } else {
            0
        };
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    assert_eq!(out.len(), text.len(), "blanking moved an offset");
    out
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r".."`, `r#".."#`, and the same after `b` or `c`. `None` when the text does not start with one.
fn raw_string_len(text: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix.len() + hashes + 1;
    Some(text[body..].find(&end).map_or(text.len(), |at| body + at + end.len()))
}

/// A character literal; `None` for a lifetime.
fn char_len(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        // Past the escaped character, which may itself be a quote.
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

/// From the start to the bracket that closes the first opened one.
fn bracketed(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if depth <= 0 {
                    return &text[..=at];
                }
            }
            _ => {}
        }
    }
    text
}

/// A file up to its test module, which by our habit is the last thing in it.
fn without_tests<'a>(path: &str, code: &'a str) -> &'a str {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return "";
    }
    let is_module = |rest: &str| rest.split_whitespace().take(2).any(|word| word == "mod");
    let tests = code
        .match_indices("#[cfg(test)]")
        .find(|(at, attribute)| is_module(&code[at + attribute.len()..]))
        .map_or(code.len(), |(at, _)| at);
    &code[..tests]
}

fn each_line(path: &str, text: &str, offence: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(at, line)| Some(format!("{path}:{}: {}", at + 1, offence(line)?))).collect()
}

/// Whether `word` occurs with nothing that would make it a longer name on either side.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_word);
        let after = text[at + word.len()..].chars().next().is_some_and(is_word);
        !(before && word.starts_with(is_word) || after && word.ends_with(is_word))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every text file of the repository, by its path from the root with `/` between folders.
fn repository() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder of the repository is readable") {
            let entry = entry.expect("a folder of the repository is readable");
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().expect("the kind of a file is known");
            // Cargo marks its target folder, wherever it is, with a CACHEDIR.TAG.
            let foreign = name == ".git" || name == "target" || entry.path().join("CACHEDIR.TAG").exists();
            // What a fuzzer has made up is nobody's text.
            let foreign = foreign || folder == "fuzz" && (name == "corpus" || name == "artifacts");
            if kind.is_dir() && !foreign {
                folders.push(path);
            } else if kind.is_file()
                && !foreign
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                files.insert(path, text);
            }
        }
    }
    files
}

#[track_caller]
fn refuses(check: Check, path: &str, text: &str) {
    assert!(!check(path, text).is_empty(), "{path} passes:\n{text}");
}

#[track_caller]
fn passes(check: Check, path: &str, text: &str) {
    assert_eq!(check(path, text), Vec::<String>::new(), "{path}:\n{text}");
}

#[test]
fn unsafe_is_refused_outside_platform() {
    for bad in ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "unsafe impl Send for A {}"] {
        refuses(unsafe_outside_platform, "src/net.rs", bad);
        refuses(unsafe_outside_platform, "gateway/tests/proxy.rs", bad);
        passes(unsafe_outside_platform, "platform/src/buf.rs", bad);
        passes(unsafe_outside_platform, "benches/src/meter.rs", bad);
    }
    for good in ["#![forbid(unsafe_code)]", "// unsafe", "const A: &str = \"unsafe\";", "/* /* */ unsafe */"]
    {
        passes(unsafe_outside_platform, "src/lib.rs", good);
    }
}

#[test]
fn cfg_of_an_os_is_refused_outside_platform() {
    for bad in [
        "#[cfg(target_os = \"linux\")] mod a;",
        "#[cfg(all(test,\n  not(windows)))] mod a;",
        "#[cfg_attr(unix, path = \"a.rs\")] mod a;",
        "if cfg!(target_family = \"unix\") {}",
        "cfg_select! { windows => {} _ => {} }",
    ] {
        refuses(cfg_os_outside_platform, "src/net.rs", bad);
        passes(cfg_os_outside_platform, "platform/src/driver.rs", bad);
    }
    passes(cfg_os_outside_platform, "src/net.rs", "#[cfg(test)] mod tests { fn unix() {} }");
    passes(cfg_os_outside_platform, "src/net.rs", "#[cfg(feature = \"unix\")] mod a;");
}

#[test]
fn the_library_names_no_system() {
    refuses(one_system_in_the_library, "src/net.rs", "use std::os::fd::AsFd;");
    passes(one_system_in_the_library, "src/net.rs", "use ringport_platform::fd::AsFd;");
    passes(one_system_in_the_library, "platform/src/fd.rs", "use std::os::fd::AsFd;");
}

#[test]
fn crate_roots_must_forbid_unsafe() {
    refuses(forbids_unsafe, "src/lib.rs", "//! A library.\n");
    refuses(forbids_unsafe, "gateway/src/main.rs", "// #![forbid(unsafe_code)]\nfn main() {}\n");
    passes(forbids_unsafe, "src/lib.rs", "#![forbid(unsafe_code)]\n");
    passes(forbids_unsafe, "src/net.rs", "");
}

#[test]
fn proto_stays_below_net_and_without_io() {
    for bad in [
        "use crate::net::Stream;",
        "use crate::http::client::Pool;",
        "use crate::runtime;",
        "use crate::{net, error};",
        "use std::net::TcpStream;",
        "let now = Instant::now();",
        "async fn f() {}",
        "struct A(Mutex<u8>);",
        "std::thread::spawn(f);",
        "use ringport_platform::driver::Driver;",
        "use ringport_platform::buffet;",
        "use ringport_platform as platform;",
        "#[cfg(test)] mod tests { use crate::net::Stream; }",
    ] {
        refuses(proto_arrows, "src/proto/http1.rs", bad);
        refuses(proto_arrows, "src/proto.rs", bad);
        passes(proto_arrows, "src/net/stream.rs", bad);
    }
    for good in [
        "use ringport_platform::buf::{PoolBuf, TxQueue};",
        "use crate::network_name;",
        "use std::net::SocketAddr;",
        "#[cfg(test)]\nmod tests { fn epoch() -> Instant { Instant::now() } }",
    ] {
        passes(proto_arrows, "src/proto/http1.rs", good);
    }
}

#[test]
fn platform_knows_no_protocol() {
    for bad in ["use httparse::Request;", "use rustls::Stream;", "h2::client();", "fn f(r: http::Request) {}"]
    {
        refuses(platform_arrows, "platform/src/driver.rs", bad);
        passes(platform_arrows, "src/net.rs", bad);
    }
    refuses(platform_arrows, "platform/Cargo.toml", "httparse.workspace = true");
    refuses(platform_arrows, "platform/Cargo.toml", "ringport = { path = \"..\" }");
    passes(platform_arrows, "platform/Cargo.toml", "name = \"ringport-platform\"");
    passes(platform_arrows, "platform/src/driver.rs", "// http::Request is built above.");
}

#[test]
fn unfinished_work_is_refused() {
    refuses(unfinished, "src/lib.rs", concat!("// FIX", "ME later"));
    refuses(unfinished, "README.md", concat!("XX", "X"));
    for bad in ["todo!()", "unimplemented!(\"later\")", "let a = dbg!(b);"] {
        refuses(unfinished, "platform/src/driver.rs", bad);
    }
    passes(unfinished, "src/lib.rs", concat!("let name = \"XX", "XX\"; // todo!()"));
}

#[test]
fn long_files_are_noted_then_refused() {
    let lines = |count| "x\n".repeat(count);
    refuses(too_long, "src/lib.rs", &lines(MAX_LINES + 1));
    passes(too_long, "src/lib.rs", &lines(MAX_LINES));
    passes(too_long, "Cargo.lock", &lines(MAX_LINES + 1));
    passes(too_long, "benches/results/echo.json", &lines(MAX_LINES + 1));
    refuses(too_long, "benches/src/results.rs", &lines(MAX_LINES + 1));
    assert!(length_note("src/lib.rs", &lines(NOTED_LINES + 1)).is_some());
    assert!(length_note("src/lib.rs", &lines(NOTED_LINES)).is_none());
}

#[test]
fn an_ignored_test_gives_its_reason() {
    refuses(ignored_without_reason, "tests/it/main.rs", "#[test]\n#[ignore]\nfn f() {}");
    refuses(ignored_without_reason, "src/lib.rs", "#[ignore = \"\"]\nfn f() {}");
    passes(ignored_without_reason, "src/lib.rs", "#[ignore = \"needs two machines\"]\nfn f() {}");
    passes(ignored_without_reason, "src/lib.rs", "// #[ignore]\nfn f() {}");
}

#[test]
fn a_sleeping_test_gives_its_reason() {
    for path in ["tests/it/dial.rs", "platform/tests/driver.rs", "gateway/tests/proxy.rs"] {
        refuses(sleeps_in_tests, path, "std::thread::sleep(TICK);");
        refuses(sleeps_in_tests, path, "thread::sleep(TICK); // tidy: ");
        passes(sleeps_in_tests, path, "thread::sleep(TICK); // tidy: the kernel gives no event here");
    }
    passes(sleeps_in_tests, "platform/src/park.rs", "thread::sleep(TICK);");
}

#[test]
fn quiet_skips_are_refused() {
    for macro_name in ["println", "eprintln"] {
        let line = format!("        return {macro_name}!(\"skip{}", "ped: no IPv6\");");
        refuses(quiet_skips, "tests/it/a.rs", &line);
    }
    passes(quiet_skips, "tests/it/a.rs", "skipped(\"no IPv6\");");
}

#[test]
fn private_names_are_refused() {
    for bad in [
        concat!("/wo", "rk/a"),
        concat!("see sha", "red/b"),
        concat!("a/.lib", "rary/c"),
        concat!("as kernel-", "probes show"),
        concat!("completion-", "runtimes.md 3"),
    ] {
        refuses(private_names, "README.md", bad);
        refuses(private_names, "src/lib.rs", &format!("// {bad}"));
    }
    passes(private_names, "README.md", "work, shared and library");
}

#[test]
fn a_file_without_a_mod_line_is_refused() {
    let tree = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    let good = tree(&[
        ("src/lib.rs", "pub mod net;\n#[path = \"odd.rs\"]\nmod even;\n"),
        ("src/net.rs", "pub(crate) mod dial; mod old;"),
        ("src/net/dial.rs", ""),
        ("src/net/old/mod.rs", ""),
        ("src/odd.rs", ""),
        ("gateway/src/main.rs", "fn main() {}"),
        ("tests/it/helper.rs", ""),
    ]);
    assert_eq!(unreachable_files(&good), Vec::<String>::new());
    let bad = tree(&[
        ("src/lib.rs", "// mod lost;\nmod inline { }\n"),
        ("src/lost.rs", "mod circle;"),
        ("src/lost/circle.rs", ""),
        ("platform/src/inline.rs", ""),
    ]);
    assert_eq!(unreachable_files(&bad).len(), 3);
}

#[test]
fn code_keeps_offsets_and_blanks_the_rest() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* é /* */ */ b", "a                b"),
        ("f(\"a\\\"b\", x)", "f(      , x)"),
        ("f(r#\"a\"b\"#, x)", "f(        , x)"),
        ("fn f<'a>(x: &'a u8)", "fn f<'a>(x: &'a u8)"),
        ("['\"', '\\'', 'x']", "[   ,     ,    ]"),
        ("for\"x\"", "for   "),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}
