"""The tests that `pytest -m fast` runs: a useful answer in under 90 seconds in one process, something of every part.

Modules, or single tests. What compiles a lot, trains, or starts processes is left to the whole run.
"""

FAST = """
data/test_columns data/test_corruption data/test_emoji data/test_evaluation_batches data/test_feed
data/test_folder_source data/test_images data/test_order data/test_recaption data/test_splits data/test_texts
data/test_tokenizer data/test_transforms
encoders/test_sizes
evaluate/test_answers evaluate/test_captions evaluate/test_matching evaluate/test_metrics evaluate/test_report
evaluate/test_suite evaluate/test_zero_shot
fusion/test_reference
golden/test_batches golden/test_configs
interop/test_bad_input
models/test_counting
nn/test_attention nn/test_channel_norm nn/test_dense nn/test_mlp nn/test_norm nn/test_stochastic
objectives/test_balance objectives/test_matching objectives/test_momentum objectives/test_terms objectives/test_variants
parallel/test_distributed parallel/test_mesh parallel/test_rules
plan/test_cache plan/test_derive plan/test_hlo plan/test_hlo_bytes plan/test_schedules plan/test_search
plan/test_topologies
scripts/test_environment scripts/test_launch scripts/test_packaging scripts/test_supply_chain
train/test_metrics train/test_optimizer train/test_schedule train/test_watch
train/test_step::test_the_first_loss_is_the_dense_one
test_commands test_imports test_kinds test_no_pickle
""".split()
