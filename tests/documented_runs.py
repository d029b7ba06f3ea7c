"""Which test runs each command of the documentation, and which flags in it are of other programs."""

from documented import commands_in, recordings_block

COMMANDS, STAGE1 = "tests/e2e/test_commands.py", "tests/e2e/test_stage1.py"
CLUSTER = "tests/e2e/test_on_a_cluster.py"
EDITING = "tests/editing/test_edit_command.py"
PLAN = "tests/planning/test_plan_command.py"
STAGE2, EXPORT = "tests/generators/test_stage2.py", "tests/test_export.py"
COMPOSE = "tests/compositors/test_compose_recipe.py"
WORDS = "tests/words/test_words_commands.py"
ROOMS = "tests/generators/test_every_room.py"

RECORDINGS = "tests/e2e/test_recordings.py::test_the_readmes_block_for_recordings_ends_with_an_edited_clip"

#: Documented command -> the test that runs it, or .ci/run for what continuous integration runs as it stands.
RUN_BY = {
    "make test": ".ci/run",
    "make nightly": (
        "tests/test_nightly.py::test_a_part_that_ran_is_recorded_and_one_that_failed_or_cannot_run_is_said"
    ),
    "make fuzz": "tests/fuzz/test_fuzz.py::test_a_dozen_attempts_show_no_fault",
    "make hosts": "tests/hosts/test_two_hosts.py::test_one_worker_trains_on_each_host",
    "make kubelet": "tests/kubelet/test_rendered.py::test_the_job_trains_stage_one_to_its_end",
    "make browser": "tests/browser/test_mlflow_pages.py::test_one_chart_holds_the_curves_of_two_runs_by_samples_seen",
    "make browser PICTURES=1": (
        "tests/browser/test_mlflow_pages.py::test_one_chart_holds_the_curves_of_two_runs_by_samples_seen"
    ),
    "make lint": ".ci/run",
    "make typecheck": ".ci/run",
    "make lock": "tests/deploy/test_dockerfiles.py::test_a_lock_has_the_versions_of_the_constraints_and_a_hash_for_each",
    "make format": f"{COMMANDS}::test_make_format_rewrites_to_style",
    "make chaos": "tests/chaos/test_chaos.py::test_each_fault_leaves_losses_samples_checkpoints_and_tracking_as_they_were",
    "make demo": f"{COMMANDS}::test_the_demo_made_small_ends_with_its_figures",
    "make demo SEED=1": f"{COMMANDS}::test_the_demo_made_small_ends_with_its_figures",
    "spfem prepare synthetic --out shards/synthetic": f"{COMMANDS}::test_the_synthetic_corpus_is_prepared",
    "spfem prepare synthetic --style 1 --out shards/synthetic-style": (
        "tests/corpora/test_synthetic_style.py::test_prepared_shards_say_their_style_and_targets_are_rendered_with_it"
    ),
    "spfem prepare heads --out shards/heads --size 128": (
        "tests/corpora/test_heads.py::test_heads_are_prepared_into_shards"
    ),
    "spfem prepare mead /data/MEAD --out shards/mead --size 256 --fps 30": f"{COMMANDS}::test_a_corpus_is_prepared",
    "spfem prepare ravdess /data/RAVDESS --out shards/ravdess --size 256 --fps 30": f"{COMMANDS}::test_a_corpus_is_prepared",
    "spfem prepare cremad /data/CREMA-D --out shards/cremad --size 256 --fps 30": f"{COMMANDS}::test_a_corpus_is_prepared",
    "spfem prepare folder recordings --out shards/mine --size 256 --fps 30": (
        "tests/prepare/test_prepare_folder.py::test_a_folder_of_speakers_is_read_by_its_names"
    ),
    "spfem prepare folder recordings.csv --out shards/mine --size 256 --fps 30": (
        "tests/prepare/test_prepare_folder.py::test_a_table_becomes_shards_with_a_split_that_trains"
    ),
    **dict.fromkeys(commands_in(recordings_block()), RECORDINGS),
    "spfem data show shards/mead": "tests/test_data_show.py::test_tables_say_what_is_there_in_80_columns",
    "spfem data show shards/mead --sheet sheet.jpg": (
        "tests/test_data_show.py::test_the_contact_sheet_shows_each_speaker_in_each_emotion"
    ),
    "spfem data show shards/mead --sample M003_001/happy-3-1 --out clip.mp4": (
        "tests/test_data_show.py::test_a_sample_is_played_out_to_a_film_with_sound"
    ),
    "spfem evaluate priors runs/cdrl-stage1": f"{STAGE1}::test_the_priors_are_scored_and_reported",
    "spfem edit talk.mp4 --emotion happy": (
        "tests/editing/test_edit_command.py::test_the_shortest_call_needs_no_generator_and_no_place_for_the_result"
    ),
    "spfem edit talk.mp4 --reference angry.mp4 --out edited.mp4 --generator runs/demo-stage2": (
        f"{EDITING}::test_a_clip_takes_on_the_manner_of_a_reference"
    ),
    "spfem edit talk.mp4 --emotion happy --strength 0.7 --out edited.mp4 --preview side.mp4 --generator runs/demo-stage2": (
        f"{EDITING}::test_a_clip_takes_on_an_emotion_and_is_shown_beside_its_source"
    ),
    "spfem edit clips --emotion happy --out edited --ray --generator runs/demo-stage2": (
        f"{EDITING}::test_a_folder_is_edited_in_parallel_and_only_what_is_missing_again"
    ),
    "spfem edit head.mp4 --faces aligned --landmarks head.npy --emotion sad --out sad.mp4 --generator runs/demo-stage2": (
        f"{EDITING}::test_a_face_crop_is_edited_by_its_known_landmarks"
    ),
    'spfem edit talk.mp4 --text "a bitter smile, eyebrows raised"': f"{WORDS}::test_a_clip_is_edited_by_words",
    'spfem edit talk.mp4 --text "a bitter smile" --words words-clip': f"{WORDS}::test_a_map_over_clip_is_trained_and_edits",
    "spfem weights pull all-minilm-l6-v2": f"{WORDS}::test_the_encoders_weights_are_pulled_by_name",
    "spfem evaluate words": f"{WORDS}::test_a_map_is_asked_about_unseen_words_by_one_command",
    "python recipes/words.py --out words": f"{WORDS}::test_the_shipped_map_is_made_again",
    "python recipes/words.py --encoder clip-vit-base-patch32 --out words-clip": (
        f"{WORDS}::test_a_map_over_clip_is_trained_and_edits"
    ),
    "spfem demo": "tests/browser/test_demo_page.py::test_a_dropped_film_is_edited_and_taken",
    "python recipes/heads.py": "tests/e2e/test_heads_recipe.py::test_priors_guide_the_generator_of_heads",
    "python recipes/heads.py --size 64": "tests/e2e/test_heads_recipe.py::test_priors_guide_the_generator_of_heads",
    "python recipes/heads.py --pretraining-only --size 64 --identities 24 --sentences 3 --steps 800 --local": (
        "tests/e2e/test_heads_recipe.py::test_the_packages_weights_are_made_by_one_command"
    ),
    "python recipes/cdrl_stage2.py --pretrained shipped --data.shards shards/mine --data.split shards/mine/split.json --ned.steps 100 --ned.pairs 20 --name mine": (
        "tests/generators/test_fine_tuning.py::test_the_packages_generator_learns_on_from_recordings"
    ),
    "spfem prepare folder recordings --out shards/mine --size 64": (
        "tests/prepare/test_prepare_folder.py::test_a_folder_of_speakers_is_read_by_its_names"
    ),
    "spfem edit talk.mp4 --emotion happy --generator runs/mine": (
        f"{EDITING}::test_a_clip_takes_on_an_emotion_and_is_shown_beside_its_source"
    ),
    "python recipes/metric_nets.py": "tests/evaluation/test_judges.py::test_two_ray_workers_repeat_the_losses_of_one_process",
    "spfem evaluate generator runs/demo-stage2 --judges runs/judges": (
        "tests/evaluation/test_generator_commands.py::test_two_generators_are_scored_and_compared"
    ),
    "spfem evaluate real films --generator runs/demo-stage2 --out scored": (
        "tests/evaluation/test_real.py::test_a_film_is_edited_scored_and_shown_by_one_command"
    ),
    "spfem evaluate units shards/heads": (
        "tests/evaluation/test_evaluate_units.py::test_units_of_shards_are_held_against_the_truth_by_one_command"
    ),
    "spfem evaluate units films": "tests/evaluation/test_evaluate_units.py::test_films_are_fitted_by_one_command",
    "spfem evaluate judges recordings": "tests/evaluation/test_real.py::test_recordings_are_judged_by_one_command",
    "spfem weights pull fer": "tests/evaluation/test_real.py::test_the_judges_weights_are_pulled_by_name",
    "spfem weights pull face-api": "tests/evaluation/test_real.py::test_the_judges_weights_are_pulled_by_name",
    "spfem evaluate compare runs/demo-stage2 runs/other": (
        "tests/evaluation/test_generator_commands.py::test_two_generators_are_scored_and_compared"
    ),
    "python recipes/cdrl_stage1.py --preset paper --cerl.feature-cache features": (
        "tests/priors/test_features.py::test_kept_features_of_plain_frames_give_the_losses_of_the_frames"
    ),
    "python recipes/cdrl_stage2.py --priors runs/cdrl-stage1": (
        f"{CLUSTER}::test_stage_two_repeats_the_losses_of_one_process_and_no_secret_is_left"
    ),
    "python recipes/cdrl_stage2.py --priors runs/cdrl-stage1 --dry-run": (
        f"{STAGE2}::test_the_dry_run_says_what_would_happen"
    ),
    "python recipes/cdrl_stage2.py --priors runs/cdrl-stage1 --profile.steps 20 22": (
        f"{STAGE2}::test_a_profile_names_what_every_network_of_a_step_does"
    ),
    "python recipes/cdrl_stage2.py --priors runs/cdrl-stage1 --local": (
        f"{STAGE2}::test_a_killed_run_started_again_repeats_the_losses_exactly"
    ),
    "torchrun --nproc-per-node 2 recipes/cdrl_stage2.py --priors runs/cdrl-stage1": (
        f"{STAGE2}::test_two_workers_repeat_the_losses_of_one_process"
    ),
    "python recipes/icface_stage2.py --priors runs/cdrl-stage1": (
        f"{ROOMS}::test_two_workers_repeat_the_losses_of_one_process"
    ),
    "python recipes/icface_stage2.py --priors runs/cdrl-stage1 --dry-run": (
        f"{ROOMS}::test_its_dry_run_says_what_would_happen"
    ),
    "python recipes/icface_stage2.py --priors runs/cdrl-stage1 --local": (
        f"{ROOMS}::test_a_killed_run_started_again_repeats_the_losses_exactly"
    ),
    "python recipes/cdrl_stage2.py --priors runs/heads-stage1 --data.shards shards/heads --data.split heads --pretraining.coefficients units --ned.coefficients units": (
        "tests/generators/test_unit_model.py::test_a_generator_learns_on_units_and_is_exported"
    ),
    "python recipes/icface_stage2.py --priors runs/heads-stage1 --data.shards shards/heads --data.split heads --pretraining.units head --icface.units head": (
        "tests/generators/test_unit_model.py::test_a_generator_learns_on_units_and_is_exported"
    ),
    "python recipes/compose.py": f"{COMPOSE}::test_two_workers_repeat_the_losses_of_one_process",
    "python recipes/compose.py --dry-run": f"{COMPOSE}::test_its_dry_run_says_what_would_happen",
    "python recipes/compose.py --local": f"{COMPOSE}::test_a_killed_run_started_again_repeats_the_losses_exactly",
    "spfem evaluate compositor runs/compose --judges runs/judges": (
        "tests/evaluation/test_composition.py::test_a_compositor_is_scored_beside_what_learns_nothing"
    ),
    "spfem edit talk.mp4 --emotion happy --compose runs/compose": (
        f"{COMPOSE}::test_an_edited_head_is_put_back_into_a_film"
    ),
    "python recipes/sserd_stage1.py": "tests/generators/test_sserd.py::test_both_stages_train_one_after_the_other",
    "python recipes/sserd_pairs.py --run runs/sserd-stage1 --judges runs/judges": (
        "tests/evaluation/test_pairs.py::test_the_recipe_scores_a_finished_stage_one"
    ),
    "python recipes/sserd_stage2.py --priors runs/cdrl-stage1 --pretrained runs/sserd-stage1": (
        "tests/generators/test_sserd.py::test_both_stages_train_one_after_the_other"
    ),
    "python recipes/sserd_stage2.py --priors runs/cdrl-stage1": (
        f"{ROOMS}::test_two_workers_repeat_the_losses_of_one_process"
    ),
    "python recipes/sserd_stage2.py --priors runs/cdrl-stage1 --dry-run": (
        f"{ROOMS}::test_its_dry_run_says_what_would_happen"
    ),
    "python recipes/sserd_stage2.py --priors runs/cdrl-stage1 --local": (
        f"{ROOMS}::test_a_killed_run_started_again_repeats_the_losses_exactly"
    ),
    "python recipes/leaderboard.py": (
        "tests/evaluation/test_leaderboard.py::test_the_recipe_goes_from_shards_to_the_page_and_does_nothing_twice"
    ),
    "python recipes/sweep.py cdrl_stage1 --cerl.enabled False --metric val/ccrl/contrast --space ccrl.optimizer.lr=loguniform:1e-4,1e-2 --local": (
        "tests/sweep/test_stage1_sweep.py::test_the_content_priors_rate_is_searched_on_synthetic_shards"
    ),
    "spfem export runs/cdrl-stage2 --out model": f"{EXPORT}::test_a_finished_run_is_exported_with_its_card",
    "spfem export runs/cdrl-stage2 --out model --checkpoint latest": (
        f"{EXPORT}::test_an_unfinished_run_is_exported_from_its_checkpoints"
    ),
    "spfem export runs/cdrl-stage1 --out priors": f"{EXPORT}::test_a_stage_one_run_gives_a_folder_for_each_prior",
    "spfem export runs/cdrl-stage2 --out s3://bucket/model": f"{EXPORT}::test_a_run_in_a_bucket_is_exported",
    **dict.fromkeys(
        ("python benchmarks/trunks.py", "python benchmarks/step.py", "python benchmarks/stage2_step.py"),
        "tests/test_benchmarks.py::test_a_benchmark_finds_all_that_it_imports",
    ),
    "python benchmarks/index.py": (
        "tests/test_benchmarks.py::test_a_table_of_shards_is_opened_faster_than_a_list_of_fewer"
    ),
    "spfem doctor recipes/cdrl_stage1.py": (
        "tests/doctor/test_doctor.py::test_the_doctor_looks_at_this_machine_through_a_recipes_flags"
    ),
    "spfem plan recipes/cdrl_stage1.py --measure --save constants.json --workers 1 2 8 64": (
        f"{PLAN}::test_a_machine_is_measured_alone_side_by_side_and_together"
    ),
    "spfem plan recipes/cdrl_stage1.py --constants constants.json --workers 64 1024 --per-worker 8": (
        f"{PLAN}::test_a_plan_from_a_file_keeps_each_workers_share"
    ),
    "spfem plan recipes/cdrl_stage1.py --assume h100 --workers 8 64 --per-worker 8": (
        f"{PLAN}::test_assumptions_are_called_so_and_a_missing_constant_is_named"
    ),
    "spfem plan recipes/cdrl_stage1.py --assume h100 --workers 64 1024 --per-worker 8 --simulate --graphs scale.svg": (
        f"{PLAN}::test_the_largest_size_is_simulated_and_what_breaks_first_is_said"
    ),
    "spfem weights list": f"{COMMANDS}::test_weights_are_listed_and_checked",
    "spfem weights check": f"{COMMANDS}::test_weights_are_listed_and_checked",
    "spfem weights pull face-mesh": f"{COMMANDS}::test_the_face_mesh_is_pulled",
    "python recipes/cdrl_stage1.py": f"{STAGE1}::test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder",
    "spfem evaluate priors runs/asccl-stage1": (
        "tests/e2e/test_asccl_recipe.py::test_the_trained_metric_is_scored_with_intervals"
    ),
    "spfem evaluate priors runs/pcmecl-stage1": (
        "tests/e2e/test_pcmecl_recipe.py::test_the_trained_prior_is_scored_with_intervals"
    ),
    "python recipes/pcmecl_stage1.py --data.shards shards/synthetic-style": (
        "tests/e2e/test_pcmecl_recipe.py::test_two_workers_at_zero_three_repeat_the_losses_of_one_process"
    ),
    "python recipes/asccl_stage1.py": "tests/e2e/test_asccl_recipe.py::test_two_workers_repeat_the_losses_of_one_process",
    "python recipes/family_stage1.py --local": (
        "tests/e2e/test_family_recipe.py::test_two_workers_repeat_the_losses_of_one_process"
    ),
    "spfem evaluate priors runs/family-stage1": (
        "tests/e2e/test_family_recipe.py::test_the_trained_metrics_are_scored_with_intervals"
    ),
    "python recipes/cdrl_stage1.py --local": f"{STAGE1}::test_both_priors_train_and_leave_what_stage_two_needs",
    "python recipes/cdrl_stage1.py --dry-run": f"{STAGE1}::test_the_dry_run_says_what_would_happen_and_trains_nothing",
    "torchrun --nproc-per-node 2 recipes/cdrl_stage1.py": (
        f"{STAGE1}::test_torchrun_repeats_the_local_losses_at_zero_three"
    ),
    "accelerate launch --multi_gpu --num_processes 2 recipes/cdrl_stage1.py": (
        f"{COMMANDS}::test_accelerate_starts_the_recipe"
    ),
    "export SPFEM_HOME=$PWD RAY_AUTH_MODE=token": (
        f"{STAGE1}::test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder"
    ),
    "ray get-auth-token --generate > /dev/null": (
        f"{STAGE1}::test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder"
    ),
    "ray start --head": f"{STAGE1}::test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder",
    "ray job submit --working-dir . -- python recipes/cdrl_stage1.py": (
        f"{STAGE1}::test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder"
    ),
    "ray stop": f"{COMMANDS}::test_ray_stop_is_a_command",
    "python recipes/cdrl_stage1.py --tracking.uri http://mlflow.example:5000": (
        f"{COMMANDS}::test_the_mlflow_ui_shows_runs_and_serves_as_a_tracking_server"
    ),
    "python recipes/cdrl_stage1.py --tracking.uri ''": (
        f"{STAGE1}::test_a_job_submitted_to_a_cluster_trains_from_the_uploaded_folder"
    ),
    "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db": (
        f"{COMMANDS}::test_the_mlflow_ui_shows_runs_and_serves_as_a_tracking_server"
    ),
}

#: Flags of the programs that are not ours.
FOREIGN = {
    "--tyro-print-completion",
    "--head",
    "--working-dir",
    "--nproc-per-node",
    "--multi_gpu",
    "--num_processes",
    "--backend-store-uri",
    "--set",
    "--generate",
    "--allowed-hosts",
    "--batch",
    "--signal",
    "--attempts",
    "--version",
}
