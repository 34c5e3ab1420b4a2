// The C interface: plain pointers to contiguous float32, row-major.
#include "composite.h"
#include "masks.h"
#include "weights.h"

extern "C" {

// Null if any number is not finite.
Plan* liftgs_plan(long n, const float* means, const float* covars, const float* opacities, const float* viewmat,
                  const float* K, int width, int height, int threads) {
  auto plan = std::make_unique<Plan>();
  Camera& camera = plan->camera;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) camera.R[i][j] = viewmat[4 * i + j];
    camera.t[i] = viewmat[4 * i + 3];
  }
  camera.fx = K[0], camera.fy = K[4], camera.cx = K[2], camera.cy = K[5];
  camera.width = width, camera.height = height;
  plan->n = n;
  plan->tiles_x = (width + TILE - 1) / TILE;
  plan->tiles_y = (height + TILE - 1) / TILE;
  if (!project(camera, n, means, covars, opacities, plan->splats, threads)) return nullptr;
  sort_by_depth(plan->splats);
  bin(*plan);
  return plan.release();
}

void liftgs_free(Plan* plan) { delete plan; }

// How many blocks of 8 weights to make room for.
long liftgs_blocks(const Plan* plan) { return plan->block_start.back(); }

// weights [blocks, 8], alpha [h, w].
void liftgs_weigh(Plan* plan, float* weights, float* alpha, int threads) {
  plan->begin.resize(plan->tiles() * BLOCKS);
  plan->count.resize(plan->tiles() * BLOCKS);
  plan->used.resize(plan->tiles());
  plan->live.resize(plan->entries.size);
  plan->slot.resize(plan->block_start.back());
  parallel_for(threads, plan->tiles(), 1, [&](long tile, long) { weigh_tile(*plan, (int)tile, weights, alpha); });
}

// v_weights as weights, v_alpha [h, w] -> v_means [n, 3], v_covars [n, 3, 3], v_opacities [n], all zero before.
void liftgs_weigh_backward(const Plan* plan, const float* means, const float* covars, const float* weights,
                           const float* v_weights, const float* v_alpha, float* v_means, float* v_covars, float* v_opacities, int threads) {
  Array<SplatGrad> by_entry;
  by_entry.resize(plan->entries.size);
  parallel_for(threads, plan->tiles(), 1, [&](long tile, long) {
    weigh_tile_backward(*plan, (int)tile, weights, v_weights, v_alpha, &by_entry[plan->tile_start[tile]]);
  });
  std::vector<SplatGrad> grads(plan->splats.size(), SplatGrad{});
  for (int tile = 0; tile < plan->tiles(); ++tile)
    for (int i = 0; i < plan->used[tile]; ++i) {
      const SplatGrad& from = by_entry[plan->tile_start[tile] + i];
      SplatGrad& to = grads[plan->live[plan->tile_start[tile] + i]];
      to.x += from.x, to.y += from.y, to.a += from.a, to.b += from.b, to.c += from.c, to.opacity += from.opacity;
    }
  parallel_for(threads, (long)grads.size(), 1024, [&](long begin, long end) {
    for (long i = begin; i < end; ++i) {
      const Splat& s = plan->splats[i];
      long id = s.id;
      project_backward(plan->camera, s, grads[i], means + 3 * id, covars + 9 * id, v_means + 3 * id, v_covars + 9 * id);
      v_opacities[id] = grads[i].opacity;
    }
  });
}

// channels [n, c], rows stride_in apart -> image [h, w, c], pixels stride_out apart (at least c rounded up to 16 and a
// multiple of it). False if a channel of a visible Gaussian is not finite.
bool liftgs_composite(const Plan* plan, const float* weights, const float* in, long stride_in, int channels,
                      float* image, long stride_out, int threads) {
  const bool past_cache = (double)plan->camera.width * plan->camera.height * stride_out * 4 > 16e6;
  return composite(*plan, weights, {in, stride_in}, channels, {image, stride_out}, past_cache, threads);
}

// Floats of scratch that the next function wants.
long liftgs_scratch(const Plan* plan, int channels, bool want_weights, int threads) {
  Shares shares(channels, threads);
  long rows = (long)(shares.strips - 1) * plan->splats.size() * round_up(channels, 16);
  return rows + (want_weights ? (shares.spans - 1) * plan->block_start.back() * PIXELS : 0);
}

// v_image [h, w, c] of any strides between pixels -> v_in [n, c] as `in`, rows stride_in_v apart (a multiple of 16),
// and, unless null, v_weights.
void liftgs_composite_backward(const Plan* plan, const float* weights, const float* in, long stride_in, int channels,
                               const float* v_image, long stride_y, long stride_x, float* v_in, long stride_v_in,
                               float* v_weights, float* scratch, int threads) {
  const Shares shares(channels, threads);
  const long splats = plan->splats.size(), stride = round_up(channels, 16), floats = plan->block_start.back() * PIXELS;
  float* strip_rows = scratch;
  float* span_weights = scratch + (shares.strips - 1) * splats * stride;
  parallel_for(threads, plan->n, 512, [&](long begin, long end) {
    std::memset(v_in + begin * stride_v_in, 0, (end - begin) * stride_v_in * sizeof(float));
  });
  const std::vector<int> edges = strips_of_equal_work(*plan, shares.strips);
  on_threads(shares.spans * shares.strips, [&](int share) {
    const int span = share % shares.spans, strip = share / shares.spans;
    const int c = span * shares.span_channels, n = std::min(shares.span_channels, channels - c);
    float* v_w = !v_weights ? nullptr : span == 0 ? v_weights : span_weights + (span - 1) * floats;
    auto run = [&](auto row_of) {
      composite_backward(*plan, weights, {in + c, stride_in}, v_image + c, stride_y, stride_x, n, edges[strip],
                         edges[strip + 1], row_of, v_w);
    };
    if (strip == 0) {
      run([&](int32_t splat) { return v_in + plan->splats[splat].id * stride_v_in + c; });
    } else {
      float* rows = strip_rows + (strip - 1) * splats * stride;
      for (long i = 0; i < splats; ++i) std::memset(rows + i * stride + c, 0, round_up(n, LANES) * sizeof(float));
      run([&](int32_t splat) { return rows + splat * stride + c; });
    }
  });
  if (shares.strips > 1)
    parallel_for(threads, splats, 256, [&](long begin, long end) {
      for (long i = begin; i < end; ++i)
        for (int strip = 1; strip < shares.strips; ++strip) {
          float* to = v_in + plan->splats[i].id * stride_v_in;
          const float* from = strip_rows + ((strip - 1) * splats + i) * stride;
          for (int c = 0; c < channels; ++c) to[c] += from[c];
        }
    });
  if (v_weights && shares.spans > 1)
    parallel_for(threads, plan->tiles(), 8, [&](long begin, long end) {
      for (long tile = begin; tile < end; ++tile) {
        const int32_t last = (int32_t)tile * BLOCKS + BLOCKS - 1;
        const long from = plan->block_start[tile] * PIXELS;
        const long to = from + (long)(plan->begin[last] + plan->count[last]) * PIXELS;
        for (int span = 1; span < shares.spans; ++span)
          for (long i = from; i < to; ++i) v_weights[i] += span_weights[(span - 1) * floats + i];
      }
    });
}

// logits [pixels, heads * k], rows `stride` apart, truth [k, pixels] -> sums [3, heads * k].
void liftgs_mask_sums(const float* logits, long stride, int heads, int k, const float* truth, long pixels, double* sums,
                      int threads) {
  mask_sums({logits, stride, heads, k, truth, pixels}, sums, threads);
}

// ... and three numbers per column -> slopes [pixels, heads * k].
void liftgs_mask_slopes(const float* logits, long stride, int heads, int k, const float* truth, long pixels,
                        const float* everywhere, const float* inside, const float* share, float* slopes, int threads) {
  mask_slopes({logits, stride, heads, k, truth, pixels}, everywhere, inside, share, slopes, threads);
}
}
