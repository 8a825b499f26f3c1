#include "naive.h"

#include <math.h>

static uint32_t value_size_of(const struct naive_layer *layer)
{
    return layer->value_size ? layer->value_size : layer->head_size;
}

bool naive_attends(const struct ratp_variant *variant, uint64_t t, uint64_t j)
{
    if (j > t)
        return false;
    if (!variant || variant->kind == RATP_DENSE)
        return true;
    if (t - j <= variant->window || j < variant->sinks)
        return true;
    return variant->kind == RATP_DILATED && (j + 1) % variant->dilation == 0;
}

/* Radians per position of pair i, and *attention: the factor on the pair. */
static double frequency(const struct ratp_rope *rope, uint32_t size, uint32_t i, double *attention)
{
    double theta = rope->theta > 0 ? rope->theta : 10000;
    double scale = rope->scale > 0 ? rope->scale : 1;
    double base = pow(theta, -2.0 * i / size);
    if (rope->factors)
        base /= (double)rope->factors[i];
    *attention = 1;
    if (!(rope->yarn_factor > 0))
        return base / scale;

    /* YaRN: fast pairs keep their angle, slow ones are stretched, and a ramp
     * over the pairs lies between. */
    double pi = acos(-1), context = rope->yarn_context;
    double fast = rope->yarn_beta_fast > 0 ? rope->yarn_beta_fast : 32;
    double slow = rope->yarn_beta_slow > 0 ? rope->yarn_beta_slow : 1;
    double low = floor(size * log(context / (fast * 2 * pi)) / (2 * log(theta)));
    double high = ceil(size * log(context / (slow * 2 * pi)) / (2 * log(theta)));
    low = fmax(low, 0);
    high = fmin(high, size - 1.0);
    double ramp = (i - low) / fmax(high - low, 0.001);
    ramp = fmin(fmax(ramp, 0), 1);
    *attention = rope->yarn_attention > 0 ? rope->yarn_attention : 0.1 * log(rope->yarn_factor) + 1;
    return base / scale * (1 - ramp) + base / (scale * rope->yarn_factor) * ramp;
}

void naive_rotate(const struct naive_layer *layer, uint64_t position, double *row)
{
    const struct ratp_rope *rope = layer->rope;
    if (!rope || rope->style == RATP_ROPE_NONE)
        return;
    uint32_t size = rope->size ? rope->size : layer->head_size;
    for (uint32_t i = 0; i < size / 2; i++) {
        uint32_t first = rope->style == RATP_ROPE_HALF ? i : 2 * i;
        uint32_t second = rope->style == RATP_ROPE_HALF ? i + size / 2 : 2 * i + 1;
        double attention;
        double angle = frequency(rope, size, i, &attention) * (double)position;
        double x = row[first], y = row[second];
        row[first] = attention * (x * cos(angle) - y * sin(angle));
        row[second] = attention * (x * sin(angle) + y * cos(angle));
    }
}

void naive_memory(const struct naive_layer *layer, uint32_t tokens, const float *k, const float *v,
                  const float *f, double *state, double *memory_k, double *memory_v)
{
    uint32_t d = layer->head_size, dv = value_size_of(layer), heads = layer->kv_heads;
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t c = 0; c < d + dv; c++) {
            bool is_k = c < d;
            uint32_t channel = is_k ? c : c - d, channels = is_k ? d : dv;
            double *last = state ? &state[h * (d + dv) + c] : NULL;
            double value = last && f ? *last : 0;
            for (uint32_t t = 0; t < tokens; t++) {
                size_t at = ((size_t)t * heads + h) * channels + channel;
                double fresh = (double)(is_k ? k : v)[at];
                if (f) {
                    double g = 1 / (1 + exp(-(double)f[at]));
                    value = g * value + (1 - g) * fresh;
                } else {
                    value = fresh;
                }
                (is_k ? memory_k : memory_v)[at] = value;
            }
            if (last && f)
                *last = value;
        }
}

double naive_logit(const struct naive_layer *layer, const double *q, const double *k)
{
    double logit = 0;
    for (uint32_t c = 0; c < layer->head_size; c++)
        logit += q[c] * k[c];
    logit *= layer->scale != 0 ? layer->scale : 1 / sqrt(layer->head_size);
    if (!isfinite((float)logit))
        return NAN;
    return layer->softcap > 0 ? layer->softcap * tanh(logit / layer->softcap) : logit;
}

static void attend_row(const struct naive_layer *layer, const struct naive_span *span,
                       const struct ratp_variant *variant, uint32_t query, uint32_t head,
                       const double *q, const double *k, const double *v, double *out, double *lse,
                       uint32_t *attended)
{
    uint32_t d = layer->head_size, dv = value_size_of(layer), heads = layer->kv_heads;
    uint32_t kv_head = head / (layer->query_heads / heads);
    double sink = layer->sinks ? (double)layer->sinks[head] : -INFINITY;
    double maximum = sink, total = sink == -INFINITY ? 0 : isfinite(sink) ? 1 : NAN;
    size_t first_pair = ((size_t)query * layer->query_heads + head) * span->keys;
    const double *mask = span->mask ? span->mask + first_pair : NULL;
    const unsigned char *set = span->set ? span->set + first_pair : NULL;
    for (uint32_t c = 0; c < dv; c++)
        out[c] = 0;
    *attended = 0;
    for (uint32_t j = 0; j < span->keys; j++) {
        if (set ? !set[j]
                : span->causal && !naive_attends(variant, (uint64_t)span->first + query, j))
            continue;
        if (mask && mask[j] == -INFINITY)
            continue;
        double logit = naive_logit(layer, q, k + ((size_t)j * heads + kv_head) * d);
        if (mask)
            logit += mask[j];
        if (!isfinite((float)logit))
            logit = NAN;
        ++*attended;
        double raised = fmax(maximum, logit), shrink = exp(maximum - raised);
        double weight = exp(logit - raised);
        maximum = raised;
        total = total * shrink + weight;
        for (uint32_t c = 0; c < dv; c++)
            out[c] = out[c] * shrink + weight * v[((size_t)j * heads + kv_head) * dv + c];
    }
    for (uint32_t c = 0; c < dv && total != 0; c++)
        out[c] = isfinite(out[c] / total) ? out[c] / total : NAN;
    *lse = total != 0 ? maximum + log(total) : -INFINITY;
}

void naive_attend(const struct naive_layer *layer, const struct naive_span *span,
                  const struct ratp_variant *variants, uint32_t variant_count, const float *q,
                  const double *k, const double *v, const float *o, double *out, double *lse,
                  uint32_t *attended)
{
    double turned[256];
    uint32_t dv = value_size_of(layer);
    for (uint32_t query = 0; query < span->queries; query++)
        for (uint32_t head = 0; head < layer->query_heads; head++) {
            size_t row = (size_t)query * layer->query_heads + head;
            uint32_t kv_head = head / (layer->query_heads / layer->kv_heads);
            for (uint32_t c = 0; c < layer->head_size; c++)
                turned[c] = (double)q[row * layer->head_size + c];
            naive_rotate(layer, (uint64_t)span->first + query, turned);
            double row_lse;
            uint32_t row_attended;
            attend_row(layer, span, variant_count ? &variants[kv_head % variant_count] : NULL,
                       query, head, turned, k, v, out + row * dv, &row_lse, &row_attended);
            for (uint32_t c = 0; c < dv && o; c++)
                out[row * dv + c] /= 1 + exp(-(double)o[row * dv + c]);
            if (lse)
                lse[row] = row_lse;
            if (attended)
                attended[row] = row_attended;
        }
}
