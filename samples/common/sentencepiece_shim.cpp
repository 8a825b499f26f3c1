#include "sentencepiece_shim.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

using processor = sentencepiece::SentencePieceProcessor;

extern "C" bool pieces_open(const char *path, const char *data, size_t size, void **out,
                            struct problem *problem) try {
    auto made = std::make_unique<processor>();
    const auto status = made->LoadFromSerializedProto(std::string(data, size));
    if (!status.ok())
        return problem_set(problem, "%s: %s", path, status.ToString().c_str());
    *out = made.release();
    return true;
} catch (const std::exception &e) {
    return problem_set(problem, "%s: %s", path, e.what());
}

extern "C" void pieces_close(void *pieces)
{
    delete static_cast<processor *>(pieces);
}

extern "C" uint32_t pieces_count(const void *pieces)
{
    return static_cast<uint32_t>(static_cast<const processor *>(pieces)->GetPieceSize());
}

extern "C" int32_t pieces_begin(const void *pieces)
{
    return static_cast<const processor *>(pieces)->bos_id();
}

extern "C" int32_t pieces_end(const void *pieces)
{
    return static_cast<const processor *>(pieces)->eos_id();
}

extern "C" bool pieces_encode(const void *pieces, const char *text, size_t size, int32_t **tokens,
                              uint32_t *count, struct problem *problem) try {
    const auto *p = static_cast<const processor *>(pieces);
    std::vector<int> ids;
    const auto status = p->Encode(std::string(text, size), &ids);
    if (!status.ok())
        return problem_set(problem, "the prompt: %s", status.ToString().c_str());
    if (p->bos_id() >= 0)
        ids.insert(ids.begin(), p->bos_id());
    auto *copy = static_cast<int32_t *>(std::malloc((ids.size() + 1) * sizeof(int32_t)));
    if (!copy)
        return problem_set(problem, "out of memory for %zu tokens", ids.size());
    for (size_t i = 0; i < ids.size(); i++)
        copy[i] = ids[i];
    *tokens = copy;
    *count = static_cast<uint32_t>(ids.size());
    return true;
} catch (const std::exception &e) {
    return problem_set(problem, "the prompt: %s", e.what());
}

extern "C" char *pieces_decode(const void *pieces, const int32_t *tokens, uint32_t count,
                               size_t *size) try {
    const auto *p = static_cast<const processor *>(pieces);
    std::vector<int> ids;
    /* A model's vocabulary may be padded past the tokenizer's. */
    for (uint32_t i = 0; i < count; i++)
        ids.push_back(tokens[i] < p->GetPieceSize() ? tokens[i] : p->unk_id());
    std::string text;
    if (!p->Decode(ids, &text).ok())
        text.clear();
    auto *copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (!copy)
        return nullptr;
    std::memcpy(copy, text.c_str(), text.size() + 1);
    *size = text.size();
    return copy;
} catch (const std::exception &) {
    return nullptr;
}
