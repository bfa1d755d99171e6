//! What dialers, listeners and packet sockets are accepted by. A test has the number of its case, and each part of a case
//! that is shown elsewhere has its test where it can be shown: what a spec alone decides is in [`spec`].
//!
//! Cases of DTLS, QUIC and HTTP transports come with them: 72, 73, 79 to 86, and of 51 and 87 what speaks of them. `d` stands before the number of a defect that the design's first implementation had.

mod dial;
mod kernel;
mod listen;
mod namespace;
mod packet;
mod spec;
mod tls;

/// Cases, and after them defects, that are shown where they can be: file and test.
const ELSEWHERE: &[(&[u32], &[u32], &str, &str)] = &[
    (&[1], &[], "platform/tests/sockopt/values.rs", "structures_and_names_are_held"),
    (&[3, 7], &[], "platform/tests/sockopt/privilege.rs", "a_missing_capability_is_named"),
    (&[8, 27, 33], &[], "platform/tests/sockopt/behaviour.rs", "reports_say_what_is_in_effect"),
    (&[10], &[], "platform/tests/sockopt/values.rs", "socket_level_options_are_held"),
    (&[40], &[], "platform/tests/sockopt/order.rs", "options_come_before_what_they_influence"),
    (&[], &[1], "platform/tests/sockopt/defects.rs", "d01_linger2_is_a_number_of_seconds"),
    (&[], &[2], "platform/tests/sockopt/defects.rs", "d02_a_port_range_is_in_the_machines_order"),
    (&[], &[10], "platform/tests/sockopt/defects.rs", "d10_each_family_has_its_hops"),
    (&[], &[28], "platform/tests/sockopt/defects.rs", "d28_multipath_is_asked_for_and_kept"),
    (&[], &[30], "platform/tests/sockopt/defects.rs", "d30_options_that_a_system_lacks_are_told"),
    (&[67], &[21], "gateway/tests/listen.rs", "case_67_d21_it_survives_without_descriptors"),
    (&[68], &[], "gateway/tests/listen.rs", "case_68_a_socket_is_inherited_by_name"),
];

#[test]
fn every_case_and_defect_has_a_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (mut cases, mut defects) = (Vec::new(), Vec::new());
    for module in ["dial", "kernel", "listen", "packet", "spec", "tls"] {
        let text = text(&format!("tests/it/acceptance/{module}.rs"));
        let tests = text.split("#[test]\n").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("fn "));
        for name in tests.filter_map(|rest| rest.split('(').next()) {
            for word in name.split('_').skip_while(|word| *word == "case") {
                if let Ok(case) = word.parse::<u32>() {
                    cases.push(case);
                } else if let Some(defect) = word.strip_prefix('d').and_then(|word| word.parse::<u32>().ok())
                {
                    defects.push(defect);
                } else if word != "and" {
                    break;
                }
            }
        }
    }
    for (of_cases, of_defects, path, test) in ELSEWHERE {
        assert!(text(path).contains(&format!("fn {test}(")), "{path} has no {test}");
        cases.extend_from_slice(of_cases);
        defects.extend_from_slice(of_defects);
    }
    // Those of the others come with DTLS, QUIC and HTTP.
    let wanted = (1..=71).chain(74..=78).chain([87]).filter(|case| !cases.contains(case));
    assert_eq!(wanted.collect::<Vec<_>>(), [0; 0], "cases without a test");
    let wanted = (1..=3).chain(8..=24).chain([28, 30]).filter(|defect| !defects.contains(defect));
    assert_eq!(wanted.collect::<Vec<_>>(), [0; 0], "defects without a test");
}
