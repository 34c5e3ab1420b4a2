// Cross-entropy and dice of masks that lie in memory as an image does, pixel by pixel: one pass where tensors take ten.
#pragma once
#include <cmath>

#include "parallel.h"
#include "vectors.h"

// Masks of several heads as an image, [pixels, heads * k] rows `stride` apart, and what all heads are held against,
// [k, pixels] of 0 and 1.
struct Masks {
  const float* logits;
  long stride;
  int heads, k;
  const float* truth;
  long pixels;
  int columns() const { return heads * k; }
};

constexpr int RUN = 64;       // pixels at a time: their rows stay in the first-level cache
constexpr long SHARE = 4096;  // pixels of one sum; the same for any number of threads, and so are the results

// Part of a row: the columns from `first` on that one vector holds, the rest zero.
inline vec part(const float* row, int first, int columns) {
  if (columns - first >= LANES) return load<vec>(row + first);
  vec v = {};
  std::memcpy(&v, row + first, (columns - first) * sizeof(float));
  return v;
}

// The truth of a run of pixels, repeated for every head: rows of `stride`.
struct Truth {
  std::vector<float> memory;
  int stride = 0;
  void fill(const Masks& masks, long begin, int count) {
    stride = round_up(masks.columns(), LANES);
    memory.resize((long)RUN * stride);
    for (int i = 0; i < masks.k; ++i)
      for (int p = 0; p < count; ++p) memory[(long)p * stride + i] = masks.truth[i * masks.pixels + begin + p];
    for (int p = 0; p < count; ++p) {
      float* row = &memory[(long)p * stride];
      for (int done = masks.k; done < masks.columns(); done *= 2)
        std::memcpy(row + done, row, std::min(done, masks.columns() - done) * sizeof(float));
    }
  }
  vec at(int p, int first) const { return load<vec>(&memory[(long)p * stride + first]); }
};

// Of logits x: z = e^-|x|, from which come sigmoid(x) and softplus(x) = max(x, 0) + log(1 + z).
struct Sigmoid {
  vec z, probability;
  explicit Sigmoid(vec x) {
    const vec far = vec{} + 80.0f, size = x < 0 ? -x : x;
    z = exponential(-(size < far ? size : far));
    const vec larger = 1.0f / (1.0f + z);
    probability = x >= 0 ? larger : z * larger;
  }
};

// work(begin, count, truth) for runs of pixels; those of a share one after the other, in one thread.
template <class F>
void over_runs(const Masks& masks, int threads, F work) {
  parallel_for(threads, masks.pixels, SHARE, [&](long begin, long end) {
    Truth truth;
    for (long at = begin; at < end; at += RUN) {
      const int count = (int)std::min<long>(RUN, end - at);
      truth.fill(masks, at, count);
      work(at, count, truth);
    }
  });
}

// Sums over the pixels per column, [3, columns]: the cross-entropy, probability on the truth, all probability.
inline void mask_sums(const Masks& masks, double* sums, int threads) {
  const int columns = masks.columns(), padded = round_up(columns, LANES);
  const long shares = (masks.pixels + SHARE - 1) / SHARE;
  std::vector<double> parts(shares * 3 * padded, 0.0);
  over_runs(masks, threads, [&](long begin, int count, const Truth& truth) {
    double* to = &parts[begin / SHARE * 3 * padded];
    for (int first = 0; first < columns; first += LANES) {
      vec linear = {}, overlap = {}, mass = {}, product = vec{} + 1.0f;  // of numbers in 1..2, so 64 of them are finite
      for (int p = 0; p < count; ++p) {
        const vec x = part(masks.logits + (begin + p) * masks.stride, first, columns), t = truth.at(p, first);
        const Sigmoid s(x);
        linear += (x > 0 ? x : vec{}) - x * t;
        product *= 1.0f + s.z;
        overlap += s.probability * t;
        mass += s.probability;
      }
      for (int lane = 0; lane < LANES; ++lane) {
        to[first + lane] += (double)linear[lane] + std::log(product[lane]);
        to[padded + first + lane] += overlap[lane];
        to[2 * padded + first + lane] += mass[lane];
      }
    }
  });
  for (int what = 0; what < 3; ++what)
    for (int c = 0; c < columns; ++c) {
      double total = 0;
      for (long share = 0; share < shares; ++share) total += parts[(share * 3 + what) * padded + c];
      sums[what * columns + c] = total;
    }
}

// Gradients to the logits, [pixels, columns]: p (1 - p) (everywhere - inside t) + (p - t) share, those three per column.
inline void mask_slopes(const Masks& masks, const float* everywhere, const float* inside, const float* share,
                        float* slopes, int threads) {
  const int columns = masks.columns();
  over_runs(masks, threads, [&](long begin, int count, const Truth& truth) {
    for (int first = 0; first < columns; first += LANES) {
      const vec e = part(everywhere, first, columns), i = part(inside, first, columns), s = part(share, first, columns);
      for (int p = 0; p < count; ++p) {
        const vec x = part(masks.logits + (begin + p) * masks.stride, first, columns), t = truth.at(p, first);
        const vec prob = Sigmoid(x).probability;
        const vec slope = (prob - prob * prob) * (e - i * t) + (prob - t) * s;
        std::memcpy(slopes + (begin + p) * columns + first, &slope, std::min(LANES, columns - first) * sizeof(float));
      }
    }
  });
}
