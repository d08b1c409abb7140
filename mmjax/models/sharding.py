"""Default placement of parameters on the mesh."""

# Ordered (regular expression on the parameter path, axes of the trailing dimensions). The first match decides.
# Axes align with the trailing dimensions, because a scan over layers adds a leading layer axis. Attention heads and the
# MLP's hidden dimension are split over "model" (Shoeybi et al. 2019), the other matrix dimension over "fsdp".
SHARDING_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r"attention/(query|key|value)/kernel$", ("fsdp", "model")),
  (r"attention/(query|key|value)/bias$", ("model",)),
  (r"attention/out/kernel$", ("model", "fsdp")),
  (r"mlp/(up|gate)/kernel$", ("fsdp", "model")),
  (r"mlp/(up|gate)/bias$", ("model",)),
  (r"mlp/down/kernel$", ("model", "fsdp")),
  (r"attention_pool/(query|key|value)/kernel$", ("fsdp", "model")),
  (r"attention_pool/out/kernel$", ("model", "fsdp")),
  (r"depthwise/(conv/)?kernel$", ()),
  (
    r"(conv|conv_\w+|projection|word_scores|image_projection|text_projection|projection/(up|down)|tanh_pool/dense)/kernel$",
    ("fsdp", None),
  ),
  (r"(^|/)(token|output|code)_embedding$", (None, "fsdp")),
  (r"/offset_bias_\d+/(up|down)/kernel$", ()),
  (r"(^|/)pool/(key|value|out)/kernel$", ("fsdp", None)),
  (r"/patch_bias(_\d+)?/table$", ()),
  (
    r"(bias|scale|mean|var|class_token|class_position|register_tokens|register_position|position_embedding|"
    r"fixed_positions|padding_position|padding_embedding|row_embedding|column_embedding|relative_bias/table|"
    r"token_type_embedding|mode_embedding|probe|mask_token|segment_embedding|query_tokens|query_position|"
    r"latent_embedding|time_embedding|attention_gate|mlp_gate)$",
    (),
  ),
  (r"/bottleneck_tokens$", ()),
  (r"/layer_\d+_(reader|read)$", ()),
  (r"(^|/)logit_(scale|bias)$", ()),
  (r"/lstm/cell/\w+/kernel$", ("fsdp", None)),
  (r"^balance/", ()),
  (r"^terms/", ()),
  (r"^adapters/", ()),
)
