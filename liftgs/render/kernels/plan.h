// What one view's rasterisation knows, and every pass over it reads.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "vectors.h"

constexpr int TILE = 16;                                     // pixels
constexpr int BLOCK_W = 4, BLOCK_H = 2;                      // pixels
constexpr int BLOCKS = TILE * TILE / PIXELS;                 // places for a block in a tile
constexpr int BLOCKS_X = TILE / BLOCK_W;                     // in one row of a tile
constexpr float ALPHA_CAP = 0.999f, ALPHA_MIN = 1.0f / 255;  // gsplat 1.5.3, include/Common.h and RasterizeToPixels
constexpr float STOP = 1e-4f;

struct Camera {
  float R[3][3], t[3], fx, fy, cx, cy;
  int width, height;
};

// A Gaussian on the image plane.
struct Splat {
  float x, y;           // pixels
  float a, b, c;        // inverse covariance [[a, b], [b, c]], 1 / pixel^2
  float opacity, depth;
  float reach_x, reach_y;  // pixels beyond which its alpha is under ALPHA_MIN
  int32_t id;              // row of the input
};

template <class T>
struct Array {  // like std::vector, but not filled with zeros
  std::unique_ptr<T[]> data;
  long size = 0;
  void resize(long n) {
    data.reset(new T[n > 0 ? n : 1]);
    size = n;
  }
  T& operator[](long i) { return data[i]; }
  const T& operator[](long i) const { return data[i]; }
};

struct Plan {
  Camera camera;
  long n;
  int tiles_x, tiles_y;
  std::vector<int32_t> order;   // in which to work on tiles
  std::vector<Splat> splats;    // those in view, front to back
  Array<int32_t> entries;       // per tile: indices into splats, front to back
  std::vector<long> tile_start;  // [tiles + 1] into entries
  Array<uint32_t> touched;      // per entry: bit i = its bounding box meets block i of the tile

  // Blocks: the weights of one splat on the pixels of one place. Those of a place are together, front to back.
  std::vector<long> block_start;  // [tiles + 1]: room for each tile's blocks; not all of it is used
  std::vector<int32_t> begin;     // [tiles * BLOCKS]: first block of a place, from block_start[tile]
  std::vector<int32_t> count;     // [tiles * BLOCKS]
  std::vector<int32_t> used;      // [tiles]: entries of the tile that have any block; they come first in `live`
  Array<int32_t> live;            // as entries, without those that nobody sees
  Array<int32_t> slot;            // per block: which of the tile's live entries

  int tiles() const { return tiles_x * tiles_y; }
  int tile_x(int tile) const { return tile % tiles_x * TILE; }
  int tile_y(int tile) const { return tile / tiles_x * TILE; }
};

// The pixels of a place: lanes 0 to 3 are its left half, 2 x 2, and lanes 4 to 7 its right half.
struct Place {
  int x0, y0;
  Place(const Plan& plan, int tile, int block)
      : x0(plan.tile_x(tile) + block % BLOCKS_X * BLOCK_W), y0(plan.tile_y(tile) + block / BLOCKS_X * BLOCK_H) {}
  int x(int lane) const { return x0 + lane / QUAD * 2 + lane % 2; }
  int y(int lane) const { return y0 + lane / 2 % 2; }
  bool inside(int lane, const Camera& camera) const { return x(lane) < camera.width && y(lane) < camera.height; }
};

// A splat's alpha on the pixels of a place, before the cap, and the offsets of the pixels from its centre.
struct Alpha {
  f8 dx, dy, raw;
  Alpha(const Splat& s, const Place& place) {
    const f8 px = {0.5f, 1.5f, 0.5f, 1.5f, 2.5f, 3.5f, 2.5f, 3.5f};
    const f8 py = {0.5f, 0.5f, 1.5f, 1.5f, 0.5f, 0.5f, 1.5f, 1.5f};
    dx = px + (place.x0 - s.x);
    dy = py + (place.y0 - s.y);
    f8 sigma = 0.5f * (s.a * dx * dx + s.c * dy * dy) + s.b * dx * dy;
    const f8 far = f8{} + 80.0f;
    raw = s.opacity * exponential(-(sigma < far ? sigma : far));
    raw = sigma >= 0 ? raw : f8{};
  }
  f8 capped() const {
    const f8 cap = f8{} + ALPHA_CAP;
    return raw < cap ? raw : cap;
  }
};
