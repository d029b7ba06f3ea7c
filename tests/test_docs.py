"""The documentation is true: every command is run by a test, and every link, flag and file that a page names exists."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from asccl_stage1 import ASCCLPrior
from cdrl_stage1 import CDRLPriors
from cdrl_stage2 import CDRLGenerator
from compose import Composition
from documented import DOCS, ROOT, blocks, commands_in, documented, recordings_block
from doors import command, well
from family_stage1 import FamilyPriors
from icface_stage2 import ICfaceGenerator
from pcmecl_stage1 import PCMECLPrior
from sserd_stage2 import SSERDGenerator

from spfem_dist import rooms
from spfem_dist.evaluation.judges.settings import JudgesRun
from spfem_dist.prepare.plan import PrepareSettings

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


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_run_by_a_test(line):
    assert line in RUN_BY, (
        f"{documented()[line]} documents {line!r}, which no test runs: add a test and its row in RUN_BY"
    )
    where = RUN_BY[line]
    if where == ".ci/run":
        target = line.removeprefix("make ")
        assert re.search(rf"^make .*\b{target}\b", (ROOT / where).read_text(), re.MULTILINE), f".ci/run: no {line}"
        return
    file, name = where.split("::")
    source = (ROOT / file).read_text()
    tests = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert name in tests, f"{where} does not exist"
    if file == COMMANDS and not line.startswith("make"):
        assert line in source, f"{file} does not name the command {line!r} that it is to run"


def test_every_row_of_the_table_is_still_documented():
    assert sorted(RUN_BY.keys() - documented().keys()) == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [target.split("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if target and not (page.parent / target).exists()] == []


# --- flags --------------------------------------------------------------------------------------------------------


def fields_of(model, prefix="") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            found |= fields_of(field.annotation, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


RUNS = (
    CDRLPriors,
    ASCCLPrior,
    FamilyPriors,
    PCMECLPrior,
    CDRLGenerator,
    ICfaceGenerator,
    SSERDGenerator,
    Composition,
    JudgesRun,
)


def known_flags() -> set[str]:
    """Every flag of the recipes, of `spfem` and of the scripts, spelled with hyphens."""
    names = (
        set().union(*(fields_of(run) for run in RUNS))
        | fields_of(PrepareSettings)
        | {"local", "dry_run", "print_config", "quiet", "preset", "help", "help_all"}
    )
    names |= {f"ned.guidance.{kind}" for kind in rooms.kinds("priors")}
    scripts = [
        ROOT / "spfem_dist" / "cli.py",
        ROOT / "spfem_dist" / "planning" / "commands.py",
        ROOT / "recipes" / "demo.py",
        ROOT / "recipes" / "heads.py",
        ROOT / "recipes" / "sserd_pairs.py",
        ROOT / "spfem_dist" / "sweep" / "command.py",
        ROOT / "recipes" / "words.py",
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    scripts += [ROOT / "recipes" / "leaderboard.py", *(ROOT / "spfem_dist" / "corpora").glob("*/__main__.py")]
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.FunctionDef):
                names |= {argument.arg for argument in node.args.args + node.args.kwonlyargs}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    for script in (*scripts, ROOT / "tests" / "chaos" / "__main__.py"):
        names |= set(re.findall(r'add_argument\(\s*"--([a-z-]+)"', script.read_text()))
    return {f"--{name}".replace("_", "-") for name in names}


def flags_in(text: str) -> set[str]:
    return {flag.rstrip(".") for flag in re.findall(r"(?<![\w-])--[a-z][a-zA-Z0-9_.-]*", text)}


@pytest.mark.parametrize("page", [*DOCS, *sorted((ROOT / "recipes").glob("*.py"))], ids=lambda page: page.name)
def test_flags_that_a_page_names_exist(page):
    text = page.read_text() if page.suffix == ".md" else ast.get_docstring(ast.parse(page.read_text()))
    known = known_flags()
    of_tables = re.compile(r"--ned\.guidance\.\w+")  # a weight by kind; any package of priors is one
    missing = [f for f in flags_in(text) - FOREIGN if f.replace("_", "-") not in known and not of_tables.fullmatch(f)]
    assert missing == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page):
    sections = "|".join(
        name for run in RUNS for name, field in run.model_fields.items() if hasattr(field.annotation, "model_fields")
    )
    named = set(re.findall(rf"`({sections})\.([a-z_.]+)`", page.read_text()))
    known = set().union(*(fields_of(run) for run in RUNS)) | {"data.md"}
    assert [f"{section}.{field}" for section, field in named if f"{section}.{field}" not in known] == []


def inline_commands() -> list[str]:
    """Lines of recipe docstrings, and runs of flags in the README's text, that give a recipe settings; one line for each recipe and flags."""
    found = []
    for script in sorted((ROOT / "recipes").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
        lines = commands_in(docstring)
        found += [
            line for line in lines if re.match(r"(?!make).*\b(python|torchrun|accelerate)\b.* recipes/\w+\.py", line)
        ]
    found += [
        f"python recipes/cdrl_stage1.py {' '.join(code.split())}"
        for page in DOCS
        for code in re.findall(r"`(--[^`]+)`", page.read_text())
        if re.match(r"--(data|scaling|zero|ccrl|cerl)\.\S+\s+\S", code)
    ]
    return list({line[line.index("recipes/") :]: line for line in found}.values())


@pytest.mark.parametrize("line", inline_commands())
def test_a_command_of_a_recipes_docstring_or_of_running_text_is_understood(line):
    words = shlex.split(line)
    place = next(n for n, word in enumerate(words) if word.startswith("recipes/"))
    script, flags = words[place], words[place + 1 :]
    # With --help-all at its end the command line is read, and nothing is done.
    shown = well(
        command(
            "python",
            script,
            *flags,
            "--help"
            if script.endswith(("demo.py", "heads.py", "sserd_pairs.py", "sweep.py", "words.py"))
            else "--help-all",
        )
    )
    assert "usage" in shown.said
    if script.endswith("cdrl_stage1.py"):
        from spfem_dist.training.launch import parse

        parse(lambda: CDRLPriors(), flags)  # an impossible combination ends the process


# --- files --------------------------------------------------------------------------------------------------------


def plain_blocks(page: str, heading: str) -> str:
    text = (ROOT / page).read_text().split(f"## {heading}\n", 1)[1]
    return re.search(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]


def test_the_readmes_tour_names_files_that_exist():
    above = ROOT
    for line in plain_blocks("README.md", "A tour of the files").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            above = ROOT / name
        place = ROOT / name if not line.startswith(" ") else above / name
        assert place.exists(), f"the tour names {place.relative_to(ROOT)}"


def test_the_plan_of_the_architecture_names_files_that_exist():
    above = room = ROOT
    for line in plain_blocks("docs/architecture.md", "The packages").splitlines():
        names = re.findall(r"[\w/*.{},-]+\.(?:py|md|toml|txt|json)\b|\bMakefile\b", line)
        indent, first = len(line) - len(line.lstrip()), line.split()[0]
        if indent == 0 and first.endswith("/"):
            above = room = ROOT / first
        elif indent <= 2:
            room = above / first if first.endswith("/") else above
        assert room.is_dir(), f"the plan names {first}"
        for name in (name for group in names for name in braces(group)):
            assert list(room.rglob(name) if "*" in name else room.glob(name)), (
                f"the plan names {room.relative_to(ROOT) / name}"
            )


def braces(name: str) -> list[str]:
    """`a/{b,c}.py` as a shell expands it."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{found[1]}{choice}{found[3]}" for choice in found[2].split(",")] if found else [name]


def texts() -> list[Path]:
    kinds = ("*.md", "*.py", "*.toml", "*.txt", "*.json", "*.yaml", "*.yml")
    rooms = [ROOT / name for name in ("spfem_dist", "recipes", "benchmarks", "docs", "tests", "cluster", "k8s", ".ci")]
    inside = [path for room in rooms for kind in kinds for path in room.rglob(kind)]
    top = [path for kind in (*kinds, "Makefile", ".rayignore", ".gitignore") for path in ROOT.glob(kind)]
    return [path for path in [*inside, *top, ROOT / ".ci" / "run"] if path.is_file()]


def test_no_text_names_a_path_of_one_machine():
    """A pod's temporary folder is its own, wherever it runs."""
    anywhere, outside_tests = (re.compile(rf"(?<![\w.-])/(?:{names})/\w") for names in ("work|home|root", "tmp"))
    named = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts()
        for line in path.read_text().splitlines()
        if anywhere.search(line)
        or (outside_tests.search(line) and not {ROOT / "tests", ROOT / "k8s"} & set(path.parents))
    ]
    assert named == []


def test_the_audit_names_tests_that_exist():
    rows = re.findall(r"\| `(tests/\S+)::(\w+)` \|$", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for file, name in rows:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def test_no_file_is_long():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "spfem_dist").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > 450} == {}


def test_the_pinned_versions_satisfy_the_project():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(w for extra in project["optional-dependencies"].values() for w in extra)]
    lines = (line.split("#")[0].split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pinned = dict(line.split("==") for line in lines if "==" in line)
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    for requirement in map(Requirement, wanted):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in versions, f"constraints.txt has no pin for {requirement.name}"
        assert requirement.specifier.contains(versions[name]), f"{requirement} is pinned to {versions[name]}"


def test_every_page_with_commands_marks_them_as_such():
    """A command in an unmarked block would be run by no test."""
    starts = ("python ", "spfem ", "make ", "ray ", "torchrun ", "mlflow ", "accelerate ", "pip ")
    for page in DOCS:
        marked = "".join(blocks(page.read_text()))
        unmarked = re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        hidden = [line for block in unmarked for line in block.splitlines() if line.startswith(starts)]
        assert hidden == [], f"{page.name}: {hidden} (beside {len(marked)} characters of bash)"
