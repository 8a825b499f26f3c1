"""Writes a small Llama model of random weights, for a test that only compares
hosts. Usage: tiny.py FILE.gguf"""

import sys

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_SIZE, FEED, CONTEXT = 3, 256, 8, 2, 32, 512, 2048

# Three control tokens, then each byte: what a SentencePiece vocabulary falls back to.
TOKENS = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]


def write(path):
    random = np.random.default_rng(7)

    def matrix(rows, columns, size):
        return (random.standard_normal((rows, columns)) * size).astype(np.float32)

    w = gguf.GGUFWriter(path, "llama")
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

    ones = np.ones(WIDTH, dtype=np.float32)
    w.add_tensor("token_embd.weight", matrix(len(TOKENS), WIDTH, 1.0))
    w.add_tensor("output_norm.weight", ones)
    w.add_tensor("output.weight", matrix(len(TOKENS), WIDTH, 0.5))
    # Weights of q and k above the usual, so that attention is far from even.
    for i in range(LAYERS):
        block = f"blk.{i}."
        w.add_tensor(block + "attn_norm.weight", ones)
        w.add_tensor(block + "attn_q.weight", matrix(HEADS * HEAD_SIZE, WIDTH, 0.12))
        w.add_tensor(block + "attn_k.weight", matrix(KV_HEADS * HEAD_SIZE, WIDTH, 0.12))
        w.add_tensor(block + "attn_v.weight", matrix(KV_HEADS * HEAD_SIZE, WIDTH, 0.12))
        w.add_tensor(block + "attn_output.weight", matrix(WIDTH, HEADS * HEAD_SIZE, 0.12))
        w.add_tensor(block + "ffn_norm.weight", ones)
        w.add_tensor(block + "ffn_gate.weight", matrix(FEED, WIDTH, 0.06))
        w.add_tensor(block + "ffn_up.weight", matrix(FEED, WIDTH, 0.06))
        w.add_tensor(block + "ffn_down.weight", matrix(WIDTH, FEED, 0.06))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


write(sys.argv[1])
