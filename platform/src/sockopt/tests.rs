//! The table is well-formed, and every option of it is taken by the kernel.

use std::collections::BTreeSet;

use super::*;

#[test]
fn names_fields_and_numbers_belong_to_one_option_each() {
    let mut names = BTreeSet::new();
    let mut fields = BTreeSet::new();
    for opt in Opt::ALL {
        let row = opt.row();
        assert_eq!(row.opt, *opt);
        assert!(names.insert(row.name), "{opt} twice");
        assert_eq!(Opt::by_name(row.name), Some(*opt));
        assert!(!row.fields.is_empty() && !row.doc.is_empty(), "{opt}");
        for field in row.fields {
            assert!(fields.insert(field), "{field} twice");
            assert_eq!(Opt::by_field(field), Some(*opt));
            assert_eq!(Opt::by_field(&format!("sockOption.{field}")), Some(*opt));
        }
    }
    assert_eq!((Opt::by_name("SO_NONE"), Opt::by_field("tcpOption")), (None, None));
}

#[test]
fn every_option_is_taken_here() {
    for probed in probe() {
        println!("{:?}", probed.state);
        match probed.state {
            OptState::Works(effective) => {
                assert!(!effective.is_surprising() || probed.opt == Opt::TcpFastopen, "{effective}")
            }
            OptState::Refused(error) => {
                assert!(matches!(error.reason, Reason::Privilege(_) | Reason::SwitchedOff(_)), "{error}")
            }
            OptState::NoSocket(errno) => panic!("{}: {errno}", probed.opt),
        }
    }
}
