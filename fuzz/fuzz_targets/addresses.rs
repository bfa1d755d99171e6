//! Any text as an address with its network, and as a replaced target: what is read is printed so that it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringport::spec::{Address, DialSpec, NetAddr, Network, OriginAddress, raw};

fuzz_target!(|text: &str| {
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    if let Ok(address) = text.parse::<NetAddr<Address>>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(address) = text.parse::<NetAddr<OriginAddress>>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    let raw = raw::DialConfig { replace_targets: vec![text.to_owned()], ..raw::DialConfig::default() };
    if let Ok(spec) = DialSpec::try_from(&raw) {
        assert_eq!(DialSpec::try_from(&spec.to_raw()), Ok(spec));
    }
});
