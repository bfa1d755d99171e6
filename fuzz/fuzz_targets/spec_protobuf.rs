//! Any bytes as any message: they are refused, or are a spec that its own bytes give back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringport::spec::{Spec, SpecKind};

fuzz_target!(|data: &[u8]| {
    let [choice, bytes @ ..] = data else { return };
    let kind = SpecKind::ALL[usize::from(choice % 4)];
    if let Ok(spec) = Spec::from_protobuf(bytes, "f", kind) {
        let again = Spec::from_protobuf(&spec.to_protobuf(), "f", kind);
        assert_eq!(again, Ok(spec));
    }
});
