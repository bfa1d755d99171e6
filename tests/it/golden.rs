//! Broken configs, and every fault that is told of them.
//!
//! `tests/data/broken/` holds the configs, each beside what is printed: `NAME.faults`. With `RINGPORT_BLESS=1` in the
//! environment the files of faults are written instead of compared.

use std::fs;
use std::path::Path;

use ringport::spec::Spec;

use crate::rig::is_elsewhere;

#[test]
fn every_fault_of_broken_configs() {
    if is_elsewhere() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/broken");
    let bless = std::env::var_os("RINGPORT_BLESS").is_some();
    let mut configs: Vec<_> = fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "faults"))
        .collect();
    configs.sort();
    assert!(configs.len() >= 40, "{} configs", configs.len());
    let mut wrong = Vec::new();
    for path in configs {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let bytes = fs::read(&path).expect("a file can be read");
        let found = match Spec::from_file(&bytes, Path::new(&name), None) {
            Ok(spec) => panic!("{name} is no broken config: {}", spec.effective()),
            Err(errors) => format!("{errors}\n"),
        };
        let golden = folder.join(format!("{name}.faults"));
        if bless {
            fs::write(&golden, &found).expect("the folder can be written");
        } else if fs::read_to_string(&golden).unwrap_or_default() != found {
            wrong.push(format!("== {name}\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "not as in the files of faults:\n{}", wrong.join("\n"));
}
