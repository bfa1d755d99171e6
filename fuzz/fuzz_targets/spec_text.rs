//! Any text as any spec: it is refused, each fault with its file, or is a spec that its effective text gives back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringport::spec::{Format, Spec, SpecKind};

fuzz_target!(|data: &[u8]| {
    let [choice, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = [Format::Yaml, Format::Json, Format::Toml][usize::from(choice % 3)];
    let kind = SpecKind::ALL.get(usize::from(choice / 3 % 5)).copied();
    match Spec::from_text(text, format, "f", kind) {
        Ok(spec) => {
            let again = Spec::from_text(&spec.effective(), Format::Yaml, "f", Some(spec.kind()));
            assert_eq!(again, Ok(spec));
        }
        Err(errors) => {
            assert!(!errors.faults().is_empty());
            assert!(errors.faults().iter().all(|fault| fault.file == "f" && !fault.message.is_empty()));
        }
    }
});
