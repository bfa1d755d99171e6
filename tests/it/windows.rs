//! What Windows does not have, what it does otherwise and what Wine cannot show, case by case. The rig asks here before a
//! case; one that needs no core asks by itself. What is named here is told on standard error with its reason.

/// Reasons, and the cases that are about them: module and function.
const NOT_ON_WINDOWS: &[(&str, &[&str])] = &[
    (
        "there are no Unix sockets",
        &[
            "acceptance::dial::case_39_options_of_another_kind_of_socket",
            "acceptance::dial::case_44_the_local_address",
            "acceptance::dial::case_45_replaced_targets",
            "acceptance::dial::case_52_networks_of_packets_are_no_streams",
            "acceptance::listen::case_43_what_connections_do_not_have_from_their_listener_is_set_on_them",
            "acceptance::listen::case_54_63_packets_have_the_limits_of_streams",
            "acceptance::listen::case_54_63_packets_wait_for_a_place_that_another_core_has",
            "acceptance::listen::case_54_a_sequence_of_packets",
            "acceptance::listen::case_54_every_network_of_streams",
            "acceptance::listen::case_55_the_file_has_its_mode_and_goes_with_the_listener",
            "acceptance::listen::case_55_the_file_has_its_owner",
            "acceptance::listen::case_56_an_abstract_name_is_visible_and_leaves_nothing",
            "acceptance::listen::case_57_d16_a_bind_that_fails_is_an_error",
            "acceptance::packet::case_71_a_unix_file_goes_with_its_socket",
            "packet::a_full_socket_waits_for_room",
            "packet::peers_may_be_names",
            "packet::the_file_of_a_socket_is_its_own",
            "packet::unix_datagrams_by_path_and_by_name",
            "tls::unix_sockets_need_a_name",
            "ways::a_dial_from_a_unix_name_leaves_no_file",
            "ways::a_listener_by_its_address_alone",
        ],
    ),
    (
        "it is about options that Windows does not have, and that a check of the spec refuses there",
        &[
            "acceptance::dial::case_23_a_cork_is_released",
            "acceptance::dial::case_2_an_interface_that_does_not_exist",
            "acceptance::dial::case_30_quick_acknowledgements",
            "acceptance::dial::case_31_and_32_a_connect_that_the_kernel_gives_up",
            "acceptance::dial::case_42_several_paths_only_where_asked",
            "acceptance::listen::case_02_a_vanished_interface_is_named",
            "acceptance::listen::case_04_05_25_29_43_d1_d8_options_hold_on_what_is_accepted",
            "acceptance::listen::case_14_a_socket_for_each_core_shares_the_port",
            "acceptance::listen::case_17_20_an_address_that_is_not_here_yet",
            "acceptance::listen::case_24_a_silent_client_is_not_accepted",
            "acceptance::listen::case_30_quick_acknowledgements_are_asked_for_after_each_receive",
            "acceptance::packet::case_38_a_cork_joins_until_it_is_released",
            "acceptance::packet::case_70_d15_options_come_before_bind",
            "acceptance::packet::the_original_destination_is_told",
            "acceptance::spec::case_09_sizes_have_units",
            "acceptance::spec::case_15_a_cpu_is_a_number",
            "acceptance::spec::case_19_a_port_range_may_lack_an_end_and_is_not_reversed",
            "acceptance::spec::case_35_fast_open_of_dialers_is_not_for_listeners",
            "acceptance::spec::case_42_multipath_tcp_is_asked_for_by_name",
            "acceptance::spec::d9_every_option_can_be_off",
            "errors::of_options_that_were_refused",
            "golden::every_fault_of_broken_configs",
            "listener_life::what_needs_a_new_socket_is_told",
            "packet::a_socket_that_could_not_be_made_leaves_nothing",
            "tls::a_cork_below_is_released",
        ],
    ),
    (
        "SO_RCVTIMEO is our timers' alone, so the kernel is not asked for it",
        &["acceptance::dial::case_11_a_receive_has_its_time"],
    ),
    (
        "a socket belongs to one completion port: cores take no turns on it",
        &["acceptance::listen::case_14_one_socket_that_all_cores_take_from"],
    ),
    (
        "SIO_UDP_CONNRESET is off, so nobody hears that a datagram was refused",
        &["packet::refused_is_told_once_to_who_receives"],
    ),
    ("there is no splice(2)", &["relay::a_crumb_between_does_not_keep_bulk_from_being_spliced"]),
    ("a system takes what buffer it is asked for", &["ways::options_that_are_not_as_asked_are_told"]),
    (
        "Wine has neither USO nor URO",
        &[
            "acceptance::packet::case_36_one_send_in_segments",
            "acceptance::packet::case_37_what_the_kernel_joined_has_a_stride",
            "packet::what_is_sent_in_segments_comes_joined_and_is_told_apart",
        ],
    ),
    (
        "Wine does not send what goes with a datagram: its source, its congestion mark",
        &[
            "packet::a_datagram_leaves_from_the_address_that_is_asked_for",
            "packet::congestion_marks_and_places_are_told",
        ],
    ),
    ("Wine has no raw sockets of IPv6", &["acceptance::packet::case_52_71_a_raw_socket_with_options_pings"]),
];

/// Why the case that runs on this thread is not for Windows, if so.
pub(crate) fn why_not() -> Option<&'static str> {
    let thread = std::thread::current();
    let name = thread.name()?;
    NOT_ON_WINDOWS.iter().find(|(_, cases)| cases.contains(&name)).map(|(why, _)| *why)
}

/// A case that goes, or has another name, is no longer a reason to skip anything.
#[test]
fn every_case_that_is_not_on_windows_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for case in NOT_ON_WINDOWS.iter().flat_map(|(_, cases)| *cases) {
        let (module, function) = case.rsplit_once("::").expect("module and function");
        let path = root.join(format!("{}.rs", module.replace("::", "/")));
        let text = std::fs::read_to_string(&path).expect("the module is there");
        assert!(text.contains(&format!("fn {function}()")), "{case} is no case");
    }
}
