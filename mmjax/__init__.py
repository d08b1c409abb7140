"""mmjax: multimodal pretraining in JAX."""
