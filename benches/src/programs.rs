//! The programs that are measured: how they are built, and where they lie.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds every server in release mode: those of this crate, and the `ringport` binary. A peer that does not build keeps
/// nobody else from being built; its row then says that it is missing.
///
/// # Errors
/// When ringport's own cannot be built.
pub fn build() -> io::Result<()> {
    let peers =
        cargo(&["build", "--quiet", "--release", "--keep-going", "--bins"], "benches/Cargo.toml").status()?;
    if !peers.success() {
        crate::tell(format_args!("not every peer could be built; what is missing has a row that says so"));
        build_ringport()?;
    }
    build_apart("serve-pingora");
    cargo_build("Cargo.toml", &[])
}

/// Builds ringport's own servers alone, without the crates of the peers.
///
/// # Errors
/// As [`build`].
pub fn build_ringport() -> io::Result<()> {
    cargo_build("benches/Cargo.toml", &["--no-default-features", "--bin", "serve-ringport"])?;
    cargo_build("Cargo.toml", &[])
}

fn cargo_build(manifest: &str, arguments: &[&str]) -> io::Result<()> {
    let status = cargo(&["build", "--quiet", "--release"], manifest).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the servers could not be built")) }
}

/// A peer that needs more than cargo to be built.
fn build_apart(package: &str) {
    let arguments = ["build", "--quiet", "--release", "--package", package];
    let built = cargo(&arguments, "benches/Cargo.toml").stderr(Stdio::null()).status();
    if !built.is_ok_and(|status| status.success()) {
        crate::tell(format_args!(
            "{package} could not be built; `cargo build --package {package}` in benches/ says why"
        ));
    }
}

fn cargo(arguments: &[&str], manifest: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).arg("--manifest-path").arg(root().join(manifest));
    command
}

/// A server of this crate.
///
/// # Errors
/// When it has not been built.
pub(crate) fn of_benches(name: &str) -> io::Result<Command> {
    built(target(&root().join("benches")), name)
}

/// The product's binary.
///
/// # Errors
/// When it has not been built.
pub(crate) fn of_ringport() -> io::Result<Command> {
    built(target(root()), "ringport")
}

fn built(target: PathBuf, name: &str) -> io::Result<Command> {
    let path = target.join("release").join(name);
    if path.exists() {
        return Ok(Command::new(path));
    }
    // Without its folder, which is another on each machine.
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} has not been built")))
}

/// Where this crate's builds and what `fetch-peers` brings lie.
pub(crate) fn benches_target() -> PathBuf {
    target(&root().join("benches"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a folder of the repository")
}

fn target(of: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| of.join("target"), PathBuf::from)
}
