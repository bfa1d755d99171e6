//! `ringport check`: what a config says, or everything that is wrong with it.

use std::io::Read;
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
    #[arg(long = "as", value_name = "dial|listen|packet|proxy|http-server")]
    kind: Option<SpecKind>,
}

/// Prints every fault of every file, or with all defaults filled in what each says; returns the exit code.
pub(crate) fn run(check: &Check) -> Result<u8, String> {
    let mut code = 0;
    for path in &check.files {
        match File::read(path).and_then(|file| Ok((file.spec(check.kind)?, file))) {
            Ok((spec, file)) => {
                file.notices(check.kind).iter().for_each(|notice| crate::complain(format_args!("{notice}")));
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

/// A text that `check` reads back to the same with the same options. Several are the documents of a stream.
fn effective(path: &Path, spec: &Spec, check: &Check) -> String {
    let text = match (check.kind, spec.kind()) {
        (Some(_), _) | (None, SpecKind::Proxy) => spec.effective(),
        (None, SpecKind::Dial | SpecKind::Listen | SpecKind::Packet | SpecKind::HttpServer) => {
            spec.effective_file()
        }
    };
    let text = text.trim_end();
    if check.files.len() == 1 { text.to_owned() } else { format!("--- # {}\n{text}", path.display()) }
}

/// Reads and checks a file that holds a proxy.
///
/// # Errors
/// What keeps it from being read, or every fault.
pub(crate) fn read_proxy(path: &Path) -> Result<ProxySpec, Failure> {
    let file = File::read(path)?;
    let kind = match file.spec(None)? {
        Spec::Proxy(spec) => {
            file.notices(None).iter().for_each(|notice| tracing::warn!("{notice}"));
            return Ok(*spec);
        }
        other @ (Spec::Dial(_) | Spec::Listen(_) | Spec::Packet(_) | Spec::HttpServer(_)) => other.kind(),
    };
    Err(Failure::Sentence(format!("{} holds a {kind} spec, no proxy", path.display())))
}

/// As [`read_proxy`], for who may not wait: to open a pipe takes until somebody writes into it.
///
/// # Errors
/// As there; and it is no regular file.
pub(crate) fn read_proxy_at_once(path: &Path) -> Result<ProxySpec, Failure> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Failure::Sentence(format!("cannot read {}: it is no regular file", path.display())))
        }
        // Where there is none, the attempt to read it says why.
        Ok(_) | Err(_) => read_proxy(path),
    }
}

/// Reads and checks a file that holds such a spec, unless it names another itself.
///
/// # Errors
/// As [`read_proxy`].
pub(crate) fn read_as(path: &Path, kind: SpecKind) -> Result<Spec, Failure> {
    let file = File::read(path)?;
    file.spec(if Spec::names_its_kind(&file.bytes, path) { None } else { Some(kind) })
}

/// What a file held when it was read. All that is told of it is told of the same bytes: it may be a pipe, or change.
struct File<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
}

impl<'a> File<'a> {
    /// Reads a file, of one that is too long no more than shows that.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn read(path: &'a Path) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(Spec::MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| Failure::Sentence(format!("cannot read {}: {error}", path.display())))?;
        if bytes.len() > Spec::MAX_BYTES {
            let sentence = format!("{} is longer than {} bytes", path.display(), Spec::MAX_BYTES);
            return Err(Failure::Sentence(sentence));
        }
        Ok(File { path, bytes })
    }

    /// What it holds.
    ///
    /// # Errors
    /// Every fault.
    fn spec(&self, kind: Option<SpecKind>) -> Result<Spec, Failure> {
        let File { path, bytes } = self;
        Spec::from_file(bytes, path, kind).map_err(|errors| match (kind, other_kind(bytes, path, &errors)) {
            (None, Some(other)) => Failure::Sentence(format!(
                "{} holds a {other} spec, no proxy, and does not say so; put it under the key {}, or use `ringport check --as {other}`",
                path.display(),
                key(other),
            )),
            (Some(_), _) | (None, None) => Failure::Faults(errors.into_faults()),
        })
    }

    /// What of a file that can be read is likely not meant, each with its line.
    fn notices(&self, kind: Option<SpecKind>) -> Vec<Fault> {
        Spec::notices(&self.bytes, self.path, kind)
    }
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
fn key(kind: SpecKind) -> &'static str {
    match kind {
        SpecKind::Dial => "dialConfig",
        SpecKind::Listen => "listenConfig",
        SpecKind::Packet => "packetConnConfig",
        SpecKind::Proxy => "proxyConfig",
        SpecKind::HttpServer => "httpServerConfig",
    }
}
