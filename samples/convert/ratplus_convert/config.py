"""Reads config.json of a model folder: our own keys, and those of Hugging Face's configurations
beside them, as samples/common/config.c does. What would change the numbers and does not fit
into a GGUF is refused, never passed over."""
import os
from typing import NamedTuple

from .inputs import MAX_CONFIG, Fields, parse_json, read_file, shown

OWN = ("architecture", "block", "context", "d_model", "feed_forward", "head_size", "heads",
       "kv_heads", "layers", "memory", "norm_eps", "rope", "tie_embedding", "tokenizer", "vocabulary")
HARMLESS = ("architectures", "attention_dropout", "auto_map", "bos_token_id", "dtype",
            "eos_token_id", "initializer_range", "max_position_embeddings", "max_window_layers",
            "model_type", "pad_token_id", "torch_dtype", "transformers_version", "use_cache")
SAME = {"hidden_size": "d_model", "num_hidden_layers": "layers", "num_attention_heads": "heads",
        "num_key_value_heads": "kv_heads", "head_dim": "head_size", "intermediate_size": "feed_forward",
        "vocab_size": "vocabulary", "rms_norm_eps": "norm_eps", "rope_theta": "rope.theta",
        "tie_word_embeddings": "tie_embedding"}
# The values, besides null, that change nothing.
FIXED = {"alibi": (False,), "attention_bias": (False,), "attention_multiplier": (),
         "attn_logit_softcapping": (), "clip_qkv": (), "embedding_multiplier": (1,),
         "final_logit_softcapping": (), "hidden_act": ("silu", "swish"),
         "hidden_activation": ("silu", "swish"), "logits_scaling": (1,), "mlp_bias": (False,),
         "no_rope_layers": (), "partial_rotary_factor": (1,), "pretraining_tp": (1,),
         "qk_layernorm": (False,), "qk_norm": (False,), "qkv_bias": (False,),
         "quantization_config": (), "query_pre_attn_scalar": (), "residual_multiplier": (1,),
         "rope_parameters": (), "rope_scaling": (), "use_parallel_residual": (False,),
         "use_qk_norm": (False,), "use_sliding_window": (False,)}
WINDOWS = ("sliding_window", "layer_types")


class Config(NamedTuple):
    layers: int
    d_model: int
    heads: int
    head_size: int
    feed_forward: int
    vocabulary: int
    context: int
    norm_eps: float
    style: str
    theta: float
    tie_embedding: bool


def check_foreign(fields, config):
    for name, own in SAME.items():
        field = {"kv_heads": "heads", "rope.theta": "theta"}.get(own, own)
        value, wanted = fields.find(name), getattr(config, field)
        if value is not None and (value != wanted or isinstance(value, bool) != isinstance(wanted, bool)):
            fields.refuse(name, f'but "{own}" is {shown(wanted)}; they must agree')
    for name, values in FIXED.items():
        value = fields.find(name)
        if value is not None and not any(value == v and isinstance(value, bool) == isinstance(v, bool)
                                         for v in values):
            fields.refuse(name, "a GGUF that is made here cannot carry it")
    if fields.find("sliding_window") is not None and fields.find("use_sliding_window") is not False:
        fields.refuse("sliding_window", "a window is a matter of the policy")
    types = fields.find("layer_types")
    if types is not None and (not isinstance(types, list) or any(t != "full_attention" for t in types)):
        fields.refuse("layer_types", 'it must be a list of "full_attention"')


def read_config(folder, max_head_size, max_theta):
    """The configuration of a model that a packed GGUF can hold."""
    path = os.path.join(folder, "config.json")
    fields = Fields(path, parse_json(path, read_file(path, MAX_CONFIG)))
    fields.choice("architecture", ("ratplus",))
    fields.only(OWN, HARMLESS, SAME, FIXED, WINDOWS)
    fields.choice("block", ("llama",), "; llama.cpp runs its blocks alone (RMSNorm and SwiGLU)")
    if fields.find("memory") is not None and not fields.flag("memory"):
        fields.refuse("memory", "a model without memory has no gates to pack")
    fields.choice("tokenizer", ("bytes",), "; a GGUF is made of models of bytes alone so far")
    rope = fields.fields("rope", 'an object with "style" and "theta"')
    rope.only(("style", "theta"))
    config = Config(
        layers=fields.whole("layers", 1, 4096), d_model=fields.whole("d_model", 1, 65536),
        heads=fields.whole("heads", 1, 1024),
        head_size=fields.whole("head_size", 8, max_head_size),
        feed_forward=fields.whole("feed_forward", 1, 1 << 20),
        vocabulary=fields.whole("vocabulary", 256, 256), context=fields.whole("context", 1, 1 << 24),
        norm_eps=fields.number("norm_eps", 1e-30, 1),
        style=rope.choice("style", ("half", "interleaved"), "; llama.cpp's Llama always turns"),
        theta=rope.number("theta", 1, max_theta), tie_embedding=fields.flag("tie_embedding"))
    if fields.whole("kv_heads", 1, 1024) != config.heads:
        fields.refuse("kv_heads", f'it must be as many as "heads", {config.heads}')
    if config.head_size % 8:
        fields.refuse("head_size", "it must be a multiple of 8")
    if config.heads * config.head_size != config.d_model:
        fields.refuse("d_model", f"it must be that of {config.heads} heads of {config.head_size}")
    check_foreign(fields, config)
    return config
