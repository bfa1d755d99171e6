//! `ringport check`: what a config says, or everything that is wrong with it.

use std::path::{Path, PathBuf};

use ringport::spec::{Fault, ProxySpec, Spec, SpecErrors, SpecKind};

use crate::{Failure, say};

/// What is checked.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Configs: YAML, JSON, TOML or protobuf by their endings (.yaml, .yml, .json, .toml, .binpb, .pb).
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What the files hold. Without it a text says so by a key at its top, dialConfig, listenConfig, packetConnConfig or
    /// proxyConfig, and is else a proxy's.
    #[arg(long = "as", value_name = "dial|listen|packet|proxy")]
    kind: Option<SpecKind>,
}

/// Prints every fault of every file, or with all defaults filled in what each says; returns the exit code.
pub(crate) fn run(check: &Check) -> Result<u8, String> {
    let mut code = 0;
    for path in &check.files {
        match read(path, check.kind) {
            Ok(spec) => {
                notices(path, check.kind).iter().for_each(|notice| eprintln!("{notice}"));
                say(&effective(path, &spec, check))?;
            }
            Err(failure) => {
                failure.tell();
                code = 2;
            }
        }
    }
    Ok(code)
}

/// What of a file that was read is likely not meant, each with its file and line.
fn notices(path: &Path, kind: Option<SpecKind>) -> Vec<Fault> {
    // It was readable a moment ago; what has changed meanwhile is no news of this one.
    Spec::notices(&std::fs::read(path).unwrap_or_default(), path, kind)
}

/// A text that `check` reads back to the same with the same options. Several are the documents of a stream.
fn effective(path: &Path, spec: &Spec, check: &Check) -> String {
    let text = match (check.kind, spec.kind()) {
        (Some(_), _) | (None, SpecKind::Proxy) => spec.effective(),
        (None, SpecKind::Dial | SpecKind::Listen | SpecKind::Packet) => spec.effective_file(),
    };
    let text = text.trim_end();
    if check.files.len() == 1 { text.to_owned() } else { format!("--- # {}\n{text}", path.display()) }
}

/// Reads and checks a file that holds a proxy.
///
/// # Errors
/// What keeps it from being read, or every fault.
pub(crate) fn read_proxy(path: &Path) -> Result<ProxySpec, Failure> {
    let kind = match read(path, None)? {
        Spec::Proxy(spec) => {
            notices(path, None).iter().for_each(|notice| tracing::warn!("{notice}"));
            return Ok(*spec);
        }
        other @ (Spec::Dial(_) | Spec::Listen(_) | Spec::Packet(_)) => other.kind(),
    };
    Err(Failure::Sentence(format!("{} holds a {kind} spec, no proxy", path.display())))
}

/// Reads and checks a file.
///
/// # Errors
/// What keeps it from being read, or every fault.
fn read(path: &Path, kind: Option<SpecKind>) -> Result<Spec, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::Sentence(format!("cannot read {}: {error}", path.display())))?;
    Spec::from_file(&bytes, path, kind).map_err(|errors| match (kind, other_kind(&bytes, path, &errors)) {
        (None, Some(other)) => Failure::Sentence(format!(
            "{} holds a {other} spec, no proxy, and does not say so; put it under the key {}, or use `ringport check --as {other}`",
            path.display(),
            keys(other)[0],
        )),
        (Some(_), _) | (None, None) => Failure::Faults(errors.into_faults()),
    })
}

/// Of what other kind a file is whose keys are not those of the kind that it was read as.
fn other_kind(bytes: &[u8], path: &Path, errors: &SpecErrors) -> Option<SpecKind> {
    let has_foreign_keys =
        |errors: &SpecErrors| errors.faults().iter().any(|fault| fault.message.starts_with("unknown key"));
    if !has_foreign_keys(errors) {
        return None;
    }
    SpecKind::ALL.into_iter().find(|kind| match Spec::from_file(bytes, path, Some(*kind)) {
        Ok(_) => true,
        Err(errors) => !has_foreign_keys(&errors),
    })
}

/// Under which a file holds such a spec.
fn keys(kind: SpecKind) -> [&'static str; 2] {
    match kind {
        SpecKind::Dial => ["dialConfig", "dial_config"],
        SpecKind::Listen => ["listenConfig", "listen_config"],
        SpecKind::Packet => ["packetConnConfig", "packet_conn_config"],
        SpecKind::Proxy => ["proxyConfig", "proxy_config"],
    }
}

/// Reads and checks a file that holds such a spec, unless it names another itself.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_as(path: &Path, kind: SpecKind) -> Result<Spec, Failure> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let names_itself = keys(kind).iter().any(|key| text.contains(key));
    read(path, if names_itself { None } else { Some(kind) })
}
