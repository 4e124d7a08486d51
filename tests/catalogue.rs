//! Every code of the catalogue, and the test that brings it about for real.
//!
//! A test that stands here must name the code in its own body, so that moving or renaming one breaks this table
//! and not the promise behind it.

use std::collections::BTreeSet;
use std::path::Path;

use sortie::report::Code;
use sortie::report::catalogue::Entry;

/// A code, and the test that provokes it: the file and the function.
const PROVOKED: &[(&str, &str, &str)] = &[
    ("url_invalid", "tests/diagnoses.rs", "policy_refuses_before_anything_is_opened"),
    ("scheme_not_allowed", "tests/diagnoses.rs", "policy_refuses_before_anything_is_opened"),
    ("server_not_declared", "tests/diagnoses.rs", "policy_refuses_before_anything_is_opened"),
    ("tfvc_not_supported", "tests/diagnoses.rs", "policy_refuses_before_anything_is_opened"),
    ("address_not_allowed", "tests/diagnoses.rs", "connections_that_do_not_come_about_are_told_apart"),
    ("name_not_found", "tests/diagnoses.rs", "connections_that_do_not_come_about_are_told_apart"),
    ("proxy_auth_required", "tests/diagnoses.rs", "a_proxy_without_its_password_is_named"),
    ("connection_refused", "tests/diagnoses.rs", "connections_that_do_not_come_about_are_told_apart"),
    ("connection_timed_out", "tests/diagnoses.rs", "an_address_that_drops_everything_times_out"),
    ("not_tls", "tests/diagnoses.rs", "certificates_are_told_apart_and_get_no_secret"),
    ("tls_untrusted_issuer", "tests/diagnoses.rs", "certificates_are_told_apart_and_get_no_secret"),
    ("tls_expired", "tests/diagnoses.rs", "certificates_are_told_apart_and_get_no_secret"),
    ("tls_not_yet_valid", "tests/diagnoses.rs", "certificates_are_told_apart_and_get_no_secret"),
    ("tls_name_mismatch", "tests/diagnoses.rs", "certificates_are_told_apart_and_get_no_secret"),
    ("host_key_unknown", "tests/diagnoses.rs", "ssh_refusals_are_told_apart"),
    ("host_key_changed", "tests/diagnoses.rs", "ssh_refusals_are_told_apart"),
    ("not_ssh", "tests/diagnoses.rs", "ssh_refusals_are_told_apart"),
    ("connection_reset", "tests/ssh.rs", "what_is_no_ssh_server_or_breaks_off_is_told_apart"),
    ("ssh_no_common_algorithm", "tests/ssh.rs", "algorithms_that_do_not_meet_are_named_on_both_sides"),
    ("ssh_key_type_unsupported", "tests/ssh_keys.rs", "keys_that_cannot_be_used_are_named_with_the_reason"),
    ("host_key_rsa_only", "tests/ssh.rs", "a_host_that_has_an_rsa_key_alone_is_warned_about"),
    (
        "ssh_rsa_sha2_not_announced",
        "tests/second_ssh_server.rs",
        "an_rsa_key_without_announced_rsa_sha2_is_named",
    ),
    ("wrong_base_path", "tests/diagnoses.rs", "a_base_path_that_is_missing_is_found_by_where_the_root_leads"),
    (
        "public_url_is_localhost",
        "tests/azure.rs",
        "a_server_that_names_itself_wrongly_is_warned_about_or_fails",
    ),
    ("iis_basic_conflict", "tests/azure.rs", "iis_that_takes_a_token_for_a_password_is_told_from_a_refusal"),
    ("pat_rejected", "tests/diagnoses.rs", "a_refused_token_is_sent_once"),
    ("pat_expired", "tests/diagnoses.rs", "a_refused_token_is_sent_once"),
    ("password_rejected", "tests/diagnoses.rs", "a_refused_token_is_sent_once"),
    ("bearer_rejected", "tests/diagnoses.rs", "a_refused_token_is_sent_once"),
    ("sign_in_page", "tests/diagnoses.rs", "a_refused_token_is_sent_once"),
    ("basic_not_offered", "tests/diagnoses.rs", "a_server_that_offers_windows_schemes_alone_is_named"),
    ("ssh_key_rejected", "tests/diagnoses.rs", "ssh_refusals_are_told_apart"),
    ("ssh_key_unreadable", "tests/bad_input.rs", "secrets_in_files_have_their_own_diagnoses"),
    ("ssh_key_passphrase", "tests/diagnoses.rs", "ssh_refusals_are_told_apart"),
    (
        "credential_missing",
        "tests/diagnoses.rs",
        "credentials_that_cannot_be_used_are_named_before_anything_is_sent",
    ),
    (
        "credential_kind_mismatch",
        "tests/diagnoses.rs",
        "credentials_that_cannot_be_used_are_named_before_anything_is_sent",
    ),
    ("scope_missing", "tests/diagnoses.rs", "a_missing_scope_is_named_by_the_providers_own_name"),
    ("project_not_found_or_denied", "tests/diagnoses.rs", "what_is_hidden_disabled_or_moved_is_told_apart"),
    (
        "repository_not_found_or_denied",
        "tests/diagnoses.rs",
        "what_is_hidden_disabled_or_moved_is_told_apart",
    ),
    ("repository_disabled", "tests/diagnoses.rs", "what_is_hidden_disabled_or_moved_is_told_apart"),
    ("repository_moved", "tests/diagnoses.rs", "what_is_hidden_disabled_or_moved_is_told_apart"),
    (
        "repository_empty",
        "tests/connection_test.rs",
        "an_empty_repository_is_a_warning_for_a_test_and_a_failure_for_a_clone",
    ),
    ("rate_limited", "tests/diagnoses.rs", "misbehaving_servers_are_bounded_and_named"),
    ("server_error", "tests/diagnoses.rs", "misbehaving_servers_are_bounded_and_named"),
    ("server_unavailable", "tests/diagnoses.rs", "misbehaving_servers_are_bounded_and_named"),
    ("unexpected_answer", "tests/diagnoses.rs", "misbehaving_servers_are_bounded_and_named"),
    ("deadline_exceeded", "tests/diagnoses.rs", "time_and_cancel_end_a_test_where_it_is"),
    ("cancelled", "tests/diagnoses.rs", "time_and_cancel_end_a_test_where_it_is"),
    ("target_not_empty", "tests/cli.rs", "a_clone_is_what_git_calls_clean"),
    (
        "git_not_tried",
        "tests/connection_test.rs",
        "azure_projects_and_collections_read_a_repository_where_they_can",
    ),
    ("internal", "src/runner/tests.rs", "a_panic_in_a_task_is_a_diagnosis_of_that_task"),
    (
        "not_a_git_server",
        "tests/warnings.rs",
        "a_web_server_that_is_no_git_server_is_named_without_any_secret",
    ),
    ("slow", "tests/warnings.rs", "a_stage_that_takes_unusually_long_is_named_with_the_usual_reason"),
    ("encoding_differs", "tests/clone_options.rs", "an_encoding_that_is_not_written_is_warned_about"),
    ("task_not_allowed", "tests/deliver.rs", "a_directory_of_the_operators_is_used_where_it_is_allowed"),
    ("too_large", "tests/clone_diagnoses.rs", "limits_and_hostile_trees_have_their_codes"),
    ("unsafe_path", "tests/clone_diagnoses.rs", "limits_and_hostile_trees_have_their_codes"),
    ("pack_corrupt", "tests/broken_transfers.rs", "each_trouble_is_told_from_the_others_and_leaves_nothing"),
    ("disk_full", "tests/clone_diagnoses.rs", "workspaces_that_have_used_up_their_room_are_a_full_disk"),
    ("plain_http", "tests/warnings.rs", "a_server_without_tls_is_warned_about_each_time"),
    ("credential_unreadable", "tests/warnings.rs", "a_secret_that_is_none_is_not_sent"),
    ("reference_not_found", "tests/warnings.rs", "a_reference_that_is_not_there_is_named_with_near_ones"),
    ("path_not_found", "tests/files.rs", "what_is_not_there_is_named"),
    ("api_refused", "tests/connection_test.rs", "a_token_that_git_takes_succeeds_whatever_the_api_says"),
    ("server_too_old", "tests/gitlab.rs", "releases_are_refused_warned_about_and_named"),
    (
        "connection_lost",
        "tests/broken_transfers.rs",
        "each_trouble_is_told_from_the_others_and_leaves_nothing",
    ),
    (
        "server_gave_up",
        "tests/broken_transfers.rs",
        "each_trouble_is_told_from_the_others_and_leaves_nothing",
    ),
    (
        "gateway_refused",
        "tests/broken_transfers.rs",
        "each_trouble_is_told_from_the_others_and_leaves_nothing",
    ),
    ("dumb_http", "tests/broken_transfers.rs", "each_trouble_is_told_from_the_others_and_leaves_nothing"),
    ("reference_not_a_commit", "tests/clone_diagnoses.rs", "a_tag_of_a_tree_or_a_file_is_no_commit"),
    ("server_release_ends", "tests/gitlab.rs", "releases_are_refused_warned_about_and_named"),
    ("token_expires_soon", "tests/gitlab.rs", "a_token_that_ends_soon_or_may_too_much_is_warned_about"),
    ("scope_excessive", "tests/gitlab.rs", "a_token_that_ends_soon_or_may_too_much_is_warned_about"),
    (
        "two_factor_required",
        "tests/gitlab.rs",
        "a_password_that_two_factor_shuts_out_is_told_from_a_wrong_one",
    ),
    ("account_locked", "tests/gitlab.rs", "locked_accounts_and_policies_are_told_by_the_servers_own_words"),
    (
        "policy_blocks_token",
        "tests/gitlab.rs",
        "locked_accounts_and_policies_are_told_by_the_servers_own_words",
    ),
    ("proxy_unreachable", "tests/proxies.rs", "what_a_proxy_refuses_is_told_apart"),
    ("proxy_refused", "tests/proxies.rs", "what_a_proxy_refuses_is_told_apart"),
    ("tls_intercepted", "tests/proxies.rs", "a_proxy_that_opens_tls_is_found_by_the_chain_without_it"),
    ("tls_incomplete_chain", "tests/tls.rs", "what_is_cut_or_not_tls_or_incomplete_is_told_apart"),
    ("tls_legacy_only", "tests/tls.rs", "a_server_that_speaks_only_what_is_not_safe_any_more_is_named"),
    (
        "tls_client_certificate_required",
        "tests/tls.rs",
        "a_server_that_demands_a_client_certificate_gets_it_or_is_named",
    ),
    (
        "certificate_expires_soon",
        "tests/tls.rs",
        "certificates_that_end_soon_and_clocks_that_differ_are_warned_about",
    ),
    ("clock_offset", "tests/tls.rs", "certificates_that_end_soon_and_clocks_that_differ_are_warned_about"),
    (
        "lfs_failed",
        "tests/lfs/whole.rs",
        "the_program_takes_objects_along_where_it_is_asked_and_names_the_one_that_it_lacks",
    ),
    ("delivery_failed", "tests/artifacts.rs", "what_keeps_an_artifact_from_the_control_plane_is_named"),
    (
        "submodule_not_allowed",
        "tests/submodules/refused.rs",
        "what_is_not_declared_gets_no_connection_and_fails_the_clone_or_is_left_out",
    ),
    ("resolver_failed", "tests/diagnoses.rs", "connections_that_do_not_come_about_are_told_apart"),
    ("network_unreachable", "tests/diagnoses.rs", "connections_that_do_not_come_about_are_told_apart"),
];

/// Codes whose test is still to be written: empty when the work is done.
const PENDING: &[&str] = &[];

#[test]
fn every_code_is_provoked_by_a_test() {
    let all: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let provoked: BTreeSet<&str> = PROVOKED.iter().map(|(code, ..)| *code).collect();
    let waiting: BTreeSet<&str> = PENDING.iter().copied().collect();
    let unknown: Vec<_> = provoked.union(&waiting).filter(|code| !all.contains(*code)).collect();
    assert!(unknown.is_empty(), "the catalogue has no such code: {unknown:?}");
    let untested: Vec<_> =
        all.iter().filter(|code| !provoked.contains(*code) && !waiting.contains(*code)).collect();
    assert!(untested.is_empty(), "no test provokes these: {untested:?}");
    let twice: Vec<_> = provoked.intersection(&waiting).collect();
    assert!(twice.is_empty(), "these are provoked and need not wait: {twice:?}");
}

#[test]
fn every_test_that_the_table_names_is_there_and_names_its_code() {
    for (code, file, function) in PROVOKED {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let body = test_body(&source, function)
            .unwrap_or_else(|| panic!("{file} has no test `{function}`, which is to provoke {code}"));
        let variant = format!("Code::{}", variant(code));
        let names = body.contains(&format!("\"{code}\"")) || body.contains(&variant);
        assert!(names, "{file}: `{function}` names neither \"{code}\" nor {variant}");
    }
}

/// The text of a test function, from its attribute to the brace that closes it at the same indentation.
fn test_body<'a>(source: &'a str, function: &str) -> Option<&'a str> {
    let name = source.find(&format!("fn {function}("))?;
    let line = source[..name].rfind('\n').map_or(0, |position| position + 1);
    let indentation: String = source[line..].chars().take_while(|c| *c == ' ').collect();
    let end = source[name..].find(&format!("\n{indentation}}}"))?;
    // What stands between the function before and this one is its comment and its attributes.
    let before = source[..line].rfind(&format!("\n{indentation}}}")).unwrap_or(0);
    let is_test = source[before..line].lines().any(|line| {
        let line = line.trim();
        line.starts_with("#[test]") || line.starts_with("#[tokio::test")
    });
    is_test.then(|| &source[name..name + end])
}

/// `tls_expired` as the code's variant is spelled: `TlsExpired`.
fn variant(code: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    code.split('_').map(capital).collect()
}

/// The manual's page about codes, which is made from the catalogue and from nothing else.
fn document() -> String {
    let mut page = String::from(
        "# Diagnoses\n\n\
         Every cause that a report of Sortie can name. A code never changes its name or its meaning. `sortie explain CODE`\n\
         prints the same entry on any host where the agent is installed.\n\n\
         This page is made from the catalogue in `src/report/catalogue`; \
         `SORTIE_WRITE_DIAGNOSES=1 cargo test --test main catalogue` writes it.\n\n\
         | code | stage | cause |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let entry = code.entry();
        page += &format!("| [`{0}`](#{0}) | {1} | {2} |\n", entry.code, stages(entry), entry.cause);
    }
    for code in Code::ALL {
        let entry = code.entry();
        page += &format!("\n## {}\n\n**{}.** Stage: {}.\n\n", entry.code, entry.cause, stages(entry));
        page += &format!("- **What is measured.** {}\n- **Why it happens.** {}\n", entry.seen, entry.why);
        for (place, text) in [
            ("On Azure DevOps", entry.on_azure_devops),
            ("On GitLab", entry.on_gitlab),
            ("On the agent's host", entry.on_host),
        ] {
            if !text.is_empty() {
                page += &format!("- **{place}.** {text}\n");
            }
        }
        page += "- **What to do.**\n";
        for remedy in entry.remedies {
            page += &format!("  - {remedy}\n");
        }
    }
    // Angle brackets would be taken for HTML.
    page.replace('<', "&lt;")
}

/// The stages of an entry; a code of all stages does not list them.
fn stages(entry: &Entry) -> String {
    let every = Code::Cancelled.entry().stages;
    if entry.stages == every {
        return "any".to_owned();
    }
    let names: Vec<_> = entry.stages.iter().map(|stage| format!("`{}`", stage.as_str())).collect();
    names.join(", ")
}

#[test]
fn the_manual_has_every_entry_as_the_catalogue_says_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/diagnoses.md");
    if std::env::var_os("SORTIE_WRITE_DIAGNOSES").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document(),
        "docs/diagnoses.md is stale; run: SORTIE_WRITE_DIAGNOSES=1 cargo test --test main catalogue"
    );
}

#[test]
fn every_entry_says_what_is_measured_why_and_what_to_do() {
    for code in Code::ALL {
        let entry = code.entry();
        for text in [entry.cause, entry.seen, entry.why] {
            assert!(!text.is_empty(), "{}", entry.code);
        }
        assert!(!entry.remedies.is_empty() && !entry.stages.is_empty(), "{}", entry.code);
        assert!(!entry.cause.ends_with('.'), "{}: the full stop is added later", entry.code);
        let sentences = [entry.seen, entry.why, entry.on_azure_devops, entry.on_gitlab, entry.on_host];
        for text in
            sentences.into_iter().chain(entry.remedies.iter().copied()).filter(|text| !text.is_empty())
        {
            assert!(text.ends_with('.'), "{}: no full stop after: {text}", entry.code);
        }
    }
}
