"""Fields of the files beside the weights that have no effect in mmjax, each with the reason.

A field of a configuration file is honoured (a reader reads it and refuses values that mmjax does not support), has no
effect (it is listed here), or is refused by name. `Fields.finish` refuses the fields that are neither read nor listed.
tests/interop/test_without_effect.py compares every entry with the reference library.
"""

from collections.abc import Mapping


def _because(reason: str, names: str) -> dict[str, str]:
  return dict.fromkeys(names.split(), reason)


MODEL: Mapping[str, str] = {
  **_because("set by the library that wrote the file", "transformers_version _name_or_path _commit_hash architectures"),
  **_because("set by the library that wrote the file", "model_type _attn_implementation_autoset"),
  **_because("an implementation with the same results", "_attn_implementation attn_implementation torchscript"),
  **_because("an implementation with the same results", "chunk_size_feed_forward gradient_checkpointing use_cache"),
  **_because("mmjax computes in float32", "dtype torch_dtype use_bfloat16"),
  **_because("used only in training", "attention_dropout dropout attention_probs_dropout_prob hidden_dropout_prob"),
  **_because("used only in training", "initializer_factor initializer_range classifier_dropout label_smoothing"),
  **_because("used only in training", "qa_dropout seq_classif_dropout dropout_rate"),
  **_because("used only in training", "tf_legacy_loss problem_type logit_scale_init_value"),
  **_because("names of classes, used only by a head for one task", "id2label label2id finetuning_task num_labels"),
  **_because("used only by a head for one task", "encoder_stride task_specific_params"),
  **_because("used only with a pooler, and then checked", "pooler_act pooler_output_size"),
  **_because("form of the library's outputs", "return_dict output_attentions output_hidden_states output_past"),
  **_because(
    "the tokenizer's file has it too", "bos_token_id eos_token_id sep_token_id pad_token_id tokenizer_class prefix"
  ),
  **_because("the encoder alone is read", "is_encoder_decoder tie_encoder_decoder cross_attention_hidden_size"),
  **_because("the encoder alone is read", "decoder_start_token_id num_decoder_layers scale_decoder_outputs"),
  **_because(
    "the model has no such part", "is_decoder add_cross_attention tie_word_embeddings position_embedding_type"
  ),
  **_because("the model has no such part", "type_vocab_size"),
  **_because("how the tensors were made; they are read as they are", "sinusoidal_pos_embds tie_weights_"),
  **_because("Siglip2's images have no fixed size", "image_size"),
  **_because("the model's own projection_dim or width decides", "projection_dim encoder_hidden_size"),
  **_because("used only in generation", "max_length min_length do_sample early_stopping num_beams num_beam_groups"),
  **_because("used only in generation", "diversity_penalty temperature top_k top_p typical_p repetition_penalty"),
  **_because(
    "used only in generation", "length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids"
  ),
  **_because("used only in generation", "num_return_sequences output_scores return_dict_in_generate"),
  **_because("used only in generation", "forced_bos_token_id forced_eos_token_id remove_invalid_values"),
  **_because("used only in generation", "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens"),
}
"""Fields of config.json, of its text_config and of its vision_config (transformers)."""

PREPROCESSOR: Mapping[str, str] = {
  **_because("names the class of a processor, not of its images", "processor_class"),
  **_because("form of the library's inputs and outputs", "data_format input_data_format return_tensors device"),
  **_because("form of the library's inputs and outputs", "disable_grouping model_input_names image_seq_length"),
  **_because("not read by these classes", "_valid_processor_keys size_divisor use_fast num_channels crop_pct"),
  **_because("set by the library that wrote the file", "transformers_version _commit_hash"),
}
"""Fields of preprocessor_config.json, and of image_processor in processor_config.json (transformers)."""

PROCESSOR: Mapping[str, str] = {
  **_because("names a class; its parts are read", "processor_class"),
  **_because("the tokenizer's own files are read", "tokenizer chat_template"),
  **_because("not used for an image or a text alone", "image_seq_length num_query_tokens image_token"),
}
"""Other fields of processor_config.json (transformers)."""

OPEN_CLIP: Mapping[str, str] = {
  **_because("the model's image size decides", "size"),
}
"""Fields of preprocess_cfg (open_clip)."""

TOKENIZER: Mapping[str, str] = {
  **_because("names a class or a file", "tokenizer_class processor_class name_or_path tokenizer_file vocab_file"),
  **_because("names a class or a file", "merges_file special_tokens_map_file fast_tokenizer_files backend is_local"),
  **_because("names a class or a file", "local_files_only added_tokens_decoder"),
  **_because("used only to make text of ids", "clean_up_tokenization_spaces errors"),
  **_because("form of the library's outputs", "model_input_names pad_token_type_id verbose return_token_type_ids"),
  **_because("used only in chats", "chat_template response_template response_schema chat_control_tokens"),
  **_because(
    "settings of an earlier call; padding and truncation are mmjax's", "max_length stride truncation_strategy"
  ),
  **_because("settings of an earlier call; padding and truncation are mmjax's", "pad_to_multiple_of"),
  **_because("not read by the class", "do_basic_tokenize never_split wordpieces_prefix clean_text add_prefix_space"),
  **_because(
    "not read by the class", "do_lower_case strip_accents tokenize_chinese_chars use_fast from_slow legacy unk_id"
  ),
  **_because("not read by the class", "sp_model_kwargs spaces_between_special_tokens use_default_system_prompt"),
  **_because("the file's last step decides", "add_bos_token add_eos_token"),
  **_because("used only to make places of ids in the text", "trim_offsets"),
  **_because("used only in translation", "tgt_lang"),
  **_because("used only to compare texts", "normalizer_file"),
  **_because("mmjax takes the model's length or the length asked for", "model_max_length max_len"),
}
"""Fields of tokenizer_config.json and special_tokens_map.json (transformers)."""

SENTENCE: Mapping[str, str] = {}
"""Fields of sentence_bert_config.json (sentence-transformers)."""

POOLING: Mapping[str, str] = {
  **_because("used only with a prompt", "include_prompt"),
}
"""Fields of 1_Pooling/config.json (sentence-transformers)."""

OPEN_CLIP_MODEL: Mapping[str, str] = {
  **_because("used only in training", "patch_dropout timm_drop timm_drop_path"),
  **_because("form of the library's outputs", "output_tokens"),
  **_because("used only with attentional_pool", "attn_pooler_queries attn_pooler_heads"),
  **_because("arrangement of the tensors' names", "custom_text"),
  **_because("used only with timm_model_name", "timm_model_pretrained timm_pool timm_proj timm_proj_bias"),
  **_because("used only with hf_model_name", "hf_model_pretrained hf_proj_type hf_pooler_type"),
  **_because("not used by open_clip", "dim_head n_queries"),
  **_because("the first half of the text stack decides", "vocab_size eos_id"),
  **_because("read with the tokenizer", "hf_tokenizer_name tokenizer_mode tokenizer_kwargs"),
  **_because("used only in generation", "pad_id"),
}
"""Fields of model_cfg and of its parts (open_clip)."""

GENERATION: Mapping[str, str] = {
  **_because("set by the library that wrote the file", "transformers_version _from_model_config _commit_hash"),
  **_because("a prompt has its own first token", "bos_token_id decoder_start_token_id"),
  **_because("an implementation with the same results", "use_cache cache_implementation disable_compile"),
  **_because("form of the library's outputs", "output_attentions output_hidden_states output_scores"),
  **_because("form of the library's outputs", "return_dict_in_generate"),
  **_because("used only with beams", "early_stopping length_penalty"),
  **_because("used only by an assistant model", "is_assistant num_assistant_tokens num_assistant_tokens_schedule"),
  **_because("used only by an assistant model", "assistant_confidence_threshold"),
}
"""Fields of generation_config.json (transformers)."""
