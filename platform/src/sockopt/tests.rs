//! The table is well-formed.

use std::collections::BTreeSet;

use super::{Code, Form, Off, Opt, Role, Stage, table};

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
fn rows_are_the_same_whoever_builds_them() {
    let built = table::rows();
    assert_eq!(built.len(), Opt::ALL.len());
    for (row, opt) in built.iter().zip(Opt::ALL) {
        assert_eq!(format!("{row:?}"), format!("{:?}", opt.row()));
    }
}

/// Where a row is set and of what it is read must fit: what has a number to write as "off" writes an `int`, and what needs
/// more time than a connection has is not set on one.
#[test]
fn rows_are_sound() {
    for opt in Opt::ALL {
        let row = opt.row();
        let int = !matches!(row.form, Form::Name { .. } | Form::Cpus { .. });
        match row.off {
            Off::Value(_) | Off::System(_) => {
                assert!(int || matches!(opt, Opt::IpUnicastIf | Opt::Ipv6UnicastIf), "{opt}");
            }
            Off::Empty => assert!(matches!(row.form, Form::Name { .. } | Form::Time { .. }), "{opt}"),
            Off::Never => assert_ne!(row.form, Form::Flag, "{opt}"),
        }
        assert!(!row.roles.contains(&Role::Accepted), "{opt}: an accepted socket counts as its listener");
        assert!(!row.networks().is_empty() && row.code.is_some(), "{opt}");
        assert!(
            row.code == Some(Code { level: libc::IPPROTO_MPTCP, number: 0 }) || row.stage != Stage::Socket
        );
        assert!(row.doc.trim().ends_with('.'), "{opt}");
    }
}
