// From splats to compositing weights, and from the weights' gradient back to splats.
#pragma once
#include "projection.h"

// Front to back; equal depths in the order of the input. Depths are positive, so their bits sort as they do.
inline void sort_by_depth(std::vector<Splat>& splats) {
  std::vector<uint64_t> keys(splats.size()), other(splats.size());
  for (size_t i = 0; i < splats.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &splats[i].depth, 4);
    keys[i] = (uint64_t)bits << 32 | i;
  }
  for (int shift = 32; shift < 64; shift += 11) {
    uint32_t start[2049] = {};
    for (uint64_t key : keys) ++start[(key >> shift & 2047) + 1];
    for (int i = 0; i < 2048; ++i) start[i + 1] += start[i];
    for (uint64_t key : keys) other[start[key >> shift & 2047]++] = key;
    keys.swap(other);
  }
  std::vector<Splat> sorted(splats.size());
  for (size_t i = 0; i < keys.size(); ++i) sorted[i] = splats[(uint32_t)keys[i]];
  splats.swap(sorted);
}

struct Range {
  int first, last;  // inclusive; empty if last < first
  // The cells of `size` pixels, within `limit` cells, that hold pixel centres of centre +- reach.
  Range(float centre, float reach, int size, int limit) {
    float low = std::ceil(centre - reach - 0.5f), high = std::floor(centre + reach - 0.5f);
    if (high < low || high < 0) {
      first = 0, last = -1;
      return;
    }
    first = low > 0 ? (int)(std::min(low, 1e6f)) / size : 0;
    last = std::min((int)std::min(high, 1e6f) / size, limit - 1);
  }
};

// Tiles along a Z curve: neighbours, which share splats, are worked on one after the other, while their rows of
// channels are still in the cache.
inline std::vector<int32_t> z_order(int tiles_x, int tiles_y) {
  std::vector<std::pair<uint32_t, int32_t>> keys;
  auto spread = [](uint32_t v) {
    v = (v | v << 8) & 0x00ff00ff, v = (v | v << 4) & 0x0f0f0f0f;
    v = (v | v << 2) & 0x33333333, v = (v | v << 1) & 0x55555555;
    return v;
  };
  for (int y = 0; y < tiles_y; ++y)
    for (int x = 0; x < tiles_x; ++x) keys.emplace_back(spread(x) | spread(y) << 1, y * tiles_x + x);
  std::sort(keys.begin(), keys.end());
  std::vector<int32_t> order;
  for (auto [key, tile] : keys) order.push_back(tile);
  return order;
}

// Which splats meet which tile, and which places in it.
inline void bin(Plan& plan) {
  plan.order = z_order(plan.tiles_x, plan.tiles_y);
  plan.tile_start.assign(plan.tiles() + 1, 0);
  auto each = [&](auto visit) {
    for (size_t i = 0; i < plan.splats.size(); ++i) {
      const Splat& s = plan.splats[i];
      Range xs(s.x, s.reach_x, BLOCK_W, plan.tiles_x * BLOCKS_X);
      Range ys(s.y, s.reach_y, BLOCK_H, plan.tiles_y * (TILE / BLOCK_H));
      if (xs.last < xs.first || ys.last < ys.first) continue;
      for (int ty = ys.first / 8; ty <= ys.last / 8; ++ty)
        for (int tx = xs.first / 4; tx <= xs.last / 4; ++tx) visit(i, ty * plan.tiles_x + tx, tx, ty, xs, ys);
    }
  };
  each([&](size_t, int tile, int, int, Range, Range) { ++plan.tile_start[tile + 1]; });
  for (int t = 0; t < plan.tiles(); ++t) plan.tile_start[t + 1] += plan.tile_start[t];
  plan.entries.resize(plan.tile_start.back());
  plan.touched.resize(plan.tile_start.back());
  std::vector<long> next(plan.tile_start.begin(), plan.tile_start.end() - 1);
  plan.block_start.assign(plan.tiles() + 1, 0);
  each([&](size_t i, int tile, int tx, int ty, Range xs, Range ys) {
    int x0 = std::max(xs.first - tx * 4, 0), x1 = std::min(xs.last - tx * 4, 3);
    int y0 = std::max(ys.first - ty * 8, 0), y1 = std::min(ys.last - ty * 8, 7);
    uint32_t row = (1u << (x1 + 1)) - (1u << x0), mask = 0;
    for (int y = y0; y <= y1; ++y) mask |= row << (4 * y);
    long at = next[tile]++;
    plan.entries[at] = (int32_t)i;
    plan.touched[at] = mask;
    plan.block_start[tile + 1] += __builtin_popcount(mask);
  });
  for (int t = 0; t < plan.tiles(); ++t) plan.block_start[t + 1] += plan.block_start[t];
}

// The blocks of one tile.
inline void weigh_tile(Plan& plan, int tile, float* weights, float* alpha_image) {
  const long first = plan.tile_start[tile], n = plan.tile_start[tile + 1] - first;
  float* w = weights + plan.block_start[tile] * PIXELS;
  int32_t* slot = &plan.slot[plan.block_start[tile]];
  std::vector<int32_t> slot_of(n, -1), met(BLOCKS * n);  // met: per place, the entries whose box it meets
  int meets[BLOCKS] = {}, blocks = 0;
  for (long e = 0; e < n; ++e)
    for (uint32_t mask = plan.touched[first + e]; mask; mask &= mask - 1) {
      const int block = __builtin_ctz(mask);
      met[block * n + meets[block]++] = (int32_t)e;
    }
  for (int block = 0; block < BLOCKS; ++block) {
    Place place(plan, tile, block);
    f8 T;
    for (int p = 0; p < PIXELS; ++p) T[p] = place.inside(p, plan.camera) ? 1.0f : 0.0f;
    f8 open = T;  // 1 where light still comes through
    const int begin = blocks;
    for (int i = 0; i < meets[block]; ++i) {
      const int32_t e = met[block * n + i];
      f8 alpha = Alpha(plan.splats[plan.entries[first + e]], place).capped();
      alpha = alpha >= ALPHA_MIN ? alpha * open : f8{};
      if (!any(alpha)) continue;
      f8 next = T * (1 - alpha);
      open = next > STOP ? open : f8{};
      f8 weight = alpha * T * open;
      T = T * (1 - alpha * open);
      if (any(weight)) {
        store(w + PIXELS * blocks, weight);
        slot_of[e] = 0;
        slot[blocks++] = e;
      }
      if (!any(open)) break;
    }
    plan.begin[tile * BLOCKS + block] = begin;
    plan.count[tile * BLOCKS + block] = blocks - begin;
    for (int p = 0; p < PIXELS; ++p)
      if (place.inside(p, plan.camera)) alpha_image[(long)place.y(p) * plan.camera.width + place.x(p)] = 1 - T[p];
  }
  int used = 0;
  for (long e = 0; e < n; ++e)
    if (slot_of[e] == 0) {
      slot_of[e] = used;
      plan.live[first + used++] = plan.entries[first + e];
    }
  plan.used[tile] = used;
  for (int i = 0; i < blocks; ++i) slot[i] = slot_of[slot[i]];
}

// Gradient of weights and alpha -> sums over pixels per live entry of a tile.
inline void weigh_tile_backward(const Plan& plan, int tile, const float* weights, const float* v_weights,
                                const float* v_alpha, SplatGrad* grads) {
  const int32_t* live = &plan.live[plan.tile_start[tile]];
  const int used = plan.used[tile];
  struct Moments {
    f8 s, x, y, xx, xy, yy;  // of the gradient of sigma over the pixel's offset
  };
  std::vector<Moments> moments(used, Moments{});
  struct Step {
    f8 dx, dy, alpha, T, w, v_w, below_cap;
    int slot;
  };
  std::vector<Step> steps;
  for (int block = 0; block < BLOCKS; ++block) {
    const long begin = plan.block_start[tile] + plan.begin[tile * BLOCKS + block];
    const int count = plan.count[tile * BLOCKS + block];
    if (count == 0) continue;
    Place place(plan, tile, block);
    f8 T = f8{} + 1, v_accumulated = {};
    for (int p = 0; p < PIXELS; ++p)
      if (place.inside(p, plan.camera))
        v_accumulated[p] = v_alpha[(long)place.y(p) * plan.camera.width + place.x(p)];
    steps.clear();
    for (int i = 0; i < count; ++i) {  // front to back, as before
      const int slot = plan.slot[begin + i];
      const Alpha a(plan.splats[live[slot]], place);
      const f8 w = load<f8>(weights + PIXELS * (begin + i)), one = f8{} + 1;
      const f8 alpha = w > 0 ? a.capped() : f8{};  // no weight: too faint, or behind where the pixel stopped
      const f8 v_w = load<f8>(v_weights + PIXELS * (begin + i)) + v_accumulated;
      steps.push_back({a.dx, a.dy, alpha, T, w, w > 0 ? v_w : f8{}, a.raw < ALPHA_CAP ? one : f8{}, slot});
      T = T * (1 - alpha);
    }
    f8 behind = {};  // sum of w v_w over what is farther
    for (int i = count - 1; i >= 0; --i) {
      const Step& step = steps[i];
      f8 v = step.v_w * step.T - behind / (1 - step.alpha);
      behind += step.w * step.v_w;
      f8 s = -step.alpha * v * step.below_cap;
      Moments& m = moments[step.slot];
      f8 x = s * step.dx, y = s * step.dy;
      m.s += s, m.x += x, m.y += y;
      m.xx += x * step.dx, m.xy += x * step.dy, m.yy += y * step.dy;
    }
  }
  for (int i = 0; i < used; ++i) {
    const Splat& s = plan.splats[live[i]];
    const Moments& m = moments[i];
    float x = sum(m.x), y = sum(m.y);
    grads[i] = {-(s.a * x + s.b * y), -(s.b * x + s.c * y), 0.5f * sum(m.xx), sum(m.xy), 0.5f * sum(m.yy),
                -sum(m.s) / s.opacity};
  }
}
