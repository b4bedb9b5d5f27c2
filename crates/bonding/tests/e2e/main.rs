//! End to end: the real `client`, `server` and `bondctl` over emulated links, with real kernels,
//! real TCP and standard tools, on three hosts in network namespaces.
//!
//! Each test gets its own hosts and leaves nothing behind; the tests run one after another in one
//! sandbox. Tests assert order, counts and eventual success, never a duration. A test without its
//! tools fails and names them.
//!
//! `cargo test -p bonding --test e2e -- NAME` runs the tests whose name contains NAME.

mod addresses;
mod capture;
mod discovery;
mod fence;
mod flows;
mod lifecycle;
mod obstacles;
mod operation;
mod programs;
mod reload;
mod sealed;
mod streams;
mod trace;
mod traffic;

use std::process::ExitCode;

use bonding_lab::{Lab, LabOptions, Scenario, sandbox};
use bonding_testkit::bond::slow_pair;
use bonding_testkit::programs::Programs;
use libtest_mimic::{Arguments, Failed, Trial};

/// The programs under test.
const PROGRAMS: Programs = bonding_testkit::programs!();

/// The links of most tests: the reference set-up, an ADSL line and four satellite links.
const SCENARIO: &str = "reference";

type Test = fn(&Lab) -> anyhow::Result<()>;

/// Tests over links of another kind, see [`bonding_testkit::bond::slow_pair`].
const SLOW_TESTS: &[(&str, Test)] = &[
    ("what_shrinks_is_compressed_over_slow_links", streams::what_shrinks_is_compressed_over_slow_links),
    ("a_side_without_compression_gets_none", streams::a_side_without_compression_gets_none),
];

const TESTS: &[(&str, Test)] = &[
    ("a_wrong_configuration_is_exit_code_2", operation::a_wrong_configuration_is_exit_code_2),
    ("a_right_configuration_passes_the_check", operation::a_right_configuration_passes_the_check),
    ("ping_both_ways", traffic::ping_both_ways),
    ("tcp_both_ways_with_one_and_four_flows", traffic::tcp_both_ways_with_one_and_four_flows),
    ("files_arrive_whole_through_the_nat", traffic::files_arrive_whole_through_the_nat),
    ("ipv6_inside_the_tunnel", traffic::ipv6_inside_the_tunnel),
    ("the_mtu_is_what_the_links_carry", traffic::the_mtu_is_what_the_links_carry),
    ("narrow_links_are_found_out", traffic::narrow_links_are_found_out),
    ("links_below_the_base_are_found_out", traffic::links_below_the_base_are_found_out),
    (
        "light_traffic_takes_one_link_and_a_download_all",
        traffic::light_traffic_takes_one_link_and_a_download_all,
    ),
    ("a_silent_link_costs_no_byte", traffic::a_silent_link_costs_no_byte),
    ("a_killed_client_comes_back", lifecycle::a_killed_client_comes_back),
    ("a_killed_server_comes_back", lifecycle::a_killed_server_comes_back),
    ("a_client_waits_for_its_server", lifecycle::a_client_waits_for_its_server),
    ("everything_is_undone_at_exit", lifecycle::everything_is_undone_at_exit),
    ("what_a_crash_left_is_undone_later", lifecycle::what_a_crash_left_is_undone_later),
    ("the_server_forwards_only_what_is_its_own", fence::the_server_forwards_only_what_is_its_own),
    ("clients_reach_what_is_allowed", fence::clients_reach_what_is_allowed),
    ("firewalls_come_and_go", fence::firewalls_come_and_go),
    ("a_tunnel_does_not_lead_to_its_own_listeners", fence::a_tunnel_does_not_lead_to_its_own_listeners),
    ("a_plain_link_is_heard_on_its_interface_only", fence::a_plain_link_is_heard_on_its_interface_only),
    ("a_new_source_port_gets_around_a_dead_mapping", obstacles::a_new_source_port_gets_around_a_dead_mapping),
    ("one_open_port_of_the_server_is_enough", obstacles::one_open_port_of_the_server_is_enough),
    ("a_link_that_is_down_says_why", obstacles::a_link_that_is_down_says_why),
    ("strict_filtering_of_a_line_is_made_loose", obstacles::strict_filtering_of_a_line_is_made_loose),
    ("names_are_asked_again", addresses::names_are_asked_again),
    ("a_silent_nameserver_holds_up_nothing", addresses::a_silent_nameserver_holds_up_nothing),
    ("a_family_that_comes_later_is_used", addresses::a_family_that_comes_later_is_used),
    ("a_route_into_the_tunnel_is_named", obstacles::a_route_into_the_tunnel_is_named),
    ("the_service_manager_is_told", operation::the_service_manager_is_told),
    ("status_has_its_documented_shape", operation::status_has_its_documented_shape),
    ("logs_have_their_documented_shape", operation::logs_have_their_documented_shape),
    (
        "both_sides_see_both_directions_and_what_happened",
        operation::both_sides_see_both_directions_and_what_happened,
    ),
    ("a_trace_holds_the_decisions_of_both_sides", trace::a_trace_holds_the_decisions_of_both_sides),
    ("an_invitation_is_all_it_takes", sealed::an_invitation_is_all_it_takes),
    ("lines_that_do_not_enrol_say_why", sealed::lines_that_do_not_enrol_say_why),
    ("one_line_that_works_is_enough_to_join", sealed::one_line_that_works_is_enough_to_join),
    ("a_revoked_client_is_out_at_once", sealed::a_revoked_client_is_out_at_once),
    (
        "a_client_without_what_it_shares_gets_no_session",
        sealed::a_client_without_what_it_shares_gets_no_session,
    ),
    ("a_client_that_joined_before_goes_on", sealed::a_client_that_joined_before_goes_on),
    ("a_client_gets_a_new_key", sealed::a_client_gets_a_new_key),
    ("an_expired_client_is_refused_and_says_so", sealed::an_expired_client_is_refused_and_says_so),
    ("twenty_thousand_clients_are_listed", sealed::twenty_thousand_clients_are_listed),
    ("a_silent_server_is_passed_over", sealed::a_silent_server_is_passed_over),
    ("a_dead_family_is_passed_over", sealed::a_dead_family_is_passed_over),
    ("configured_keys_and_mixed_links", sealed::configured_keys_and_mixed_links),
    ("sealed_sides_come_back_after_a_kill", sealed::sealed_sides_come_back_after_a_kill),
    ("a_copied_machine_makes_new_keys", sealed::a_copied_machine_makes_new_keys),
    ("files_cross_as_streams", streams::files_cross_as_streams),
    ("a_destination_answers_for_itself", streams::a_destination_answers_for_itself),
    ("a_local_firewall_costs_no_connection", streams::a_local_firewall_costs_no_connection),
    ("streams_go_nowhere_that_packets_may_not", streams::streams_go_nowhere_that_packets_may_not),
    ("another_client_is_not_reached_by_a_stream", streams::another_client_is_not_reached_by_a_stream),
    ("both_ends_are_told_of_an_end", streams::both_ends_are_told_of_an_end),
    ("connections_do_not_hold_up_each_other", streams::connections_do_not_hold_up_each_other),
    ("hosts_behind_the_client_are_served", streams::hosts_behind_the_client_are_served),
    ("a_link_dies_under_a_stream", streams::a_link_dies_under_a_stream),
    ("a_restart_resets_streams", streams::a_restart_resets_streams),
    ("streams_of_a_revoked_client_end", streams::streams_of_a_revoked_client_end),
    ("real_programs_work_unchanged", programs::real_programs_work_unchanged),
    ("a_syn_with_data_is_answered", streams::a_syn_with_data_is_answered),
    ("ssh_goes_as_packets", streams::ssh_goes_as_packets),
    ("rules_say_what_ends_at_the_bond", streams::rules_say_what_ends_at_the_bond),
    ("flows_are_shown_with_class_and_reason", flows::flows_are_shown_with_class_and_reason),
    ("the_lan_goes_into_the_bond_and_nowhere_else", capture::the_lan_goes_into_the_bond_and_nowhere_else),
    ("an_invitation_and_one_line_serve_a_lan", capture::an_invitation_and_one_line_serve_a_lan),
    ("all_goes_into_the_bond_but_its_own_datagrams", capture::all_goes_into_the_bond_but_its_own_datagrams),
    ("a_family_that_the_tunnel_lacks_does_not_leak", capture::a_family_that_the_tunnel_lacks_does_not_leak),
    (
        "a_network_that_the_server_knows_keeps_its_addresses",
        capture::a_network_that_the_server_knows_keeps_its_addresses,
    ),
    ("captured_traffic_falls_back_where_it_may", capture::captured_traffic_falls_back_where_it_may),
    ("a_modem_comes_and_goes_during_a_download", discovery::a_modem_comes_and_goes_during_a_download),
    ("a_link_that_is_dead_at_the_start_comes_later", discovery::a_link_that_is_dead_at_the_start_comes_later),
    ("a_table_of_its_own_is_a_way_too", discovery::a_table_of_its_own_is_a_way_too),
    ("sections_come_and_go_by_reload", discovery::sections_come_and_go_by_reload),
    ("a_tunnel_over_the_bond_is_no_link", discovery::a_tunnel_over_the_bond_is_no_link),
    ("no_ping_is_lost_by_a_reload", reload::no_ping_is_lost_by_a_reload),
    ("a_link_is_used_otherwise_by_hand", reload::a_link_is_used_otherwise_by_hand),
    ("clients_of_the_file_come_and_go", reload::clients_of_the_file_come_and_go),
    ("an_invited_client_has_a_section", reload::an_invited_client_has_a_section),
    ("rights_are_reduced", operation::rights_are_reduced),
    ("strangers_get_no_answer", operation::strangers_get_no_answer),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One lab at a time: labs share the sandbox and the machine.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = sandbox::enter()
    {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let usual = || Ok(bonding_netem::scenario::builtin(SCENARIO)?);
    let trials = TESTS.iter().map(|(name, test)| Trial::test(*name, move || run(*test, usual)));
    let slow = SLOW_TESTS.iter().map(|(name, test)| Trial::test(*name, || run(*test, slow_pair)));
    libtest_mimic::run(&arguments, trials.chain(slow).collect()).exit_code()
}

/// Runs one test on its own hosts.
fn run(test: Test, scenario: impl Fn() -> anyhow::Result<Scenario>) -> Result<(), Failed> {
    let missing = bonding_lab::requirements();
    if let Some(first) = missing.first() {
        return Err(format!("{} is missing: apt-get install {}", first.program, first.package).into());
    }
    let scenario = scenario().map_err(|error| format!("{error:#}"))?;
    let lab = Lab::start(&scenario, LabOptions::default())?;
    test(&lab).map_err(|error| format!("{error:#}").into())
}
