"""Every fault that the guard makes a promise about, and the tests that hold it to the promise.

`python -m tests.faults` runs them and writes the table in docs/reliability.md; `test_rows.py` keeps this list honest.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """tests: file under tests/ and function, `file::function`. gap: what is promised and not tested, and why not."""

    number: int
    area: str
    fault: str
    promise: str
    tests: tuple[str, ...]
    gap: str = ""


_UP, _CL = "faults/test_path_upstream_faults.py::", "faults/test_path_client_faults.py::"
_SEM, _SMUG = "faults/test_path_semantics.py::", "faults/test_path_smuggling.py::"
_RED, _CPATH, _CHK = "faults/test_cache_redis.py::", "faults/test_cache_path.py::", "faults/test_checks_pipeline.py::"
_REL, _LOOP, _JOUR = (
    "faults/test_release_controller.py::", "faults/test_release_loop.py::", "faults/test_release_journal.py::",
)  # fmt: skip
_OUT, _HOOK = "faults/test_release_outbox.py::", "contracts/test_release_webhook.py::"
_CLIENT, _DIAL = "contracts/test_path_openai_client.py::", "unit/test_path_dialects.py::"
_ADM, _ACC, _SRV = "unit/test_admin_routes.py::", "unit/test_admin_access.py::", "unit/test_admin_server.py::"
_SHIELD, _ALERTS = "unit/test_admin_shield.py::", "unit/test_admin_alerts.py::"
_LOG, _PROM, _PROC = (
    "unit/test_exporters_exchange_log.py::", "unit/test_exporters_prometheus.py::", "faults/test_process_faults.py::",
)  # fmt: skip
_SLO, _EVAL, _STATE = (
    "properties/test_slo_evaluation.py::", "unit/test_slo_evaluation.py::", "unit/test_release_state.py::",
)  # fmt: skip
_LOGF = "faults/test_exchange_log_faults.py::"
_FLEET, _MATRIX = "faults/test_release_fleet.py::", "faults/test_dead_dependencies.py::"

ROWS: tuple[Row, ...] = (
    # The model behind the guard
    Row(1, "upstream", "refuses the connection", "502 of type upstream_connect; one try more at most, elsewhere in the same version, before a byte was sent; a kept connection that ends unanswered within a second of the question is replaced once",
        (_SEM + "test_an_endpoint_that_is_named_twice_is_refused_like_one", _SEM + "test_a_connection_that_dies_under_a_request_is_tried_once_more_on_a_fresh_one",
         _SEM + "test_a_connection_that_dies_after_the_upstream_had_the_question_for_a_while_is_no_second_question",
         _UP + "test_a_refused_connection_is_a_502_with_a_type", _SEM + "test_a_refused_endpoint_is_left_for_another_of_the_same_version",
         _UP + "test_retries_stay_within_their_budget", "properties/test_path_split.py::test_retries_are_a_tenth_of_the_requests_and_a_reserve")),
    Row(2, "upstream", "no answer to the SYN", "504 at the connect budget, slot free again; another endpoint or address takes over", ("faults/test_path_endpoints.py::test_an_endpoint_that_swallows_connections_costs_no_answer", "faults/test_path_endpoints.py::test_an_endpoint_that_swallowed_connections_is_tried_by_one_request_at_a_time", "faults/test_path_endpoints.py::test_an_address_that_swallows_connections_leaves_time_for_the_next_one_of_the_name",
         _UP + "test_no_connection_within_the_budget_is_a_504",)),
    Row(3, "upstream", "takes the request and says nothing", "504 at the first-byte budget, slot free again",
        (_UP + "test_an_upstream_that_never_answers_is_a_504_and_its_slot_is_free", _UP + "test_a_head_without_a_body_counts_as_no_answer")),
    Row(4, "upstream", "head of the answer too slow or too large", "502 at its limit of bytes or seconds", (_UP + "test_a_response_head_in_doubt_is_a_502_and_its_connection_is_never_used_again",)),
    Row(5, "upstream", "stalls in the middle of a stream", "whole events, an error frame at the idle limit, no invented ending; clients raise",
        (_UP + "test_a_stream_stalled_at_any_byte_ends_with_whole_events_and_a_frame", _CLIENT + "test_a_stalled_stream_and_an_error_inside_a_stream_raise_in_the_client")),
    Row(6, "upstream", "cuts in the middle of a chunk, event or character, or leaves out [DONE]", "never taken, kept or cached as a whole answer",
        (_UP + "test_a_stream_cut_at_any_byte_is_never_taken_for_a_whole_one", _UP + "test_a_clean_end_without_the_terminal_marker_is_incomplete",
         _UP + "test_half_a_json_answer_is_a_clean_error_or_a_short_body", _CLIENT + "test_every_cut_of_a_stream_raises_in_the_client",
         _CLIENT + "test_a_broken_responses_stream_raises", _CPATH + "test_a_broken_stream_is_never_kept",
         "properties/test_path_sse.py::test_a_cut_stream_never_shows_half_an_event", "fuzz/test_fuzz.py::test_no_cut_stream_is_seen_as_complete")),
    Row(7, "upstream", "200 with nonsense, or an error inside a stream", "passed on byte for byte, counted as failed, not cached",
        (_UP + "test_a_200_that_is_no_answer_passes_unchanged_and_counts_as_failed", _UP + "test_an_error_inside_a_stream_passes_unchanged_and_counts_as_failed",
         "properties/test_path_hostile_bytes.py::test_any_few_bytes_changed_stop_nothing", _CPATH + "test_what_is_not_a_whole_shareable_answer_is_not_kept")),
    Row(8, "upstream", "5xx", "status, headers and body unchanged", (_SEM + "test_other_answers_pass_unchanged", _CLIENT + "test_errors_of_the_upstream_raise_what_they_raise_without_a_guard")),
    Row(9, "upstream", "429 with Retry-After", "unchanged, not repeated", (_UP + "test_a_retry_after_is_obeyed_by_not_retrying", _PROM + "test_throttling_is_counted_beside_its_outcome")),
    Row(10, "upstream", "huge or endless answer", "forwarded at the client's pace; the record is cut at its limit and says so",
        (_UP + "test_a_large_answer_is_captured_up_to_the_limit_and_marked", _UP + "test_an_event_without_end_is_not_collected_for_ever",
         _CL + "test_a_slow_reader_holds_the_upstream_back_and_memory_stays_bounded", _UP + "test_a_total_budget_ends_even_a_lively_stream")),
    Row(11, "upstream", "compressed answers and bombs", "raw bytes to the client; only the record unpacks, within caps",
        (_UP + "test_compressed_answers_pass_raw_and_are_read_for_their_usage", _UP + "test_streams_are_asked_for_unpacked_and_a_packed_one_is_only_watched",
         _DIAL + "test_compressed_answers_are_read_within_caps", _DIAL + "test_bombs_and_damage_are_undecodable")),
    Row(12, "upstream", "answer with doubtful framing", "502, the connection is not used again",
        (_UP + "test_a_response_head_in_doubt_is_a_502_and_its_connection_is_never_used_again", _UP + "test_bytes_after_an_answer_are_never_the_next_answer",
         _UP + "test_an_answer_nobody_asked_for_is_thrown_away")),
    Row(13, "upstream", "stable and canary fail together", "the pointer stays, one incident about the shared fault",
        (_REL + "test_stable_breaching_too_opens_one_incident_and_closes_it_again", _SLO + "test_what_stable_suffers_too_never_moves_the_pointer",
         "scenarios/test_conditions.py::test_an_outage_of_everybody_is_not_the_canarys_fault", "faults/test_release_standing.py::test_a_shared_fault_is_one_incident_until_stable_was_seen_to_be_well")),
    Row(14, "upstream", "its name suddenly resolves to an inside address", "not connected to",
        (_UP + "test_a_public_name_that_points_inside_is_refused", "properties/test_path_split.py::test_a_name_reaches_only_addresses_of_its_kind", _UP + "test_https_is_verified")),
    # Clients
    Row(15, "client", "hangs up", "the upstream is cancelled at once, the pool stays whole, no version is blamed",
        (_CL + "test_a_disconnect_cancels_the_upstream_at_once_and_is_no_failure", _CL + "test_a_storm_of_cancels_leaves_the_whole_pool_usable",
         _CL + "test_a_disconnect_before_any_answer_has_no_status", _CLIENT + "test_leaving_a_stream_early_cancels_it"), "100,000 cancels: `python -m bench.limits`"),
    Row(16, "client", "reads slowly", "a bounded buffer, then the upstream waits; dropped without progress",
        (_CL + "test_a_slow_reader_holds_the_upstream_back_and_memory_stays_bounded", _CL + "test_a_slow_reader_that_keeps_reading_gets_everything", _CL + "test_a_reader_without_progress_is_dropped")),
    Row(17, "client", "sends its head or body drop by drop", "told so and closed, on both listeners",
        (_CL + "test_a_client_that_trickles_is_told_so_and_closed", "faults/test_path_dripped_heads.py::test_a_head_in_single_bytes_is_judged_as_in_one_piece", "faults/test_path_dripped_heads.py::test_only_what_is_new_is_looked_at_and_nothing_is_missed", _SRV + "test_a_head_that_trickles_is_cut_off", _SHIELD + "test_a_body_that_never_ends_is_given_up_in_virtual_time"), "2,000 at once: `python -m bench.limits`"),
    Row(18, "client", "head, URL or body too large", "431, 414, 413 before anything is collected, on both listeners",
        (_CL + "test_what_is_too_large_is_refused_before_it_is_collected", _SRV + "test_a_head_that_is_too_large_is_refused", _SHIELD + "test_bodies_have_a_size_with_and_without_content_length")),
    Row(19, "client", "compressed request body", "415 where the guard reads it, raw where it only forwards",
        (_SHIELD + "test_ambiguous_framing_and_encoded_bodies_are_refused", _SEM + "test_the_feedback_path_is_answered_here_and_nowhere_else", "faults/test_encoded_requests.py::test_a_packed_question_arrives_as_it_was_sent",
         "faults/test_encoded_requests.py::test_a_bomb_is_not_unpacked")),
    Row(20, "client", "requests that two programs read differently", "refused and closed; nothing is sent on",
        (_SMUG + "test_a_doubtful_request_is_refused_and_its_connection_closed", _SMUG + "test_what_is_unusual_but_clear_is_passed_on_with_one_framing", _SMUG + "test_what_follows_a_chunked_request_is_not_answered",
         _SRV + "test_requests_that_two_parsers_could_read_differently_are_refused", _SHIELD + "test_a_path_has_one_spelling", "faults/test_framing_differential.py::test_nobody_behind_the_guard_sees_another_request")),
    Row(21, "client", "very many idle connections", "closed after a while; beyond the cap 503", (_CL + "test_an_idle_connection_is_closed_after_a_while", _CL + "test_too_many_connections_are_told_so", "faults/test_admin_limits.py::test_connections_over_the_cap_are_refused_and_the_listener_recovers"), "10,000 at once: `python -m bench.limits`"),
    Row(22, "client", "overload", "503 with a Retry-After that differs from client to client, no queue inside",
        (_CL + "test_overload_is_refused_at_once_with_a_time_to_come_back", _CL + "test_a_full_upstream_pool_sheds_instead_of_queueing", _CL + "test_admission_sheds_the_lowest_priority_first",
         _CL + "test_a_client_that_pipelines_without_reading_is_held_back"), "3 times the capacity: `python -m bench.limits`"),
    # Redis and the cache
    Row(23, "cache", "Redis refuses", "answers as without a cache; after five failures it is left alone", (_RED + "test_refused", "unit/test_cache_rules.py::test_the_breaker_opens_after_five_in_a_row_and_closes_only_by_the_probe", _MATRIX + "test_no_dead_dependency_costs_an_answer")),
    Row(24, "cache", "Redis stalls or is slow", "a budget per lookup, then past it", (_RED + "test_stalled", _RED + "test_a_network_that_misbehaves", "faults/test_cache_stream.py::test_writes_that_wait_for_a_redis_that_hangs_are_bounded_in_bytes_and_the_rest_is_counted")),
    Row(25, "cache", "Redis is full, evicts or only reads", "reads go on, writes are dropped and counted", (_RED + "test_full", _RED + "test_read_only_goes_on_reading")),
    Row(26, "cache", "foreign, damaged or oversize values", "a miss, and the value is removed", (_RED + "test_corrupt_values_are_never_served_and_go", "properties/test_cache_properties.py::test_no_damaged_envelope_opens")),
    Row(27, "cache", "Redis restarts or comes back with an old snapshot", "misses; nothing that was taken back returns",
        (_RED + "test_what_one_replica_takes_back_no_replica_serves_not_even_from_an_old_snapshot", _RED + "test_killed_in_the_middle_and_back_again")),
    Row(28, "cache", "a failover loses acknowledged writes", "misses; nothing that was taken back returns",
        ("faults/test_cache_failover.py::test_writes_that_a_failover_lost_are_misses_and_nothing_taken_back_returns", "faults/test_cache_failover.py::test_no_client_sees_a_failover")),
    Row(29, "cache", "a reply belongs to another request", "noticed by its digest, never served", (_RED + "test_replies_that_change_places_are_noticed_and_never_served", _RED + "test_a_storm_of_lookups_given_up_leaves_no_reply_to_a_stranger", _CPATH + "test_a_store_that_hands_out_somebody_elses_answer_is_not_believed")),
    Row(30, "cache", "a bad answer is in the cache", "only whole unflagged answers go in; later flags, thumbs, rollbacks and changed documents take them out",
        ("faults/test_cache_care.py::test_a_rollback_in_the_very_turn_in_which_a_warm_up_is_sent_gives_it_up_too",
         "properties/test_cache_model.py::test_a_long_random_history_has_hits_and_none_of_them_is_wrong", _CPATH + "test_an_answer_is_kept_only_when_its_checks_have_looked_and_found_nothing",
         _CPATH + "test_a_thumb_down_on_a_hit_takes_the_answer_back", _CPATH + "test_tenants_credentials_epochs_and_releases_never_meet"), "10^6 steps: `make cache-model`"),
    Row(31, "cache", "a thousand clients ask one new thing", "one call; who waits too long asks itself", (_CPATH + "test_a_thousand_clients_with_one_new_question_are_one_call", _CPATH + "test_who_waits_too_long_asks_itself", _CPATH + "test_a_leader_that_fails_takes_nobody_with_it")),
    # Checks, disk, knowledge base
    Row(32, "checks", "the worker dies, or a text kills it", "traffic unharmed; restarted; the text is given up after two deaths",
        (_CHK + "test_killing_the_worker_again_and_again_loses_and_doubles_nothing", _CHK + "test_poison_is_given_up_after_two_deaths_and_its_neighbours_are_checked", _CHK + "test_a_worker_that_cannot_start_leaves_the_path_alone", _MATRIX + "test_no_dead_dependency_costs_an_answer")),
    Row(33, "checks", "slow, or the queue is full", "dropped and counted, nobody waits; below half coverage unknown",
        (_CHK + "test_a_stopped_worker_fills_the_queue_and_then_drops_are_counted", _CHK + "test_a_worker_that_hangs_with_work_is_killed_and_replaced", _CHK + "test_bytes_are_bounded_as_well_as_the_count", _EVAL + "test_less_than_half_coverage_is_unknown")),
    Row(34, "disk", "full", "traffic goes on; a rollback completes without a free byte",
        (_JOUR + "test_a_rollback_completes_on_a_disk_without_a_free_byte", _LOGF + "test_on_a_real_full_disk_lines_are_counted_and_writing_resumes", _JOUR + "test_with_a_broken_disk_exposure_is_never_raised_and_always_lowered", _MATRIX + "test_no_broken_disk_costs_an_answer")),
    Row(35, "kb", "truncated, flipped, with bytes too many", "not loaded; the last good generation stays", ("faults/test_kb_integrity.py::test_no_flipped_bit_and_no_truncation_is_loaded", "contracts/test_rag_serve_generations.py::test_a_new_generation_is_taken_over_and_a_damaged_one_leaves_the_last_good_one"), "10,000 flips: `make kb-integrity`"),
    Row(36, "kb", "death or power loss while a generation is written", "old or new, never a mixture",
        ("faults/test_rag_crash.py::test_a_death_before_any_file_operation_leaves_old_or_new_never_a_mixture", "faults/test_rag_crash.py::test_a_disk_that_refuses_any_file_operation_is_one_clear_error",
         "faults/test_kb_promotion.py::test_a_promotion_is_all_or_nothing_and_may_be_repeated"), "a file system that forgets what was not synced: needs FUSE, which few test machines allow; the order of writes and syncs is what the crash test checks"),
    Row(37, "kb", "two writers", "each generation by one of them, nothing lost", ("faults/test_kb_integrity.py::test_two_writers_make_every_generation_once_and_lose_nothing", "unit/test_rag_kb.py::test_the_second_writer_is_told_to_wait_and_a_stale_one_to_open_again")),
    Row(38, "disk", "fsync fails", "taken as lost for good: the descriptor is given up, nothing is called saved",
        (_JOUR + "test_after_a_failed_fsync_the_descriptor_is_given_up", _JOUR + "test_a_disk_fault_in_sqlite_is_not_saved_and_the_database_is_reopened", _LOGF + "test_after_a_failed_sync_the_descriptor_is_never_used_again")),
    Row(39, "baseline", "missing, damaged, old, or of another configuration", "its rules are unknown and say why; absolute rules go on",
        ("unit/test_slo_thresholds.py::test_every_reason_why_a_baseline_cannot_be_used", "unit/test_slo_baselines.py::test_every_truncation_is_refused", "unit/test_slo_baselines.py::test_flipped_bytes_are_refused",
         _EVAL + "test_the_fast_path_acts_without_a_baseline", _SLO + "test_a_relative_rule_without_a_baseline_has_no_limit")),
    # Time, process, replicas, rollback
    Row(40, "time", "the wall clock jumps, or the machine sleeps", "windows go by the monotonic clock; nothing is rolled back for it",
        (_STATE + "test_a_jump_of_the_wall_clock_into_the_past_does_not_forget_rollbacks", _SLO + "test_after_a_suspension_only_what_was_found_again_soon_counts", "unit/test_slo_memory_restart.py::test_a_long_absence_empties_the_windows_and_a_clock_gone_back_does_not",
         _EVAL + "test_evaluations_far_apart_are_no_suspension")),
    Row(41, "process", "our own loop stands still", "unknown, not a breach of the canary", (_PROC + "test_a_process_that_stood_still_blames_nobody", "unit/test_judge_comparing.py::test_our_own_stall_says_nothing_and_forgets_nothing", "unit/test_slo_actions.py::test_a_sick_guard_holds_whatever_it_sees")),
    Row(42, "process", "SIGTERM with streams open", "they may end within the drain budget, then an error frame; exit 0", (_PROC + "test_sigterm_lets_streams_end_and_tells_the_rest", _SEM + "test_draining_lets_answers_finish_and_ends_the_rest_with_a_frame", _SRV + "test_a_request_in_flight_ends_before_the_listener_does")),
    Row(43, "process", "SIGKILL", "back with the last committed split", ("e2e/test_serve.py::test_the_split_is_the_same_after_kill_9", _REL + "test_a_restart_keeps_the_last_split_and_most_of_the_hold", _LOGF + "test_after_kill_9_everything_flushed_is_there_and_readable")),
    Row(44, "rollback", "SIGKILL in the middle of one", "finished after the restart, exactly one effect", ("faults/test_release_crashes.py::test_one_kill_at_every_point_leaves_one_effect", "faults/test_release_crashes.py::test_one_and_two_kills_after_a_promotion_leave_one_effect", _FLEET + "test_every_schedule_with_one_crash", _FLEET + "test_every_schedule_with_two_crashes"), "10^5 random schedules: `make sim`"),
    Row(45, "replicas", "disagree, are cut off, act late", "one incident, one pointer move; cut off, a replica may only take its own weight away",
        ("faults/test_release_replicas.py::test_an_abort_that_the_registry_refuses_is_told_and_owed_until_it_is_taken",
         _FLEET + "test_random_schedules_lose_nothing_and_do_nothing_twice", _FLEET + "test_a_broken_saga_is_caught", _REL + "test_replicas_that_see_the_same_breach_have_one_effect", "unit/test_release_control.py::test_a_replica_that_was_cut_off_does_not_undo_a_promotion_of_a_lower_epoch")),
    Row(46, "rollback", "a person promotes meanwhile", "the later epoch wins, the loser is told", (_REL + "test_a_promotion_that_wins_the_race_is_not_undone", _REL + "test_an_operator_who_loses_a_race_gets_a_conflict_and_sees_the_winner", _LOOP + "test_the_epoch_is_compared_when_the_command_has_its_turn")),
    Row(47, "rollback", "nothing to return to", "weight 0, the pointer stays, people are called", (_REL + "test_a_missing_previous_version_keeps_weight_0_and_the_pointer", "contracts/test_registry_contract.py::test_rollback_never_points_at_a_missing_artifact", _STATE + "test_a_breach_without_a_previous_version_is_held_and_told_once")),
    Row(48, "rollback", "again and again", "at most three by itself in a day", ("faults/test_release_replicas.py::test_the_limit_of_rollbacks_a_day_is_the_services_whichever_replica_decides",
         _REL + "test_flapping_ends_after_three_rollbacks", _STATE + "test_the_fourth_automatic_rollback_of_a_day_is_suppressed_and_the_next_day_is_not")),
    Row(49, "rollback", "registry dead, slow, or its answer lost", "exposure ends at once; the pointer follows when it can", ("faults/test_release_raising.py::test_a_registry_that_is_silent_for_an_hour_costs_one_line_and_no_deed", "faults/test_release_raising.py::test_a_registry_that_takes_no_writes_is_told_and_asked_ever_more_seldom",
         _REL + "test_a_dead_registry_does_not_delay_the_end_of_exposure_or_the_message", _REL + "test_a_lost_answer_moves_the_pointer_once", _MATRIX + "test_no_dead_dependency_costs_an_answer")),
    Row(50, "rollback", "too few samples", "unknown, and the counts are in the evidence", (_SLO + "test_the_fewer_events_the_less_is_said", _EVAL + "test_a_burn_rule_without_enough_events_or_limit_is_unknown", "scenarios/test_conditions.py::test_nothing_is_taken_away_from_a_healthy_release")),
    # Webhooks, alerts, telemetry
    Row(51, "webhook", "receiver down, slow, 5xx, 429, 410, redirect", "kept on disk and repeated; 410 ends it and pages", (_OUT + "test_what_happens_while_a_receiver_hangs_is_told_to_the_others_at_once",
         _OUT + "test_a_receiver_that_was_away_for_a_day_gets_everything_in_order", _OUT + "test_410_disables_the_receiver_and_alerts_and_a_restart_remembers", _HOOK + "test_what_each_status_means", _HOOK + "test_a_receiver_that_is_not_there_or_never_answers")),
    Row(52, "webhook", "sent twice or replayed", "one id, each try with its own time, two keys in a rotation", (_HOOK + "test_every_try_has_the_same_id_and_body_and_its_own_timestamp", _HOOK + "test_during_rotation_the_old_and_the_new_secret_verify", _HOOK + "test_the_standards_own_example_signs_the_same")),
    Row(53, "alerts in", "forged, replayed, late", "refused", (_HOOK + "test_forged_replayed_and_late_messages_are_refused", _ADM + "test_no_state_changing_route_answers_a_caller_without_the_token")),
    Row(54, "alerts in", "a storm, twice, resolved first, cut off", "on the disk before 200, each acted on once; 503 when it cannot be stored",
        ("e2e/test_alerting.py::test_alertmanagers_that_send_everything_several_times_have_each_alert_stored_once", _ALERTS + "test_alerts_that_cannot_be_stored_are_asked_for_again", "unit/test_outside_alerts.py::test_every_order_of_firing_and_resolved_ends_in_the_same_state",
         "unit/test_alert_intake.py::test_when_the_disk_refuses_nobody_is_told_otherwise_and_nothing_acts"), "10,000 alerts three times: `python -m bench.alerts_intake`"),
    Row(55, "alerts out", "Alertmanager is away", "posted again while the incident is open", ("e2e/test_alerting.py::test_an_open_incident_is_told_again_to_an_alertmanager_that_was_away", _HOOK + "test_open_incidents_are_posted_to_alertmanager_with_a_renewed_end")),
    Row(56, "metrics", "labels without end", "closed sets and a cap", (_PROM + "test_an_explosion_of_labels_stays_within_the_cap_and_within_memory", _PROM + "test_words_outside_a_closed_set_become_other", _PROM + "test_a_flood_of_pulled_gauges_stays_within_its_share")),
    Row(57, "telemetry", "OTLP or stderr takes nothing", "bounded queues that drop and count, no answer waits",
        ("contracts/test_otel_receiver.py::test_the_queue_is_bounded_and_drops_the_oldest", "e2e/test_otel.py::test_a_receiver_that_is_gone_costs_a_counter_only", "faults/test_own_log.py::test_a_reader_that_stopped_reading_costs_lines_and_no_time",
         _PROC + "test_a_stderr_that_nobody_reads_stops_no_answer", _LOGF + "test_a_full_queue_drops_counts_and_never_waits")),
    Row(58, "telemetry", "line ends, escapes and the like in text from outside", "one event is one line, labels stay labels", (_LOG + "test_whatever_was_said_one_event_is_one_line", "faults/test_own_log.py::test_whatever_is_logged_is_one_line", _PROM + "test_a_hostile_label_value_stays_one_value_on_one_line", "unit/test_incident_text.py::test_text_from_outside_cannot_move_the_cursor_or_add_a_line")),
    # Configuration, admin, artefacts, content
    Row(59, "config", "a bad file", "refused whole with its place; the old one goes on; exit 2 at the start", ("e2e/test_serve.py::test_a_bad_reload_changes_nothing_and_a_good_one_takes_effect", "unit/test_settings.py::test_an_error_names_file_path_value_and_cure", "unit/test_settings.py::test_a_huge_file_is_refused_before_it_is_parsed", "unit/test_slo_spec.py::test_a_damaged_file_is_accepted_or_told_in_one_line", "unit/test_slo_spec.py::test_an_unknown_key_of_any_form_is_one_line", "fuzz/test_fuzz.py::test_mutations_of_the_corpus")),
    Row(60, "admin", "no token, guesses, timing", "nothing changes without it; five wrong ones a minute; digests compared in constant time", (_ADM + "test_no_state_changing_route_answers_a_caller_without_the_token", _ADM + "test_without_a_configured_token_changing_state_is_off", _ADM + "test_five_wrong_tokens_in_a_minute_lock_their_address_out_in_virtual_time", _ACC + "test_only_the_configured_token_is_accepted"),
        "a t-test of answer times: on a shared machine it measures the neighbours; the comparison is hmac.compare_digest over digests"),
    Row(61, "admin", "other origins, rebinding, scripts in the model's words", "Host and Origin on a list, a strict policy, text as text", (_SHIELD + "test_pages_of_other_origins_are_refused_on_every_route_and_method", _SHIELD + "test_a_host_that_is_not_on_the_list_is_refused_on_every_route_and_method", "e2e/test_console.py::test_nothing_that_anybody_said_is_run_or_fetched", _SRV + "test_a_real_browser_runs_nothing_of_what_the_model_said")),
    Row(62, "egress", "addresses that lead inside", "origins of the file only, the resolved address is checked, no redirect is followed", ("properties/test_path_split.py::test_a_name_reaches_only_addresses_of_its_kind", _UP + "test_a_public_name_that_points_inside_is_refused", "unit/test_settings.py::test_other_urls_are_refused", "unit/test_prometheus_http.py::test_the_client_follows_no_redirect_and_sends_its_token", _HOOK + "test_a_webhook_url_is_an_origin_of_the_configuration",
        "contracts/test_checked_names.py::test_a_public_name_that_leads_inside_reaches_nothing", "contracts/test_checked_names.py::test_the_judge_and_the_embeddings_reach_nothing_inside_by_a_public_name", "contracts/test_checked_names.py::test_the_otlp_exporter_reaches_nothing_inside_by_a_public_name", "contracts/test_checked_names.py::test_no_name_leads_to_the_metadata_of_a_cloud")),
    Row(63, "artefacts", "names that lead elsewhere", "a strict name, nothing outside", ("contracts/test_registry_contract.py::test_odd_names_are_refused", "unit/test_registry_service.py::test_a_path_is_decoded_once_and_leads_nowhere_else", "unit/test_kb_pack.py::test_further_members_and_paths_that_lead_out_are_refused", "unit/test_lora_vault.py::test_links_and_strange_names_are_refused")),
    Row(64, "artefacts", "code in an adapter, bombs", "listed kinds of files only, sizes, hashes; a child without network, with limits, reads first; nothing is run", ("unit/test_lora_vault.py::test_what_could_run_code_or_lies_about_itself_is_not_sealed", "unit/test_kb_pack.py::test_a_bomb_is_refused_without_being_unpacked", "unit/test_kb_pack.py::test_members_that_are_no_plain_files_are_refused",
        "unit/test_probing.py::test_a_pickle_is_not_run_whatever_it_is_called", "unit/test_probing.py::test_a_file_that_wants_endless_memory_is_refused_and_this_process_goes_on", "unit/test_probing.py::test_a_file_that_wants_endless_time_is_refused",
        "unit/test_probing.py::test_code_in_the_child_could_do_nothing", "unit/test_probing.py::test_in_its_namespace_native_code_reaches_nobody"), "what the child has read is then read by the process that uses it, which has a network"),
    Row(65, "artefacts", "sealed adapter: other key, flipped bit, swapped file", "refused before a byte is released", ("unit/test_lora_envelope.py::test_every_single_bit_flip_is_refused", "unit/test_lora_envelope.py::test_every_truncation_and_any_addition_is_refused_chunk_borders_included", "unit/test_lora_envelope.py::test_the_wrong_key_is_refused", "unit/test_lora_vault.py::test_swapped_missing_added_and_older_files_are_refused")),
    Row(66, "secrets", "in questions, answers, headers, errors, keys", "in no log, metric, page, file or core dump", (_PROC + "test_no_secret_that_went_through_is_found_anywhere", _RED + "test_two_replicas_share_their_answers_and_nothing_readable_of_the_questions", "unit/test_exporters_spans.py::test_a_chat_span_carries_the_names_of_the_conventions_and_no_words")),
    Row(67, "judge", "text that gives the judge orders", "its score hardly moves, and it can order nothing", ("unit/test_llm_judge.py::test_injections_move_the_score_by_no_more_than_a_twentieth_on_average", "unit/test_llm_judge.py::test_a_reply_that_wants_a_tool_or_has_no_text_is_an_anomaly", "unit/test_llm_judge.py::test_no_text_can_close_its_block_even_when_the_fence_was_guessed")),
    Row(68, "tenants", "one tenant floods to cause or hide a breach", "a fifth of a window at most", ("unit/test_slo_memory.py::test_one_tenant_neither_causes_nor_hides_a_breach", _SLO + "test_no_tenant_weighs_much_more_than_a_fifth", "unit/test_slo_fair_share.py::test_half_of_the_traffic_becomes_a_fifth_of_the_weight")),
    Row(69, "supply", "a dependency was replaced", "wheels by hash in the image, none built from source", ("deploy/test_deploy.py::test_the_image_installs_what_the_program_needs_at_the_tested_versions_by_hash", "deploy/test_deploy.py::test_the_image_runs_as_nobody_and_carries_no_installer"),
        ".pth files are not looked at when the program starts: whoever can write one can change the program as well"),
)  # fmt: skip
# ruff: noqa: E501 - one promise, few lines
