// Vectors by compiler extension, so that one source gives AVX-512, AVX2 and NEON code.
#pragma once
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

typedef float f8 __attribute__((vector_size(32)));  // the pixels of one block

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;  // 32 registers: 8 x 3 accumulators
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4;  // 16 registers: 4 x 3 accumulators
#else
constexpr int LANES = 4, ROWS = 8;  // NEON has 32
#endif
typedef float vec __attribute__((vector_size(LANES * 4)));

constexpr int PIXELS = 8, QUAD = 4;               // of a block, and of each of its two halves
constexpr int SPAN = ROWS == 8 ? 6 : 3;           // vectors of channels that one pass holds in registers, for 4 pixels
constexpr int PANEL = SPAN * LANES;               // the same in channels

template <class V>
inline V load(const float* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
inline void store(float* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

// Past the cache: an image much larger than it would only push out what is still needed. `to` is aligned.
inline void stream(float* to, vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)v);
#elif defined(__clang__)
  __builtin_nontemporal_store(v, (vec*)to);
#else
  store(to, v);
#endif
}

inline void stream_end() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

inline float sum(f8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

// Whether any lane of a vector without negative numbers is over zero.
inline bool any(f8 v) {
#if defined(__AVX__)
  return _mm256_movemask_ps((__m256)(v > f8{})) != 0;
#else
  return sum(v) > 0;
#endif
}

// Lane p of the result is the sum over all lanes of v[p].
inline f8 sums(const vec (&v)[8]) {
#if defined(__AVX512F__) && (defined(__clang__) || __GNUC__ >= 12)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
  vec pairs[4], fours[2];
  for (int i = 0; i < 4; ++i)  // eight partial sums of v[i], then eight of v[i + 4]
    pairs[i] = PICK(v[i], v[i + 4], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               PICK(v[i], v[i + 4], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  for (int i = 0; i < 2; ++i)  // four each of v[i], v[i + 2], v[i + 4], v[i + 6]
    fours[i] = PICK(pairs[i], pairs[i + 2], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               PICK(pairs[i], pairs[i + 2], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  vec twos = PICK(fours[0], fours[1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
             PICK(fours[0], fours[1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  return PICK(twos, twos, 0, 2, 4, 6, 8, 10, 12, 14) + PICK(twos, twos, 1, 3, 5, 7, 9, 11, 13, 15);
#undef PICK
#else
  f8 out = {};
  for (int p = 0; p < 8; ++p)
    for (int lane = 0; lane < LANES; ++lane) out[p] += v[p][lane];
  return out;
#endif
}

// e^x to 2e-7 relative, for -87 < x < 88.
template <class V>
inline V exponential(V x) {
  using Ints = decltype(x < x);
  const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits
  V shifted = x * 1.44269504f + shifter;
  V n = shifted - shifter;
  V r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  V e = p * r * r + r + 1.0f;
  return (V)((Ints)e + ((Ints)shifted << 23));
}
