// Gaussians to the image plane (EWA), and the way back.
#pragma once
#include <cmath>

#include "parallel.h"
#include "plan.h"

constexpr float EPS2D = 0.3f, NEAR = 0.01f, FAR = 1e10f;  // gsplat 1.5.3

// Everything between a Gaussian and its splat that both directions need.
struct Projected {
  float x, y, z;           // centre in the camera
  float tx = 0, ty = 0;    // centre, pulled to the edge of the view where the linearisation would explode
  bool pulled_x = false, pulled_y = false;
  float M[2][3] = {};      // Jacobian of the projection, times R
  float cxx = 0, cxy = 0, cyy = 0;  // covariance on the image, blurred

  Projected(const Camera& k, const float* mean, const float* covar) {
    x = k.R[0][0] * mean[0] + k.R[0][1] * mean[1] + k.R[0][2] * mean[2] + k.t[0];
    y = k.R[1][0] * mean[0] + k.R[1][1] * mean[1] + k.R[1][2] * mean[2] + k.t[1];
    z = k.R[2][0] * mean[0] + k.R[2][1] * mean[1] + k.R[2][2] * mean[2] + k.t[2];
    if (!(z > NEAR && z < FAR)) return;
    float slack_x = 0.15f * k.width / k.fx, slack_y = 0.15f * k.height / k.fy;
    tx = clamp(x / z, -k.cx / k.fx - slack_x, (k.width - k.cx) / k.fx + slack_x, pulled_x) * z;
    ty = clamp(y / z, -k.cy / k.fy - slack_y, (k.height - k.cy) / k.fy + slack_y, pulled_y) * z;
    const float rz = 1 / z;
    for (int j = 0; j < 3; ++j) {
      M[0][j] = k.fx * rz * (k.R[0][j] - tx * rz * k.R[2][j]);
      M[1][j] = k.fy * rz * (k.R[1][j] - ty * rz * k.R[2][j]);
    }
    float S[2][3];  // M covar
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 3; ++j) S[i][j] = M[i][0] * covar[j] + M[i][1] * covar[3 + j] + M[i][2] * covar[6 + j];
    cxx = S[0][0] * M[0][0] + S[0][1] * M[0][1] + S[0][2] * M[0][2] + EPS2D;
    cxy = S[0][0] * M[1][0] + S[0][1] * M[1][1] + S[0][2] * M[1][2];
    cyy = S[1][0] * M[1][0] + S[1][1] * M[1][1] + S[1][2] * M[1][2] + EPS2D;
  }
  bool in_front() const { return z > NEAR && z < FAR; }

 private:
  static float clamp(float v, float low, float high, bool& pulled) {
    pulled = v < low || v > high;
    return v < low ? low : v > high ? high : v;
  }
};

inline bool finite(const float* values, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += values[i] * 0.0f;
  return sum == 0;
}

// Splats in view, in the order of the input. False if any number is not finite.
inline bool project(const Camera& k, long n, const float* means, const float* covars, const float* opacities,
                    std::vector<Splat>& out, int threads) {
  constexpr long GRAIN = 2048;
  std::vector<std::vector<Splat>> pieces((n + GRAIN - 1) / GRAIN);
  std::atomic<bool> all_finite{true};
  parallel_for(threads, n, GRAIN, [&](long begin, long end) {
    auto& piece = pieces[begin / GRAIN];
    for (long i = begin; i < end; ++i) {
      float opacity = opacities[i];
      if (!finite(means + 3 * i, 3) || !finite(covars + 9 * i, 9) || !finite(&opacity, 1)) all_finite = false;
      Projected g(k, means + 3 * i, covars + 9 * i);
      if (!g.in_front() || opacity < ALPHA_MIN) continue;
      float det = g.cxx * g.cyy - g.cxy * g.cxy;
      if (!(det > 0)) continue;
      float u = k.fx * g.x / g.z + k.cx, v = k.fy * g.y / g.z + k.cy;
      float extent = std::min(3.33f, std::sqrt(2 * std::log(opacity / ALPHA_MIN)));
      float reach_x = extent * std::sqrt(g.cxx), reach_y = extent * std::sqrt(g.cyy);
      if (u + std::ceil(reach_x) <= 0 || u - std::ceil(reach_x) >= k.width) continue;
      if (v + std::ceil(reach_y) <= 0 || v - std::ceil(reach_y) >= k.height) continue;
      // a hundredth of a pixel, so that rounding never cuts a pixel that passes the exact test
      piece.push_back({u, v, g.cyy / det, -g.cxy / det, g.cxx / det, opacity, g.z, reach_x + 0.01f, reach_y + 0.01f,
                       (int32_t)i});
    }
  });
  for (auto& piece : pieces) out.insert(out.end(), piece.begin(), piece.end());
  return all_finite;
}

// Gradient of a splat's centre, inverse covariance (a, b, c; b counted once) and opacity.
struct SplatGrad {
  float x, y, a, b, c, opacity;
};

inline void project_backward(const Camera& k, const Splat& s, const SplatGrad& v, const float* mean,
                             const float* covar, float* v_mean, float* v_covar) {
  Projected g(k, mean, covar);
  // inverse covariance -> covariance: V_cov = -Q V_Q Q, with V_Q = [[a, b/2], [b/2, c]]
  float h = 0.5f * v.b;
  float p00 = s.a * v.a + s.b * h, p01 = s.a * h + s.b * v.c, p10 = s.b * v.a + s.c * h, p11 = s.b * h + s.c * v.c;
  float V[2][2] = {{-(p00 * s.a + p01 * s.b), -(p00 * s.b + p01 * s.c)},
                   {-(p10 * s.a + p11 * s.b), -(p10 * s.b + p11 * s.c)}};
  // cov2d = M C M^T
  float VM[2][3];
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j) VM[i][j] = V[i][0] * g.M[0][j] + V[i][1] * g.M[1][j];
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) v_covar[3 * i + j] = g.M[0][i] * VM[0][j] + g.M[1][i] * VM[1][j];
  float v_M[2][3];  // V (C + C^T) M, by rows
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j) {
      v_M[i][j] = 0;
      for (int l = 0; l < 3; ++l) v_M[i][j] += VM[i][l] * (covar[3 * l + j] + covar[3 * j + l]);
    }
  float v_J00 = 0, v_J02 = 0, v_J11 = 0, v_J12 = 0;
  for (int j = 0; j < 3; ++j) {
    v_J00 += v_M[0][j] * k.R[0][j], v_J02 += v_M[0][j] * k.R[2][j];
    v_J11 += v_M[1][j] * k.R[1][j], v_J12 += v_M[1][j] * k.R[2][j];
  }
  float rz = 1 / g.z, rz2 = rz * rz, rz3 = rz2 * rz;
  float v_x = k.fx * rz * v.x, v_y = k.fy * rz * v.y;
  float v_z = -(k.fx * g.x * v.x + k.fy * g.y * v.y) * rz2 - (k.fx * v_J00 + k.fy * v_J11) * rz2;
  // J02 = -fx tx / z^2, where tx is x, or proportional to z once pulled to the edge
  if (g.pulled_x) {
    v_z += k.fx * g.tx * rz3 * v_J02;
  } else {
    v_x -= k.fx * rz2 * v_J02;
    v_z += 2 * k.fx * g.tx * rz3 * v_J02;
  }
  if (g.pulled_y) {
    v_z += k.fy * g.ty * rz3 * v_J12;
  } else {
    v_y -= k.fy * rz2 * v_J12;
    v_z += 2 * k.fy * g.ty * rz3 * v_J12;
  }
  for (int j = 0; j < 3; ++j) v_mean[j] = k.R[0][j] * v_x + k.R[1][j] * v_y + k.R[2][j] * v_z;
}
