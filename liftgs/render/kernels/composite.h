// Weights times channels, and its two gradients: per place a small dense product of [pixels, splats] and [splats, channels].
#pragma once
#include "parallel.h"
#include "plan.h"

// A matrix of rows `stride` apart.
template <class T>
struct Rows {
  T* data;
  long stride;
  T* operator[](long row) const { return data + row * stride; }
};

// Asks memory for a row that is needed soon. Rows are too short and too scattered for the processor to guess.
inline void prefetch(const float* row, int channels) {
  for (int c = 0; c < channels; c += 16) __builtin_prefetch(row + c);
}

// [rows, channels] in panels of PANEL channels, each panel's rows together, padded with zeros: what the kernels read
// again and again then sits in the first-level cache.
struct Panels {
  std::vector<float> memory;
  float* data = nullptr;
  long rows = 0;
  void resize(long new_rows, int channels) {
    rows = new_rows;
    memory.resize(rows * round_up(channels, PANEL) + 16);
    data = (float*)(((uintptr_t)memory.data() + 63) & ~(uintptr_t)63);
  }
  float* at(int panel, long row) const { return data + (panel * rows + row) * PANEL; }
};

// Copies one row's channels into panels; returns 0 * all of them, which is NaN if one is not finite.
inline float fill_row(const Panels& panels, long row, const float* from, int channels) {
  vec check = {};
  for (int c = 0; c < channels; c += LANES) {
    vec v = {};
    if (channels - c >= LANES) v = load<vec>(from + c);
    else std::memcpy(&v, from + c, (channels - c) * sizeof(float));
    store(panels.at(c / PANEL, row) + c % PANEL, v);
    check += v * 0.0f;
  }
  for (int c = round_up(channels, LANES); c < round_up(channels, PANEL); c += LANES)
    store(panels.at(c / PANEL, row) + c % PANEL, vec{});
  float total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += check[lane];
  return total;
}

// The blocks of one place.
struct Blocks {
  const float* weights;
  const int32_t* slot;
  int count;
  Blocks(const Plan& plan, const float* all, int tile, int block) {
    long begin = plan.block_start[tile] + plan.begin[tile * BLOCKS + block];
    weights = all + begin * PIXELS;
    slot = &plan.slot[begin];
    count = plan.count[tile * BLOCKS + block];
  }
};

constexpr int AHEAD = 2;  // rows between asking for one and reading it

// ---- forward

// What the forward kernel needs of a tile: for every 2 x 2 pixels, the splats with weight on any of them.
struct Quads {
  static constexpr int COUNT = BLOCKS * PIXELS / QUAD;
  struct Item {
    int32_t slot, weight;  // row of the panels; index of the first of four weights
  };
  std::vector<Item> items;
  int start[COUNT + 1];
  float* out[COUNT][QUAD];  // null outside of the image
  const float* weights;

  void fill(const Plan& plan, const float* all_weights, int tile, Rows<float> image) {
    weights = all_weights + plan.block_start[tile] * PIXELS;
    items.clear();
    for (int quad = 0; quad < COUNT; ++quad) {
      const int block = quad / 2, half = quad % 2 * QUAD;
      const Blocks blocks(plan, all_weights, tile, block);
      start[quad] = (int)items.size();
      for (int i = 0; i < blocks.count; ++i) {
        const float* w = blocks.weights + i * PIXELS + half;
        if ((w[0] + w[1]) + (w[2] + w[3]) > 0) items.push_back({blocks.slot[i], (int32_t)(w - weights)});
      }
      const Place place(plan, tile, block);
      for (int p = 0; p < QUAD; ++p)
        out[quad][p] = place.inside(half + p, plan.camera)
                           ? image[(long)place.y(half + p) * plan.camera.width + place.x(half + p)]
                           : nullptr;
    }
    start[COUNT] = (int)items.size();
  }
};

// Four pixels x V vectors of channels, in registers.
template <int V>
void blend(const Quads& quads, int quad, const float* panel, int channel, bool past_cache) {
  vec sums[QUAD][V] = {};
  for (int i = quads.start[quad]; i < quads.start[quad + 1]; ++i) {
    const float* row = panel + (long)quads.items[i].slot * PANEL;
    const float* w = quads.weights + quads.items[i].weight;
    vec channels[V];
    for (int v = 0; v < V; ++v) channels[v] = load<vec>(row + v * LANES);
    for (int p = 0; p < QUAD; ++p)
      for (int v = 0; v < V; ++v) sums[p][v] += channels[v] * w[p];
  }
  for (int p = 0; p < QUAD; ++p) {
    if (!quads.out[quad][p]) continue;
    float* out = quads.out[quad][p] + channel;
    for (int v = 0; v < V; ++v) past_cache ? stream(out + v * LANES, sums[p][v]) : store(out + v * LANES, sums[p][v]);
  }
}

template <int V>
void blend_tile(const Quads& quads, const float* panel, int channel, bool past_cache) {
  for (int quad = 0; quad < Quads::COUNT; ++quad) blend<V>(quads, quad, panel, channel, past_cache);
}

// image[y * width + x] for all pixels; rows hold `channels` rounded up to LANES. False if a channel is not finite.
inline bool composite(const Plan& plan, const float* weights, Rows<const float> in, int channels, Rows<float> image,
                      bool past_cache, int threads) {
  std::atomic<bool> all_finite{true};
  const int padded = round_up(channels, LANES);
  parallel_for(threads, plan.tiles(), 4, [&](long begin, long end) {
    static thread_local Panels panels;
    static thread_local Quads quads;
    for (long at = begin; at < end; ++at) {
      const int tile = plan.order[at];
      const int32_t* live = &plan.live[plan.tile_start[tile]];
      panels.resize(plan.used[tile], channels);
      float check = 0;
      for (int i = 0; i < plan.used[tile]; ++i) {
        if (i + AHEAD < plan.used[tile]) prefetch(in[plan.splats[live[i + AHEAD]].id], channels);
        check += fill_row(panels, i, in[plan.splats[live[i]].id], channels);
      }
      if (check != 0) all_finite = false;
      quads.fill(plan, weights, tile, image);
      for (int c = 0; c < padded; c += PANEL) {
        const float* panel = panels.at(c / PANEL, 0);
        switch ((padded - c) / LANES) {
          case 1: blend_tile<1>(quads, panel, c, past_cache); break;
          case 2: blend_tile<2>(quads, panel, c, past_cache); break;
          case 3: blend_tile<3>(quads, panel, c, past_cache); break;
          case 4: blend_tile<std::min(4, SPAN)>(quads, panel, c, past_cache); break;
          case 5: blend_tile<std::min(5, SPAN)>(quads, panel, c, past_cache); break;
          default: blend_tile<SPAN>(quads, panel, c, past_cache);
        }
      }
    }
    if (past_cache) stream_end();
  });
  return all_finite;
}

// ---- backward

constexpr int GROUP = 4;  // splats that a pass over pixels holds, with SPAN vectors of channels

// v_in[splat] += weights^T pixels, for G splats x V vectors of channels.
template <int G, int V>
void gather(const float* const* w, float* const* rows, const float* pixels, int stride) {
  vec sums[G][V];
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < V; ++v) sums[g][v] = load<vec>(rows[g] + v * LANES);
  for (int p = 0; p < PIXELS; ++p) {
    vec channels[V];
    for (int v = 0; v < V; ++v) channels[v] = load<vec>(pixels + p * stride + v * LANES);
    for (int g = 0; g < G; ++g)
      for (int v = 0; v < V; ++v) sums[g][v] += channels[v] * w[g][p];
  }
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < V; ++v) store(rows[g] + v * LANES, sums[g][v]);
}

template <int G>
void gather_all(const float* const* w, float* const* v_in, const float* pixels, int stride, int vectors) {
  float* rows[G];
  for (int g = 0; g < G; ++g) rows[g] = v_in[g];
  auto ahead = [&](int v) {
    for (int g = 0; g < G; ++g) rows[g] += v * LANES;
    pixels += v * LANES;
    vectors -= v;
  };
  while (vectors >= SPAN) gather<G, SPAN>(w, rows, pixels, stride), ahead(SPAN);
  while (vectors >= 2) gather<G, 2>(w, rows, pixels, stride), ahead(2);
  if (vectors) gather<G, 1>(w, rows, pixels, stride);
}

// v_weights[splat][pixel] += <channels of the splat, gradient of the pixel>, for G splats.
template <int G>
void dots(const float* const* rows, const float* pixels, int stride, int vectors, float* const* v_w) {
  for (int first = 0; first < PIXELS; first += ROWS) {
    vec sums_[G][8] = {};
    for (int v = 0; v < vectors; ++v) {
      vec in[G];
      for (int g = 0; g < G; ++g) in[g] = load<vec>(rows[g] + v * LANES);
      for (int p = 0; p < ROWS; ++p) {
        vec pixel = load<vec>(pixels + (first + p) * stride + v * LANES);
        for (int g = 0; g < G; ++g) sums_[g][p] += in[g] * pixel;
      }
    }
    for (int g = 0; g < G; ++g) {
      f8 total = sums(sums_[g]);
      for (int p = 0; p < ROWS; ++p) v_w[g][first + p] += total[p];
    }
  }
}

// An aligned, zero-padded copy of rows.
struct Packed {
  std::vector<float> memory;
  float* data = nullptr;
  int stride = 0;
  void resize(long rows, int channels) {
    stride = round_up(channels, LANES);
    if (stride % 256 == 0) stride += LANES;  // rows 1 KB or more apart by a power of two would share few cache sets
    memory.resize(rows * stride + 16);
    data = (float*)(((uintptr_t)memory.data() + 63) & ~(uintptr_t)63);
  }
  float* operator[](long row) const { return data + row * stride; }
  void fill(long row, const float* from, int channels) {
    float* to = (*this)[row];
    if (from) std::memcpy(to, from, channels * sizeof(float));
    int begin = from ? channels : 0;
    std::memset(to + begin, 0, (round_up(channels, LANES) - begin) * sizeof(float));
  }
};

// One share of the backward pass: tiles order[begin:end] and `channels` channels.
// Adds to v_in (rows by splat index through `row_of`) and, if wanted, writes v_weights.
template <class RowOf>
void composite_backward(const Plan& plan, const float* weights, Rows<const float> in, const float* v_image,
                        long stride_y, long stride_x, int channels, int begin, int end, RowOf row_of,
                        float* v_weights) {
  Packed pixels, rows;
  pixels.resize(PIXELS, channels);
  const int vectors = round_up(channels, LANES) / LANES;
  for (int at = begin; at < end; ++at) {
    const int tile = plan.order[at];
    const int32_t* live = &plan.live[plan.tile_start[tile]];
    const int used = plan.used[tile];
    if (v_weights) rows.resize(used, channels);
    for (int i = 0; i < used; ++i) {
      if (i + AHEAD < used) {
        if (v_weights) prefetch(in[plan.splats[live[i + AHEAD]].id], channels);
        prefetch(row_of(live[i + AHEAD]), channels);
      }
      if (v_weights) rows.fill(i, in[plan.splats[live[i]].id], channels);
    }
    for (int block = 0; block < BLOCKS; ++block) {
      Blocks blocks(plan, weights, tile, block);
      if (blocks.count == 0) continue;
      auto pixel_row = [&](int block, int p) -> const float* {
        const Place place(plan, tile, block);
        return place.inside(p, plan.camera) ? v_image + place.y(p) * stride_y + place.x(p) * stride_x : nullptr;
      };
      for (int p = 0; p < PIXELS; ++p) pixels.fill(p, pixel_row(block, p), channels);
      int asked = block + 1 < BLOCKS ? 0 : PIXELS;
      auto ask = [&] {  // for a pixel of the next place; all at once would block the way to memory
        if (asked == PIXELS) return;
        if (const float* row = pixel_row(block + 1, asked)) prefetch(row, channels);
        ++asked;
      };
      auto group = [&](int i, auto size) {
        constexpr int G = decltype(size)::value;
        const float* w[G];
        float* v_rows[G];
        for (int g = 0; g < G; ++g) {
          w[g] = blocks.weights + (i + g) * PIXELS;
          v_rows[g] = row_of(live[blocks.slot[i + g]]);
        }
        ask();
        gather_all<G>(w, v_rows, pixels.data, pixels.stride, vectors);
      };
      int i = 0;
      for (; i + GROUP <= blocks.count; i += GROUP) group(i, std::integral_constant<int, GROUP>{});
      for (; i + 2 <= blocks.count; i += 2) group(i, std::integral_constant<int, 2>{});
      for (; i < blocks.count; ++i) group(i, std::integral_constant<int, 1>{});
      if (!v_weights) continue;
      float* v_w = v_weights + (blocks.weights - weights);
      std::memset(v_w, 0, blocks.count * PIXELS * sizeof(float));
      auto dot = [&](int i, auto size) {
        constexpr int G = decltype(size)::value;
        const float* from[G];
        float* to[G];
        for (int g = 0; g < G; ++g) from[g] = rows[blocks.slot[i + g]], to[g] = v_w + (i + g) * PIXELS;
        ask();
        dots<G>(from, pixels.data, pixels.stride, vectors, to);
      };
      i = 0;
      for (; i + 3 <= blocks.count; i += 3) dot(i, std::integral_constant<int, 3>{});
      for (; i < blocks.count; ++i) dot(i, std::integral_constant<int, 1>{});
    }
  }
}

// How the backward pass is shared out: `spans` of channels x `strips` of tiles. Spans write apart from each other in
// v_in and need a copy of v_weights each; strips the other way round. Two strips come first: a thread then reads whole
// rows of the image's gradient, which is faster. Sums are made in a fixed order, so that gradients are the same in every
// run with the same number of threads.
struct Shares {
  int spans, strips, span_channels;
  Shares(int channels, int threads) {
    const int least = 4 * PANEL;
    spans = std::max(1, std::min(threads / 2, channels / least));
    span_channels = round_up((channels + spans - 1) / spans, LANES);
    spans = (channels + span_channels - 1) / span_channels;
    strips = std::max(1, threads / spans);
  }
};

// Where strips of about as many blocks begin and end, as places in plan.order.
inline std::vector<int> strips_of_equal_work(const Plan& plan, int strips) {
  std::vector<int> edges{0};
  long done = 0;
  for (int at = 0; at < plan.tiles(); ++at) {
    if (done * strips >= plan.block_start.back() * (long)edges.size() && (int)edges.size() < strips) edges.push_back(at);
    const int tile = plan.order[at];
    done += plan.block_start[tile + 1] - plan.block_start[tile];
  }
  edges.resize(strips, plan.tiles());
  edges.push_back(plan.tiles());
  return edges;
}
