"""Writes a small model of random weights, for a test that only compares hosts.
Usage: tiny.py FILE.gguf [llama|gemma2]; the second has soft-caps, and a window in
every other layer."""

import sys

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_SIZE, FEED, CONTEXT = 3, 256, 8, 2, 32, 512, 2048

# Three control tokens, then each byte: what a SentencePiece vocabulary falls back to.
TOKENS = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]


def write(path, architecture="llama"):
    # A seed with which the two best tokens of the test's greedy text are never near
    # each other: they are 0.06 apart at the least, and what rounding moves is 0.015.
    random = np.random.default_rng(8)

    def matrix(rows, columns, size):
        return (random.standard_normal((rows, columns)) * size).astype(np.float32)

    gemma = architecture == "gemma2"
    w = gguf.GGUFWriter(path, architecture)
    w.add_name("tiny")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FEED)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_rope_dimension_count(HEAD_SIZE)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(TOKENS))
    w.add_tokenizer_model("llama")
    w.add_token_list(TOKENS)
    w.add_token_scores([0.0] * len(TOKENS))
    w.add_token_types([2, 3, 3] + [6] * 256)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)
    if gemma:
        w.add_key_length(HEAD_SIZE)
        w.add_value_length(HEAD_SIZE)
        w.add_attn_logit_softcapping(5.0)
        w.add_final_logit_softcapping(30.0)
        w.add_sliding_window(24)

    ones = np.ones(WIDTH, dtype=np.float32)
    # Gemma multiplies its embedding by the root of WIDTH, and has no other output.
    w.add_tensor("token_embd.weight", matrix(len(TOKENS), WIDTH, 0.1 if gemma else 1.0))
    w.add_tensor("output_norm.weight", ones)
    if not gemma:
        # Whatever is not ASCII is never the best: hosts hold back half of a character.
        output = matrix(len(TOKENS), WIDTH, 0.1)
        output[:3] = output[3 + 128:] = 0
        w.add_tensor("output.weight", output)
    # Weights of q and k above the usual, so that attention is far from even.
    for i in range(LAYERS):
        block = f"blk.{i}."
        w.add_tensor(block + "attn_norm.weight", ones)
        w.add_tensor(block + "attn_q.weight", matrix(HEADS * HEAD_SIZE, WIDTH, 0.10))
        w.add_tensor(block + "attn_k.weight", matrix(KV_HEADS * HEAD_SIZE, WIDTH, 0.10))
        w.add_tensor(block + "attn_v.weight", matrix(KV_HEADS * HEAD_SIZE, WIDTH, 0.12))
        w.add_tensor(block + "attn_output.weight", matrix(WIDTH, HEADS * HEAD_SIZE, 0.12))
        w.add_tensor(block + "ffn_norm.weight", ones)
        if gemma:
            w.add_tensor(block + "post_attention_norm.weight", ones)
            w.add_tensor(block + "post_ffw_norm.weight", ones)
        w.add_tensor(block + "ffn_gate.weight", matrix(FEED, WIDTH, 0.06))
        w.add_tensor(block + "ffn_up.weight", matrix(FEED, WIDTH, 0.06))
        w.add_tensor(block + "ffn_down.weight", matrix(WIDTH, FEED, 0.06))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


write(*sys.argv[1:])
